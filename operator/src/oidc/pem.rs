//! PURE: public keys in PEM as JWKs, as an API server makes them of its `--service-account-key-file`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::{self, PemObject};
use serde_json::json;
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::error::OidcError;
use super::jwk::Jwk;

/// All public keys of a text with their key ids. Kubernetes takes the SHA-256 of the DER form as key id.
pub(super) fn public_keys(text: &str) -> Result<impl Iterator<Item = (String, Jwk)>, OidcError> {
    // Other blocks are refused, not skipped: a private key in this place must not go unnoticed.
    if let Some(other) = labels(text).find(|label| *label != "PUBLIC KEY") {
        return Err(OidcError::NotAPublicKey(format!("it has a block BEGIN {other}")));
    }
    let malformed = |error: pem::Error| OidcError::NotAPublicKey(error.to_string());
    let keys: Vec<_> = SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes())
        .map(|der| jwk(&der.map_err(malformed)?))
        .collect::<Result<_, _>>()?;
    Ok(keys.into_iter())
}

fn labels(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
}

fn jwk(der: &[u8]) -> Result<(String, Jwk), OidcError> {
    let refused = |why: &str| OidcError::NotAPublicKey(why.to_owned());
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let kid = encode(&Sha256::digest(der));
    let (_, key) =
        SubjectPublicKeyInfo::from_der(der).map_err(|_| refused("a public key cannot be parsed"))?;
    let jwk = match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => {
            // RFC 7518, 6.3.1: without leading zeros, which DER has.
            let number = |bytes: &[u8]| {
                encode(&bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..])
            };
            json!({
                "use": "sig", "kty": "RSA", "kid": kid, "alg": "RS256",
                "n": number(rsa.modulus), "e": number(rsa.exponent),
            })
        }
        Ok(PublicKey::EC(point)) => {
            let (curve, algorithm, size) = match point.key_size() {
                256 => ("P-256", "ES256", 32),
                384 => ("P-384", "ES384", 48),
                521 | 528 => ("P-521", "ES512", 66),
                bits => {
                    return Err(refused(&format!("a curve of {bits} bits is not one that AWS STS verifies")));
                }
            };
            // SEC 1, 2.3.3: an uncompressed point is 04, x, y.
            let coordinates = point.data().strip_prefix(&[4]).filter(|bytes| bytes.len() == 2 * size);
            let (x, y) =
                coordinates.ok_or_else(|| refused("a point of a curve is compressed"))?.split_at(size);
            json!({
                "use": "sig", "kty": "EC", "kid": kid, "alg": algorithm, "crv": curve, "x": encode(x), "y": encode(y),
            })
        }
        _ => return Err(refused("a key is neither RSA nor EC")),
    };
    let serde_json::Value::Object(jwk) = jwk else { return Err(refused("a public key cannot be parsed")) };
    Ok((kid, jwk))
}
