//! PURE: the discovery document that the API server serves, and the two documents of an issuer as they are published.

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::OidcError;
use super::jwk::{Jwk, algorithm};
use super::keys::Keys;

/// The API server's own discovery document, served at `/.well-known/openid-configuration`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Discovery {
    /// The value of the first `--service-account-issuer`, which is the `iss` of every token.
    pub issuer: String,
}

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

/// The two documents of an issuer, byte for byte as they are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The discovery document. It is generated, because the `jwks_uri` of the API server's own is internal.
    pub discovery: Vec<u8>,
    /// The JWKS.
    pub jwks: Vec<u8>,
    /// The retention clocks as they are stored with the JWKS; empty where no clock runs.
    pub clocks: String,
}

impl Documents {
    /// The documents of `keys` under an issuer URL. Equal keys give equal bytes, in whatever order they were read.
    #[must_use]
    pub fn new(issuer_url: &str, jwks_uri: &str, keys: &Keys, clocks: String) -> Self {
        let all: Vec<&Jwk> = keys.iter().map(|(_, jwk)| jwk).collect();
        let mut algorithms: Vec<&str> = all.iter().filter_map(|jwk| algorithm(jwk)).collect();
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
        let jwks = json!({"keys": all});
        Self { discovery: pretty(&discovery), jwks: pretty(&jwks), clocks }
    }

    /// SHA-256 of both documents, hexadecimal. The clocks are no part of it.
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
    const EC: &str = r#"{"use":"sig","kty":"EC","kid":"e","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;

    fn documents(list: &[&str]) -> Documents {
        let keys = Keys::parse(format!(r#"{{"keys":[{}]}}"#, list.join(",")).as_bytes()).unwrap();
        Documents::new("https://i/p", "https://i/p/openid/v1/jwks", &keys, String::new())
    }

    #[test]
    fn the_discovery_document_has_the_members_that_aws_requires() {
        let discovery: Value = serde_json::from_slice(&documents(&[RSA, EC]).discovery).unwrap();
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
                documents(&list.iter().map(String::as_str).collect::<Vec<_>>())
            };
            prop_assert_eq!(make(&order), make(&[0, 1, 2, 3, 4, 5, 6, 7]));
        }
    }
}
