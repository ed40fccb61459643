//! The probes that show whether what was published works: anonymous reads, and the exchange of a real token.

use crds::names::OPERATOR_SERVICE_ACCOUNT;
use crds::{Finding, OidcIssuerSpec, Reason};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};

use super::fence;
use super::model::{Evidence, Fence};
use super::publication::target::Target;
use crate::aws::accounts::Account;
use crate::aws::error::{AwsError, Class};
use crate::aws::public::{Answer, PublicReader};
use crate::oidc::Documents;

/// Reads both documents without credentials and compares every byte.
pub async fn read_public(spec: &OidcIssuerSpec, documents: &Documents, public: &PublicReader) -> Evidence {
    let (discovery, jwks) = (spec.discovery_uri(), spec.jwks_uri());
    let answers = tokio::join!(public.get(&discovery), public.get(&jwks));
    match judge(&discovery, answers.0, &documents.discovery) {
        Evidence::Good => judge(&jwks, answers.1, &documents.jwks),
        other => other,
    }
}

fn judge(url: &str, answer: Answer, wanted: &[u8]) -> Evidence {
    let finding = |message: String| Finding::new(Reason::NotPublic, message);
    match answer {
        Ok((200, body)) if body == wanted => Evidence::Good,
        Ok((200, _)) => Evidence::Bad(finding(format!(
            "{url} answers with other bytes than were published: look for a cache or another writer"
        ))),
        Ok((status @ (403 | 404), _)) => Evidence::Bad(finding(format!(
            "{url} answers {status} to anonymous readers: turn off S3 Block Public Access for the account, if it is on"
        ))),
        Ok((status, _)) => Evidence::Unclear(finding(format!("{url} answers {status}"))),
        Err(why) => Evidence::Unclear(finding(format!("{url} cannot be read: {why}"))),
    }
}

/// Exchanges a token of the operator's own `ServiceAccount` for credentials of its own role, and, if that works, tries the
/// bucket's policy with it.
pub async fn exchange(
    spec: &OidcIssuerSpec,
    target: &Target,
    account: &Account,
    client: &Client,
    namespace: &str,
) -> (Option<Evidence>, Option<Fence>) {
    let token = match own_token(spec.audience(), client, namespace).await {
        Ok(token) => token,
        Err(error) => {
            let why = match &error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            };
            let message = format!(
                "no token of ServiceAccount {namespace}/{OPERATOR_SERVICE_ACCOUNT} could be requested: {why}. Check the chart's Role"
            );
            return (Some(Evidence::Unclear(Finding::new(Reason::TokenRequestFailed, message))), None);
        }
    };
    let role = &target.operator_role_arn;
    let exchanged = match account.sts.verify_exchange(role, &token).await {
        Ok(()) => Evidence::Good,
        Err(error) if matches!(error.class, Class::Transient | Class::Throttled) => {
            Evidence::Unclear(error.finding())
        }
        Err(error) => Evidence::Bad(Finding::new(Reason::TokenExchangeFailed, advice(&error, role))),
    };
    let fence = match exchanged {
        Evidence::Good => Some(fence::try_write(account, target, &token).await),
        Evidence::Bad(_) | Evidence::Unclear(_) => None,
    };
    (Some(exchanged), fence)
}

/// AWS's words with what to do about them (aws-sdk errors of `AssumeRoleWithWebIdentity`).
fn advice(error: &AwsError, role: &str) -> String {
    let what = match (error.code.as_str(), error.message.as_str()) {
        ("AccessDenied", _) => format!(
            "the trust policy of {role} does not admit the operator, or the role is missing: run `operator bootstrap` again"
        ),
        (_, m) if m.contains("No OpenIDConnect provider") => {
            "STS does not know the provider: see condition ProviderRegistered".into()
        }
        (_, m) if m.contains("verification key") => {
            "STS cannot read the documents or finds no key for the token: see condition PubliclyReachable"
                .into()
        }
        (_, m) if m.contains("audience") => {
            "the provider does not have this audience yet: see condition ProviderRegistered".into()
        }
        ("ExpiredTokenException", _) => "check the clocks of the control plane".into(),
        _ => "see docs/reasons.md".into(),
    };
    format!("AWS STS refused this cluster's token ({}: {}): {what}", error.code, error.message)
}

async fn own_token(audience: &str, client: &Client, namespace: &str) -> Result<String, kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let token =
        accounts.create_token_request(OPERATOR_SERVICE_ACCOUNT, &PostParams::default(), &request).await?;
    Ok(token.status.map(|status| status.token).unwrap_or_default())
}
