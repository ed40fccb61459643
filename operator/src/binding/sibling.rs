//! Another binding on the same `ServiceAccount`.

use crds::condition::ConditionType;
use crds::conditions::is_true;
use crds::holder::Claim;
use crds::{OidcIssuer, PodIdentityBinding};
use kube::ResourceExt;

use super::granted;
use super::model::Sibling;
use super::role::{self, Heir, Target};
use crate::cluster::Cluster;

/// Another binding on the same `ServiceAccount`, as `own` sees it. It can take the role over if it makes the same one, and
/// nothing keeps it from being acted on.
pub(super) fn sibling(
    other: &PodIdentityBinding,
    own: &PodIdentityBinding,
    issuer: Option<&OidcIssuer>,
    (own_issuer, target): (Option<&OidcIssuer>, Option<&Target>),
    cluster: &Cluster,
) -> Sibling {
    let (namespace, name) = (other.namespace().unwrap_or_default(), other.name_any());
    let conditions = other.status.as_ref().map_or(&[][..], |status| &*status.conditions);
    let heir = target.zip(issuer).and_then(|(target, issuer)| {
        let labels = cluster.labels(&namespace);
        let is_accepted = granted::check_grant(&namespace, labels.as_deref(), &other.spec, Ok(issuer))
            .is_ok()
            && granted::check_audience(&other.spec, issuer).is_ok()
            && other.spec.check().is_ok();
        let urls = cluster.issuers.state().into_iter().map(|issuer| issuer.spec.issuer_url());
        let made = role::target(&namespace, &name, &other.spec, &issuer.spec, urls, &target.identity);
        // Under an issuer in another account it makes another role, whose ARN differs in the account.
        let same_account =
            own_issuer.is_some_and(|own| own.spec.role_account() == issuer.spec.role_account());
        let takes_over = other.can_take_over() && is_accepted && same_account && made.arn == target.arn;
        takes_over.then(|| Heir {
            name: name.clone(),
            uid: other.uid().unwrap_or_default(),
            version: other.resource_version().unwrap_or_default(),
            finalizers: other.finalizers().to_vec(),
            tags: made.ownership_tags(),
        })
    });
    Sibling {
        created: other.created(),
        deleting: other.deleting(),
        has_role: other.has_role(),
        acted_on: other.is_acted_on(),
        ready: is_true(conditions, ConditionType::Ready)
            && other.status.as_ref().is_some_and(|s| s.observed_generation == other.metadata.generation),
        uses_role: target.zip(other.spec.role_arn.as_ref()).is_some_and(|(target, arn)| target.is(arn)),
        same_effect: own.spec.has_same_effect(&other.spec),
        heir,
        name,
    }
}
