//! PURE: which roles under a cluster's path are orphans.

use std::collections::{BTreeMap, BTreeSet};

use crds::names::{role_name, tag};

use crate::aws::model::Role;

/// What the cluster has, as far as it keeps roles from being orphans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// `spec.clusterName`.
    pub cluster: String,
    /// URLs of its `OidcIssuer`s of that name.
    pub issuers: BTreeSet<String>,
    /// Names of the `ServiceAccount`s by binding (namespace and name); `None` of a binding that cannot be read.
    pub bindings: BTreeMap<(String, String), Option<String>>,
    /// Names of the roles that a binding's status names as its own: they need not be read.
    pub seen: BTreeSet<String>,
    /// Every `spec.roleARN`.
    pub used: BTreeSet<String>,
}

/// A role without its binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The role's name.
    pub role: String,
    /// Namespace of the binding that it was made for.
    pub namespace: String,
    /// Name of that binding.
    pub binding: String,
    /// The issuer that it was made under.
    pub issuer: String,
}

impl Known {
    /// The role as an orphan: it has all our ownership tags, no binding that makes it, is no `spec.roleARN`, and was not kept
    /// on purpose. A role of another cluster, or without our tags, is none of this cluster's concern.
    #[must_use]
    pub fn orphan(&self, name: &str, role: &Role) -> Option<Orphan> {
        let of = |key: &str| role.tags.get(key);
        let ours = of(tag::CLUSTER) == Some(&self.cluster)
            && of(tag::KIND).is_some_and(|kind| kind == "PodIdentityBinding")
            && of(tag::ISSUER).is_some_and(|url| self.issuers.contains(url));
        let (namespace, binding) = (of(tag::NAMESPACE)?, of(tag::NAME)?);
        let makes_it = match self.bindings.get(&(namespace.clone(), binding.clone())) {
            None => false,
            // What it makes is not known.
            Some(None) => true,
            Some(Some(account)) => role_name(&self.cluster, namespace, account) == name,
        };
        let is_used = self.used.iter().any(|arn| arn.eq_ignore_ascii_case(&role.arn));
        let kept = of(tag::RETAINED).is_some();
        (ours && !makes_it && !is_used && !kept).then(|| Orphan {
            role: name.to_owned(),
            namespace: namespace.clone(),
            binding: binding.clone(),
            issuer: of(tag::ISSUER).cloned().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::aws::model::RoleSettings;

    const URL: &str = "https://b.s3.eu-central-1.amazonaws.com/homelab";

    fn role() -> (String, Role) {
        let name = role_name("homelab", "vault", "app");
        let tags = [
            (tag::CLUSTER, "homelab"),
            (tag::KIND, "PodIdentityBinding"),
            (tag::NAMESPACE, "vault"),
            (tag::NAME, "app"),
            (tag::ISSUER, URL),
        ];
        let role = Role {
            id: "AROA1".into(),
            arn: format!("arn:aws:iam::111122223333:role/podidentity/homelab/{name}"),
            trust: String::new(),
            boundary: None,
            settings: RoleSettings { max_session_seconds: 3600, description: String::new() },
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        };
        (name, role)
    }

    #[test]
    fn an_orphan_is_a_role_of_this_cluster_that_nothing_needs() {
        type Edit = fn(&mut Known, &mut Role);
        let table: [(&str, Edit, bool); 11] = [
            ("its binding is gone", |_, _| {}, true),
            (
                "its binding exists",
                |known, _| {
                    known.bindings.insert(("vault".into(), "app".into()), Some("app".into()));
                },
                false,
            ),
            (
                "its binding cannot be read",
                |known, _| {
                    known.bindings.insert(("vault".into(), "app".into()), None);
                },
                false,
            ),
            (
                "a binding of its name makes another role",
                |known, _| {
                    known.bindings.insert(("vault".into(), "app".into()), Some("other".into()));
                },
                true,
            ),
            (
                "another binding uses it by its ARN",
                |known, role| {
                    known.used.insert(role.arn.to_uppercase());
                },
                false,
            ),
            (
                "kept on purpose",
                |_, role| {
                    role.tags.insert(tag::RETAINED.into(), "true".into());
                },
                false,
            ),
            ("without our tags", |_, role| role.tags.clear(), false),
            (
                "of another cluster of this name",
                |_, role| {
                    role.tags.insert(tag::ISSUER.into(), "https://other.example.com".into());
                },
                false,
            ),
            (
                "of another cluster",
                |_, role| {
                    role.tags.insert(tag::CLUSTER.into(), "office".into());
                },
                false,
            ),
            (
                "of the operator",
                |_, role| {
                    role.tags.insert(tag::KIND.into(), "Operator".into());
                },
                false,
            ),
            (
                "half of our tags",
                |_, role| {
                    role.tags.remove(tag::NAMESPACE);
                },
                false,
            ),
        ];
        for (row, edit, expected) in table {
            let (name, mut role) = role();
            let mut known =
                Known { cluster: "homelab".into(), issuers: [URL.to_owned()].into(), ..Known::default() };
            edit(&mut known, &mut role);
            assert_eq!(known.orphan(&name, &role).is_some(), expected, "{row}");
        }
    }
}
