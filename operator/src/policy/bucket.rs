//! PURE: the policy of a managed issuer bucket.

use crds::names::{ROLES_PATH, scheme_less};
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
    /// The issuer URL.
    pub issuer_url: &'a str,
    /// ARN of the operator's own role.
    pub operator_role_arn: &'a str,
}

impl Bucket<'_> {
    /// Everyone may read two objects; no pod may write.
    #[must_use]
    pub fn policy(&self) -> Value {
        let [pods, roles, plain] = self.denials();
        json!({"Version": VERSION, "Statement": [self.public_read(), pods, roles, plain]})
    }

    /// Only the statements that deny: S3 does not count them as public and accepts them while `BlockPublicPolicy` is on, so
    /// that the bucket is protected before it is public.
    #[must_use]
    pub fn deny_only(&self) -> Value {
        json!({"Version": VERSION, "Statement": self.denials()})
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

    /// A principal that can replace the JWKS can issue tokens for every role of the cluster, and a pod's role may allow `s3:*`.
    /// So every action except reads is denied to:
    /// - every session that came through this issuer, whatever made its role; the operator's own role excepted. Public
    ///   evidence disagrees on how AWS spells `aws:FederatedProvider` (IAM's global condition keys say the provider's ARN, a
    ///   published experiment saw host and path), so all spellings are listed;
    /// - every role that an operator of this kind made, for any cluster of any account: `aws:PrincipalArn` does not rest on how
    ///   a session came about.
    ///
    /// People and their automation are not affected. Requests without TLS are denied to everybody, so that rules of an
    /// organisation that demand this statement have nothing to add.
    fn denials(&self) -> [Value; 3] {
        let all = [self.arn(), format!("{}/*", self.arn())];
        let reads = ["s3:Get*", "s3:List*"];
        let spellings = [self.provider_arn, scheme_less(self.issuer_url), self.issuer_url];
        [
            json!({
                "Sid": "PodsOfThisClusterMayNotReplaceTheSigningKeys",
                "Effect": "Deny",
                "Principal": "*",
                "NotAction": reads,
                "Resource": all,
                "Condition": {
                    "StringEquals": {"aws:FederatedProvider": spellings},
                    "ArnNotEquals": {"aws:PrincipalArn": self.operator_role_arn},
                },
            }),
            json!({
                "Sid": "RolesOfBindingsMayNotReplaceTheSigningKeys",
                "Effect": "Deny",
                "Principal": "*",
                "NotAction": reads,
                "Resource": all,
                "Condition": {
                    "ArnLike": {"aws:PrincipalArn": format!("arn:{}:iam::*:role{ROLES_PATH}*", self.partition)},
                },
            }),
            json!({
                "Sid": "NoRequestWithoutTLS",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": all,
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }),
        ]
    }

    fn arn(&self) -> String {
        format!("arn:{}:s3:::{}", self.partition, self.name)
    }
}
