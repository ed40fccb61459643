//! The parts of a web identity token, and the claims that STS requires.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{GRACE, invalid};
use crate::wire::ApiError;

/// The claims that STS reads.
pub(super) struct Claims {
    pub issuer: String,
    pub subject: String,
    pub audience: String,
    pub issued_at: i64,
    pub expires: i64,
    pub all: Value,
}

/// Header and claims, unverified.
pub(super) fn parts(token: &str) -> Result<(Value, Value), ApiError> {
    let no_jwt = || {
        invalid(
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)",
        )
    };
    let json = |part: &str| -> Option<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok().filter(Value::is_object)
    };
    let mut split = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (split.next(), split.next(), split.next(), split.next())
    else {
        return Err(no_jwt());
    };
    Ok((json(header).ok_or_else(no_jwt)?, json(claims).ok_or_else(no_jwt)?))
}

pub(super) fn required_claims(claims: Value, issuer: String, now: i64) -> Result<Claims, ApiError> {
    let missing = |name: &str| invalid(format!("Missing a required claim: {name}"));
    let time = |name: &str| claims[name].as_i64().ok_or_else(|| missing(name));
    let subject = claims["sub"].as_str().filter(|s| !s.is_empty()).ok_or_else(|| missing("sub"))?.to_owned();
    let (expires, issued_at) = (time("exp")?, time("iat")?);
    let early = |at: i64| at > now + GRACE;
    if early(issued_at) || claims["nbf"].as_i64().is_some_and(early) {
        return Err(invalid("The web identity token provided could not be validated: it is not valid yet"));
    }
    let audiences: Vec<&str> = match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let audience = match (claims["azp"].as_str(), audiences.as_slice()) {
        (_, []) => return Err(missing("aud")),
        (Some(azp), _) => azp.to_owned(),
        (None, [one]) => (*one).to_owned(),
        (None, _) => {
            return Err(invalid(
                "Token audience contains more than one audience while authorized party is not present",
            ));
        }
    };
    Ok(Claims { issuer, subject, audience, issued_at, expires, all: claims })
}
