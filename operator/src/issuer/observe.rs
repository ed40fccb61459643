//! All reads of an issuer's pass: the API server and AWS.

use crds::{Finding, PodIdentityBinding, Reason};
use http::Request;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};

use super::decide::due;
use super::model::{ApiServer, AwsState, Memory, Observed, View};
use super::publication::target::Target;
use crate::aws::accounts::Account;
use crate::aws::error::AwsError;
use crate::aws::model::Bucket;
use crate::clock::Clock;
use crate::oidc::{Discovery, Keys, OidcError};
use crate::timings::Timings;

/// Bindings listed at once.
const PAGE: u32 = 500;

/// Makes the reads that are due, and takes the rest from memory.
pub async fn observe(
    client: &Client,
    account: &Account,
    view: &View,
    memory: &mut Memory,
    clock: &Clock,
    timings: &Timings,
) -> Result<Observed, kube::Error> {
    if let Ok(target) = &view.target
        && memory.provider_arn.as_ref() != Some(&target.provider_arn)
    {
        memory.provider_arn = Some(target.provider_arn.clone());
        memory.aws = None;
    }
    let due = due(memory, memory.is_for(view.spec()), clock, timings);
    // Asked of the API server itself: a store may still hold a binding whose end has woken us, or not yet hold one.
    let dependents =
        if view.object.deleting { dependents(client, &view.object.name).await? } else { Vec::new() };
    let api = match &memory.api {
        Some((api, _)) if !due.api => api.clone(),
        _ => {
            let api = api_server(client).await;
            memory.api = Some((api.clone(), clock.instant));
            api
        }
    };
    let aws = match (&view.target, &memory.aws) {
        (Err(error), _) => Err(error.clone()),
        (Ok(_), Some((state, _))) if !due.aws => Ok(state.clone()),
        (Ok(target), _) => {
            let state = aws_state(account, target).await;
            memory.aws = state.as_ref().ok().map(|state| (state.clone(), clock.instant));
            state
        }
    };
    Ok(Observed { api, aws, dependents })
}

/// Bindings (`namespace/name`) that use an issuer. One that cannot be read may use it.
async fn dependents(client: &Client, issuer: &str) -> Result<Vec<String>, kube::Error> {
    let bindings: Api<DeserializeGuard<PodIdentityBinding>> = Api::all(client.clone());
    let mut names = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let parameters = ListParams { continue_token: next, ..ListParams::default().limit(PAGE) };
        let page = bindings.list(&parameters).await?;
        let uses = |binding: &&DeserializeGuard<PodIdentityBinding>| {
            binding.0.as_ref().is_ok_and(|binding| binding.spec.issuer_name() == issuer) || binding.0.is_err()
        };
        names.extend(
            page.iter()
                .filter(uses)
                .map(|b| format!("{}/{}", b.namespace().unwrap_or_default(), b.name_any())),
        );
        next = page.metadata.continue_.filter(|token| !token.is_empty());
        if next.is_none() {
            names.sort_unstable();
            return Ok(names);
        }
    }
}

/// The issuer and keys that the API server's service address shows.
pub async fn api_server(client: &Client) -> Result<ApiServer, Finding> {
    let unreachable = |message: String| Finding::new(Reason::APIServerUnreachable, message);
    let get = |path: &'static str| async move {
        let request = Request::get(path).body(Vec::new()).map_err(|e| unreachable(e.to_string()))?;
        client.request_text(request).await.map_err(|error| {
            let why = match &error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            };
            unreachable(format!("the API server does not answer {path}: {why}"))
        })
    };
    let broken = |e: OidcError| unreachable(e.to_string());
    let discovery = get("/.well-known/openid-configuration").await?;
    let jwks = get("/openid/v1/jwks").await?;
    Ok(ApiServer {
        issuer: Discovery::parse(discovery.as_bytes()).map_err(broken)?.issuer,
        keys: Keys::parse(jwks.as_bytes()).map_err(broken)?,
    })
}

/// Bucket and provider as they are.
pub async fn aws_state(account: &Account, target: &Target) -> Result<AwsState, AwsError> {
    let s3 = account.s3(&target.bucket);
    let (tags, provider) = tokio::try_join!(s3.tags(), account.iam.provider(&target.provider_arn))?;
    let Some(tags) = tags else { return Ok(AwsState { bucket: None, provider }) };
    let (owner_enforced, public_access, policy, discovery, jwks) = tokio::try_join!(
        s3.owner_enforced(),
        s3.public_access(),
        s3.policy(),
        s3.object(&target.discovery_key),
        s3.object(&target.jwks_key),
    )?;
    let bucket = Bucket { tags, owner_enforced, public_access, policy, discovery, jwks };
    Ok(AwsState { bucket: Some(bucket), provider })
}
