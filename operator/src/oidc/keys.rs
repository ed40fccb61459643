//! PURE: the public keys of an issuer, as JWKs whose public members are never changed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::Deserialize;
use serde_json::Value;

use super::error::OidcError;
use super::jwk::{Jwk, defect};
use super::pem;

/// Public keys that AWS STS verifies, by key id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys(BTreeMap<String, Jwk>);

/// The keys of one document, and what of it is not among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadKeys {
    /// The keys.
    pub keys: Keys,
    /// Keys that STS does not verify, each with its reason, for messages.
    pub left_out: Vec<String>,
}

/// The most keys of each type that STS reads (IAM user guide, "Create an OpenID Connect identity provider").
const MAX_KEYS_PER_TYPE: usize = 100;

/// Members of a JWK that contain private key material (RFC 7518, 6.2.2, 6.3.2 and 6.4.1). Never published.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl ReadKeys {
    /// Parses a JWKS and keeps the keys that AWS STS verifies: RSA keys and EC keys on P-256, P-384 and P-521, each with a
    /// key id. Others (ML-DSA) are left out: STS may refuse a whole set because of one key that it cannot read.
    ///
    /// # Errors
    /// If it is malformed, no key is left, or there are more keys of a type than STS reads.
    pub fn from_jwks(body: &[u8]) -> Result<Self, OidcError> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<Jwk>,
        }
        /// Characters of a key id in a message.
        const SHOWN: usize = 64;
        let Jwks { keys } = serde_json::from_slice(body)
            .map_err(|e| OidcError::Malformed { document: "JWKS", reason: e.to_string() })?;
        let mut read = Self::default();
        for mut jwk in keys {
            jwk.retain(|member, _| !PRIVATE_MEMBERS.contains(&member.as_str()));
            let kid = jwk.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
            match defect(&jwk) {
                None => drop(read.keys.0.insert(kid, jwk)),
                Some(why) => {
                    let kid: String = kid.chars().take(SHOWN).collect();
                    read.left_out.push(format!("key {kid:?} is not published: {why}"));
                }
            }
        }
        read.checked()
    }

    /// The keys of a text: a JWKS, or public keys in PEM (`-----BEGIN PUBLIC KEY-----`), as the API server's
    /// `--service-account-key-file` has them.
    ///
    /// # Errors
    /// As [`Self::from_jwks`], and if a PEM block is no public key.
    pub fn from_text(text: &str) -> Result<Self, OidcError> {
        if !text.trim_start().starts_with("-----BEGIN") {
            return Self::from_jwks(text.as_bytes());
        }
        let keys = pem::public_keys(text)?;
        Self { keys: Keys(keys.collect()), left_out: Vec::new() }.checked()
    }

    fn checked(self) -> Result<Self, OidcError> {
        if self.keys.is_empty() {
            return Err(OidcError::NoUsableKey);
        }
        for kty in ["RSA", "EC"] {
            let count = self.keys.of_type(kty);
            if count > MAX_KEYS_PER_TYPE {
                return Err(OidcError::TooManyKeys { kty, count });
            }
        }
        Ok(self)
    }
}

impl Keys {
    /// The keys of a JWKS that AWS STS verifies.
    ///
    /// # Errors
    /// As [`ReadKeys::from_jwks`].
    pub fn parse(body: &[u8]) -> Result<Self, OidcError> {
        ReadKeys::from_jwks(body).map(|read| read.keys)
    }

