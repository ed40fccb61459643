//! PURE: the discovery document and the JWKS in the form that AWS requires, from those that the API server serves.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The API server's own discovery document, served at `/.well-known/openid-configuration`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Discovery {
    /// The value of the first `--service-account-issuer`, which is the `iss` of every token.
    pub issuer: String,
}

/// The public keys of an API server that are published, by key id. Public members of a JWK are not changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys(BTreeMap<String, Map<String, Value>>);

/// Why a document of the API server cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OidcError {
    /// It is not JSON, or a required member is missing.
    #[error("the API server's {document} is not valid: {reason}")]
    Malformed {
        /// Which document.
        document: &'static str,
        /// The parser's message.
        reason: String,
    },
    /// No key is of a type that STS verifies.
    #[error("the API server's JWKS has no RSA or EC key: AWS STS verifies RS256–512 and ES256–512 only")]
    NoUsableKey,
    /// More keys than STS reads.
    #[error("the API server's JWKS has {count} {kty} keys: AWS STS reads at most 100")]
    TooManyKeys {
        /// `RSA` or `EC`.
        kty: &'static str,
        /// Their number.
        count: usize,
    },
}

/// The most keys of each type that STS reads (IAM user guide, "Create an OpenID Connect identity provider").
const MAX_KEYS_PER_TYPE: usize = 100;

/// Members of a JWK that contain private key material (RFC 7518, 6.2.2, 6.3.2 and 6.4.1). Never published.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl Discovery {
    /// Parses the API server's discovery document.
    ///
    /// # Errors
    /// [`OidcError::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, OidcError> {
        serde_json::from_slice(body)
            .map_err(|e| OidcError::Malformed { document: "discovery document", reason: e.to_string() })
    }
}

impl Keys {
    /// Parses the API server's JWKS and keeps the keys that AWS STS verifies: RSA keys and EC keys on P-256, P-384 and P-521,
    /// each with a key id. Others (ML-DSA) are left out: STS may refuse a whole set because of one key that it cannot read.
    ///
    /// # Errors
    /// If it is malformed, no key is left, or there are more keys of a type than STS reads.
    pub fn parse(body: &[u8]) -> Result<Self, OidcError> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<Map<String, Value>>,
        }
        let Jwks { keys } = serde_json::from_slice(body)
            .map_err(|e| OidcError::Malformed { document: "JWKS", reason: e.to_string() })?;
        let keys: BTreeMap<_, _> = keys
            .into_iter()
            .filter_map(|mut jwk| {
                let kid = jwk.get("kid")?.as_str().filter(|kid| !kid.is_empty())?.to_owned();
                algorithm(&jwk)?;
                jwk.retain(|member, _| !PRIVATE_MEMBERS.contains(&member.as_str()));
                Some((kid, jwk))
            })
            .collect();
        if keys.is_empty() {
            return Err(OidcError::NoUsableKey);
        }
        for kty in ["RSA", "EC"] {
            let count = keys.values().filter(|jwk| jwk["kty"] == kty).count();
            if count > MAX_KEYS_PER_TYPE {
                return Err(OidcError::TooManyKeys { kty, count });
            }
        }
        Ok(Self(keys))
    }

    /// All key ids, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The signing algorithm of a key, `None` where STS does not support it.
fn algorithm(jwk: &Map<String, Value>) -> Option<&str> {
    let default = match (jwk.get("kty")?.as_str()?, jwk.get("crv").and_then(Value::as_str)) {
        ("RSA", _) => "RS256",
        ("EC", Some("P-256")) => "ES256",
        ("EC", Some("P-384")) => "ES384",
        ("EC", Some("P-521")) => "ES512",
        _ => return None,
    };
    let stated = jwk.get("alg").and_then(Value::as_str).unwrap_or(default);
    ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"].contains(&stated).then_some(stated)
}

/// The two documents of an issuer, byte for byte as they are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The discovery document. It is generated, because the `jwks_uri` of the API server's own is internal.
    pub discovery: Vec<u8>,
    /// The JWKS.
    pub jwks: Vec<u8>,
}

