//! The only place that writes a binding's status.

use crds::condition::Wanted;
use crds::names::{GROUP, MANAGER_STATUS, VERSION};
use crds::{PodIdentityBinding, PodIdentityBindingStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::Context;
use crate::report;

use super::decide::RoleFacts;

/// Writes the status if it says anything new, and an event if `Ready` changed.
pub async fn report(
    context: &Context,
    object: &PodIdentityBinding,
    wanted: Vec<Wanted>,
    role: Option<RoleFacts>,
) -> Result<(), kube::Error> {
    let prior = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let conditions = report::conditions(&prior.conditions, wanted, generation);
    // A role that stands keeps its name in the status while a bad edit is refused.
    let (role_arn, role_name) =
        role.map_or((prior.role_arn.clone(), prior.role_name.clone()), |role| (Some(role.arn), role.name));
    let status =
        PodIdentityBindingStatus { observed_generation: Some(generation), conditions, role_arn, role_name };
    if status == prior {
        return Ok(());
    }
    let api: Api<PodIdentityBinding> =
        Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let patch =
        json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "PodIdentityBinding", "status": status});
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
