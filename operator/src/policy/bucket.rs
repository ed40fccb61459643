//! PURE: the policy of a managed issuer bucket.

use serde_json::{Value, json};

use super::VERSION;

/// What a managed bucket's policy speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket<'a> {
    /// The partition, for example `aws`.
    pub partition: &'a str,
    /// The bucket's name.
    pub name: &'a str,
    /// The two keys that anybody may read.
    pub public_keys: [&'a str; 2],
    /// ARN of the IAM OIDC provider of this issuer.
    pub provider_arn: &'a str,
    /// ARN of the operator's own role.
    pub operator_role_arn: &'a str,
}

impl Bucket<'_> {
    /// Public read of exactly two keys, and the fence of [`Self::fence`].
    #[must_use]
    pub fn policy(&self) -> Value {
        json!({"Version": VERSION, "Statement": [self.public_read(), self.fence()]})
    }

    /// The fence alone: not public, so it can be put while the public-access block still stands.
    #[must_use]
    pub fn deny_only(&self) -> Value {
        json!({"Version": VERSION, "Statement": [self.fence()]})
    }

    fn public_read(&self) -> Value {
        let objects = self.public_keys.map(|key| format!("{}/{key}", self.arn()));
        json!({
            "Sid": "AnybodyMayReadTheTwoDocuments",
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": objects,
        })
    }

    /// Whoever can replace the JWKS can mint tokens for every role of the cluster. A pod's role may allow `s3:*` (made
    /// here or by Terraform), so every action but reading is denied to every session that came through this issuer,
    /// the operator's own excepted. `aws:FederatedProvider` is set for sessions of `AssumeRoleWithWebIdentity` only:
    /// people and their automation are not affected.
    fn fence(&self) -> Value {
        json!({
            "Sid": "PodsOfThisClusterMayNotReplaceTheSigningKeys",
            "Effect": "Deny",
            "Principal": "*",
            "NotAction": ["s3:Get*", "s3:List*"],
            "Resource": [self.arn(), format!("{}/*", self.arn())],
            "Condition": {
                "StringEquals": {"aws:FederatedProvider": self.provider_arn},
                "ArnNotEquals": {"aws:PrincipalArn": self.operator_role_arn},
            },
        })
    }

    fn arn(&self) -> String {
        format!("arn:{}:s3:::{}", self.partition, self.name)
    }
}
