//! PURE: what is kept of each object the webhook watches. A cluster may have a hundred thousand `ServiceAccount`s, so of each
//! only the name and what it says about AWS is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::condition::ConditionType;
use crds::conditions::{Condition, Status, find};
use crds::holder::Claim;
use crds::names::{self, DEFAULT_ISSUER};
use crds::pod::annotation::{Place, UnreadAnnotation, unread_annotation};
use crds::{OidcIssuer, PodIdentityBinding, Reason, in_effect};
use k8s_openapi::jiff::Timestamp;

/// The annotations of a `ServiceAccount` that count, not yet interpreted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// `role-arn`.
    pub role_arn: Option<Box<str>>,
    /// `audience`.
    pub audience: Option<Box<str>>,
    /// `sts-regional-endpoints`.
    pub sts_regional_endpoints: Option<Box<str>>,
    /// `token-expiration`.
    pub token_expiration: Option<Box<str>>,
    /// Keys that are meant to be one of these.
    pub unread_annotations: Box<[UnreadAnnotation]>,
}

/// The longest ARN that AWS accepts (IAM's `arnType`). Kubernetes accepts a quarter of a megabyte of annotations in each
/// `ServiceAccount`, and users create as many of those as they like: what is kept of each is limited.
const LONGEST_ARN: usize = 2048;
/// The longest audience of an OIDC provider (IAM's `clientIDType`); the other annotations are a word.
const LONGEST_WORD: usize = 255;
/// The most annotations that nothing reads kept of one `ServiceAccount`.
const MOST_UNREAD: usize = 4;

impl Annotations {
    /// The annotations under `prefix`; `None` where there is none, as for most `ServiceAccount`s.
    #[must_use]
    pub fn read(all: &BTreeMap<String, String>, prefix: &str) -> Option<Self> {
        let mut found = Self::default();
        for (key, value) in all {
            let (field, longest) = match key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')) {
                Some("role-arn") => (&mut found.role_arn, LONGEST_ARN),
                Some("audience") => (&mut found.audience, LONGEST_WORD),
                Some("sts-regional-endpoints") => (&mut found.sts_regional_endpoints, LONGEST_WORD),
                Some("token-expiration") => (&mut found.token_expiration, LONGEST_WORD),
                _ => continue,
            };
            *field = Some(value[..value.floor_char_boundary(longest)].into());
        }
        let unread_annotations =
            all.keys().filter_map(|key| unread_annotation(key, prefix, Place::ServiceAccount));
        found.unread_annotations = unread_annotations.take(MOST_UNREAD).collect();
        (found != Self::default()).then_some(found)
    }

    /// The role, unless it is empty, which the EKS webhook treats as absent.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.role_arn.as_deref().filter(|arn| !arn.is_empty())
    }
}

/// What is kept of a `PodIdentityBinding`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct BindingFacts {
    /// The binding's name.
    pub name: Box<str>,
    /// The `ServiceAccount`, in the binding's own namespace.
    pub service_account: Box<str>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether the operator has seen a role of its own (`status.roleName`).
    pub has_role: bool,
    /// Hash of the ARN of that role: the ARN itself follows from the issuer.
    pub role: Option<u64>,
    /// Whether it has the operator's finalizer.
    pub is_acted_on: bool,
    /// Whether it is Stalled and never had a role. One that had a role keeps it while it is Stalled: running pods use it.
    pub stalled_without_role: bool,
    /// Whether its role is revoked.
    pub revoked: bool,
    /// Name of its issuer where it is not `default`, which is what almost all bindings use.
    pub issuer: Option<Box<str>>,
    /// `spec.roleARN`: an existing role.
    pub role_arn: Option<Box<str>>,
    /// The audience of its pods, where that is not the issuer's first one.
    pub audience: Option<Box<str>>,
    /// `spec.tokenExpirationSeconds`.
    pub expiration_seconds: Option<i64>,
    /// `spec.stsRegionalEndpoints`.
    pub sts_regional_endpoints: Option<bool>,
    /// `spec.region`, which may be [`NO_REGION`](crds::binding::NO_REGION).
    pub region: Option<Box<str>>,
}

impl BindingFacts {
    /// Name of the `OidcIssuer` that the binding uses.
    #[must_use]
    pub fn issuer_name(&self) -> &str {
        self.issuer.as_deref().unwrap_or(DEFAULT_ISSUER)
    }
}

