//! PURE: the permissions boundary of every role that is created for a binding: its maximum permissions.

use serde_json::{Value, json};

use super::VERSION;

/// Allows what the role's own policies allow, except:
/// - IAM, Organizations, Account Management, IAM Identity Center with its directories, and IAM Roles Anywhere: a role must not
///   get more rights, nor give them (Service Authorization Reference: each is a service prefix of its own);
/// - `sts:AssumeRoot`, and role chaining inside the account: sessions of the second role have no `aws:FederatedProvider`, by
///   which the bucket policies recognise pods;
/// - writes to an issuer's bucket, and S3 Access Grants, which give access to a bucket past the caller's own policies;
/// - the account's public-access block, which could make the issuers' documents unreadable.
///
/// `read_only` are the ARNs of what all issuers of the cluster in the account publish: there is one boundary for all of them.
#[must_use]
pub fn policy(partition: &str, account: &str, read_only: &[String]) -> Value {
    let documents = json!({
        "Sid": "TheIssuersBucketIsReadOnly",
        "Effect": "Deny",
        "NotAction": ["s3:Get*", "s3:List*"],
        "Resource": read_only,
    });
    let mut policy = json!({
        "Version": VERSION,
        "Statement": [
            {"Sid": "WhatThePoliciesAllow", "Effect": "Allow", "Action": "*", "Resource": "*"},
            {
                "Sid": "NoEscalation",
                "Effect": "Deny",
                "Action": [
                    "iam:*", "organizations:*", "account:*", "sso:*", "sso-directory:*", "identitystore:*",
                    "identitystore-auth:*", "identity-sync:*", "rolesanywhere:*", "sts:AssumeRoot",
                    "s3:*AccessGrant*", "s3:GetDataAccess", "s3:PutAccountPublicAccessBlock",
                ],
                "Resource": "*",
            },
            {
                "Sid": "NoRoleChaining",
                "Effect": "Deny",
                "Action": "sts:AssumeRole",
                "Resource": format!("arn:{partition}:iam::{account}:role/*"),
            },
        ],
    });
    // IAM refuses a statement without a resource.
    if let Some(statements) = policy["Statement"].as_array_mut().filter(|_| !read_only.is_empty()) {
        statements.push(documents);
    }
    policy
}
