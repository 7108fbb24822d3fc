//! Keys that signatures of tokens are checked with. What kind a key is fixes the algorithm that it is for, whatever a token says.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::files;

/// The most keys in a file: a token that does not name its key is tried with each.
const KEYS_MAX: usize = 32;
/// The shortest secret, in bytes: as long as what HS256 makes (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// The shortest modulus of RSA, in bytes (RFC 7518, 3.3).
const MODULUS_BYTES_MIN: usize = 256;

const ED25519: &str = "1.3.101.112";
const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";

/// A key, what it is called, and the one algorithm that it is for.
pub(super) struct Key {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Reads a file with a JSON Web Key Set. Keys of other kinds or for other uses are left out.
pub(super) fn read_jwks(path: &Path) -> Result<Vec<Key>, String> {
    let read: Value = serde_json::from_slice(&files::read(path)?).map_err(|error| format!("it is no JSON: {error}"))?;
    let given = read.get("keys").and_then(Value::as_array).ok_or("it has no list `keys`: it is no JSON Web Key Set")?;
    let mut keys = Vec::new();
    let mut left_out = Vec::new();
    for given in given {
        match from_jwk(given) {
            Ok(key) => keys.push(key),
            Err(why) => {
                tracing::warn!(path = %path.display(), kid = ?given.get("kid"), %why, "a key is left out");
                left_out.push(why);
            }
        }
    }
    match left_out.first() {
        Some(why) if keys.is_empty() => Err(format!("none of its keys can be used; of the first: {why}")),
        _ => bounded(keys),
    }
}

/// Reads a file with public keys or certificates in PEM; several, while one takes another's place.
pub(super) fn read_pem(path: &Path) -> Result<Vec<Key>, String> {
    let blocks = pem::parse_many(files::read(path)?).map_err(|error| format!("it is no PEM: {error}"))?;
    let key = |block: &pem::Pem| {
        let der = block.contents();
        match block.tag() {
            "PUBLIC KEY" => from_spki(&SubjectPublicKeyInfo::from_der(der).map_err(|error| error.to_string())?.1),
            "CERTIFICATE" => {
                from_spki(X509Certificate::from_der(der).map_err(|error| error.to_string())?.1.public_key())
            }
            tag if tag.contains("PRIVATE") => {
                Err("it holds a private key, which is the signer's: put the public one there (`openssl pkey -pubout`)"
                    .into())
            }
            tag => Err(format!("`{tag}` is not read: take a `PUBLIC KEY` or a `CERTIFICATE`")),
        }
    };
    bounded(blocks.iter().map(key).collect::<Result<_, _>>()?)
}

/// Reads a file that is a secret; line ends behind it are no part of it.
pub(super) fn read_secret(path: &Path) -> Result<Vec<Key>, String> {
    let secret = files::read(path)?;
    let secret = secret.trim_ascii_end();
    if secret.starts_with(b"-----BEGIN") {
        return Err("it is PEM and no secret: take `Jwt::key_file`".into());
    }
    Ok(vec![from_secret(secret, None)?])
}

fn bounded(keys: Vec<Key>) -> Result<Vec<Key>, String> {
    match keys.len() {
        0 => Err("there is no key in it".into()),
        count if count > KEYS_MAX => Err(format!("it has {count} keys, and at most {KEYS_MAX} can be")),
        _ => Ok(keys),
    }
}

fn from_secret(secret: &[u8], kid: Option<String>) -> Result<Key, String> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!("the secret has {} bytes, and less than {SECRET_BYTES_MIN} can be guessed", secret.len()));
    }
    Ok(Key { kid, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) })
}

fn from_rsa(modulus: &[u8], exponent: &[u8], kid: Option<String>) -> Result<Key, String> {
    let modulus = &modulus[modulus.iter().take_while(|byte| **byte == 0).count()..];
    if modulus.len() < MODULUS_BYTES_MIN {
        return Err(format!("an RSA key of {} bits is too short: 2,048 at least", modulus.len() * 8));
    }
    Ok(Key { kid, algorithm: Algorithm::RS256, key: DecodingKey::from_rsa_raw_components(modulus, exponent) })
}

fn from_spki(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, String> {
    let parameters = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
    let bytes = &*info.subject_public_key.data;
    match (info.algorithm.algorithm.to_id_string().as_str(), parameters.as_deref()) {
        (ED25519, _) => Ok(Key { kid: None, algorithm: Algorithm::EdDSA, key: DecodingKey::from_ed_der(bytes) }),
        (EC, Some(P256)) => Ok(Key { kid: None, algorithm: Algorithm::ES256, key: DecodingKey::from_ec_der(bytes) }),
        _ => match info.parsed() {
            Ok(PublicKey::RSA(key)) => from_rsa(key.modulus, key.exponent, None),
            _ => Err("its kind is not known: take RSA, Ed25519 or P-256".into()),
        },
    }
}

fn from_jwk(given: &Value) -> Result<Key, String> {
    let jwk: Jwk = serde_json::from_value(given.clone()).map_err(|error| error.to_string())?;
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return Err("it is not for signatures".into());
    }
    let kid = jwk.common.key_id.clone();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string());
    let key = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => from_rsa(&decode(&rsa.n)?, &decode(&rsa.e)?, kid)?,
        AlgorithmParameters::OctetKey(secret) => from_secret(&decode(&secret.value)?, kid)?,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Key { kid, algorithm: Algorithm::EdDSA, key: DecodingKey::from_ed_der(&decode(&pair.x)?) }
        }
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => {
            let key = DecodingKey::from_ec_components(&point.x, &point.y).map_err(|error| error.to_string())?;
            Key { kid, algorithm: Algorithm::ES256, key }
        }
        _ => return Err("its curve is not known: take Ed25519 or P-256".into()),
    };
    let named = given.get("alg").and_then(Value::as_str);
    match named.filter(|named| *named != format!("{:?}", key.algorithm)) {
        Some(named) => Err(format!("it is for {named}, and a key of its kind is used here for {:?}", key.algorithm)),
        None => Ok(key),
    }
}
