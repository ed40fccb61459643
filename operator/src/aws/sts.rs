//! AWS STS: the identity of our credentials, and the exchange of a token of this cluster for credentials.

use aws_config::SdkConfig;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;

use super::call::Calls;
use super::error::AwsError;
use super::model::Identity;

/// STS in the configured region.
#[derive(Clone)]
pub struct Sts {
    client: Client,
    calls: Calls,
}

/// The shortest session STS gives.
const SESSION_SECONDS: i32 = 900;
/// What the verification's credentials may do: nothing.
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
        let answer = self.client.get_caller_identity().send().await;
        let answer = self.calls.ended(OPERATION, "the operator's credentials", answer)?;
        Ok(Identity {
            account: answer.account().unwrap_or_default().to_owned(),
            arn: answer.arn().unwrap_or_default().to_owned(),
        })
    }

    /// Exchanges a token for credentials that are thrown away: 900 s, under a session policy that denies everything.
    pub async fn verify_exchange(&self, role_arn: &str, token: &str) -> Result<(), AwsError> {
        const OPERATION: &str = "sts:AssumeRoleWithWebIdentity";
        let answer = self
            .client
            .assume_role_with_web_identity()
            .role_arn(role_arn)
            .role_session_name("podidentity-verification")
            .web_identity_token(token)
            .duration_seconds(SESSION_SECONDS)
            .policy(DENY_EVERYTHING)
            .send()
            .await;
        self.calls.ended(OPERATION, role_arn, answer).map(|_| ())
    }
}
