//! Who belongs to the cluster: its authority, and the identities that it issues to nodes.
//!
//! ```text
//! authority's folder                    a node's folder
//!   authority.pem   certificate(s)        authority.pem   certificates that are trusted: one, or old and new
//!   authority.key   0600                  node.pem        certificate; the node's name is in it: URI edri:node:NAME
//!                                         node.key        0600
//! ```
//!
//! A node needs no key of the authority, and the authority need not be on any node. Certificates made by other tools are
//! as good: what counts is that the chain leads to a certificate in `authority.pem`, and that exactly one URI in the
//! subject alternative names is `edri:node:NAME`. Nothing else in a certificate names a node.
//!
//! To renew a node's identity, issue and save it again over the old files; nodes that run take it up
//! ([`Reloading`]). To replace the authority: add the new certificate to every node's `authority.pem`, issue the nodes'
//! identities anew, and only then take the old certificate out.

mod authority;
mod certificate;
mod error;
mod files;
mod identity;
mod reloading;
#[cfg(test)]
pub(crate) mod tests;

pub use authority::Authority;
pub use certificate::CertificateError;
pub(crate) use certificate::node_name;
pub use error::KeysError;
pub use identity::Identity;
pub use reloading::Reloading;

use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authority is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(DAY.as_secs() * 3650);
/// How long an identity is valid unless its issuer says otherwise.
pub const NODE_VALIDITY: Duration = Duration::from_secs(DAY.as_secs() * 365);
/// How much the clocks of issuer and verifier may differ: what is issued now has been valid for so long.
pub const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(60 * 60);
/// A warning is logged when less than this is left of an identity.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(DAY.as_secs() * 30);

/// The file of authorities' certificates.
pub(crate) const AUTHORITY_CERTIFICATE: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const NODE_CERTIFICATE: &str = "node.pem";
const NODE_KEY: &str = "node.key";
