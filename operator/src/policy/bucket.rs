//! PURE: the policy of a managed issuer bucket.

use serde_json::{Value, json};

use super::VERSION;

/// The names in a managed bucket's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket<'a> {
    /// The partition, for example `aws`.
    pub partition: &'a str,
    /// The bucket's name.
    pub name: &'a str,
    /// Keys of the two objects that are public.
    pub public_keys: [&'a str; 2],
    /// ARN of the IAM OIDC provider of this issuer.
    pub provider_arn: &'a str,
    /// ARN of the operator's own role.
    pub operator_role_arn: &'a str,
}

impl Bucket<'_> {
    /// Everyone may read two objects; no pod may write.
    #[must_use]
    pub fn policy(&self) -> Value {
        json!({"Version": VERSION, "Statement": [self.public_read(), self.deny_writes_by_pods()]})
    }

    /// Only the statement that denies: S3 does not count it as public and accepts it while `BlockPublicPolicy` is on, so that
    /// the bucket is protected before it is public.
    #[must_use]
    pub fn deny_only(&self) -> Value {
        json!({"Version": VERSION, "Statement": [self.deny_writes_by_pods()]})
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

    /// A principal that can replace the JWKS can issue tokens for every role of the cluster. A pod's role may allow `s3:*`
    /// (managed here or elsewhere), so every action except reads is denied to every session from this issuer's tokens, except
    /// the operator's. `aws:FederatedProvider` is set for sessions of `AssumeRoleWithWebIdentity` only: other principals are
    /// not affected.
    fn deny_writes_by_pods(&self) -> Value {
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
