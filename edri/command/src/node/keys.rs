//! `edri keys` and `edri token`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use edri::keys::{Authority, Identity, KeysError, NODE_VALIDITY};
use edri::{NodeName, Token};

use super::say;
use crate::exit::Failed;

/// What was issued for so many days a moment ago still has them.
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is done with keys.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Makes the authority of a cluster, in a folder of its own. Keep that off the nodes.
    Init {
        /// The folder.
        authority: PathBuf,
    },
    /// Issues the identity of a node: the folder that the node is given.
    Node {
        /// The folder of the authority.
        authority: PathBuf,
        /// The node's name.
        name: String,
        /// The folder for the identity; unless it is said, one of the node's name beside the authority's.
        #[arg(long)]
        out: Option<PathBuf>,
        /// For how many days it is valid, as far as the authority is.
        #[arg(long, default_value_t = NODE_VALIDITY.as_secs() / DAY.as_secs())]
        days: u64,
        /// Writes over the identity that is there.
        #[arg(long)]
        force: bool,
    },
    /// Issues an identity anew, with a new key. The node takes it up while it runs.
    Rotate {
        /// The folder of the authority.
        authority: PathBuf,
        /// The folder of the identity.
        identity: PathBuf,
        /// For how many days it is valid, as far as the authority is.
        #[arg(long, default_value_t = NODE_VALIDITY.as_secs() / DAY.as_secs())]
        days: u64,
    },
    /// Shows whose certificates are in folders, how long they are valid, and who has issued them.
    Show {
        /// Folders of identities, or of the authority.
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match self {
            Self::Init { authority } => init(&authority),
            Self::Node { authority, name, out, days, force } => node(&authority, &name, out, days, force),
            Self::Rotate { authority, identity, days } => rotate(&authority, &identity, days),
            Self::Show { folders } => {
                let shown: Vec<_> = folders.iter().map(|folder| show(folder)).collect::<Result<_, _>>()?;
                say(&shown.concat())
            }
        }
    }
}

fn init(folder: &Path) -> Result<(), Failed> {
    Authority::create(folder).map_err(failed)?;
    let shown = folder.display();
    say(&format!(
        "the authority is in {shown}; whoever has {shown}/authority.key decides which nodes belong to the cluster: keep it safe\n\
         next: edri keys node {shown} NAME\n"
    ))
}

fn node(authority: &Path, name: &str, out: Option<PathBuf>, days: u64, force: bool) -> Result<(), Failed> {
    let node = NodeName::new(name).map_err(|error| Failed::usage(error.to_string()))?;
    let beside = || {
        let whole = std::path::absolute(authority).map_err(|error| Failed::new(error.to_string()))?;
        Ok::<_, Failed>(whole.parent().map_or_else(|| PathBuf::from(name), |folder| folder.join(name)))
    };
    let out = out.map_or_else(beside, Ok)?;
    if !force
        && let Some(file) =
            ["node.key", "node.pem", "authority.key"].map(|file| out.join(file)).iter().find(|file| file.exists())
    {
        return Err(Failed::new(format!(
            "{} exists: `edri keys rotate {} {}` issues that node's identity anew, `--out` takes another folder, and `--force` writes \
             over it",
            file.display(),
            authority.display(),
            out.display()
        )));
    }
    let told = issue(authority, &node, &out, days)?;
    let folder = out.display();
    say(&format!("{told}next: give the node that folder, and say `identity = \"{folder}\"` in `[links]`\n"))
}

fn rotate(authority: &Path, folder: &Path, days: u64) -> Result<(), Failed> {
    let identity = Identity::open(folder).map_err(failed)?;
    let told = issue(authority, identity.node(), folder, days)?;
    say(&format!(
        "{told}next: nothing here; a node that runs takes it up within 5 s; one elsewhere is given the folder's files\n"
    ))
}

fn issue(authority: &Path, node: &NodeName, out: &Path, days: u64) -> Result<String, Failed> {
    if days == 0 {
        return Err(Failed::usage("an identity that is valid for 0 days is of no use: `--days 1` at least"));
    }
    let validity = Duration::from_secs(days.saturating_mul(DAY.as_secs()));
    let identity = Authority::open(authority).and_then(|authority| authority.issue(node, validity)).map_err(failed)?;
    identity.save(out).map_err(failed)?;
    Ok(format!("the identity of `{node}` is in {}, {}\n", out.display(), valid(identity.expires_in())))
}

/// An authority, an identity, or both.
fn show(folder: &Path) -> Result<String, Failed> {
    let mut text = format!("{}\n", folder.display());
    let mut told = false;
    if folder.join("authority.key").exists() {
        let authority = Authority::open(folder).map_err(failed)?;
        text += &format!("  authority  {}, {}\n", authority.fingerprint(), valid(authority.expires_in()));
        told = true;
    }
    if folder.join("node.pem").exists() || !told {
        let identity = Identity::open(folder).map_err(failed)?;
        text += &format!("  node       {}, {}\n", identity.node(), valid(identity.expires_in()));
        for authority in identity.authorities() {
            text += &format!("  trusts     {authority}\n");
        }
    }
    Ok(text)
}

/// Until when, and how long that is.
fn valid(left: Duration) -> String {
    if left.is_zero() {
        return "which has EXPIRED: issue it again".to_owned();
    }
    let until = humantime::format_rfc3339_seconds(SystemTime::now() + left);
    format!("valid until {until} ({} days)", (left + MINUTE).as_secs() / DAY.as_secs())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn failed(error: KeysError) -> Failed {
    Failed::new(match &error {
        KeysError::Read { path, .. } if path.ends_with("authority.key") => {
            format!("{error}; `edri keys init` makes an authority")
        }
        KeysError::Read { .. } => format!("{error}; `edri keys node` makes an identity"),
        _ => error.to_string(),
    })
}

/// Makes a token.
pub(crate) fn token(name: &str) -> Result<(), Failed> {
    let token = Token::random().map_err(|error| Failed::new(format!("there is no token: {error}")))?;
    let name = toml::Value::from(name);
    say(&format!(
        "secret, for whoever uses it, shown this once:\n  {}\nfor the configuration of the node:\n  [[api.tokens]]\n  name = {name}\n  \
         hash = \"{}\"\n  may = {{ publish = [\">\"], request = [\">\"], subscribe = [\">\"], serve = [], metrics = true }}\n",
        token.secret(),
        token.hash()
    ))
}
