//! PURE: the binding as decisions look at it, and the role it should have: every name computed, every document made.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::binding::DEFAULT_TOKEN_EXPIRATION_SECONDS;
use crds::names::{self, annotation, boundary_arn, provider_arn};
use crds::{OidcIssuerSpec, PodIdentityBindingSpec};
use serde_json::Value;

use crate::aws::iam::{NewRole, Role};
use crate::aws::{AwsError, Identity, Tags};
use crate::issuer::publication::owned;
use crate::policy::trust::Trust;

/// The object, as far as decisions look at it.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// `metadata.name`.
    pub name: &'a str,
    /// The specification.
    pub spec: &'a PodIdentityBindingSpec,
    /// `metadata.generation`.
    pub generation: i64,
    /// Time since `metadata.creationTimestamp`.
    pub age: Duration,
    /// Whether deletion was asked for.
    pub deleting: bool,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// Whether the status said Ready for this generation.
    pub was_ready: bool,
    /// The issuer, if there is one.
    pub issuer: Option<Issuer<'a>>,
    /// An older binding on the same `ServiceAccount`, if there is one.
    pub holder: Option<Holder>,
    /// The operator's own namespace.
    pub operator_namespace: &'a str,
}

/// The issuer a binding uses.
#[derive(Debug, Clone, Copy)]
pub struct Issuer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its specification.
    pub spec: &'a OidcIssuerSpec,
    /// Whether its deletion was asked for.
    pub deleting: bool,
}

/// The binding that holds a `ServiceAccount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub name: String,
    /// Whether it is on its way out.
    pub deleting: bool,
}

/// A role as it should be: every name computed, every document made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The role's name.
    pub role_name: String,
    /// The role's ARN.
    pub role_arn: String,
    /// The trust policy.
    pub trust: Value,
    /// The trust policy that lets nobody in.
    pub revoked: Value,
    /// ARN of the permissions boundary.
    pub boundary: String,
    /// What the role is made of.
    pub new: NewRole,
    tags: Tags,
}

impl Subject<'_> {
    /// The binding's role in the account the operator works in; `None` while issuer or account are not known.
    #[must_use]
    pub fn target(&self, identity: &Result<Identity, AwsError>) -> Option<Target> {
        let (Some(Issuer { spec: issuer, .. }), Ok(Identity { account, .. })) = (self.issuer, identity)
        else {
            return None;
        };
        let (cluster, sa) = (&issuer.cluster_name, &self.spec.service_account_name);
        let partition = issuer.partition().id;
        let issuer_url = issuer.issuer_url();
        let trust = Trust {
            provider_arn: &provider_arn(partition, account, &issuer_url),
            issuer_url: &issuer_url,
            audience: self.spec.audience.as_deref().unwrap_or(issuer.audience()),
            subject: &names::subject(self.namespace, sa),
        };
        let boundary = boundary_arn(partition, account, cluster);
        let tags = issuer.ownership_tags("PodIdentityBinding", Some(self.namespace), self.name);
        let role_name = names::role_name(cluster, self.namespace, sa);
        Some(Target {
            role_arn: names::role_arn(partition, account, cluster, self.namespace, sa),
            new: NewRole {
                name: role_name.clone(),
                path: names::role_path(cluster),
                trust: trust.policy().to_string(),
                boundary: Some(boundary.clone()),
                description: format!("ServiceAccount {}/{sa} of cluster {cluster}", self.namespace),
                tags: tags.clone(),
            },
            role_name,
            trust: trust.policy(),
            revoked: trust.revoked(),
            boundary,
            tags,
        })
    }

    /// Whether no spec of this binding ever asked for a role: the first generation is the only one, and its deletion
    /// counts as one more.
    #[must_use]
    pub const fn never_had_role(&self) -> bool {
        self.spec.role.is_none() && self.generation <= 1 + self.deleting as i64
    }

    /// The annotations by which the EKS webhook's contract passes the binding on.
    #[must_use]
    pub fn annotations(&self, role_arn: &str) -> BTreeMap<String, String> {
        let spec = self.spec;
        let regional = spec.sts_regional_endpoints.unwrap_or(true);
        let mut annotations = BTreeMap::from([
            (annotation::ROLE_ARN.to_owned(), role_arn.to_owned()),
            (annotation::STS_REGIONAL_ENDPOINTS.to_owned(), regional.to_string()),
        ]);
        let issuers = self.issuer.map(|issuer| issuer.spec.audience());
        if let Some(audience) = spec.audience.as_deref().or(issuers).filter(|a| *a != names::DEFAULT_AUDIENCE)
        {
            annotations.insert(annotation::AUDIENCE.to_owned(), audience.to_owned());
        }
        let seconds = spec.token_expiration_seconds.filter(|s| *s != DEFAULT_TOKEN_EXPIRATION_SECONDS);
        if let Some(seconds) = seconds {
            annotations.insert(annotation::TOKEN_EXPIRATION.to_owned(), seconds.to_string());
        }
        annotations
    }
}

impl Target {
    /// Whether a role is this binding's; if not, whose it is.
    pub fn owns(&self, role: &Role) -> Result<(), String> {
        owned("role", &self.role_name, &role.tags, &self.tags).map_err(|refusal| refusal.message)
    }
}
