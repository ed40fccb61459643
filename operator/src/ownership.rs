//! PURE: which object owns a resource in AWS. Ownership is proved by tags and never by a uid: a restored cluster has new
//! uids.

use std::collections::BTreeSet;

use crds::names::tag;
use crds::{Finding, OidcIssuerSpec, Reason};

use crate::aws::model::Tags;

/// The kind in the tags of what `bootstrap` makes for the operator itself.
const OPERATOR: &str = "Operator";

/// The owner of a resource: the tags of what it makes, and the rule by which it finds its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    tags: Tags,
    /// Further issuer URLs that are accepted beside the one in `tags`.
    issuers: BTreeSet<String>,
    /// Tag keys whose values must be equal.
    proof: &'static [&'static str],
}

impl Owner {
    /// The owner of an issuer's bucket and provider: all tags must be its own.
    #[must_use]
    pub fn of_issuer(name: &str, spec: &OidcIssuerSpec) -> Self {
        Self {
            tags: spec.all_tags("OidcIssuer", None, name),
            issuers: BTreeSet::new(),
            proof: &[tag::CLUSTER, tag::KIND, tag::NAMESPACE, tag::NAME],
        }
    }

    /// The owner of a binding's role. `issuers` are the URLs of all `OidcIssuer`s of this cluster: a role made under any of
    /// them is this cluster's.
    #[must_use]
    pub fn of_binding(
        namespace: &str,
        name: &str,
        issuer: &OidcIssuerSpec,
        issuers: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            tags: of_role(issuer.all_tags("PodIdentityBinding", Some(namespace), name)),
            issuers: issuers.into_iter().collect(),
            proof: &[tag::CLUSTER, tag::KIND, tag::NAMESPACE, tag::NAME],
        }
    }

    /// The owner of what `bootstrap` makes for the operator itself. It belongs to all issuers of the cluster, so the name
    /// of the one it was first made for proves nothing.
    #[must_use]
    pub fn of_operator(
        name: &str,
        issuer: &OidcIssuerSpec,
        issuers: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            tags: of_role(issuer.all_tags(OPERATOR, None, name)),
            issuers: issuers.into_iter().collect(),
            proof: &[tag::CLUSTER, tag::KIND, tag::NAMESPACE],
        }
    }

    fn is_operator(&self) -> bool {
        self.tags.get(tag::KIND).is_some_and(|kind| kind == OPERATOR)
    }

    /// The tags that make a resource its own, if a resource with these tags is not.
    #[must_use]
    pub fn missing_tags(&self, found: &Tags) -> Option<&Tags> {
        self.check("", "", found).is_err().then_some(&self.tags)
    }

    /// The tags of what it makes, put in the creating call: ownership tags, and those of `spec.tags` of the issuer.
    #[must_use]
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// The ownership tags alone.
    #[must_use]
    pub fn ownership_tags(&self) -> Tags {
        self.only(|key| key.starts_with(tag::PREFIX))
    }

    /// The tags of `spec.tags` alone. None of them is an ownership tag in another case.
    #[must_use]
    pub fn specified_tags(&self) -> Tags {
        self.only(|key| !key.to_ascii_lowercase().starts_with(tag::PREFIX))
    }

    fn only(&self, is_one: impl Fn(&str) -> bool) -> Tags {
        let tags = self.tags.iter().filter(|(key, _)| is_one(key));
        tags.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The name in the tags of a resource that belongs to another object of the same kind, namespace and cluster.
    #[must_use]
    pub fn other_name<'a>(&self, found: &'a Tags) -> Option<&'a str> {
        let same = |key: &str| key == tag::NAME || found.get(key) == self.tags.get(key);
        let name = found.get(tag::NAME).filter(|name| Some(*name) != self.tags.get(tag::NAME))?;
        (self.is_of_issuers(found) && self.proof.iter().all(|key| same(key))).then_some(name)
    }

    /// The issuer in the tags of a resource that is this owner's but for an issuer that the cluster does not have.
    #[must_use]
    pub fn unknown_issuer<'a>(&self, found: &'a Tags) -> Option<&'a str> {
        let same = self.proof.iter().all(|key| found.get(*key) == self.tags.get(*key));
        found.get(tag::ISSUER).filter(|_| same && !self.is_of_issuers(found)).map(String::as_str)
    }

    fn is_of_issuers(&self, found: &Tags) -> bool {
        let issuer = found.get(tag::ISSUER);
        issuer == self.tags.get(tag::ISSUER) || issuer.is_some_and(|url| self.issuers.contains(url))
    }

    /// Whether a resource with these tags is its own; if not, the error names its owner.
    pub fn check(&self, what: &str, name: &str, found: &Tags) -> Result<(), Finding> {
        let same_issuer = self.is_of_issuers(found);
        if same_issuer && self.proof.iter().all(|key| found.get(*key) == self.tags.get(*key)) {
            return Ok(());
        }
        let of = |key: &str| found.get(key).map_or("?", String::as_str);
        let message = match found.get(tag::CLUSTER) {
            None => format!(
                "{what} {name} exists and does not carry this operator's ownership tags: it belongs to somebody else. \
                 Remove it in AWS, take it over with `operator adopt` or, of a bucket, choose another spec.s3.bucket"
            ),
            Some(cluster)
                if Some(cluster) == self.tags.get(tag::CLUSTER) && !same_issuer && !self.is_operator() =>
            {
                format!(
                    "{what} {name} belongs to issuer {} of a cluster named {cluster}: cluster name taken in this account. Make a \
                 new OidcIssuer with another spec.clusterName or, of a bucket, with another spec.s3.bucket",
                    of(tag::ISSUER)
                )
            }
            Some(cluster) if Some(cluster) == self.tags.get(tag::CLUSTER) && !same_issuer => format!(
                "{what} {name} was made for issuer {} of a cluster named {cluster}, which is neither in the file nor in this \
                 cluster. If it is of this cluster, add that OidcIssuer to the file; otherwise the cluster name is taken in \
                 this account: choose another spec.clusterName",
                of(tag::ISSUER)
            ),
            Some(cluster) => {
                let namespace = found.get(tag::NAMESPACE).map_or(String::new(), |ns| format!("{ns}/"));
                format!(
                    "{what} {name} belongs to {} {namespace}{} of cluster {cluster}, issuer {}: delete it there first. If it does not \
                     exist any more, a role is removed with `operator orphans --delete {name}`",
                    of(tag::KIND),
                    of(tag::NAME),
                    of(tag::ISSUER)
                )
            }
        };
        Err(Finding::new(Reason::NotOwned, message))
    }
}

