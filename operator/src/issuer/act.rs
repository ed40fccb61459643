//! The only place of the issuer's reconcile that changes the world or asks STS: one step, one remote call.

use std::time::Instant;

use crds::names::{OPERATOR_SERVICE_ACCOUNT, operator_role_arn};
use crds::{OidcIssuer, OidcIssuerSpec, Reason};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use thiserror::Error;

use crate::aws::error::{Class, tolerate};
use crate::aws::{Answer, Aws, AwsError, Identity};
use crate::finalizer;
use crate::oidc::Documents;

use super::decide::Step;
use super::observe::{Evidence, Verification};
use super::publication::{Target, Write};

/// Why a step failed.
#[derive(Debug, Error)]
pub enum ActError {
    /// AWS.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The API server.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

/// What a step left behind.
#[derive(Debug)]
pub enum Done {
    /// The object's finalizer was changed.
    Finalizer,
    /// Something in AWS was changed: its attribute.
    Wrote(&'static str),
    /// Something was seen.
    Verified(Verification),
}

/// Where a verification's token comes from.
#[derive(Clone)]
pub struct Verifier {
    /// The client that may make tokens of the operator's `ServiceAccount`.
    pub client: kube::Client,
    /// The operator's namespace.
    pub namespace: String,
}

/// Carries out one step.
pub async fn step(
    step: &Step,
    object: &OidcIssuer,
    aws: &Aws,
    identity: Option<&Identity>,
    verifier: &Verifier,
) -> Result<Done, ActError> {
    let api: Api<OidcIssuer> = Api::all(verifier.client.clone());
    match (step, identity) {
        (Step::AddFinalizer, _) => Ok(finalizer::add(&api, object).await.map(|()| Done::Finalizer)?),
        (Step::RemoveFinalizer, _) => Ok(finalizer::remove(&api, object).await.map(|()| Done::Finalizer)?),
        (Step::Write(change), Some(identity)) => {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let target = Target::new(name, &object.spec, &identity.account);
            write(change, &target, &object.spec, aws, identity).await?;
            Ok(Done::Wrote(change.attribute()))
        }
        (Step::Verify { documents, exchange }, Some(identity)) => {
            let spec = &object.spec;
            let public = read_public(spec, documents, aws).await;
            let exchange =
                if *exchange { Some(exchange_token(spec, aws, identity, verifier).await) } else { None };
            let verification =
                Verification { at: Instant::now(), digest: documents.digest(), public, exchange };
            Ok(Done::Verified(verification))
        }
        // decide() plans these only once the identity is known.
        (Step::Write(_) | Step::Verify { .. }, None) => Ok(Done::Finalizer),
    }
}

/// Carries out one write.
pub async fn write(
    write: &Write,
    target: &Target,
    spec: &OidcIssuerSpec,
    aws: &Aws,
    identity: &Identity,
) -> Result<(), AwsError> {
    let s3 = aws.s3(&spec.s3.region, &identity.account);
    let (bucket, [discovery, jwks]) = (&target.bucket, &target.keys);
    match write {
        // Ours already: a crash or a second administrator. Its tags are read before anything else is done.
        Write::CreateBucket => tolerate(Class::AlreadyExists, s3.create(bucket, &target.tags).await),
        Write::EnforceOwner => s3.enforce_owner(bucket).await,
        Write::PutFence(policy) | Write::PutPolicy(policy) => {
            s3.put_policy(bucket, &policy.to_string()).await
        }
        Write::OpenPublicAccess(access) => s3.put_public_access(bucket, *access).await,
        Write::PutJwks(body, over) => s3.put_object(bucket, jwks, body, over.as_deref()).await,
        Write::PutDiscovery(body, over) => s3.put_object(bucket, discovery, body, over.as_deref()).await,
        Write::CreateProvider => {
            let created = aws.iam.create_provider(&target.issuer_url, &target.audiences, &target.tags).await;
            tolerate(Class::AlreadyExists, created)
        }
        Write::AddAudience(audience) => aws.iam.add_audience(&target.provider_arn, audience).await,
        Write::RemoveAudience(audience) => aws.iam.remove_audience(&target.provider_arn, audience).await,
    }
}

/// Reads both documents as a stranger and compares every byte.
pub async fn read_public(spec: &OidcIssuerSpec, documents: &Documents, aws: &Aws) -> Evidence {
    let (discovery, jwks) = (spec.discovery_uri(), spec.jwks_uri());
    let answers = tokio::join!(aws.public.get(&discovery), aws.public.get(&jwks));
    match judge(&discovery, answers.0, &documents.discovery) {
        Evidence::Good => judge(&jwks, answers.1, &documents.jwks),
        other => other,
    }
}

fn judge(url: &str, answer: Answer, wanted: &[u8]) -> Evidence {
    match answer {
        Ok((200, body)) if body == wanted => Evidence::Good,
        Ok((200, _)) => Evidence::Bad(
            Reason::NotPublic,
            format!("{url} answers with other bytes than were published: look for a cache or another writer"),
        ),
        Ok((status @ (403 | 404), _)) => Evidence::Bad(
            Reason::NotPublic,
            format!("{url} answers {status} to strangers: is public access blocked for the account?"),
        ),
        Ok((status, _)) => Evidence::Unclear(Reason::NotPublic, format!("{url} answers {status}")),
        Err(why) => Evidence::Unclear(Reason::NotPublic, format!("{url} cannot be read: {why}")),
    }
}

/// Exchanges a token of the operator's own `ServiceAccount` for credentials of its own role.
async fn exchange_token(
    spec: &OidcIssuerSpec,
    aws: &Aws,
    identity: &Identity,
    verifier: &Verifier,
) -> Evidence {
    let token = match own_token(spec.audience(), verifier).await {
        Ok(token) => token,
        Err(error) => {
            let why = match &error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            };
            let message = format!(
                "no token of ServiceAccount {}/{OPERATOR_SERVICE_ACCOUNT} to try the exchange with: {why}",
                verifier.namespace
            );
            return Evidence::Unclear(Reason::TokenRequestFailed, message);
        }
    };
    let role = operator_role_arn(spec.partition().id, &identity.account, &spec.cluster_name);
    match aws.sts.verify_exchange(&role, &token).await {
        Ok(()) => Evidence::Good,
        Err(error) if matches!(error.class, Class::Transient | Class::Throttled) => {
            Evidence::Unclear(error.class.reason(), error.for_user())
        }
        Err(error) => Evidence::Bad(Reason::TokenExchangeFailed, advice(&error, &role)),
    }
}

/// AWS's words with what to do about them (aws-sdk errors of `AssumeRoleWithWebIdentity`).
fn advice(error: &AwsError, role: &str) -> String {
    let what = match (error.code.as_str(), error.message.as_str()) {
        ("AccessDenied", _) => format!(
            "the trust policy of {role} does not admit the operator, or the role is missing: run `operator bootstrap` again"
        ),
        (_, m) if m.contains("No OpenIDConnect provider") => "the provider is not known to STS".into(),
        (_, m) if m.contains("verification key") => {
            "STS cannot read the documents or finds no key for the token: see condition PubliclyReachable"
                .into()
        }
        (_, m) if m.contains("audience") => "add the audience to spec.audiences".into(),
        ("ExpiredTokenException", _) => "are the clocks of this cluster right?".into(),
        _ => "see docs/reasons.md".into(),
    };
    format!("AWS STS refused this cluster's token ({}: {}): {what}", error.code, error.message)
}

async fn own_token(audience: &str, verifier: &Verifier) -> Result<String, kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(verifier.client.clone(), &verifier.namespace);
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
