//! PURE: all `OidcIssuer`s of one cluster in one AWS account. What exists once for them (the permissions boundary, the
//! operator's own role and its policy) is the union over all.

use std::collections::{BTreeMap, BTreeSet};

use crds::{Finding, OidcIssuerSpec, Reason};

use crate::aws::model::Identity;
use crate::ownership::Owner;

/// An `OidcIssuer`: name and specification.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedIssuer {
    /// `metadata.name`.
    pub name: String,
    /// The specification.
    pub spec: OidcIssuerSpec,
}

/// The issuers, never none, and the account.
#[derive(Debug, Clone, PartialEq)]
pub struct Installation {
    account: String,
    partition: &'static str,
    first: NamedIssuer,
    issuers: Vec<NamedIssuer>,
    former_boundaries: BTreeSet<String>,
}

impl Installation {
    /// Puts issuers together. One cluster has one name in an account, in one partition: role names, path and boundary
    /// carry it. An issuer that is given twice counts once.
    pub fn new(identity: &Identity, issuers: impl IntoIterator<Item = NamedIssuer>) -> Result<Self, Finding> {
        let refused = |message: String| Finding::new(Reason::InvalidSpec, message);
        let mut issuers = issuers.into_iter();
        let first = issuers.next().ok_or_else(|| refused("the file contains no OidcIssuer".into()))?;
        let key = |issuer: &NamedIssuer| (issuer.name.clone(), issuer.spec.issuer_url());
        let mut all = BTreeMap::from([(key(&first), first.clone())]);
        for issuer in issuers {
            let (one, other) = (&first.spec, &issuer.spec);
            if one.cluster_name != other.cluster_name {
                return Err(refused(format!(
                    "OidcIssuer {} has spec.clusterName {} and OidcIssuer {} has {}: one cluster has one name in an AWS \
                     account, since role names, the role path and the permissions boundary carry it. Give both the same \
                     spec.clusterName",
                    first.name, one.cluster_name, issuer.name, other.cluster_name
                )));
            }
            all.entry(key(&issuer)).or_insert(issuer);
        }
        let issuers: Vec<NamedIssuer> = all.into_values().collect();
        let mut partitions = issuers.iter().filter_map(|one| Some((&one.name, one.spec.partition()?)));
        let partition = partitions.next();
        if let (Some((one, in_one)), Some((other, in_other))) =
            (partition, partitions.find(|(_, found)| partition.is_some_and(|(_, first)| first != *found)))
        {
            return Err(refused(format!(
                "OidcIssuer {one} is in partition {in_one} and OidcIssuer {other} in {in_other}: they cannot be in one AWS account"
            )));
        }
        let partition = partition.map_or_else(|| identity.partition(), |(_, partition)| partition).id;
        Ok(Self {
            account: identity.account.clone(),
            partition,
            first,
            issuers,
            former_boundaries: BTreeSet::new(),
        })
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The issuers, by name.
    #[must_use]
    pub fn issuers(&self) -> &[NamedIssuer] {
        &self.issuers
    }

    /// The cluster's name in AWS.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        &self.first.spec.cluster_name
    }

    /// The partition of the account.
    #[must_use]
    pub fn partition(&self) -> &'static str {
        self.partition
    }

    /// The same with boundaries that no issuer has any more, and that roles still carry: the operator's policy lets it take
    /// rights from such roles, and no more.
    #[must_use]
    pub fn with_former_boundaries(self, former_boundaries: BTreeSet<String>) -> Self {
        Self { former_boundaries, ..self }
    }

    /// See [`Self::with_former_boundaries`].
    #[must_use]
    pub fn former_boundaries(&self) -> &BTreeSet<String> {
        &self.former_boundaries
    }

    /// ARNs of the boundaries of all issuers. Where each has one of its own, the default one is not among them: it allows what the
    /// organisation's may deny.
    #[must_use]
    pub fn boundaries(&self) -> BTreeSet<String> {
        self.issuers.iter().map(|issuer| issuer.spec.boundary_arn(self.partition, &self.account)).collect()
    }

    /// The owner of boundary and operator's role.
    #[must_use]
    pub fn owner(&self) -> Owner {
        let urls = self.issuers.iter().map(|issuer| issuer.spec.issuer_url());
        Owner::of_operator(&self.first.name, &self.first.spec, urls)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn issuer(name: &str, cluster: &str, region: &str) -> NamedIssuer {
        let bucket = format!("{name}-111122223333-{region}-an");
        let spec = json!({"clusterName": cluster, "s3": {"bucket": bucket, "region": region}});
        NamedIssuer { name: name.into(), spec: serde_json::from_value(spec).unwrap() }
    }

    #[test]
    fn issuers_that_cannot_share_an_account_are_refused_with_both_names() {
        let (account, one) =
            (Identity::of_account("111122223333"), || issuer("one", "homelab", "eu-central-1"));
        for (other, says) in [
            (issuer("two", "office", "eu-central-1"), "OidcIssuer two has office"),
            (issuer("two", "homelab", "cn-north-1"), "OidcIssuer two in aws-cn"),
        ] {
            let refused = Installation::new(&account, [one(), other]).unwrap_err();
            assert!(refused.message.contains(says), "{refused:?}");
        }
        assert!(Installation::new(&account, []).is_err());
    }
}
