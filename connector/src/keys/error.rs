use std::io;
use std::path::PathBuf;

use edri_events::NodeName;

use super::certificate::CertificateError;

/// Why keys or certificates could not be made, read or written. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// A file is missing or cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is an authority in the folder.
    #[error("{} exists: open this authority to issue more identities, or create another one in another folder", path.display())]
    Exists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// Others than its owner may read or write a key.
    #[error("{0} is open to others (mode {mode:03o}): run `chmod 600 {0}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file is not what its name says.
    #[error("{} {what}: it should be PEM, as written by `edri keys`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A certificate is not one of a node.
    #[error("{}: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// Key and certificate are not of one pair.
    #[error("{} is not the key of {}: write the two together, of one identity", key.display(), certificate.display())]
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// The certificate was not issued by an authority that the identity itself trusts.
    #[error(
        "{} was not issued by an authority in {} ({reason}): issue it again, or add the certificate of its authority",
        certificate.display(), authority.display()
    )]
    Untrusted {
        /// The file of the node's certificate.
        certificate: PathBuf,
        /// The file of authorities.
        authority: PathBuf,
        /// Why not.
        reason: String,
    },
    /// What was reloaded is the identity of another node.
    #[error("{} is for the node {new}, and this node is {current}: put this node's identity back, or start it anew", path.display())]
    OtherNode {
        /// The file of the node's certificate.
        path: PathBuf,
        /// The node that runs.
        current: NodeName,
        /// The node in the new certificate.
        new: NodeName,
    },
    /// What was reloaded is over, and what is in use is not.
    #[error("{} has expired, and the certificate in use has not: issue this node's identity again", path.display())]
    Expired {
        /// The file of the node's certificate.
        path: PathBuf,
    },
    /// An authority that has expired issues nothing that anybody would accept.
    #[error(
        "the authority has expired: create another one, and have the nodes trust both until all have a new identity"
    )]
    AuthorityExpired,
    /// The key could not be made, or not sign.
    #[error("the certificate cannot be made: {source}")]
    Issue {
        /// What the library said.
        #[from]
        source: rcgen::Error,
    },
    /// The key or certificate is of a kind that links cannot use.
    #[error("the identity cannot be used for links: {source}")]
    Unusable {
        /// What the library said.
        #[from]
        source: rustls::Error,
    },
}
