//! PURE: the permissions boundary of the cluster's roles, a managed policy.

use crds::names::{boundary_arn, boundary_name, role_path, tag};
use crds::{Finding, Management, OidcIssuerSpec};
use serde_json::Value;

use crate::aws::model::{IamWrite, Policy, Write};
use crate::change::Change;
use crate::installation::Installation;
use crate::policy::{boundary, equivalent};

const ATTRIBUTE: &str = "permissions boundary";
/// IAM keeps at most five versions of a managed policy: the default and these.
const MAX_OLD_VERSIONS: usize = 4;

/// ARN of the boundary.
#[must_use]
pub fn arn(installation: &Installation) -> String {
    boundary_arn(installation.partition(), installation.account(), installation.cluster_name())
}

/// The document: no write to any issuer's bucket.
#[must_use]
pub fn wanted(installation: &Installation) -> Value {
    let partition = installation.partition();
    let read_only: Vec<String> =
        installation.issuers().iter().flat_map(|issuer| read_only(partition, &issuer.spec)).collect();
    boundary::policy(partition, installation.account(), &read_only)
}

/// What no role may write: a managed bucket, or the two documents in a bucket that has something else in it, too.
fn read_only(partition: &str, spec: &OidcIssuerSpec) -> Vec<String> {
    let Some(s3) = &spec.s3 else { return Vec::new() };
    let bucket = format!("arn:{partition}:s3:::{}", s3.bucket);
    match s3.management {
        Management::Managed => vec![bucket.clone(), format!("{bucket}/*")],
        Management::Existing => {
            [spec.discovery_key(), spec.jwks_key()].map(|key| format!("{bucket}/{key}")).into()
        }
    }
}

/// What makes the policy as wanted; an error where it belongs to somebody else.
pub fn diff(installation: &Installation, found: Option<&Policy>) -> Result<Vec<Change>, Finding> {
    let (policy, document) = (arn(installation), wanted(installation));
    let change = |attribute, old: Option<String>, new: Option<String>, write| Change {
        attribute,
        old,
        new,
        write: Write::Iam(write),
    };
    let new = Some(document.to_string());
    let Some(found) = found else {
        let write = IamWrite::CreatePolicy {
            name: boundary_name(installation.cluster_name()),
            path: role_path(installation.cluster_name()),
            document,
            tags: installation.owner().tags().clone(),
        };
        return Ok(vec![change(ATTRIBUTE, None, new, write)]);
    };
    installation.owner().check("policy", &policy, &found.tags)?;
    if equivalent(&found.document, &document) {
        return Ok(Vec::new());
    }
    let oldest = found.old_versions.first().filter(|_| found.old_versions.len() >= MAX_OLD_VERSIONS);
    let delete_oldest = oldest.map(|version| {
        let write = IamWrite::DeletePolicyVersion { policy: policy.clone(), version: version.clone() };
        change("permissions boundary (oldest version)", Some(version.clone()), None, write)
    });
    let write = IamWrite::PutPolicyVersion { policy: policy.clone(), document };
    let put = change("permissions boundary (new version)", Some(found.document.clone()), new, write);
    Ok(delete_oldest.into_iter().chain([put]).collect())
}

/// What takes the policy away; an error where it belongs to somebody else.
pub fn removal(installation: &Installation, found: Option<&Policy>) -> Result<Vec<Change>, Finding> {
    let Some(found) = found else { return Ok(Vec::new()) };
    let policy = arn(installation);
    installation.owner().check("policy", &policy, &found.tags)?;
    let version = |version: &String| Change {
        attribute: "permissions boundary (old version)",
        old: Some(version.clone()),
        new: None,
        write: Write::Iam(IamWrite::DeletePolicyVersion { policy: policy.clone(), version: version.clone() }),
    };
    let last = Change {
        attribute: ATTRIBUTE,
        old: Some(policy.clone()),
        new: None,
        write: Write::Iam(IamWrite::DeletePolicy { policy: policy.clone() }),
    };
    Ok(found.old_versions.iter().map(version).chain([last]).collect())
}

/// What marks the policy as made for other issuers of the cluster, before those it was made for are removed; an error where
/// it belongs to somebody else.
pub fn hand_over(
    from: &Installation,
    to: &Installation,
    found: Option<&Policy>,
) -> Result<Option<Change>, Finding> {
    let Some(found) = found else { return Ok(None) };
    let policy = arn(from);
    from.owner().check("policy", &policy, &found.tags)?;
    let owner = to.owner();
    Ok(owner.missing_tags(&found.tags).map(|tags| Change {
        attribute: "owner of the permissions boundary",
        old: found.tags.get(tag::ISSUER).cloned(),
        new: tags.get(tag::ISSUER).cloned(),
        write: Write::Iam(IamWrite::TagPolicy { policy, tags: tags.clone() }),
    }))
}
