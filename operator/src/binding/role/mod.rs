//! PURE: the role of a binding, by attribute. Each attribute has a file of its own with what is wanted and the difference
//! from what IAM shows; here they are put in order.

pub mod attached;
pub mod boundary;
pub mod inline;
pub mod settings;
pub mod trust;

use std::collections::BTreeSet;

use crds::{Finding, OidcIssuerSpec, PodIdentityBindingSpec, names};

use crate::aws::model::{IamWrite, NewRole, Role, RolePolicies, RoleSettings, Write};
use crate::change::Change;
use crate::ownership::Owner;
use crate::policy::trust::Trust;

/// A role as it should be: every name computed, every document made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The role's name.
    pub name: String,
    /// The role's ARN.
    pub arn: String,
    /// The trust policy.
    pub trust: trust::Wanted,
    /// ARN of the permissions boundary.
    pub boundary: String,
    /// Managed policies.
    pub attached: BTreeSet<String>,
    /// Session limit and description.
    pub settings: RoleSettings,
    path: String,
    owner: Owner,
}

/// The role of a binding in an account. `issuers` are the URLs of all `OidcIssuer`s of the cluster.
#[must_use]
pub fn target(
    namespace: &str,
    name: &str,
    spec: &PodIdentityBindingSpec,
    issuer: &OidcIssuerSpec,
    issuers: impl IntoIterator<Item = String>,
    account: &str,
) -> Target {
    let (cluster, service_account) = (&issuer.cluster_name, &spec.service_account_name);
    let partition = issuer.partition().id;
    let issuer_url = issuer.issuer_url();
    let trust = Trust {
        provider_arn: &names::provider_arn(partition, account, &issuer_url),
        issuer_url: &issuer_url,
        audience: spec.audience.as_deref().unwrap_or(issuer.audience()),
        subject: &names::subject(namespace, service_account),
    };
    Target {
        name: names::role_name(cluster, namespace, service_account),
        arn: names::role_arn(partition, account, cluster, namespace, service_account),
        trust: trust::wanted(&trust),
        boundary: names::boundary_arn(partition, account, cluster),
        attached: attached::wanted(spec.role.as_ref().map_or(&[], |role| &role.policy_arns)),
        settings: settings::wanted(
            spec.role.as_ref(),
            format!("ServiceAccount {namespace}/{service_account} of cluster {cluster}"),
        ),
        path: names::role_path(cluster),
        owner: Owner::of_binding(namespace, name, issuer, issuers),
    }
}

impl Target {
    /// Whether a role is this binding's; if not, whose it is.
    pub fn owns(&self, role: &Role) -> Result<(), Finding> {
        self.owner.check("role", &self.name, &role.tags)
    }

    /// What makes the role from nothing. A crash between any two calls leaves nothing without its owner and no right
    /// without its boundary.
    #[must_use]
    pub fn creation(&self) -> Vec<Change> {
        let new = NewRole {
            name: self.name.clone(),
            path: self.path.clone(),
            trust: self.trust.policy.to_string(),
            boundary: Some(self.boundary.clone()),
            settings: self.settings.clone(),
            tags: self.owner.tags().clone(),
        };
        let create = Change {
            attribute: "role",
            old: None,
            new: Some(self.arn.clone()),
            write: Write::Iam(IamWrite::CreateRole(Box::new(new))),
        };
        std::iter::once(create).chain(attached::diff(&self.name, &[], &self.attached)).collect()
    }

    /// What makes a role that exists as specified. The boundary comes first: the operator may change the rights of bounded
    /// roles only.
    #[must_use]
    pub fn diff(&self, role: &Role, policies: Option<&RolePolicies>) -> Vec<Change> {
        let name = &self.name;
        let boundary = boundary::diff(name, role, &self.boundary);
        let trust = trust::diff(name, role, &self.trust.policy);
        let settings = settings::diff(name, role, &self.settings);
        let rights = policies.map(|RolePolicies { attached, inline }| {
            [inline::diff(name, inline), attached::diff(name, attached, &self.attached)].concat()
        });
        boundary.into_iter().chain(trust).chain(settings).chain(rights.into_iter().flatten()).collect()
    }

    /// What ends every session of the role's `ServiceAccount` that begins from now on: the first part of a removal.
    #[must_use]
    pub fn revocation(&self, role: &Role) -> Vec<Change> {
        let trust = trust::diff(&self.name, role, &self.trust.revoked);
        let boundary = boundary::diff(&self.name, role, &self.boundary);
        trust.into_iter().chain(boundary).collect()
    }

    /// What takes the role away once it is revoked; each change tolerates that it was made before.
    #[must_use]
    pub fn removal(&self, policies: Option<&RolePolicies>) -> Vec<Change> {
        let none = BTreeSet::new();
        let rights = policies.map(|RolePolicies { attached, inline }| {
            [attached::diff(&self.name, attached, &none), inline::diff(&self.name, inline)].concat()
        });
        let delete = Change {
            attribute: "role removal",
            old: Some(self.arn.clone()),
            new: None,
            write: Write::Iam(IamWrite::DeleteRole { role: self.name.clone() }),
        };
        rights.into_iter().flatten().chain([delete]).collect()
    }
}