impl Claim for BindingFacts {
    fn created(&self) -> Option<Timestamp> {
        self.created
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn has_role(&self) -> bool {
        self.has_role
    }

    fn is_acted_on(&self) -> bool {
        self.is_acted_on
    }

    fn deleting(&self) -> bool {
        self.deleting
    }

    // Whether a grant covers it is not known here; one that is refused becomes Stalled.
    fn can_take_over(&self) -> bool {
        self.role_arn.is_none() && !self.stalled_without_role && !self.revoked
    }
}

impl From<PodIdentityBinding> for BindingFacts {
    fn from(binding: PodIdentityBinding) -> Self {
        // One that waits for another binding's end is not refused: the role is handed over to it.
        let refused = |conditions: &[Condition]| {
            find(conditions, ConditionType::Stalled).is_some_and(|stalled| {
                stalled.status == Status::True && stalled.reason != Reason::ServiceAccountAlreadyBound
            })
        };
        let revoked = |conditions: &[Condition]| {
            find(conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == Reason::Revoked)
        };
        let stalled_without_role = binding
            .status
            .as_ref()
            .is_some_and(|status| status.role_arn.is_none() && refused(&status.conditions));
        let revoked = binding.status.as_ref().is_some_and(|status| revoked(&status.conditions));
        let status = binding.status.as_ref().filter(|status| status.role_name.is_some());
        let role = status.and_then(|status| status.role_arn.as_deref());
        let spec = &binding.spec;
        Self {
            name: binding.metadata.name.as_deref().unwrap_or_default().into(),
            service_account: spec.service_account_name.as_str().into(),
            created: binding.metadata.creation_timestamp.as_ref().map(|time| time.0),
            deleting: binding.metadata.deletion_timestamp.is_some(),
            has_role: binding.has_role(),
            role: role.map(names::hash_of),
            is_acted_on: binding.is_acted_on(),
            stalled_without_role,
            revoked,
            issuer: Some(in_effect::issuer(&binding)).filter(|name| *name != DEFAULT_ISSUER).map(Into::into),
            role_arn: spec.role_arn.as_deref().map(Into::into),
            audience: in_effect::audience(&binding).map(Into::into),
            expiration_seconds: spec.token_expiration_seconds,
            sts_regional_endpoints: spec.sts_regional_endpoints,
            region: spec.region.as_deref().map(Into::into),
        }
    }
}

/// Whether annotations or bindings give a `ServiceAccount` an identity. The ConfigMap and the container-credentials file may
/// give one that has none from those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityState {
    /// There is neither a role annotation nor a binding, or all bindings are being deleted.
    Absent,
    /// There are only bindings that are Stalled and never had a role, or whose role is revoked: an identity is wanted, but cannot be
    /// given.
    Stalled,
    /// There is a role annotation, or a binding that is neither being deleted nor Stalled without a role.
    Present,
}

/// Whether a `ServiceAccount` with these annotations and bindings has an identity.
#[must_use]
pub fn identity_state(annotations: Option<&Annotations>, bindings: &[Arc<BindingFacts>]) -> IdentityState {
    if annotations.is_some_and(|annotations| annotations.role().is_some()) {
        return IdentityState::Present;
    }
    let mut state = IdentityState::Absent;
    for binding in bindings.iter().filter(|binding| !binding.deleting) {
        if !binding.stalled_without_role && !binding.revoked {
            return IdentityState::Present;
        }
        state = IdentityState::Stalled;
    }
    state
}

/// What is kept of an `OidcIssuer`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IssuerFacts {
    /// Its name.
    pub name: Box<str>,
    /// `spec.clusterName`: part of the role's name.
    pub cluster_name: Box<str>,
    /// The AWS account, once the operator has written it into the status.
    pub account: Option<Box<str>>,
    /// The partition: that of the status, or else that of the bucket's region.
    pub partition: Box<str>,
    /// The region of its bucket; an issuer that somebody else publishes has none.
    pub region: Option<Box<str>>,
    /// Its first audience.
    pub audience: Box<str>,
    /// Whether it exists in a form that this program cannot read: then only its name is known.
    pub unreadable: bool,
}

impl IssuerFacts {
    /// An issuer of which only the name is known.
    #[must_use]
    pub fn unreadable(name: &str) -> Self {
        Self { name: name.into(), unreadable: true, ..Self::default() }
    }
}

impl From<OidcIssuer> for IssuerFacts {
    fn from(issuer: OidcIssuer) -> Self {
        let (spec, status) = (&issuer.spec, issuer.status.as_ref());
        let partition = status.and_then(|status| status.partition.as_deref());
        Self {
            name: issuer.metadata.name.as_deref().unwrap_or_default().into(),
            cluster_name: spec.cluster_name.as_str().into(),
            account: status.and_then(|status| status.account_id.as_deref()).map(Into::into),
            partition: partition
                .or_else(|| spec.partition().map(|partition| partition.id))
                .unwrap_or("aws")
                .into(),
            region: spec.s3.as_ref().map(|s3| s3.region.as_str().into()),
            audience: spec.audience().into(),
            unreadable: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_annotation_no_more_is_kept_than_aws_could_accept() {
        let long = "é".repeat(128 << 10);
        let all = ["role-arn", "audience", "sts-regional-endpoints", "token-expiration"]
            .map(|key| (format!("eks.amazonaws.com/{key}"), long.clone()));
        let kept = Annotations::read(&all.into(), "eks.amazonaws.com").unwrap_or_default();
        let lengths = [kept.role_arn, kept.audience, kept.sts_regional_endpoints, kept.token_expiration]
            .map(|value| value.map_or(0, |value| value.len()));
        assert_eq!(lengths, [2048, 254, 254, 254]);
    }
    #[test]
    fn a_role_annotation_or_a_usable_binding_is_an_identity() {
        let role = Annotations { role_arn: Some("arn".into()), ..Annotations::default() };
        let audience = Annotations { audience: Some("a".into()), ..Annotations::default() };
        let binding = |deleting, stalled_without_role| {
            Arc::new(BindingFacts { deleting, stalled_without_role, ..BindingFacts::default() })
        };
        let (usable, stalled) = (binding(false, false), binding(false, true));
        let [deleting, deleting_and_stalled] = [binding(true, false), binding(true, true)];
        for (annotations, bindings, expected) in [
            (None, vec![], IdentityState::Absent),
            (Some(&audience), vec![], IdentityState::Absent),
            (Some(&role), vec![], IdentityState::Present),
            (Some(&role), vec![&stalled], IdentityState::Present),
            (None, vec![&usable], IdentityState::Present),
            (None, vec![&deleting], IdentityState::Absent),
            (None, vec![&deleting_and_stalled], IdentityState::Absent),
            (None, vec![&stalled], IdentityState::Stalled),
            (None, vec![&deleting, &stalled, &usable], IdentityState::Present),
        ] {
            let bindings: Vec<_> = bindings.into_iter().cloned().collect();
            assert_eq!(identity_state(annotations, &bindings), expected, "{annotations:?} {bindings:?}");
        }
    }
}
