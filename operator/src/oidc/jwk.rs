//! PURE: one public key.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// One public key: a JWK without private members.
pub type Jwk = Map<String, Value>;

/// The signing algorithm of a key, `None` where STS does not support it (parameter `WebIdentityToken` of
/// `AssumeRoleWithWebIdentity`).
#[must_use]
pub fn algorithm(jwk: &Jwk) -> Option<&str> {
    let possible: &[&str] = match (jwk.get("kty")?.as_str()?, jwk.get("crv").and_then(Value::as_str)) {
        ("RSA", _) => &["RS256", "RS384", "RS512"],
        ("EC", Some("P-256")) => &["ES256"],
        ("EC", Some("P-384")) => &["ES384"],
        ("EC", Some("P-521")) => &["ES512"],
        _ => return None,
    };
    let stated = jwk.get("alg").and_then(Value::as_str).unwrap_or(possible[0]);
    possible.contains(&stated).then_some(stated)
}

/// Why a key cannot be published; `None` where it can. One key that STS cannot read may make it refuse the whole set.
#[must_use]
pub fn defect(jwk: &Jwk) -> Option<&'static str> {
    /// Bytes of a key id: Kubernetes' own have 43.
    const KID: usize = 255;
    /// Bytes of a key: one of 8,192 bits has less than 2,000.
    const SIZE: usize = 8 * 1024;
    let text = |member: &str| jwk.get(member).and_then(Value::as_str).unwrap_or_default();
    let length = |member: &str| URL_SAFE_NO_PAD.decode(text(member)).map_or(0, |bytes| bytes.len());
    // RFC 7518, 6.2.1.2: a coordinate has the full size of the curve.
    let coordinate = match text("crv") {
        "P-256" => 32,
        "P-384" => 48,
        _ => 66,
    };
    let is_sound = match text("kty") {
        "RSA" => length("n") > 0 && length("e") > 0,
        _ => length("x") == coordinate && length("y") == coordinate,
    };
    let defects = [
        (text("kid").is_empty(), "it has no key id (kid)"),
        (text("kid").len() > KID, "its key id (kid) has more than 255 bytes"),
        (algorithm(jwk).is_none(), "AWS STS does not verify keys of its type"),
        (!is_sound, "its members n and e, or x and y, are not those of such a key in URL-safe base64"),
        (serde_json::to_vec(jwk).map_or(0, |bytes| bytes.len()) > SIZE, "it has more than 8 KiB"),
    ];
    defects.into_iter().find(|(is, _)| *is).map(|(_, why)| why)
}

/// The key's thumbprint (RFC 7638: SHA-256 over its required members), in URL-safe base64 of 43 characters. `None` where a
/// required member is missing.
#[must_use]
pub fn thumbprint(jwk: &Jwk) -> Option<String> {
    let members: &[&str] = match jwk.get("kty")?.as_str()? {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        _ => return None,
    };
    let text = |member: &&'static str| Some((*member, jwk.get(*member)?.as_str()?));
    let required: BTreeMap<&str, &str> = members.iter().map(text).collect::<Option<_>>()?;
    let canonical = serde_json::to_vec(&required).ok()?;
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        // The example of RFC 7638, section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
                 tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvR\
                 L5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKn\
                 qDKgw";
        let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
        let expected = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        assert_eq!(thumbprint(jwk.as_object().unwrap()).as_deref(), Some(expected));
        assert_eq!(thumbprint(json!({"kty": "RSA", "e": "AQAB"}).as_object().unwrap()), None);
    }
}