/// Tags as a role can have them: IAM refuses two keys that differ only in case. The first one counts, but none before an ownership tag.
fn of_role(mut tags: Tags) -> Tags {
    let is_ownership = |key: &String| key.starts_with(tag::PREFIX);
    let mut keys: BTreeSet<String> = tags.keys().filter(|key| is_ownership(key)).cloned().collect();
    tags.retain(|key, _| is_ownership(key) || keys.insert(key.to_ascii_lowercase()));
    tags
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(prefix: &str) -> OidcIssuerSpec {
        let s3 =
            json!({"bucket": "b-111122223333-eu-central-1-an", "region": "eu-central-1", "prefix": prefix});
        serde_json::from_value(json!({"clusterName": "homelab", "s3": s3})).unwrap()
    }

    #[test]
    fn a_role_of_any_issuer_of_the_cluster_is_its_own_a_bucket_only_of_its_own_issuer() {
        let (one, two, foreign) = (spec("one"), spec("two"), spec("foreign"));
        let urls = || [one.issuer_url(), two.issuer_url()];
        let role = Owner::of_binding("ns", "app", &one, urls());
        let made_under = |spec: &OidcIssuerSpec| Owner::of_binding("ns", "app", spec, []).tags().clone();
        role.check("role", "r", &made_under(&one)).unwrap();
        role.check("role", "r", &made_under(&two)).unwrap();
        let refused = role.check("role", "r", &made_under(&foreign)).unwrap_err();
        assert!(refused.message.contains("cluster name taken"), "{refused:?}");
        let other = Owner::of_binding("ns", "other", &one, urls()).tags().clone();
        let refused = role.check("role", "r", &other).unwrap_err();
        assert!(refused.message.contains("PodIdentityBinding ns/other of cluster homelab"), "{refused:?}");

        let bucket = Owner::of_issuer("default", &one);
        bucket.check("bucket", "b", bucket.tags()).unwrap();
        bucket.check("bucket", "b", Owner::of_issuer("default", &two).tags()).unwrap_err();
        bucket.check("bucket", "b", Owner::of_issuer("second", &one).tags()).unwrap_err();

        let operator = Owner::of_operator("one", &one, urls());
        operator.check("role", "r", Owner::of_operator("two", &two, []).tags()).unwrap();
        operator.check("role", "r", Owner::of_operator("foreign", &foreign, []).tags()).unwrap_err();
        operator.check("role", "r", &Tags::new()).unwrap_err();
    }

    #[test]
    fn of_two_keys_that_differ_in_case_a_role_has_one_and_always_the_ownership_tag() {
        let mut issuer = spec("one");
        issuer.tags = [("Podidentity.dev/cluster", "other"), ("Team", "a"), ("team", "b")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        for role in [Owner::of_binding("ns", "app", &issuer, []), Owner::of_operator("one", &issuer, [])] {
            assert_eq!(role.tags()[tag::CLUSTER], "homelab");
            assert_eq!(role.specified_tags(), Tags::from([("Team".to_owned(), "a".to_owned())]));
            assert_eq!(role.tags().len(), role.ownership_tags().len() + 1);
        }
        assert_eq!(Owner::of_issuer("one", &issuer).tags()["team"], "b", "other services distinguish them");
    }
}
