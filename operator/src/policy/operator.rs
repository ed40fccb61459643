//! PURE: the operator's own permissions, and not one more. `operator iam-policy` prints them, `bootstrap` grants them,
//! and every end-to-end test runs under them.

use crds::names::{ROLES_PATH, boundary_arn, provider_arn, role_path, tag};
use serde_json::{Value, json};

use super::VERSION;
use crate::installation::Installation;

/// Least privilege for all issuers of a cluster in one account: each bucket's two objects and configuration, each provider,
/// and the roles under the cluster's path — created only with the boundary and our tags, changed only while they carry the
/// boundary. No right to change itself, the boundary policy, or to delete what pods' identity rests on (bucket, objects,
/// provider): that is `teardown`'s, with an administrator's session.
#[must_use]
pub fn policy(installation: &Installation) -> Value {
    let (account, partition, cluster) =
        (installation.account(), installation.partition(), installation.cluster_name());
    let issuers = || installation.issuers().iter().map(|issuer| &issuer.spec);
    let bucket = |name: &str| format!("arn:{partition}:s3:::{name}");
    let buckets = distinct(issuers().map(|spec| bucket(&spec.s3.bucket)));
    let objects = distinct(issuers().flat_map(|spec| {
        [spec.discovery_key(), spec.jwks_key()].map(|key| format!("{}/{key}", bucket(&spec.s3.bucket)))
    }));
    let providers = distinct(issuers().map(|spec| provider_arn(partition, account, &spec.issuer_url())));
    let roles = format!("arn:{partition}:iam::{account}:role{}*", role_path(cluster));
    let boundary = boundary_arn(partition, account, cluster);
    let boundary_key = json!({"iam:PermissionsBoundary": boundary});
    let cluster_key = format!("aws:RequestTag/{}", tag::CLUSTER);
    // Role tags are principal tags: with any other key a role could pass policies that rest on those (ABAC).
    let tag_keys = json!({"aws:TagKeys": [tag::CLUSTER, tag::ISSUER, tag::KIND, tag::NAME, tag::NAMESPACE]});
    json!({
        "Version": VERSION,
        "Statement": [
            {
                "Sid": "IssuerBucket",
                "Effect": "Allow",
                "Action": [
                    "s3:CreateBucket", "s3:TagResource", "s3:ListBucket", "s3:GetBucketTagging",
                    "s3:GetBucketOwnershipControls", "s3:PutBucketOwnershipControls",
                    "s3:GetBucketPublicAccessBlock", "s3:PutBucketPublicAccessBlock",
                    "s3:GetBucketPolicy", "s3:PutBucketPolicy",
                ],
                "Resource": buckets,
            },
            {"Sid": "IssuerDocuments", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": objects},
            {
                "Sid": "IssuerProvider",
                "Effect": "Allow",
                "Action": [
                    "iam:CreateOpenIDConnectProvider", "iam:TagOpenIDConnectProvider", "iam:GetOpenIDConnectProvider",
                    "iam:AddClientIDToOpenIDConnectProvider", "iam:RemoveClientIDFromOpenIDConnectProvider",
                ],
                "Resource": providers,
            },
            {
                "Sid": "CreateRolesWithBoundaryAndTags",
                "Effect": "Allow",
                "Action": ["iam:CreateRole"],
                "Resource": roles,
                "Condition": {
                    "StringEquals": {"iam:PermissionsBoundary": boundary, (cluster_key.clone()): cluster},
                    "ForAllValues:StringEquals": tag_keys,
                },
            },
            {
                "Sid": "TagRolesAsOurs",
                "Effect": "Allow",
                "Action": ["iam:TagRole"],
                "Resource": roles,
                "Condition": {"StringEquals": {(cluster_key): cluster}, "ForAllValues:StringEquals": tag_keys},
            },
            {
                "Sid": "ChangeRightsOfBoundedRoles",
                "Effect": "Allow",
                "Action": ["iam:DetachRolePolicy", "iam:DeleteRolePolicy", "iam:PutRolePermissionsBoundary"],
                "Resource": roles,
                "Condition": {"StringEquals": boundary_key},
            },
            {
                // As a boundary it takes rights away; attached it would give all that it does not deny. So would that of
                // another cluster.
                "Sid": "AttachAnythingButABoundary",
                "Effect": "Allow",
                "Action": "iam:AttachRolePolicy",
                "Resource": roles,
                "Condition": {
                    "StringEquals": boundary_key,
                    "ArnNotLike": {"iam:PolicyARN": format!("arn:{partition}:iam::*:policy{ROLES_PATH}*")},
                },
            },
            {
                "Sid": "ReadRoles",
                "Effect": "Allow",
                "Action": [
                    "iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies", "iam:GetRolePolicy",
                ],
                "Resource": roles,
            },
            {
                // Sources disagree whether the key of the boundary is present on these calls. Where it is, it must be ours;
                // where it is not, the tag says that the role is this cluster's.
                "Sid": "TrustAndDeleteBoundedRolesOfThisCluster",
                "Effect": "Allow",
                "Action": ["iam:UpdateAssumeRolePolicy", "iam:UpdateRole", "iam:DeleteRole"],
                "Resource": roles,
                "Condition": {
                    "StringEquals": {(format!("aws:ResourceTag/{}", tag::CLUSTER)): cluster},
                    "StringEqualsIfExists": boundary_key,
                },
            },
            {
                // Whether a policy that somebody attached to a role only denies: then it stays.
                "Sid": "ReadPolicies",
                "Effect": "Allow",
                "Action": ["iam:GetPolicy", "iam:GetPolicyVersion"],
                "Resource": [
                    format!("arn:{partition}:iam::{account}:policy/*"),
                    format!("arn:{partition}:iam::aws:policy/*"),
                ],
            },
            {
                // Roles without a binding are found by listing the path.
                "Sid": "ListRolesOfThisCluster",
                "Effect": "Allow",
                "Action": "iam:ListRoles",
                "Resource": roles,
            },
            {
                // IAM cannot know the path of a role that does not exist: it authorises the question for its bare name.
                "Sid": "AskForMissingRoles",
                "Effect": "Allow",
                "Action": ["iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies"],
                "Resource": format!("arn:{partition}:iam::{account}:role/{cluster}.*"),
            },
        ],
    })
}

/// One value as itself, several as a list: what a person would write.
fn distinct(values: impl Iterator<Item = String>) -> Value {
    let mut values: Vec<String> = values.collect();
    values.sort_unstable();
    values.dedup();
    if values.len() == 1 { json!(values[0]) } else { json!(values) }
}
