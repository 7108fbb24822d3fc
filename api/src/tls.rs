//! TLS of a gateway.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::files::{self, Reloaded};

/// What protocols a client may choose, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificate that a gateway shows, and its key. The files are read again when they change, while connections go on.
#[derive(Debug, Clone)]
#[must_use]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
}

/// Why TLS cannot be.
#[derive(Debug, thiserror::Error)]
#[error("no TLS with the certificate `{certificate}` and the key `{key}`: {why}")]
pub struct TlsError {
    certificate: String,
    key: String,
    why: String,
}

impl Tls {
    /// A certificate with those that vouch for it behind it, and its key; both PEM.
    pub fn files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into() }
    }

    /// Whether the files can be used.
    ///
    /// # Errors
    ///
    /// [`TlsError`] says why not.
    pub fn check(&self) -> Result<(), TlsError> {
        self.clone().open().map(drop)
    }

    /// Reads the files.
    pub(crate) fn open(self) -> Result<Arc<Reloaded<Arc<ServerConfig>>>, TlsError> {
        let Self { certificate, key } = self;
        let (shown, shown_key) = (certificate.display().to_string(), key.display().to_string());
        Reloaded::open("the certificate of the gateway and its key", vec![certificate, key], |paths| match paths {
            [certificate, key] => read(certificate, key).map(Arc::new),
            _ => Err("two files are wanted".into()),
        })
        .map_err(|why| TlsError { certificate: shown, key: shown_key, why })
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&files::read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate is no PEM: {error}"))?;
    if chain.is_empty() {
        return Err("there is no `CERTIFICATE` in the first file".into());
    }
    let key = PrivateKeyDer::from_pem_slice(&files::read(key)?)
        .map_err(|error| format!("there is no private key in PEM in the second file: {error}"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| format!("they do not fit: {error}"))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}
