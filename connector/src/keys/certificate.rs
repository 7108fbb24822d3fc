//! What a certificate says of a node.

use std::time::{Duration, SystemTime};

use edri_events::{NameError, NodeName};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// What stands before the node's name in its certificate.
const NODE_URI: &str = "edri:node:";

/// Why a certificate is not one of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// It is not a certificate.
    #[error("not a certificate of X.509")]
    Malformed,
    /// It names no node.
    #[error("the certificate names no node: it needs the URI `edri:node:NAME` in its subject alternative names")]
    NoNode,
    /// It names more than one node.
    #[error("the certificate names more than one node")]
    ManyNodes,
    /// The name it gives the node is none.
    #[error("the certificate gives the node no valid name: {0}")]
    Name(#[from] NameError),
}

/// The node that a certificate was issued to.
pub(crate) fn node_name(certificate: &CertificateDer<'_>) -> Result<NodeName, CertificateError> {
    let certificate = parse(certificate)?;
    let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Malformed)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut nodes = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(NODE_URI),
        _ => None,
    });
    let node = nodes.next().ok_or(CertificateError::NoNode)?;
    if nodes.next().is_some() {
        return Err(CertificateError::ManyNodes);
    }
    Ok(NodeName::new(node)?)
}

/// The SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` shows it but for colons and capitals.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let digits: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// From when and until when a certificate is valid.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), CertificateError> {
    let certificate = parse(certificate)?;
    let validity = certificate.validity();
    Ok((moment(validity.not_before.timestamp()), moment(validity.not_after.timestamp())))
}

/// The bytes of the public key of a certificate, as its key pair gives them too.
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, CertificateError> {
    Ok(parse(certificate)?.public_key().subject_public_key.data.to_vec())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(CertificateError::Malformed),
    }
}

fn moment(unix_s: i64) -> SystemTime {
    u64::try_from(unix_s).map_or(SystemTime::UNIX_EPOCH, |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s))
}

/// A certificate of an authority: it signs nodes, and no other authorities.
pub(super) fn for_authority(from: SystemTime, until: SystemTime) -> CertificateParams {
    let mut params = common(from, until);
    // Two authorities of one cluster should not look alike to somebody who replaces one.
    let random = getrandom::u32().expect("the operating system must provide random numbers");
    params.distinguished_name.push(DnType::CommonName, format!("edri authority {random:08x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A certificate of a node, good for dialling and for being dialled.
pub(super) fn for_node(
    uris: &[String],
    from: SystemTime,
    until: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = common(from, until);
    params.distinguished_name.push(DnType::CommonName, "edri node");
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The URI that names `node` in its certificate.
pub(super) fn node_uri(node: &NodeName) -> String {
    format!("{NODE_URI}{node}")
}

fn common(from: SystemTime, until: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let since_1970 = |moment: SystemTime| moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // A certificate's time ends with the year 9999.
    let last = Duration::from_secs(253_402_300_799);
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(from).min(last);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(until).min(last);
    params
}
