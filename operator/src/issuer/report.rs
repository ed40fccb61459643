//! The only place that writes an issuer's status.

use crds::condition::Wanted;
use crds::names::{GROUP, MANAGER_STATUS, VERSION};
use crds::{OidcIssuer, OidcIssuerStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::Context;
use crate::report;

use super::decide::Facts;

/// Writes the status if it says anything new, and an event if `Ready` changed.
pub async fn report(
    context: &Context,
    object: &OidcIssuer,
    wanted: Vec<Wanted>,
    facts: &Facts,
) -> Result<(), kube::Error> {
    let prior = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let conditions = report::conditions(&prior.conditions, wanted, generation);
    let Facts { issuer_url, jwks_uri, partition, account, provider_arn, digest } = facts.clone();
    let status = OidcIssuerStatus {
        observed_generation: Some(generation),
        conditions,
        issuer_url: Some(issuer_url),
        jwks_uri: Some(jwks_uri),
        partition: Some(partition),
        // An hour without AWS takes no fact away: the webhook computes role ARNs from these.
        account_id: account.or_else(|| prior.account_id.clone()),
        provider_arn: provider_arn.or_else(|| prior.provider_arn.clone()),
        published_digest: digest.or_else(|| prior.published_digest.clone()),
    };
    if status == prior {
        return Ok(());
    }
    let api: Api<OidcIssuer> = Api::all(context.client.clone());
    let patch = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "OidcIssuer", "status": status});
    let parameters = PatchParams::apply(MANAGER_STATUS).force();
    match api.patch_status(&object.name_any(), &parameters, &Patch::Apply(patch)).await {
        Ok(_) => {}
        // Gone meanwhile: there is nobody left to tell.
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    }
    report::transition(&context.recorder, object, &prior.conditions, &status.conditions).await;
    Ok(())
}
