//! All reads of an issuer's pass: the API servers, the keys that are published in advance, and AWS.

use std::collections::BTreeMap;

use crds::{
    DeletionPolicy, Finding, Management, OidcIssuer, OidcIssuerSpec, PodIdentityBinding, Reason, in_effect,
};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};

use super::decide::due;
use super::model::{Additional, AwsState, Memory, Observed, View};
use super::publication::target::{Location, Target};
use crate::api_servers::endpoints::Endpoints;
use crate::api_servers::model::ApiServers;
use crate::aws::accounts::Account;
use crate::aws::error::AwsError;
use crate::aws::model::Bucket;
use crate::aws::own_token;
use crate::aws::s3::S3;
use crate::clock::Clock;
use crate::context::Context;
use crate::distribution::{Distribution, NodeFacts};
use crate::oidc::ReadKeys;

/// Bindings listed at once.
const PAGE: u32 = 500;

/// Makes the reads that are due, and takes the rest from memory.
pub async fn observe(
    context: &Context,
    account: &Account,
    view: &View,
    memory: &mut Memory,
    clock: &Clock,
) -> Result<Observed, kube::Error> {
    let (client, timings) = (&context.client, &context.timings);
    if let Ok(target) = &view.target
        && memory.provider_arn.as_ref() != Some(&target.provider_arn)
    {
        memory.provider_arn = Some(target.provider_arn.clone());
        memory.aws = None;
    }
    let deletes = view.object.deleting && view.spec().deletion_policy == DeletionPolicy::Delete;
    let due = due(memory, memory.is_for(view.spec()), deletes, clock, timings);
    // Asked of the API server itself: a store may still hold a binding whose end has woken us, or not yet hold one.
    let dependents =
        if view.object.deleting { dependents(client, &view.object.name).await? } else { Vec::new() };
    let api = match &memory.api {
        Some((api, _)) if !due.api => api.clone(),
        _ => {
            let read = additional(client, &context.namespace, view.spec());
            let (api, additional) = tokio::join!(api_servers(&context.endpoints), read);
            memory.api = Some((api.clone(), clock.instant));
            memory.additional = additional;
            api
        }
    };
    let url = view.spec().issuer_url();
    let differs = api.iter().flat_map(ApiServers::answers).any(|server| server.issuer != url);
    if differs && memory.distribution.is_none() {
        memory.distribution = distribution(client).await;
    }
    let aws = match (&view.target, &memory.aws) {
        _ if view.untouched.is_some() => Ok(AwsState::default()),
        (Err(error), _) => Err(error.clone()),
        (Ok(_), Some((state, _))) if !due.aws => Ok(state.clone()),
        (Ok(target), _) => {
            let state = aws_state(account, target).await;
            memory.aws = state.as_ref().ok().map(|state| (state.clone(), clock.instant));
            state
        }
    };
    let (additional, distribution) = (memory.additional.clone(), memory.distribution.unwrap_or_default());
    let own_token_issuer = if deletes { own_token::issuer().await } else { None };
    let same_url = if deletes { same_url(context, &view.object.name, &url).await? } else { Vec::new() };
    Ok(Observed { api, additional, distribution, aws, dependents, same_url, own_token_issuer })
}

