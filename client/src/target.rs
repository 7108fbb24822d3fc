//! Where a node is, and how it is reached: by TCP, or by TLS over it.

use std::future::IntoFuture;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::stream::Stream;
use crate::{Client, ClientError};

/// A client to be; `.await` connects it.
#[must_use = "a client connects when it is awaited"]
pub struct Connect {
    url: String,
    token: Option<String>,
    authorities: Option<PathBuf>,
}

impl Connect {
    pub(crate) fn to(url: String) -> Self {
        Self { url, token: None, authorities: None }
    }

    /// What the node lets the client in with.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The certificates, in a file of PEM, of the authorities whose word is taken for the node's certificate, in place of those that
    /// the system trusts: of one's own authority, or the certificate itself where it vouches for itself. For `wss://` only.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities = Some(path.into());
        self
    }

    /// Reads the address, and the authorities if it is one of TLS.
    pub(crate) async fn target(self) -> Result<Target, ClientError> {
        let Self { url, token, authorities } = self;
        let wrong = |why: &str| ClientError::Url(format!("`{url}`: {why}"));
        let (rest, is_tls) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return Err(wrong("it begins with neither `ws://` nor `wss://`")),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong(&format!("`{port}` is no port")))?)
            }
            _ => (authority, if is_tls { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if !is_tls {
            if authorities.is_some() {
                return Err(wrong("`ca_file` is for `wss://`: nothing is encrypted here"));
            }
            return Ok(Target { url, host, port, token, tls: None });
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong("a certificate cannot be for such a host"))?;
        // Files are read: the runtime does not wait for a disk.
        let roots = tokio::task::spawn_blocking(move || match authorities {
            Some(path) => roots_of(&path),
            None => roots_of_system(),
        });
        let roots = roots.await.map_err(|error| ClientError::Authorities(error.to_string()))??;
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Authorities(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Target { url, host, port, token, tls: Some((TlsConnector::from(Arc::new(config)), name)) })
    }
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("Connect").field("url", &self.url).field("ca_file", &self.authorities).finish_non_exhaustive()
    }
}

impl IntoFuture for Connect {
    type Output = Result<Client, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(Client::start(self))
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, ClientError> {
    let wrong = |why: &dyn std::fmt::Display| ClientError::Authorities(format!("`{}`: {why}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"there is no `CERTIFICATE` in it")) } else { Ok(roots) }
}

fn roots_of_system() -> Result<RootCertStore, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems have some that cannot be read: the others count.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "it has none".to_owned(), ToString::to_string);
        return Err(ClientError::Authorities(format!("the system: {why}; name a file with `Connect::ca_file`")));
    }
    Ok(roots)
}

/// Where a node is, and what it lets the client in with.
pub(crate) struct Target {
    pub(crate) url: String,
    host: String,
    port: u16,
    pub(crate) token: Option<String>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// A connection on which nothing has been said of WebSockets yet.
    pub(crate) async fn connect(&self) -> Result<Stream, ClientError> {
        let unreachable = |error: io::Error| ClientError::Unreachable(format!("`{}`: {error}", self.url));
        let stream = TcpStream::connect((&*self.host, self.port)).await.map_err(unreachable)?;
        // Frames are small and wait for nothing.
        stream.set_nodelay(true).map_err(unreachable)?;
        let Some((connector, name)) = &self.tls else { return Ok(Stream::Plain(stream)) };
        match connector.connect(name.clone(), stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => Err(match untrusted(&error) {
                Some(why) => ClientError::Untrusted(format!("`{}` is not trusted: {why}", self.url)),
                None => unreachable(error),
            }),
        }
    }
}

/// What is wrong with the certificate that was shown, if that is what is wrong.
fn untrusted(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(why) = error else { return None };
    Some(match why {
        CertificateError::UnknownIssuer => {
            format!("{why}; name the authority that has issued it, or the certificate itself, with `Connect::ca_file`")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("{why}; connect by a name that it has")
        }
        why => why.to_string(),
    })
}