    /// All key ids, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All keys with their ids, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Jwk)> {
        self.0.iter().map(|(kid, jwk)| (kid.as_str(), jwk))
    }

    /// The key of that id.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<&Jwk> {
        self.0.get(kid)
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a key; a key of the same id stays.
    pub fn insert(&mut self, kid: &str, jwk: Jwk) {
        if let Entry::Vacant(entry) = self.0.entry(kid.to_owned()) {
            entry.insert(jwk);
        }
    }

    /// Adds the keys of another set; of two with the same id the present one stays.
    pub fn extend(&mut self, others: &Self) {
        others.iter().for_each(|(kid, jwk)| self.insert(kid, jwk.clone()));
    }

    /// Whether the set has as many keys of that key's type as STS reads.
    #[must_use]
    pub fn is_full_for(&self, jwk: &Jwk) -> bool {
        let kty = jwk.get("kty").and_then(Value::as_str).unwrap_or_default();
        self.of_type(kty) >= MAX_KEYS_PER_TYPE
    }

    fn of_type(&self, kty: &str) -> usize {
        self.0.values().filter(|jwk| jwk.get("kty").is_some_and(|found| found == kty)).count()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const RSA: &str = r#"{"use":"sig","kty":"RSA","kid":"r","alg":"RS256","n":"AQAB","e":"AQAB"}"#;
    const EC: &str = r#"{"use":"sig","kty":"EC","kid":"e","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;

    fn read(list: &[&str]) -> Result<ReadKeys, OidcError> {
        ReadKeys::from_jwks(format!(r#"{{"keys":[{}]}}"#, list.join(",")).as_bytes())
    }

    #[test]
    fn keys_that_sts_cannot_read_are_left_out_and_named() {
        let too_long = RSA.replace(r#""r""#, &format!("{:?}", "k".repeat(256)));
        let too_large = RSA.replace("sig", &"s".repeat(8 * 1024));
        let type_ = "AWS STS does not verify keys of its type";
        let members = "its members n and e, or x and y, are not those of such a key in URL-safe base64";
        let ml_dsa = r#"{"kty":"AKP","kid":"m","alg":"ML-DSA-44","pub":"AA"}"#;
        for (jwk, named) in [
            (ml_dsa, format!("key \"m\" is not published: {type_}")),
            (
                r#"{"kty":"OKP","kid":"o","crv":"Ed25519","x":"AA"}"#,
                format!("key \"o\" is not published: {type_}"),
            ),
            (
                r#"{"kty":"RSA","kid":"p","alg":"PS256","n":"AQAB","e":"AQAB"}"#,
                format!("key \"p\" is not published: {type_}"),
            ),
            (
                r#"{"kty":"RSA","kid":"x","alg":"ES256","n":"AQAB","e":"AQAB"}"#,
                format!("key \"x\" is not published: {type_}"),
            ),
            (
                r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
                "key \"\" is not published: it has no key id (kid)".into(),
            ),
            (r#"{"kty":"RSA","kid":"w","e":"AQAB"}"#, format!("key \"w\" is not published: {members}")),
            (
                r#"{"kty":"RSA","kid":"b","n":"AQAB==","e":"AQAB"}"#,
                format!("key \"b\" is not published: {members}"),
            ),
            (
                r#"{"kty":"EC","kid":"s","crv":"P-256","x":"AA","y":"AA"}"#,
                format!("key \"s\" is not published: {members}"),
            ),
            (
                &too_long,
                format!(
                    "key {:?} is not published: its key id (kid) has more than 255 bytes",
                    "k".repeat(64)
                ),
            ),
            (&too_large, "key \"r\" is not published: it has more than 8 KiB".into()),
        ] {
            let other = RSA.replace(r#""r""#, r#""other""#);
            let ReadKeys { keys, left_out } = read(&[&other, EC, jwk]).unwrap();
            assert_eq!(keys.ids().collect::<Vec<_>>(), ["e", "other"], "{jwk}");
            assert_eq!(left_out, [named]);
        }
        assert_eq!(read(&[ml_dsa]), Err(OidcError::NoUsableKey));
        assert_eq!(read(&[]), Err(OidcError::NoUsableKey));
        let html = ReadKeys::from_jwks(b"<html>");
        assert!(matches!(html, Err(OidcError::Malformed { document: "JWKS", .. })));
    }

    #[test]
    fn more_keys_than_sts_reads_are_refused() {
        let many: Vec<String> = (0..101).map(|n| RSA.replace(r#""r""#, &format!(r#""{n}""#))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(read(&many), Err(OidcError::TooManyKeys { kty: "RSA", count: 101 }));
        assert!(read(&many[..100]).is_ok());
    }

    #[test]
    fn private_members_are_removed_and_unknown_ones_are_kept() {
        let private = EC.replace(r#""kty""#, r#""d":"SECRET","x5t":"kept","kty""#);
        let keys = read(&[&private]).unwrap().keys;
        assert_eq!(keys.get("e").unwrap().get("d"), None);
        assert_eq!(keys.get("e").unwrap()["x5t"], "kept");
    }
}