impl Documents {
    /// The documents of `keys` under an issuer URL. Equal keys give equal bytes, in whatever order they were read.
    #[must_use]
    pub fn new(issuer_url: &str, jwks_uri: &str, keys: &Keys) -> Self {
        let mut algorithms: Vec<&str> = keys.0.values().filter_map(algorithm).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        // STS fails with "Couldn't retrieve verification key" if one of these members is missing.
        let discovery = json!({
            "issuer": issuer_url,
            "jwks_uri": jwks_uri,
            "authorization_endpoint": "urn:kubernetes:programmatic_authorization",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
            "claims_supported": ["sub", "iss"],
        });
        let jwks = json!({"keys": keys.0.values().collect::<Vec<_>>()});
        Self { discovery: pretty(&discovery), jwks: pretty(&jwks) }
    }

    /// SHA-256 of both documents, hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update((self.discovery.len() as u64).to_be_bytes());
        hash.update(&self.discovery);
        hash.update(&self.jwks);
        hash.finalize().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = format!("{value:#}");
    text.push('\n');
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const RSA: &str = r#"{"use":"sig","kty":"RSA","kid":"r","alg":"RS256","n":"AQAB","e":"AQAB"}"#;
    const EC: &str = r#"{"use":"sig","kty":"EC","kid":"e","crv":"P-256","x":"AA","y":"BB"}"#;

    fn keys(list: &[&str]) -> Result<Keys, OidcError> {
        Keys::parse(format!(r#"{{"keys":[{}]}}"#, list.join(",")).as_bytes())
    }

    #[test]
    fn keys_that_sts_cannot_verify_are_left_out() {
        let ml_dsa = r#"{"kty":"AKP","kid":"m","alg":"ML-DSA-44","pub":"AA"}"#;
        let ed = r#"{"kty":"OKP","kid":"o","crv":"Ed25519","x":"AA"}"#;
        let pss = r#"{"kty":"RSA","kid":"p","alg":"PS256","n":"AQAB","e":"AQAB"}"#;
        let without_id = r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#;
        let kept = keys(&[RSA, EC, ml_dsa, ed, pss, without_id]).unwrap();
        assert_eq!(kept.ids().collect::<Vec<_>>(), ["e", "r"]);
        assert_eq!(keys(&[ml_dsa]), Err(OidcError::NoUsableKey));
        assert_eq!(keys(&[]), Err(OidcError::NoUsableKey));
        assert!(matches!(Keys::parse(b"<html>"), Err(OidcError::Malformed { document: "JWKS", .. })));
    }

    #[test]
    fn more_keys_than_sts_reads_are_refused() {
        let many: Vec<String> = (0..101).map(|n| RSA.replace(r#""r""#, &format!(r#""{n}""#))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(keys(&many), Err(OidcError::TooManyKeys { kty: "RSA", count: 101 }));
        assert!(keys(&many[..100]).is_ok());
    }

    #[test]
    fn private_members_are_removed_and_unknown_ones_are_kept() {
        let private = r#"{"kty":"EC","kid":"e","crv":"P-256","x":"AA","y":"BB","d":"SECRET","x5t":"kept"}"#;
        let documents = Documents::new("https://i", "https://i/j", &keys(&[private]).unwrap());
        let jwks: Value = serde_json::from_slice(&documents.jwks).unwrap();
        assert_eq!(jwks["keys"][0].get("d"), None);
        assert_eq!(jwks["keys"][0]["x5t"], "kept");
    }

    #[test]
    fn the_discovery_document_has_the_members_that_aws_requires() {
        let documents =
            Documents::new("https://i/p", "https://i/p/openid/v1/jwks", &keys(&[RSA, EC]).unwrap());
        let discovery: Value = serde_json::from_slice(&documents.discovery).unwrap();
        assert_eq!(discovery["issuer"], "https://i/p");
        assert_eq!(discovery["jwks_uri"], "https://i/p/openid/v1/jwks");
        assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
        for member in ["response_types_supported", "subject_types_supported"] {
            assert!(discovery[member].is_array(), "{member}");
        }
    }

    proptest! {
        /// The same keys in another order give the same bytes, so that there is no drift and no write.
        #[test]
        fn documents_do_not_depend_on_the_order_of_keys(order in Just((0..8).collect::<Vec<u8>>()).prop_shuffle()) {
            let make = |ids: &[u8]| {
                let list: Vec<String> = ids.iter().map(|n| RSA.replace(r#""r""#, &format!(r#""{n}""#))).collect();
                let keys = keys(&list.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
                Documents::new("https://i", "https://i/j", &keys)
            };
            prop_assert_eq!(make(&order), make(&[0, 1, 2, 3, 4, 5, 6, 7]));
        }
    }
}
