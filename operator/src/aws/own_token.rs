//! The operator's own token for AWS, as its pod has it. It may be of another issuer than the API server has now, for as long as
//! it is valid.

use crate::oidc::token::Claims;

/// The issuer of the token in `AWS_WEB_IDENTITY_TOKEN_FILE`; `None` where there is no such file.
pub async fn issuer() -> Option<String> {
    let file = std::env::var_os("AWS_WEB_IDENTITY_TOKEN_FILE")?;
    Some(Claims::of(&tokio::fs::read_to_string(file).await.ok()?)?.issuer)
}
