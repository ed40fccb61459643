//! AWS STS: the identity of our credentials, and the exchange of a token of the cluster for credentials.

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;

use super::call::{Calls, TOKEN_EXCHANGE};
use super::error::AwsError;
use super::model::Identity;

/// STS in the configured region.
#[derive(Clone)]
pub struct Sts {
    client: Client,
    calls: Calls,
}

/// The shortest session that STS supports.
const SESSION_SECONDS: i32 = 900;
/// Session policy of the verification: its credentials have no rights.
const DENY_EVERYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}"#;

impl Sts {
    pub(super) fn new(config: &SdkConfig, calls: Calls) -> Self {
        let config = Builder::from(config).interceptor(calls.clone()).build();
        Self { client: Client::from_conf(config), calls }
    }

    /// Account and ARN of the operator's credentials.
    pub async fn caller_identity(&self) -> Result<Identity, AwsError> {
        const OPERATION: &str = "sts:GetCallerIdentity";
        self.calls.permit(OPERATION).await;
        let response = self.client.get_caller_identity().send().await;
        let response = self.calls.record(OPERATION, "the operator's credentials", response)?;
        Ok(Identity {
            account: response.account().unwrap_or_default().to_owned(),
            arn: response.arn().unwrap_or_default().to_owned(),
        })
    }

    /// Exchanges a token for a session of a role, as a pod does: 900 s, without a session policy.
    pub async fn session(&self, role_arn: &str, token: &str) -> Result<Credentials, AwsError> {
        self.calls.permit(TOKEN_EXCHANGE).await;
        let response = self
            .client
            .assume_role_with_web_identity()
            .role_arn(role_arn)
            .role_session_name("podidentity-canary")
            .web_identity_token(token)
            .duration_seconds(SESSION_SECONDS)
            .send()
            .await;
        let response = self.calls.record(TOKEN_EXCHANGE, role_arn, response)?;
        let keys = response.credentials.as_ref();
        let (key, secret) = keys.map_or(("", ""), |keys| (keys.access_key_id(), keys.secret_access_key()));
        let session = keys.map(|keys| keys.session_token().to_owned());
        Ok(Credentials::new(key, secret, session, None, "canary"))
    }

    /// Exchanges a token for credentials and drops them. They are valid for 900 s, under a session policy that denies everything.
    pub async fn verify_exchange(&self, role_arn: &str, token: &str) -> Result<(), AwsError> {
        self.calls.permit(TOKEN_EXCHANGE).await;
        let response = self
            .client
            .assume_role_with_web_identity()
            .role_arn(role_arn)
            .role_session_name("podidentity-verification")
            .web_identity_token(token)
            .duration_seconds(SESSION_SECONDS)
            .policy(DENY_EVERYTHING)
            .send()
            .await;
        self.calls.record(TOKEN_EXCHANGE, role_arn, response).map(|_| ())
    }
}
