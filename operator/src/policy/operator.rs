//! PURE: the operator's own permissions, and not one more. `operator iam-policy` prints them, `bootstrap` grants them,
//! and every end-to-end test runs under them.

use std::collections::BTreeSet;

use crds::names::{ROLES_PATH, boundary_arn, provider_arn, role_path, tag};
use crds::{DeletionPolicy, Management, OidcIssuerSpec};
use serde_json::{Value, json};

use super::VERSION;
use crate::installation::Installation;

const TRUST_AND_DELETE: &str = "TrustAndDeleteBoundedRolesOfThisCluster";

/// Least privilege for all issuers of a cluster in one account: each bucket's two objects and configuration, each provider,
/// and the roles under the cluster's path — created only with the boundary and our tags, changed only while they carry the
/// boundary. No right to change itself, the boundary policy, or to delete what pods' identity rests on (bucket, objects,
/// provider): that is `teardown`'s, with an administrator's session, unless an issuer's `deletionPolicy` is `Delete`.
#[must_use]
pub fn policy(installation: &Installation) -> Value {
    let (account, partition, cluster) =
        (installation.account(), installation.partition(), installation.cluster_name());
    let publication =
        installation.issuers().iter().map(|issuer| Resources::of(&issuer.spec, partition, account));
    let publication: Vec<Resources> = publication.collect();
    let role_arns = format!("arn:{partition}:iam::{account}:role{}*", role_path(cluster));
    let former = installation.former_boundaries();
    let boundary = distinct(installation.boundaries().into_iter());
    let boundary_key = json!({"iam:PermissionsBoundary": boundary});
    let any_boundary = distinct(installation.boundaries().union(former).cloned());
    // Attached, a boundary would give all that it does not deny. So would that of another cluster.
    let others = format!("arn:{partition}:iam::*:policy{ROLES_PATH}*");
    let default_boundary = boundary_arn(partition, account, cluster);
    let named = installation.boundaries().into_iter().filter(|named| *named != default_boundary);
    let not_attached = distinct(named.chain([others]));
    let cluster_key = format!("aws:RequestTag/{}", tag::CLUSTER);
    // Role tags are principal tags: with any other key a role could pass policies that rest on those (ABAC).
    let own =
        [tag::CLUSTER, tag::ISSUER, tag::KIND, tag::NAME, tag::NAMESPACE, tag::RETAINED, tag::FORMER_UNTIL];
    let specified =
        installation.issuers().iter().flat_map(|issuer| issuer.spec.tags.keys().map(String::as_str));
    let tag_keys: BTreeSet<&str> = own.into_iter().chain(specified).collect();
    let tag_keys = json!({"aws:TagKeys": tag_keys});
    let roles = json!([
            {
                "Sid": "CreateRolesWithBoundaryAndTags",
                "Effect": "Allow",
                "Action": ["iam:CreateRole"],
                "Resource": role_arns,
                "Condition": {
                    "StringEquals": {"iam:PermissionsBoundary": boundary, (cluster_key.clone()): cluster},
                    "ForAllValues:StringEquals": tag_keys,
                },
            },
            {
                "Sid": "TagRolesAsOurs",
                "Effect": "Allow",
                "Action": ["iam:TagRole"],
                "Resource": role_arns,
                "Condition": {"StringEquals": {(cluster_key): cluster}, "ForAllValues:StringEquals": tag_keys},
            },
            {
                // A role that is given to another tool, and one that is kept no more.
                "Sid": "TakeOurTagsOff",
                "Effect": "Allow",
                "Action": ["iam:UntagRole"],
                "Resource": role_arns,
                "Condition": {
                    "StringEquals": {(format!("aws:ResourceTag/{}", tag::CLUSTER)): cluster},
                    "ForAllValues:StringEquals": {"aws:TagKeys": own},
                },
            },
            {
                "Sid": "ChangeRightsOfBoundedRoles",
                "Effect": "Allow",
                "Action": [
                    "iam:DetachRolePolicy", "iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:PutRolePermissionsBoundary",
                ],
                "Resource": role_arns,
                "Condition": {"StringEquals": boundary_key},
            },
            {
                "Sid": "AttachAnythingButABoundary",
                "Effect": "Allow",
                "Action": "iam:AttachRolePolicy",
                "Resource": role_arns,
                "Condition": {
                    "StringEquals": boundary_key,
                    "ArnNotLike": {"iam:PolicyARN": not_attached},
                },
            },
            {
                "Sid": "ReadRoles",
                "Effect": "Allow",
                "Action": [
                    "iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies", "iam:GetRolePolicy",
                    "iam:ListInstanceProfilesForRole",
                ],
                "Resource": role_arns,
            },
            {
                // Sources disagree whether the key of the boundary is present on these calls. Where it is, it must be ours;
                // where it is not, the tag says that the role is this cluster's.
                "Sid": TRUST_AND_DELETE,
                "Effect": "Allow",
                "Action": ["iam:UpdateAssumeRolePolicy", "iam:UpdateRole", "iam:DeleteRole"],
                "Resource": role_arns,
                "Condition": {
                    "StringEquals": {(format!("aws:ResourceTag/{}", tag::CLUSTER)): cluster},
                    "StringEqualsIfExists": {"iam:PermissionsBoundary": any_boundary},
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
                "Resource": role_arns,
            },
            {
                // IAM cannot know the path of a role that does not exist: it authorises the question for its bare name.
                "Sid": "AskForMissingRoles",
                "Effect": "Allow",
                "Action": ["iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies"],
                "Resource": format!("arn:{partition}:iam::{account}:role/{cluster}.*"),
            },
    ]);
    let roles = roles.as_array().cloned().unwrap_or_default();
    let under_former = (!former.is_empty()).then(|| {
        json!({
            "Sid": "TakeRightsOfRolesWithAFormerBoundary",
            "Effect": "Allow",
            "Action": ["iam:DetachRolePolicy", "iam:DeleteRolePolicy"],
            "Resource": role_arns,
            "Condition": {"StringEquals": {"iam:PermissionsBoundary": distinct(former.iter().cloned())}},
        })
    });
    let statements: Vec<Value> =
        of_publication(&publication).into_iter().chain(roles).chain(under_former).collect();
    json!({"Version": VERSION, "Statement": statements})
}

/// The boundaries, present and former, of roles that such a policy lets the operator change.
#[must_use]
pub fn named_boundaries(policy: &str) -> BTreeSet<String> {
    let parsed: Value = serde_json::from_str(policy).unwrap_or_default();
    let statements = parsed["Statement"].as_array().into_iter().flatten();
    let bounded = statements.filter(|statement| statement["Sid"] == TRUST_AND_DELETE);
    let named =
        bounded.map(|statement| &statement["Condition"]["StringEqualsIfExists"]["iam:PermissionsBoundary"]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    named
        .flat_map(|named| {
            text(named).into_iter().chain(named.as_array().into_iter().flatten().filter_map(text))
        })
        .collect()
}

/// What one issuer publishes and registers, by what may be done with it.
struct Resources {
    managed_bucket: Option<String>,
    existing_bucket: Option<String>,
    objects: Vec<String>,
    managed_provider: Option<String>,
    existing_provider: Option<String>,
    deletes: bool,
    canary: Option<String>,
}

impl Resources {
    fn of(spec: &OidcIssuerSpec, partition: &str, account: &str) -> Self {
        let bucket = spec.s3.as_ref().map(|s3| format!("arn:{partition}:s3:::{}", s3.bucket));
        let object = |key: String| bucket.as_ref().map(|bucket| format!("{bucket}/{key}"));
        let managed_bucket = bucket.clone().filter(|_| spec.managed_bucket().is_some());
        let provider = provider_arn(partition, account, &spec.issuer_url());
        let is_managed = spec.provider_management() == Management::Managed;
        Self {
            canary: object(spec.canary_key()).filter(|_| managed_bucket.is_some()),
            existing_bucket: bucket.clone().filter(|_| managed_bucket.is_none()),
            managed_bucket,
            objects: [spec.discovery_key(), spec.jwks_key()].into_iter().filter_map(object).collect(),
            managed_provider: is_managed.then(|| provider.clone()),
            existing_provider: (!is_managed).then_some(provider),
            deletes: spec.deletion_policy == DeletionPolicy::Delete,
        }
    }
}

/// The statements about documents and providers. IAM refuses a statement without a resource, so those are left out.
fn of_publication(all: &[Resources]) -> Vec<Value> {
    let deletes = || all.iter().filter(|one| one.deletes);
    let statement = |sid: &str, actions: &[&str], resources: Vec<&String>| {
        let resources = distinct(resources.into_iter().cloned());
        let is_empty = resources.as_array().is_some_and(Vec::is_empty);
        (!is_empty).then(|| json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}))
    };
    let statements = [
        statement(
            "IssuerBucket",
            &[
                "s3:CreateBucket",
                "s3:TagResource",
                "s3:ListBucket",
                "s3:GetBucketTagging",
                "s3:PutBucketTagging",
                "s3:GetBucketOwnershipControls",
                "s3:PutBucketOwnershipControls",
                "s3:GetBucketPublicAccessBlock",
                "s3:PutBucketPublicAccessBlock",
                "s3:GetBucketPolicy",
                "s3:PutBucketPolicy",
            ],
            all.iter().filter_map(|one| one.managed_bucket.as_ref()).collect(),
        ),
        // Without it, S3 answers that a missing document is forbidden.
        statement(
            "ExistingBucket",
            &["s3:ListBucket"],
            all.iter().filter_map(|one| one.existing_bucket.as_ref()).collect(),
        ),
        statement(
            "IssuerDocuments",
            &["s3:GetObject", "s3:PutObject"],
            all.iter().flat_map(|one| &one.objects).collect(),
        ),
        statement(
            "IssuerProvider",
            &[
                "iam:CreateOpenIDConnectProvider",
                "iam:TagOpenIDConnectProvider",
                "iam:GetOpenIDConnectProvider",
                "iam:AddClientIDToOpenIDConnectProvider",
                "iam:RemoveClientIDFromOpenIDConnectProvider",
            ],
            all.iter().filter_map(|one| one.managed_provider.as_ref()).collect(),
        ),
        statement(
            "ExistingProvider",
            &["iam:GetOpenIDConnectProvider"],
            all.iter().filter_map(|one| one.existing_provider.as_ref()).collect(),
        ),
        // Only of issuers whose deletionPolicy says so.
        statement(
            "DeleteIssuerProvider",
            &["iam:DeleteOpenIDConnectProvider"],
            deletes().filter_map(|one| one.managed_provider.as_ref()).collect(),
        ),
        statement(
            "DeleteIssuerDocuments",
            &["s3:DeleteObject", "s3:DeleteObjectVersion"],
            deletes().flat_map(|one| one.objects.iter().chain(&one.canary)).collect(),
        ),
        statement(
            "ListVersionsOfIssuerDocuments",
            &["s3:ListBucketVersions"],
            deletes().flat_map(|one| one.managed_bucket.iter().chain(&one.existing_bucket)).collect(),
        ),
        statement(
            "DeleteIssuerBucket",
            &["s3:DeleteBucket"],
            deletes().filter_map(|one| one.managed_bucket.as_ref()).collect(),
        ),
    ];
    statements.into_iter().flatten().collect()
}

/// One value as itself, several as a list: what a person would write.
fn distinct(values: impl Iterator<Item = String>) -> Value {
    let mut values: Vec<String> = values.collect();
    values.sort_unstable();
    values.dedup();
    if values.len() == 1 { json!(values[0]) } else { json!(values) }
}
