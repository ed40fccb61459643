//! PURE: the permissions boundary put on every role made for a binding: the most such a role can ever do.

use serde_json::{Value, json};

use super::VERSION;

/// Allow everything a role's own policies allow, but never IAM, organisations, accounts or sign-on (no escalation), no
/// role chaining inside the account (it would shed `aws:FederatedProvider`, on which the buckets' fences rest), no write
/// to an issuer's bucket, and no account-level public-access block (it would take the documents off the internet).
/// `buckets` are those of all issuers of the cluster in the account: the boundary is one.
#[must_use]
pub fn policy(partition: &str, account: &str, buckets: &[&str]) -> Value {
    let arns = buckets.iter().map(|bucket| format!("arn:{partition}:s3:::{bucket}"));
    let read_only: Vec<String> = arns.flat_map(|bucket| [bucket.clone(), format!("{bucket}/*")]).collect();
    json!({
        "Version": VERSION,
        "Statement": [
            {"Sid": "WhatThePoliciesAllow", "Effect": "Allow", "Action": "*", "Resource": "*"},
            {
                "Sid": "NoEscalation",
                "Effect": "Deny",
                "Action": ["iam:*", "organizations:*", "account:*", "sso:*", "s3:PutAccountPublicAccessBlock"],
                "Resource": "*",
            },
            {
                "Sid": "NoRoleChaining",
                "Effect": "Deny",
                "Action": "sts:AssumeRole",
                "Resource": format!("arn:{partition}:iam::{account}:role/*"),
            },
            {
                "Sid": "TheIssuersBucketIsReadOnly",
                "Effect": "Deny",
                "NotAction": ["s3:Get*", "s3:List*"],
                "Resource": read_only,
            },
        ],
    })
}
