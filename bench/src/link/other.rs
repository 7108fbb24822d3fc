//! The other process: a node that receives, and the receiving side of the reference.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use edri::NodeName;
use edri::keys::Authority;

#[cfg(feature = "peers")]
use super::{Nats, Zenoh};
use super::{Raw, Reference, ours};
use crate::Result;

/// Set for a process that is to be one, with the folder of the keys.
const MARK: &str = "EDRI_BENCH_LINK";
/// Set for it too, with the name of the reference.
const REFERENCE: &str = "EDRI_BENCH_LINK_REFERENCE";

/// What the certificate of a reference is for, besides [`ADDRESS`].
pub(super) const NAME: &str = "bench.invalid";
const ADDRESS: &str = "127.0.0.1";

/// How long the keys of a run are valid.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Another process of this program that receives.
pub(super) struct Other {
    child: Child,
    keys: Keys,
    /// Where its node listens.
    pub(super) node: SocketAddr,
    /// Where the reference listens.
    pub(super) reference: SocketAddr,
}

/// The folder with the keys of a run, until it is dropped.
struct Keys(PathBuf);

impl Keys {
    fn make() -> Result<Self> {
        let keys = Self(std::env::temp_dir().join(format!("edri-bench-link-{}", std::process::id())));
        let authority = Authority::generate()?;
        for node in [ours::SENDER, ours::RECEIVER] {
            authority.issue(&NodeName::new(node)?, VALIDITY)?.save(keys.0.join(node))?;
        }
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([NAME.to_owned(), ADDRESS.to_owned()])?;
        std::fs::write(certificate(&keys.0), cert.pem())?;
        std::fs::write(key(&keys.0), signing_key.serialize_pem())?;
        Ok(keys)
    }
}

/// The file in which a reference finds its certificate.
pub(super) fn certificate(keys: &Path) -> PathBuf {
    keys.join("reference.certificate.pem")
}

/// The file in which a reference finds its key.
pub(super) fn key(keys: &Path) -> PathBuf {
    keys.join("reference.key.pem")
}

impl Drop for Keys {
    fn drop(&mut self) {
        // What is left is in a folder for what may be left.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Other {
    pub(super) fn start<R: Reference>() -> Result<Self> {
        let keys = Keys::make()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.env(MARK, &keys.0).env(REFERENCE, R::NAME).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("its output is a pipe")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let (node, reference) = line.trim().split_once(' ').ok_or("the other process has ended")?;
        let (node, reference) = (node.parse()?, reference.parse()?);
        Ok(Self { child, keys, node, reference })
    }

    pub(super) fn keys(&self) -> &Path {
        &self.keys.0
    }

    /// Ends it, and makes sure that it lost nothing.
    pub(super) fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the other process failed: {status}").into()) }
    }
}

/// The folder of the keys, if this process is to be the other one.
pub(crate) fn is_wanted() -> Option<PathBuf> {
    std::env::var_os(MARK).map(PathBuf::from)
}

/// Receives until its input ends.
pub(crate) async fn run(keys: PathBuf) -> Result<()> {
    match std::env::var(REFERENCE)?.as_str() {
        Raw::NAME => receive::<Raw>(keys).await,
        #[cfg(feature = "peers")]
        Zenoh::NAME => receive::<Zenoh>(keys).await,
        #[cfg(feature = "peers")]
        Nats::NAME => receive::<Nats>(keys).await,
        name => Err(format!("there is no reference {name:?}").into()),
    }
}

async fn receive<R: Reference>(keys: PathBuf) -> Result<()> {
    let node = ours::receive(&keys).await?;
    let (reference, receiving) = R::receive(&keys).await?;
    let address = node.link_address().ok_or("a node with a connector listens")?;
    tell(&format!("{address} {reference}"));
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    drop(receiving);
    ours::stop(&node, |account| account.handled).await
}

#[expect(clippy::print_stdout, reason = "it is how the first process hears of the addresses")]
fn tell(line: &str) {
    println!("{line}");
}
