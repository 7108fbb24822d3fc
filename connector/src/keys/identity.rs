use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use edri_events::NodeName;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError as TlsCertificateError, Error as TlsError, RootCertStore};

use super::{AUTHORITY_CERTIFICATE, EXPIRY_WARNING, KeysError, NODE_CERTIFICATE, NODE_KEY, certificate, files};

/// What a node shows its neighbours, and whom it trusts: its certificate and key, and the authorities of the cluster.
pub struct Identity {
    node: NodeName,
    /// The node's certificate first, then those between it and the authority, if any.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Vec<CertificateDer<'static>>,
    valid_until: SystemTime,
}

impl Identity {
    pub(super) fn new(
        node: NodeName,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
        valid_until: SystemTime,
    ) -> Self {
        Self { node, chain, key, authorities, valid_until }
    }

    /// The identity in `folder`: `authority.pem`, `node.pem`, `node.key`. One that has expired is opened all the same;
    /// no neighbour will accept it.
    ///
    /// # Errors
    ///
    /// What is wrong with which file, and what to do: a key that others may read, a certificate that names no node, that
    /// is not of this key, or that no authority in `authority.pem` has issued.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, KeysError> {
        let [authority, certificate, key] = Self::files(folder.as_ref());
        let authorities = files::certificates(&authority)?;
        let chain = files::certificates(&certificate)?;
        let wrong = |source| KeysError::Certificate { path: certificate.clone(), source };
        let node = certificate::node_name(&chain[0]).map_err(wrong)?;
        let (_, valid_until) = certificate::validity(&chain[0]).map_err(wrong)?;
        let identity = Self::new(node, chain, files::key(&key)?, authorities, valid_until);
        let provider = rustls::crypto::ring::default_provider();
        match identity.certified_key(&provider) {
            Err(TlsError::InconsistentKeys(_)) => return Err(KeysError::Mismatch { key, certificate }),
            certified => drop(certified?),
        }
        if let Err(reason) = identity.verify(&provider) {
            return Err(KeysError::Untrusted { certificate, authority, reason: reason.to_string() });
        }
        Ok(identity)
    }

    /// Writes the identity to `folder`, which is made if it is not there, over the files of an older one if there is one.
    ///
    /// # Errors
    ///
    /// [`KeysError::Write`] names the file that could not be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), KeysError> {
        let folder = folder.as_ref();
        files::make_folder(folder)?;
        let [authority, certificate, key] = Self::files(folder);
        files::replace(&authority, &pem(&self.authorities), 0o644)?;
        let label = match &self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        files::replace(&key, &section(label, self.key.secret_der()), 0o600)?;
        files::replace(&certificate, &pem(&self.chain), 0o644)
    }

    pub(super) fn files(folder: &Path) -> [PathBuf; 3] {
        [AUTHORITY_CERTIFICATE, NODE_CERTIFICATE, NODE_KEY].map(|name| folder.join(name))
    }

    /// The node's name, from its certificate.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// How much of the certificate's time is left; zero when it has expired.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.valid_until.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// The SHA-256 of the certificate of each authority that the node trusts.
    pub fn authorities(&self) -> impl Iterator<Item = String> {
        self.authorities.iter().map(certificate::fingerprint)
    }

    pub(super) fn warn_of_expiry(&self) {
        let left = self.expires_in();
        let node = &self.node;
        if left.is_zero() {
            tracing::warn!(%node, "the identity of this node has expired: neighbours refuse it until it is issued again");
        } else if left < EXPIRY_WARNING {
            let days = left.as_secs() / super::DAY.as_secs();
            tracing::warn!(%node, days, "the identity of this node expires soon: issue it again");
        }
    }

    /// The certificates of the authorities that the node trusts.
    pub(crate) fn roots(&self) -> Result<Arc<RootCertStore>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone())?;
        }
        Ok(Arc::new(roots))
    }

    /// Certificate and key, as handshakes need them.
    pub(crate) fn certified_key(&self, provider: &CryptoProvider) -> Result<CertifiedKey, rustls::Error> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider)
    }

    /// Whether a neighbour with the same authorities would trust the certificate while it is valid.
    fn verify(&self, provider: &CryptoProvider) -> Result<(), rustls::Error> {
        let algorithms = provider.signature_verification_algorithms.all;
        let certificate = ParsedCertificate::try_from(&self.chain[0])?;
        let roots = self.roots()?;
        match verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &roots,
            &self.chain[1..],
            UnixTime::now(),
            algorithms,
        ) {
            // Of that there is a warning; a node whose clock is wrong should still come up.
            Err(TlsError::InvalidCertificate(
                TlsCertificateError::Expired
                | TlsCertificateError::ExpiredContext { .. }
                | TlsCertificateError::NotValidYet
                | TlsCertificateError::NotValidYetContext { .. },
            )) => Ok(()),
            verified => verified,
        }
    }

    /// Whether the two say the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key == other.key && self.authorities == other.authorities
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut identity = f.debug_struct("Identity");
        identity.field("node", &self.node).field("valid_until", &self.valid_until).finish_non_exhaustive()
    }
}

/// Certificates as the text of a file.
pub(super) fn pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|certificate| section("CERTIFICATE", certificate)).collect()
}

fn section(label: &str, bytes: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, bytes), config)
}
