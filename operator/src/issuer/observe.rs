//! All reads of an issuer's reconcile: the API server, AWS, and what is remembered of both.

use std::time::Instant;

use crds::names::{DEFAULT_ISSUER, provider_arn};
use crds::{OidcIssuerSpec, PodIdentityBinding};
use http::Request;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::aws::iam::Provider;
use crate::aws::s3::{Object, PublicAccess};
use crate::aws::{Aws, AwsError, Identity, Tags};
use crate::oidc::{Discovery, Keys, OidcError};

use super::decide::{Due, Step, Subject};

/// What one look at the world gave.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Who we are in AWS.
    pub identity: Result<Identity, AwsError>,
    /// What the API server issues and signs with.
    pub api: Result<ApiServer, ApiProblem>,
    /// What stands in AWS; an error, too, where the identity is not known.
    pub aws: Result<AwsState, AwsError>,
    /// Bindings (`namespace/name`) that use the issuer.
    pub dependents: Vec<String>,
}

impl Observed {
    /// The metric label of a read that failed, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<&'static str> {
        let aws =
            || self.identity.as_ref().err().or(self.aws.as_ref().err()).map(|error| error.class.label());
        self.api.as_ref().err().map(|_| "kubernetes").or_else(aws)
    }
}

/// The API server's issuer and publishable keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServer {
    /// The issuer under which it signs.
    pub issuer: String,
    /// Its keys.
    pub keys: Keys,
}

/// Why the API server's documents are not to be had; the words are for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiProblem(pub String);

/// What stands in AWS for an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsState {
    /// The bucket, if there is one of that name in our account.
    pub bucket: Option<Bucket>,
    /// The OIDC provider, if registered.
    pub provider: Option<Provider>,
}

/// A bucket as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Tags.
    pub tags: Tags,
    /// Whether ACLs are off.
    pub owner_enforced: bool,
    /// The public-access block.
    pub public_access: PublicAccess,
    /// The bucket policy.
    pub policy: Option<String>,
    /// The discovery document.
    pub discovery: Option<Object>,
    /// The JWKS.
    pub jwks: Option<Object>,
}

/// What is remembered of one issuer between reconciles, with its age. Lost with the process, and then read again.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Generation of the spec that the AWS reads were made for.
    pub generation: i64,
    /// The API server's documents and when they were read.
    pub api: Option<(Result<ApiServer, ApiProblem>, Instant)>,
    /// AWS and when it was read.
    pub aws: Option<(AwsState, Instant)>,
    /// When we last changed something in AWS.
    pub last_write: Option<Instant>,
    /// The last verification.
    pub verification: Option<Verification>,
    /// Since when there is definite evidence against the issuer.
    pub bad_since: Option<Instant>,
    /// What the last pass did.
    pub steps: Option<Vec<Step>>,
}

/// One look through the eyes of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// When.
    pub at: Instant,
    /// Digest of the documents it was made for.
    pub digest: String,
    /// Both documents read anonymously.
    pub public: Evidence,
    /// A token exchanged for credentials; `None` where that makes no sense yet.
    pub exchange: Option<Evidence>,
}

/// What a check showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// It works.
    Good,
    /// It does not, for certain.
    Bad(crds::Reason, String),
    /// It could not be told: time-outs, 5xx.
    Unclear(crds::Reason, String),
}

/// Reads what is due and takes the rest from memory.
pub async fn observe(
    client: &Client,
    aws: &Aws,
    subject: &Subject<'_>,
    memory: &mut Memory,
    due: Due,
) -> Result<Observed, kube::Error> {
    // Asked of the API server itself: a cache may still hold a binding whose end has woken us, or not yet hold one.
    let dependents = if subject.deleting { dependents(client, subject.name).await? } else { Vec::new() };
    if due.api || memory.api.is_none() {
        memory.api = Some((api_server(client).await, Instant::now()));
    }
    let api = memory.api.as_ref().map_or_else(|| Err(ApiProblem(String::new())), |(api, _)| api.clone());
    let identity = aws.identity().await.cloned();
    let state = match (&identity, &memory.aws) {
        (Err(error), _) => Err(error.clone()),
        (Ok(_), Some((state, _))) if !due.aws => Ok(state.clone()),
        (Ok(identity), _) => {
            let state = aws_state(aws, identity, subject.spec).await;
            memory.aws = state.as_ref().ok().map(|state| (state.clone(), Instant::now()));
            state
        }
    };
    Ok(Observed { identity, api, aws: state, dependents })
}

/// Bindings (`namespace/name`) that use an issuer.
async fn dependents(client: &Client, issuer: &str) -> Result<Vec<String>, kube::Error> {
    if issuer != DEFAULT_ISSUER {
        return Ok(Vec::new());
    }
    let bindings: Api<PodIdentityBinding> = Api::all(client.clone());
    let all = bindings.list_metadata(&ListParams::default()).await?;
    let mut names: Vec<String> =
        all.iter().map(|b| format!("{}/{}", b.namespace().unwrap_or_default(), b.name_any())).collect();
    names.sort_unstable();
    Ok(names)
}

/// The issuer and keys that the API server's service address shows.
pub async fn api_server(client: &Client) -> Result<ApiServer, ApiProblem> {
    let get = |path: &'static str| async move {
        let request = Request::get(path).body(Vec::new()).map_err(|e| ApiProblem(e.to_string()))?;
        client.request_text(request).await.map_err(|error| {
            let why = match &error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            };
            ApiProblem(format!("the API server does not answer {path}: {why}"))
        })
    };
    let broken = |e: OidcError| ApiProblem(e.to_string());
    let discovery = get("/.well-known/openid-configuration").await?;
    let jwks = get("/openid/v1/jwks").await?;
    Ok(ApiServer {
        issuer: Discovery::parse(discovery.as_bytes()).map_err(broken)?.issuer,
        keys: Keys::parse(jwks.as_bytes()).map_err(broken)?,
    })
}

/// Bucket and provider as they stand.
pub async fn aws_state(aws: &Aws, identity: &Identity, spec: &OidcIssuerSpec) -> Result<AwsState, AwsError> {
    let name = &spec.s3.bucket;
    let s3 = aws.s3(&spec.s3.region, &identity.account);
    let (discovery_key, jwks_key) = (spec.discovery_key(), spec.jwks_key());
    let arn = provider_arn(spec.partition().id, &identity.account, &spec.issuer_url());
    let (tags, provider) = tokio::try_join!(s3.tags(name), aws.iam.provider(&arn))?;
    let Some(tags) = tags else { return Ok(AwsState { bucket: None, provider }) };
    let (owner_enforced, public_access, policy, discovery, jwks) = tokio::try_join!(
        s3.owner_enforced(name),
        s3.public_access(name),
        s3.policy(name),
        s3.object(name, &discovery_key),
        s3.object(name, &jwks_key),
    )?;
    let bucket = Bucket { tags, owner_enforced, public_access, policy, discovery, jwks };
    Ok(AwsState { bucket: Some(bucket), provider })
}
