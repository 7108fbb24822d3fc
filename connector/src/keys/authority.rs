use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use edri_events::NodeName;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    AUTHORITY_CERTIFICATE, AUTHORITY_KEY, AUTHORITY_VALIDITY, CLOCKS_DIFFER_MAX, Identity, KeysError, certificate,
    files, identity,
};

/// What issues the identities of a cluster's nodes. Who has its key decides who belongs to the cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The one that issues is the first.
    certificates: Vec<CertificateDer<'static>>,
    valid_until: SystemTime,
}

impl Authority {
    /// A new authority in memory, valid for [`AUTHORITY_VALIDITY`].
    ///
    /// # Errors
    ///
    /// [`KeysError::Issue`] when no key can be made.
    pub fn generate() -> Result<Self, KeysError> {
        let now = SystemTime::now();
        let (from, until) = (now - CLOCKS_DIFFER_MAX, now + AUTHORITY_VALIDITY);
        let key = KeyPair::generate()?;
        let params = certificate::for_authority(from, until);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificates: vec![certificate], valid_until: until })
    }

    /// A new authority, written to `authority.pem` and `authority.key` in `folder`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`KeysError::Exists`] when there is an authority in the folder; otherwise why it could not be made or written.
    pub fn create(folder: impl AsRef<Path>) -> Result<Self, KeysError> {
        let folder = folder.as_ref();
        let authority = Self::generate()?;
        files::make_folder(folder)?;
        let (key, certificate) = (folder.join(AUTHORITY_KEY), folder.join(AUTHORITY_CERTIFICATE));
        if certificate.exists() {
            return Err(KeysError::Exists { path: certificate });
        }
        files::write_new(&key, &authority.issuer.key().serialize_pem(), 0o600)?;
        files::write_new(&certificate, &identity::pem(&authority.certificates), 0o644)?;
        Ok(authority)
    }

    /// The authority in `folder`. `authority.pem` may hold the certificates of further authorities; identities issued by
    /// this one trust them too.
    ///
    /// # Errors
    ///
    /// What is wrong with which file, and what to do.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, KeysError> {
        let key_path = folder.as_ref().join(AUTHORITY_KEY);
        let path = folder.as_ref().join(AUTHORITY_CERTIFICATE);
        let key = files::key_pair(&key_path)?;
        let mut certificates = files::certificates(&path)?;
        let wrong = |source| KeysError::Certificate { path: path.clone(), source };
        let mut ours = None;
        for (index, certificate) in certificates.iter().enumerate() {
            if certificate::public_key(certificate).map_err(wrong)? == key.public_key_raw() {
                ours = Some(index);
            }
        }
        let Some(ours) = ours else { return Err(KeysError::Mismatch { key: key_path, certificate: path }) };
        certificates.swap(0, ours);
        let (_, valid_until) = certificate::validity(&certificates[0]).map_err(wrong)?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificates[0], key)?, certificates, valid_until })
    }

    /// A new identity for `node`, with a new key, valid from one hour ago, for clocks that disagree, until `validity`
    /// from now ([`NODE_VALIDITY`](super::NODE_VALIDITY) is usual), or as long as the authority itself.
    ///
    /// # Errors
    ///
    /// [`KeysError::AuthorityExpired`]; [`KeysError::Issue`] when no key can be made.
    pub fn issue(&self, node: &NodeName, validity: Duration) -> Result<Identity, KeysError> {
        let now = SystemTime::now();
        if self.valid_until <= now {
            return Err(KeysError::AuthorityExpired);
        }
        let until = now.checked_add(validity).unwrap_or(self.valid_until);
        self.issue_for(&[certificate::node_uri(node)], now - CLOCKS_DIFFER_MAX, until, node)
    }

    /// How much of its time is left; zero when it has expired.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.valid_until.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// The SHA-256 of its certificate, by which people tell authorities apart.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        certificate::fingerprint(&self.certificates[0])
    }

    /// A certificate with these URIs and this validity, with the rest of `node`'s identity around it.
    pub(crate) fn issue_for(
        &self,
        uris: &[String],
        from: SystemTime,
        until: SystemTime,
        node: &NodeName,
    ) -> Result<Identity, KeysError> {
        let until = until.min(self.valid_until);
        let key = KeyPair::generate()?;
        let certificate = certificate::for_node(uris, from, until)?.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Identity::new(node.clone(), vec![certificate], key, self.certificates.clone(), until))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("valid_until", &self.valid_until).finish_non_exhaustive()
    }
}
