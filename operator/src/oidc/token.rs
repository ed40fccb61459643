//! PURE: the claims of a token of a `ServiceAccount`, read without its signature: only of tokens that were just issued to us.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// What is read of a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// The issuer.
    #[serde(rename = "iss")]
    pub issuer: String,
    /// The audiences.
    #[serde(rename = "aud", deserialize_with = "one_or_several")]
    pub audiences: Vec<String>,
}

impl Claims {
    /// The claims of a token; `None` where it is not a JWT with these claims.
    #[must_use]
    pub fn of(token: &str) -> Option<Self> {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        serde_json::from_slice(&claims).ok()
    }
}

/// RFC 7519, 4.1.3: a list, or one string.
fn one_or_several<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Several(several) => several,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_those_of_the_payload() {
        let token = |payload: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload));
        let read =
            |payload: &str| Claims::of(&token(payload)).map(|claims| (claims.issuer, claims.audiences));
        let issuer = || "https://a.example.com".to_owned();
        assert_eq!(
            read(r#"{"iss":"https://a.example.com","aud":["x","y"],"sub":"z"}"#),
            Some((issuer(), vec!["x".into(), "y".into()]))
        );
        assert_eq!(read(r#"{"iss":"https://a.example.com","aud":"x"}"#), Some((issuer(), vec!["x".into()])));
        assert_eq!((read("{}"), Claims::of(""), Claims::of("a.b.c")), (None, None, None));
    }
}
