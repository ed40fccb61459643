//! PURE: what is kept of each object the webhook watches. A cluster has a hundred thousand `ServiceAccount`s, so each
//! costs its name and what it says about AWS, and nothing else.

use std::collections::BTreeMap;

use crds::condition::{ConditionType, is_true};
use crds::{OidcIssuer, PodIdentityBinding};
use k8s_openapi::jiff::Timestamp;

/// The annotations of a `ServiceAccount` that count, as they are spelled.
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
}

/// AWS accepts no longer ARN (IAM's `arnType`). Kubernetes lets a quarter of a megabyte of annotations through, in each of
/// as many `ServiceAccount`s as somebody likes to make: what is kept of them must not follow.
const LONGEST_ARN: usize = 2048;
/// As long as an audience can be in an OIDC provider (IAM's `clientIDType`); the other annotations are a word.
const LONGEST_WORD: usize = 255;

impl Annotations {
    /// What the annotations under `prefix` say; `None` where there is none, as for most `ServiceAccount`s.
    #[must_use]
    pub fn read(all: &BTreeMap<String, String>, prefix: &str) -> Option<Self> {
        let mut found = Self::default();
        for (key, value) in all {
            let Some(key) = key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            let (field, longest) = match key {
                "role-arn" => (&mut found.role_arn, LONGEST_ARN),
                "audience" => (&mut found.audience, LONGEST_WORD),
                "sts-regional-endpoints" => (&mut found.sts_regional_endpoints, LONGEST_WORD),
                "token-expiration" => (&mut found.token_expiration, LONGEST_WORD),
                _ => continue,
            };
            *field = Some(value[..value.floor_char_boundary(longest)].into());
        }
        (found != Self::default()).then_some(found)
    }

    /// The role, unless it is empty, which the reference takes for absent.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.role_arn.as_deref().filter(|arn| !arn.is_empty())
    }
}

/// What counts of a `PodIdentityBinding`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bound {
    /// The binding's name.
    pub name: Box<str>,
    /// The `ServiceAccount`, in the binding's own namespace.
    pub service_account: Box<str>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// Whether it is Stalled and never had a role. One that had a role keeps it while stalled: the pods that run have it.
    pub hopeless: bool,
    /// `spec.roleArn`: a role made elsewhere.
    pub role_arn: Option<Box<str>>,
    /// `spec.audience`.
    pub audience: Option<Box<str>>,
    /// `spec.tokenExpirationSeconds`.
    pub expiration_seconds: Option<i64>,
    /// `spec.stsRegionalEndpoints`.
    pub sts_regional_endpoints: Option<bool>,
    /// `spec.region`.
    pub region: Option<Box<str>>,
}

impl From<PodIdentityBinding> for Bound {
    fn from(binding: PodIdentityBinding) -> Self {
        let hopeless = binding.status.as_ref().is_some_and(|status| {
            status.role_arn.is_none() && is_true(&status.conditions, ConditionType::Stalled)
        });
        let spec = &binding.spec;
        Self {
            name: binding.metadata.name.as_deref().unwrap_or_default().into(),
            service_account: spec.service_account_name.as_str().into(),
            created: binding.metadata.creation_timestamp.as_ref().map(|time| time.0),
            deleting: binding.metadata.deletion_timestamp.is_some(),
            hopeless,
            role_arn: spec.role_arn.as_deref().map(Into::into),
            audience: spec.audience.as_deref().map(Into::into),
            expiration_seconds: spec.token_expiration_seconds,
            sts_regional_endpoints: spec.sts_regional_endpoints,
            region: spec.region.as_deref().map(Into::into),
        }
    }
}

/// What counts of an `OidcIssuer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// `spec.clusterName`: part of the role's name.
    pub cluster_name: Box<str>,
    /// The AWS account, once the operator knows it.
    pub account: Option<Box<str>>,
    /// The partition: the status's, or the one of the region.
    pub partition: Box<str>,
    /// The region of its bucket.
    pub region: Box<str>,
    /// Its first audience.
    pub audience: Box<str>,
}

impl From<OidcIssuer> for Issuer {
    fn from(issuer: OidcIssuer) -> Self {
        let (spec, status) = (&issuer.spec, issuer.status.as_ref());
        let partition = status.and_then(|status| status.partition.as_deref());
        Self {
            cluster_name: spec.cluster_name.as_str().into(),
            account: status.and_then(|status| status.account_id.as_deref()).map(Into::into),
            partition: partition.unwrap_or_else(|| spec.partition().id).into(),
            region: spec.s3.region.as_str().into(),
            audience: spec.audience().into(),
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
}
