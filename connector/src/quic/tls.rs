//! The handshake: TLS 1.3, both sides with a certificate of the cluster's authority that names a node.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::{ALPN, Options};
use crate::keys::{Identity, node_name};

/// What a dialler calls whom it dials; never sent, and no name is asked of a certificate but that of a node.
pub(super) const NO_NAME: &str = "edri.invalid";

/// One identity, ready for handshakes.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) identity: Arc<Identity>,
    pub(super) dialling: quinn::ClientConfig,
    pub(super) accepting: Arc<quinn::ServerConfig>,
}

impl Tls {
    pub(super) fn new(identity: Arc<Identity>, options: &Options) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let roots = identity.roots()?;
        let key = Arc::new(SingleCertAndKey::from(identity.certified_key(&provider)?));
        let versions = &[&rustls::version::TLS13];

        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(ServerVerifier { roots: Arc::clone(&roots), algorithms });
        let dialling =
            rustls::ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let dialling = dialling.dangerous().with_custom_certificate_verifier(verifier);
        let mut dialling = dialling.with_client_cert_resolver(key.clone());
        dialling.alpn_protocols = vec![ALPN.to_vec()];
        dialling.enable_sni = false;
        // A resumed connection would rest on a certificate that was looked at long ago.
        dialling.resumption = Resumption::disabled();

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        // Strangers need not be told the names of the authorities.
        let verifier =
            verifier.clear_root_hint_subjects().build().map_err(|error| Error::General(error.to_string()))?;
        let accepting = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
        let accepting = accepting.with_client_cert_verifier(Arc::new(ClientVerifier(verifier)));
        let mut accepting = accepting.with_cert_resolver(key);
        accepting.alpn_protocols = vec![ALPN.to_vec()];
        accepting.send_tls13_tickets = 0;
        accepting.session_storage = Arc::new(NoServerSessionStorage {});

        let no_suite = |_| Error::General("the provider lacks the cipher suite that QUIC begins with".to_owned());
        let mut dialling = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(dialling).map_err(no_suite)?));
        let accepting = Arc::new(QuicServerConfig::try_from(accepting).map_err(no_suite)?);
        let mut accepting = quinn::ServerConfig::with_crypto(accepting);
        let transport = options.transport();
        dialling.transport_config(Arc::clone(&transport));
        accepting.transport_config(transport).migration(true);
        Ok(Self { identity, dialling, accepting: Arc::new(accepting) })
    }
}

fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    // The fastest first; stable, so the others stay as they are.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// A chain to an authority of ours, valid now, for this use, and a node's name.
fn node_of(certificate: &CertificateDer<'_>) -> Result<(), Error> {
    let other = |error| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))));
    node_name(certificate).map(drop).map_err(other)
}

#[derive(Debug)]
struct ServerVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        node_of(certificate)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct ClientVerifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(certificate, intermediates, now)?;
        node_of(certificate)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not offered".to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Trusts whom `identity` trusts.
    pub(in super::super) fn verifier(identity: &Identity) -> Arc<dyn ServerCertVerifier> {
        let algorithms = provider().signature_verification_algorithms;
        Arc::new(ServerVerifier { roots: identity.roots().unwrap(), algorithms })
    }
}
