//! The probes that show whether what was published works: anonymous reads, and the exchange of a real token.

use crds::names::OPERATOR_SERVICE_ACCOUNT;
use crds::{Finding, OidcIssuerSpec, Reason};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};

use super::fence;
use super::model::{Evidence, Expected, Fence};
use super::publication::target::Target;
use crate::aws::accounts::Account;
use crate::aws::error::{AwsError, Class};
use crate::aws::public::{Answer, PublicReader};
use crate::oidc::token::Claims;
use crate::oidc::{Documents, Keys};

/// Reads both documents without credentials. Our own are compared byte for byte; in those of somebody else, issuer and keys.
pub async fn read_public(spec: &OidcIssuerSpec, expected: &Expected, public: &PublicReader) -> Evidence {
    match expected {
        Expected::Published(documents) => read_own(spec, documents, public).await,
        Expected::Elsewhere(keys) => match read_elsewhere(spec, keys, public).await {
            Ok(()) => Evidence::Good,
            Err(evidence) => evidence,
        },
    }
}

async fn read_own(spec: &OidcIssuerSpec, documents: &Documents, public: &PublicReader) -> Evidence {
    let (discovery, jwks) = (spec.discovery_uri(), spec.jwks_uri());
    let answers = tokio::join!(public.get(&discovery), public.get(&jwks));
    match judge(spec, &discovery, answers.0, &documents.discovery) {
        Evidence::Good => judge(spec, &jwks, answers.1, &documents.jwks),
        other => other,
    }
}

fn not_public(message: String) -> Finding {
    Finding::new(Reason::NotPublic, message)
}

fn judge(spec: &OidcIssuerSpec, url: &str, answer: Answer, wanted: &[u8]) -> Evidence {
    match body(spec, url, answer) {
        Ok(body) if body == wanted => Evidence::Good,
        Ok(_) => Evidence::Bad(not_public(format!(
            "{url} answers with other bytes than were published: look for a cache or another writer"
        ))),
        Err(evidence) => evidence,
    }
}

/// Who can make a document readable.
fn remedy(spec: &OidcIssuerSpec) -> &'static str {
    if spec.managed_bucket().is_some() {
        "turn off S3 Block Public Access for the account, if it is on; with spec.issuerURL, see what is in front of the bucket"
    } else {
        "whoever publishes it has to make it readable without credentials"
    }
}

fn body(spec: &OidcIssuerSpec, url: &str, answer: Answer) -> Result<Vec<u8>, Evidence> {
    Err(match answer {
        Ok((200, body)) => return Ok(body),
        Ok((status @ (403 | 404), _)) => Evidence::Bad(not_public(format!(
            "{url} answers {status} to anonymous readers: {}",
            remedy(spec)
        ))),
        Ok((status, _)) => Evidence::Unclear(not_public(format!("{url} answers {status}"))),
        Err(why) => Evidence::Unclear(not_public(format!("{url} cannot be read: {why}"))),
    })
}

/// Whether documents of somebody else name this issuer and have these keys.
async fn read_elsewhere(spec: &OidcIssuerSpec, keys: &Keys, public: &PublicReader) -> Result<(), Evidence> {
    #[derive(serde::Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let bad = |message: String| Evidence::Bad(not_public(message));
    let url = spec.discovery_uri();
    let text = body(spec, &url, public.get(&url).await)?;
    let document: Document = serde_json::from_slice(&text)
        .map_err(|error| bad(format!("{url} is not a discovery document: {error}")))?;
    if document.issuer != spec.issuer_url() {
        return Err(bad(format!(
            "{url} is the document of issuer {}, not of spec.issuerURL {}: AWS compares them byte for byte",
            document.issuer,
            spec.issuer_url()
        )));
    }
    let jwks = body(spec, &document.jwks_uri, public.get(&document.jwks_uri).await)?;
    let found = Keys::parse(&jwks).map_err(|error| bad(format!("{}: {error}", document.jwks_uri)))?;
    let missing: Vec<&str> = keys.ids().filter(|kid| found.get(kid).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(bad(format!(
        "{} does not have these keys of the API servers: {}. Whoever publishes it has to add them",
        document.jwks_uri,
        missing.join(", ")
    )))
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
    let token = match request_own_token(spec.audience(), client, namespace).await {
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
        _ => format!("see {}", Reason::TokenExchangeFailed.url()),
    };
    format!("AWS STS refused this cluster's token ({}: {}): {what}", error.code, error.message)
}

/// The API server's own audiences (`--api-audiences`): those of a token that is requested without one. Empty where no token can
/// be requested.
pub async fn api_audiences(client: &Client, namespace: &str) -> Vec<String> {
    let token = request_token(&[], client, namespace).await.ok();
    token.and_then(|token| Claims::of(&token)).map_or_else(Vec::new, |claims| claims.audiences)
}

async fn request_own_token(audience: &str, client: &Client, namespace: &str) -> Result<String, kube::Error> {
    request_token(&[audience], client, namespace).await
}

async fn request_token(audiences: &[&str], client: &Client, namespace: &str) -> Result<String, kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let token =
        accounts.create_token_request(OPERATOR_SERVICE_ACCOUNT, &PostParams::default(), &request).await?;
    Ok(token.status.map(|status| status.token).unwrap_or_default())
}