/// The other issuers with that URL, by the API server's own answer. Of one that cannot be decoded, the last version that could be counts,
/// and one that never could be may have the URL.
async fn same_url(context: &Context, name: &str, url: &str) -> Result<Vec<String>, kube::Error> {
    let api: Api<DeserializeGuard<OidcIssuer>> = Api::all(context.client.clone());
    let is_of_url = |issuer: &OidcIssuer| issuer.spec.issuer_url() == url;
    let last_is = |name: &str| context.cluster.issuer(name).is_none_or(|last| is_of_url(&last));
    let has_url = |other: &&DeserializeGuard<OidcIssuer>| {
        other.0.as_ref().map_or_else(|_| last_is(&other.name_any()), is_of_url)
    };
    let all = api.list(&ListParams::default()).await?;
    let others = all.iter().filter(|other| other.name_any() != name);
    Ok(others.filter(has_url).map(ResourceExt::name_any).collect())
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
            binding.0.as_ref().map_or(true, |binding| in_effect::uses_issuer(binding, issuer))
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

/// One poll of every API server; an error where none answered.
pub async fn api_servers(endpoints: &Endpoints) -> Result<ApiServers, Finding> {
    let api = endpoints.read().await;
    match &api.service {
        Err(no) if api.answers().next().is_none() => {
            let message = format!("the API server does not show its issuer and keys: {}", no.why);
            Err(Finding::new(Reason::APIServerUnreachable, message))
        }
        _ => Ok(api),
    }
}

/// The cluster's distribution, by some of its nodes; `None` where they cannot be read.
pub async fn distribution(client: &Client) -> Option<Distribution> {
    /// A cluster's nodes are alike. A control-plane node may be missing among them.
    const NODES: u32 = 20;
    let nodes: Api<Node> = Api::all(client.clone());
    let list = nodes.list(&ListParams::default().limit(NODES)).await.ok()?;
    let facts = |node: Node| {
        let info = node.status.and_then(|status| status.node_info);
        let (labels, annotations) = (node.metadata.labels, node.metadata.annotations);
        NodeFacts {
            provider_id: node.spec.and_then(|spec| spec.provider_id).unwrap_or_default(),
            kubelet_version: info.as_ref().map(|info| info.kubelet_version.clone()).unwrap_or_default(),
            os_image: info.map(|info| info.os_image).unwrap_or_default(),
            keys: [labels, annotations].into_iter().flatten().flat_map(BTreeMap::into_keys).collect(),
        }
    };
    Some(Distribution::of(&list.into_iter().map(facts).collect::<Vec<_>>()))
}

/// The keys of the `ConfigMap`s that the specification names. What is wrong in one of them affects nothing else.
pub async fn additional(client: &Client, namespace: &str, spec: &OidcIssuerSpec) -> Additional {
    /// Of more entries that are wrong, the first ones show what is wrong.
    const NAMED: usize = 20;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut additional = Additional::default();
    for name in spec.additional_keys() {
        let map = match maps.get_opt(name).await {
            Ok(Some(map)) => map,
            Ok(None) => {
                additional.invalid.push(format!("ConfigMap {namespace}/{name} does not exist"));
                continue;
            }
            Err(error) => {
                additional.unread.push(format!("ConfigMap {namespace}/{name} cannot be read: {error}"));
                continue;
            }
        };
        let empty = map.data.as_ref().is_none_or(BTreeMap::is_empty);
        additional.invalid.extend(empty.then(|| format!("ConfigMap {namespace}/{name} has no data")));
        for (key, text) in map.data.unwrap_or_default() {
            let here = |what: String| format!("ConfigMap {namespace}/{name}, data {key}: {what}");
            match ReadKeys::from_text(&text) {
                Ok(ReadKeys { keys, left_out }) => {
                    additional.keys.extend(&keys);
                    additional.invalid.extend(left_out.into_iter().map(here));
                }
                Err(error) => additional.invalid.push(here(error.to_string())),
            }
        }
    }
    additional.invalid.truncate(NAMED);
    additional
}

/// Bucket and provider as they are.
pub async fn aws_state(account: &Account, target: &Target) -> Result<AwsState, AwsError> {
    let provider = account.iam.provider(&target.provider_arn);
    let Some(location) = &target.location else {
        return Ok(AwsState { bucket: None, provider: provider.await? });
    };
    let s3 = account.s3(&location.bucket);
    let bucket = async {
        // Boxed: six calls of the SDK at once are a future of many kilobytes, in a chain of others.
        match location.management {
            Management::Managed => Box::pin(managed_bucket(&s3, location)).await,
            Management::Existing => Box::pin(existing_bucket(&s3, location)).await,
        }
    };
    let (bucket, provider) = tokio::try_join!(bucket, provider)?;
    Ok(AwsState { bucket, provider })
}

async fn managed_bucket(s3: &S3, location: &Location) -> Result<Option<Bucket>, AwsError> {
    let Some(tags) = s3.tags().await? else { return Ok(None) };
    let (owner_enforced, public_access, policy, discovery, jwks) = tokio::try_join!(
        s3.owner_enforced(),
        s3.public_access(),
        s3.policy(),
        s3.object(&location.discovery_key),
        s3.object(&location.jwks_key),
    )?;
    Ok(Some(Bucket { tags, owner_enforced, public_access, policy, discovery, jwks }))
}

/// Only the two documents: the rest is somebody else's, and the operator has no right to read it.
async fn existing_bucket(s3: &S3, location: &Location) -> Result<Option<Bucket>, AwsError> {
    if !s3.exists().await? {
        return Ok(None);
    }
    let (discovery, jwks) =
        tokio::try_join!(s3.object(&location.discovery_key), s3.object(&location.jwks_key))?;
    Ok(Some(Bucket { discovery, jwks, ..Bucket::default() }))
}
