//! PURE: an issuer's names in AWS, all computed.

use crds::OidcIssuerSpec;
use crds::names::{canary_role_arn, operator_role_arn, provider_arn};

use crate::aws::model::BucketRef;
use crate::ownership::Owner;

/// The names, and the owner of what is made under them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The issuer URL.
    pub issuer_url: String,
    /// The bucket.
    pub bucket: BucketRef,
    /// Object key of the discovery document.
    pub discovery_key: String,
    /// Object key of the JWKS.
    pub jwks_key: String,
    /// Object key of the canary.
    pub canary_key: String,
    /// ARN of the canary's role.
    pub canary_role_arn: String,
    /// ARN of the provider.
    pub provider_arn: String,
    /// ARN of the operator's own role.
    pub operator_role_arn: String,
    /// Audiences.
    pub audiences: Vec<String>,
    /// The partition.
    pub partition: &'static str,
    /// The owner of bucket and provider.
    pub owner: Owner,
}

impl Target {
    /// The names of an issuer in an account.
    #[must_use]
    pub fn new(name: &str, spec: &OidcIssuerSpec, account: &str) -> Self {
        let partition = spec.partition().id;
        let issuer_url = spec.issuer_url();
        Self {
            bucket: BucketRef {
                name: spec.s3.bucket.clone(),
                region: spec.s3.region.clone(),
                owner: account.to_owned(),
            },
            discovery_key: spec.discovery_key(),
            jwks_key: spec.jwks_key(),
            canary_key: spec.canary_key(),
            canary_role_arn: canary_role_arn(partition, account, &spec.cluster_name),
            provider_arn: provider_arn(partition, account, &issuer_url),
            operator_role_arn: operator_role_arn(partition, account, &spec.cluster_name),
            audiences: spec.audiences.clone(),
            owner: Owner::of_issuer(name, spec),
            issuer_url,
            partition,
        }
    }
}
