//! PURE: the role of a binding, by attribute. Each attribute has a file of its own with what is wanted and the difference
//! from what IAM shows; here they are put in order.

pub mod attached;
pub mod boundary;
mod difference;
pub mod inline;
pub mod revocation;
pub mod settings;
pub mod tags;
pub mod trust;

use std::collections::{BTreeMap, BTreeSet};

use crds::names::tag;
use crds::{Finding, OidcIssuerSpec, PodIdentityBindingSpec, RoleDeletionPolicy, names};
use serde_json::{Value, json};

use self::difference::Difference;
use self::trust::Moves;
use crate::aws::model::{IamWrite, Identity, NewRole, Role, RolePolicies, RoleSettings, Tags, Write};
use crate::change::Change;
use crate::ownership::Owner;
use crate::policy::only_denies;
use crate::policy::trust::Trust;

/// Another binding that a role is handed over to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heir {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its `resourceVersion` as it was seen.
    pub version: String,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// The tags that make the role its own.
    pub tags: Tags,
}

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
    /// Inline policies by name.
    pub inline: BTreeMap<String, Value>,
    /// Session limit and description.
    pub settings: RoleSettings,
    /// The account, and the credentials with which it is changed.
    pub identity: Identity,
    /// The path, `/…/`.
    pub path: String,
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
    identity: &Identity,
) -> Target {
    let issuers: Vec<String> = issuers.into_iter().collect();
    let (cluster, service_account) = (&issuer.cluster_name, &spec.service_account_name);
    let (account, partition) =
        (&identity.account, issuer.partition().unwrap_or_else(|| identity.partition()).id);
    let issuer_url = issuer.issuer_url();
    let provider = |url: &String| names::provider_arn(partition, account, url);
    let providers = issuers.iter().map(provider).collect();
    let trust = Trust {
        provider_arn: &names::provider_arn(partition, account, &issuer_url),
        issuer_url: &issuer_url,
        audience: spec.audience.as_deref().unwrap_or(issuer.audience()),
        subject: &names::subject(namespace, service_account),
    };
    Target {
        name: names::role_name(cluster, namespace, service_account),
        arn: names::role_arn(partition, account, cluster, namespace, service_account),
        trust: trust::wanted(&trust, providers),
        boundary: issuer.boundary_arn(partition, account),
        attached: attached::wanted(spec.role.as_ref().map_or(&[], |role| &role.policy_arns)),
        inline: inline::wanted(spec.role.as_ref().map_or(&[], |role| &role.inline_policies)),
        settings: settings::wanted(
            spec.role.as_ref(),
            format!("ServiceAccount {namespace}/{service_account} of cluster {cluster}"),
        ),
        identity: identity.clone(),
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
        let attach = attached::diff(&self.name, &BTreeMap::new(), &self.attached);
        let inline = inline::diff(&self.name, &BTreeMap::new(), &self.inline);
        std::iter::once(create).chain(Difference::in_order([attach, inline])).collect()
    }

    /// What makes a role that exists as specified. The boundary comes first: the operator may change the rights of bounded
    /// roles only.
    #[must_use]
    pub fn diff(&self, role: &Role, policies: Option<&RolePolicies>, moves: &Moves) -> Vec<Change> {
        let name = &self.name;
        let boundary = boundary::diff(name, role, &self.boundary);
        let trust = self.trust.diff(name, role, &self.ownership_tags(), moves);
        let settings = settings::diff(name, role, &self.settings);
        let rights = policies.map(|RolePolicies { attached, inline, .. }| {
            let restoration = revocation::restoration(name, inline);
            let rights =
                [inline::diff(name, inline, &self.inline), attached::diff(name, attached, &self.attached)];
            Difference::in_order(rights).into_iter().chain(restoration)
        });
        let retained = self.untag(role, "retention of the role", &[tag::RETAINED]);
        let settings = settings.into_iter().chain(retained);
        boundary.into_iter().chain(trust).chain(settings).chain(rights.into_iter().flatten()).collect()
    }

    /// What puts the tags of the issuer's `spec.tags` on the role. It is no part of [`Self::diff`]: nothing else waits for it.
    #[must_use]
    pub fn put_tags(&self, role: &Role) -> Option<Change> {
        tags::diff(&self.name, &role.tags, &self.owner)
    }

    /// What takes tags off the role, as far as it has them.
    fn untag(&self, role: &Role, attribute: &'static str, keys: &[&str]) -> Option<Change> {
        let keys: Vec<String> =
            keys.iter().filter(|key| role.tags.contains_key(**key)).map(ToString::to_string).collect();
        (!keys.is_empty()).then(|| Change {
            attribute,
            old: Some(keys.join(", ")),
            new: None,
            write: Write::Iam(IamWrite::UntagRole { role: self.name.clone(), keys }),
        })
    }

    /// What revokes the role at once, for its live sessions, too. As in [`Self::revocation`] the boundary comes first only where IAM has
    /// refused the rest.
    #[must_use]
    pub fn revoke(&self, role: &Role, policies: &RolePolicies, boundary_first: bool) -> Vec<Change> {
        let revocation = revocation::diff(&self.name, role, &policies.inline, &self.trust);
        self.with_boundary(role, revocation, boundary_first)
    }

    /// What is done with a role that its binding gives up; nothing where all of it is done.
    #[must_use]
    pub fn give_up(
        &self,
        policy: RoleDeletionPolicy,
        role: &Role,
        policies: Option<&RolePolicies>,
        boundary_first: bool,
    ) -> Vec<Change> {
        match policy {
            RoleDeletionPolicy::Delete => {
                [self.revocation(role, boundary_first), self.removal(role, policies)].concat()
            }
            RoleDeletionPolicy::Retain => {
                let revocation = policies.map(|policies| self.revoke(role, policies, boundary_first));
                revocation.into_iter().flatten().chain(self.retain(role)).collect()
            }
            RoleDeletionPolicy::Release => {
                let keys = [
                    tag::CLUSTER,
                    tag::KIND,
                    tag::NAMESPACE,
                    tag::NAME,
                    tag::ISSUER,
                    tag::RETAINED,
                    tag::FORMER_UNTIL,
                ];
                self.untag(role, "owner of the role", &keys).into_iter().collect()
            }
        }
    }

    /// What marks the role as kept on purpose.
    fn retain(&self, role: &Role) -> Option<Change> {
        let mut tags = self.ownership_tags();
        tags.insert(tag::RETAINED.into(), "true".into());
        (!role.tags.contains_key(tag::RETAINED)).then(|| Change {
            attribute: "retention of the role",
            old: None,
            new: Some(tag::RETAINED.into()),
            write: Write::Iam(IamWrite::TagRole { role: self.name.clone(), tags }),
        })
    }

    /// What the role allows now, as a grant sees it: managed policies and whether there are inline ones. What only denies is no
    /// right.
    #[must_use]
    pub fn rights(&self, policies: &RolePolicies) -> (Vec<String>, bool) {
        let denies: BTreeSet<&String> =
            attached::foreign_denies(&policies.attached, &self.attached).collect();
        let attached = policies.attached.keys().filter(|arn| !denies.contains(arn)).cloned().collect();
        (attached, policies.inline.values().any(|document| !only_denies(document)))
    }

    /// What lets no new session begin: the first part of a removal. The trust policy is closed first, because it may not be possible to put
    /// the boundary in place: its policy may not exist, or the operator may not have the right yet. IAM may refuse to change the trust policy
    /// of a role with another boundary; then, `boundary_first`, our boundary is put in place before.
    #[must_use]
    pub fn revocation(&self, role: &Role, boundary_first: bool) -> Vec<Change> {
        let trust = self.trust.revocation(&self.name, role).into_iter().collect();
        self.with_boundary(role, trust, boundary_first)
    }

    /// The changes, with the boundary before or after them.
    fn with_boundary(&self, role: &Role, changes: Vec<Change>, first: bool) -> Vec<Change> {
        let boundary: Vec<Change> = boundary::diff(&self.name, role, &self.boundary).into_iter().collect();
        if first { [boundary, changes].concat() } else { [changes, boundary].concat() }
    }

    /// The name of another binding of this namespace that a role belongs to by its tags.
    #[must_use]
    pub fn other_binding<'a>(&self, role: &'a Role) -> Option<&'a str> {
        self.owner.other_name(&role.tags)
    }

    /// Policies of the role that are not specified and only deny, in words.
    #[must_use]
    pub fn foreign_denies(&self, policies: &RolePolicies) -> Vec<String> {
        let inline = inline::foreign_denies(&policies.inline, &self.inline)
            .map(|name| format!("inline policy {name}"));
        let attached = attached::foreign_denies(&policies.attached, &self.attached).cloned();
        inline.chain(attached).collect()
    }

    /// The issuer in the tags of a role that is this binding's but for the issuer.
    #[must_use]
    pub fn unknown_issuer<'a>(&self, role: &'a Role) -> Option<&'a str> {
        self.owner.unknown_issuer(&role.tags)
    }

    /// Whether an ARN is that of this role: IAM compares role names without regard to case, and a name is unique in an
    /// account whatever its path.
    #[must_use]
    pub fn is(&self, arn: &str) -> bool {
        let parts = |arn: &str| {
            let (account, role) = arn.split_once(":role/")?;
            Some((account.to_owned(), role.rsplit('/').next()?.to_ascii_lowercase()))
        };
        parts(arn) == parts(&self.arn)
    }

    /// What the specification makes of the role, as text: [`Self::digest_without_tags`], and twelve characters more where the issuer has
    /// tags.
    #[must_use]
    pub fn digest(&self) -> String {
        let tags = self.owner.specified_tags();
        let of_tags = if tags.is_empty() {
            String::new()
        } else {
            names::short_digest(json!(tags).to_string().as_bytes())
        };
        self.digest_without_tags() + &of_tags
    }

    /// What a role was read as that has all but, maybe, the tags of the issuer.
    #[must_use]
    pub fn digest_of(&self, role: &Role) -> String {
        if self.put_tags(role).is_none() { self.digest() } else { self.digest_without_tags() }
    }

    /// What the specification makes of the role but for the tags of the issuer, as twelve characters: they differ where any attribute does.
    #[must_use]
    pub fn digest_without_tags(&self) -> String {
        let trust::Wanted { policy, .. } = &self.trust;
        let RoleSettings { max_session_seconds, description } = &self.settings;
        let all = json!([
            self.arn,
            policy,
            self.boundary,
            self.attached,
            self.inline,
            max_session_seconds,
            description,
            self.ownership_tags(),
        ]);
        names::short_digest(all.to_string().as_bytes())
    }

    /// The tags that make the role this binding's own.
    #[must_use]
    pub fn ownership_tags(&self) -> Tags {
        self.owner.ownership_tags()
    }

    /// What makes the role another binding's.
    #[must_use]
    pub fn hand_over(&self, heir: &Heir) -> Change {
        Change {
            attribute: "owner of the role",
            old: self.owner.tags().get(names::tag::NAME).cloned(),
            new: Some(heir.name.clone()),
            write: Write::Iam(IamWrite::TagRole { role: self.name.clone(), tags: heir.tags.clone() }),
        }
    }

    /// What takes the role away once it is revoked; each change tolerates that it was made before.
    #[must_use]
    pub fn removal(&self, role: &Role, policies: Option<&RolePolicies>) -> Vec<Change> {
        let name = &self.name;
        let rights = policies.map(|RolePolicies { attached, inline, unread_attached, unread_inline }| {
            let [attached, attached_denies] = attached::removal(name, attached);
            let [inline, inline_denies] = inline::removal(name, inline);
            // They are removed last: they may be policies that only deny.
            let unread_attached = unread_attached.iter().map(|arn| attached::detach(name, arn)).collect();
            let unread_inline = unread_inline.iter().map(|policy| inline::remove(name, policy)).collect();
            [attached, inline, attached_denies, inline_denies, unread_attached, unread_inline].concat()
        });
        let delete = Change {
            attribute: "role removal",
            old: Some(self.arn.clone()),
            new: None,
            write: Write::Iam(IamWrite::DeleteRole { role: self.name.clone(), id: role.id.clone() }),
        };
        rights.into_iter().flatten().chain([delete]).collect()
    }
}
