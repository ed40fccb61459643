//! The operator's own token for AWS, as its pod has it. It may be of another issuer than the API server has now, for as long as
//! it is valid.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// The `iss` of the token in `AWS_WEB_IDENTITY_TOKEN_FILE`; `None` where there is no such file.
pub async fn issuer() -> Option<String> {
    let file = std::env::var_os("AWS_WEB_IDENTITY_TOKEN_FILE")?;
    issuer_of(&tokio::fs::read_to_string(file).await.ok()?)
}

fn issuer_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some(serde_json::from_slice::<Claims>(&claims).ok()?.iss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_is_the_claim_iss_of_the_payload() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"iss":"https://a.example.com","sub":"x"}"#);
        assert_eq!(issuer_of(&format!("e30.{payload}.sig")).as_deref(), Some("https://a.example.com"));
        for broken in ["", "a.b.c", &format!("e30.{}.sig", URL_SAFE_NO_PAD.encode("{}"))] {
            assert_eq!(issuer_of(broken), None, "{broken}");
        }
    }
}
