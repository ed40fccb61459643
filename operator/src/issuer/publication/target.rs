//! PURE: an issuer's names in AWS, all computed.

use crds::names::{canary_role_arn, operator_role_arn, provider_arn};
use crds::{Management, OidcIssuerSpec};

use crate::aws::model::{BucketRef, Identity};
use crate::ownership::Owner;

/// The names, and the owner of what is made under them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The issuer URL.
    pub issuer_url: String,
    /// Where the documents go; `None` where somebody else publishes them.
    pub location: Option<Location>,
    /// ARN of the canary's role.
    pub canary_role_arn: String,
    /// ARN of the provider.
    pub provider_arn: String,
    /// Who keeps the provider as specified.
    pub provider_management: Management,
    /// ARN of the operator's own role.
    pub operator_role_arn: String,
    /// Whether the credentials are a session of that role.
    pub is_operators_role: bool,
    /// Audiences.
    pub audiences: Vec<String>,
    /// The account.
    pub account: String,
    /// The partition.
    pub partition: &'static str,
    /// The owner of bucket and provider.
    pub owner: Owner,
}

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: BucketRef,
    /// Who keeps the bucket as specified.
    pub management: Management,
    /// Object key of the discovery document.
    pub discovery_key: String,
    /// Object key of the JWKS.
    pub jwks_key: String,
    /// Object key of the canary; there is one in managed buckets only.
    pub canary_key: String,
}

impl Target {
    /// The names of an issuer in the account of these credentials.
    #[must_use]
    pub fn new(name: &str, spec: &OidcIssuerSpec, identity: &Identity) -> Self {
        let partition = spec.partition().unwrap_or_else(|| identity.partition()).id;
        let (issuer_url, account) = (spec.issuer_url(), identity.account.as_str());
        let default_role = || operator_role_arn(partition, account, &spec.cluster_name);
        let operator_role = spec.operator_role_arn.clone().unwrap_or_else(default_role);
        let location = spec.s3.as_ref().map(|s3| Location {
            bucket: BucketRef {
                name: s3.bucket.clone(),
                region: s3.region.clone(),
                owner: account.to_owned(),
            },
            management: s3.management,
            discovery_key: spec.discovery_key(),
            jwks_key: spec.jwks_key(),
            canary_key: spec.canary_key(),
        });
        Self {
            location,
            canary_role_arn: canary_role_arn(partition, account, &spec.cluster_name),
            provider_arn: provider_arn(partition, account, &issuer_url),
            provider_management: spec.provider_management(),
            is_operators_role: is_session_of(identity, &operator_role),
            operator_role_arn: operator_role,
            audiences: spec.audiences.clone(),
            owner: Owner::of_issuer(name, spec),
            account: account.to_owned(),
            issuer_url,
            partition,
        }
    }

    /// The place in a bucket that is made for this issuer.
    #[must_use]
    pub fn managed(&self) -> Option<&Location> {
        self.location.as_ref().filter(|location| location.management == Management::Managed)
    }
}

/// `arn:aws:sts::111122223333:assumed-role/NAME/SESSION` (IAM user guide, "IAM identifiers"): without the role's path.
fn is_session_of(identity: &Identity, role_arn: &str) -> bool {
    let name = role_arn.rsplit('/').next();
    identity.arn.split_once(":assumed-role/").is_some_and(|(_, rest)| rest.split('/').next() == name)
}
