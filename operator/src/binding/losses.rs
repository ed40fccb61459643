//! How many roles of an issuer have lost their grant.

use std::sync::Arc;

use crds::condition::ConditionType;
use crds::conditions::find;
use crds::holder::Claim;
use crds::{OidcIssuer, PodIdentityBinding, Reason, in_effect, names};
use kube::ResourceExt;

use super::granted::check_grant;
use crate::cluster::Cluster;
use crate::grant::Losses;

/// The issuer under which the role of a binding was made, of the one that its status names; `None` where that does not exist any more, or has
/// another `clusterName` now, so that its role would have another name.
pub(super) fn made_under(
    binding: &PodIdentityBinding,
    recorded: Option<Arc<OidcIssuer>>,
) -> Option<Arc<OidcIssuer>> {
    let (status, issuer) = (binding.status.as_ref()?, recorded?);
    let (namespace, account) = (binding.namespace()?, &binding.spec.service_account_name);
    let name = names::role_name(&issuer.spec.cluster_name, &namespace, account);
    (status.role_name.as_ref() == Some(&name)).then_some(issuer)
}

/// How many roles of an issuer are to be revoked.
pub(super) fn losses(issuer: &OidcIssuer, cluster: &Cluster) -> Losses {
    let mut losses = Losses::default();
    for binding in cluster.bindings_of(issuer.name()) {
        count(&mut losses, &binding, issuer, cluster);
    }
    losses
}

/// Counts the role of a binding that uses an issuer. Its status says that the grant is lost; or it says that the specification is in effect,
/// and no grant covers it any more: the binding has not had its pass yet, or its role could not be read. An edit that asks for more than is
/// granted is no loss, and must not keep other roles from being revoked.
pub(super) fn count(
    losses: &mut Losses,
    binding: &PodIdentityBinding,
    issuer: &OidcIssuer,
    cluster: &Cluster,
) {
    let is_other = made_under(binding, cluster.issuer(in_effect::issuer(binding)))
        .map_or(binding.spec.issuer_name() != issuer.name(), |other| other.name() != issuer.name());
    let has_role = binding.spec.role.is_some() && binding.has_role();
    if is_other || !has_role || binding.deleting() || is_revoked(binding) {
        return;
    }
    losses.roles += 1;
    let is_reported = binding.status.as_ref().is_some_and(|status| status.revoke_at.is_some());
    let is_covered = || {
        let namespace = binding.namespace().unwrap_or_default();
        let labels = cluster.labels(&namespace);
        check_grant(&namespace, labels.as_deref(), &binding.spec, Ok(issuer)).is_ok()
    };
    losses.lost += usize::from(is_reported || (in_effect::is_ready(binding) && !is_covered()));
}

/// Whether its status says that the role is revoked.
fn is_revoked(binding: &PodIdentityBinding) -> bool {
    let conditions = binding.status.as_ref().map_or(&[][..], |status| &*status.conditions);
    find(conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == Reason::Revoked)
}
