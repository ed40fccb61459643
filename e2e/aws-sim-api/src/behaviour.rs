//! How AWS answers where its documentation leaves the choice, or where an account's configuration decides.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Body of `PUT /behaviour` and of the response to `GET /behaviour`. A field that is absent has its default: what AWS
/// does most probably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "independent choices of a test")]
pub struct Behaviour {
    /// How old the state is that IAM's reads and STS see, for each role, policy and provider by itself. Writes see the
    /// present (IAM user guide, "Changes that I make are not always immediately visible").
    pub lag_milliseconds: u64,
    /// The value of `aws:FederatedProvider`.
    pub federated_provider: FederatedProviderForm,
    /// What a call on a role that does not exist is authorised on.
    pub missing_role: MissingRole,
    /// What `ListRoles` is authorised on.
    pub list_roles: ListRolesOn,
    /// Whether IAM accepts a trust policy in which no statement allows.
    pub deny_only_trust: bool,
    /// Whether `UpdateAssumeRolePolicy`, `UpdateRole` and `DeleteRole` have the key `iam:PermissionsBoundary`. On all other
    /// calls on a role with a boundary it is present.
    pub boundary_key: bool,
    /// Whether `CreateBucket` sets its tags. Where not, it ignores them.
    pub create_bucket_tags: bool,
    /// How S3 words the refusal of a public bucket policy.
    pub public_policy_denial: PublicPolicyDenial,
    /// Whether the account's own block of public access is on: every bucket refuses public policies, and those that there
    /// are give nothing to anonymous callers.
    pub account_public_access_block: bool,
    /// How long `PutBucketPolicy` sees the former block of public access after `PutPublicAccessBlock`.
    pub settling_milliseconds: u64,
    /// How long STS keeps an issuer's keys.
    pub jwks_cache: JwksCache,
    /// The oldest token that STS accepts, by its `iat`.
    pub token_age_cap_seconds: Option<u64>,
    /// The encryption of objects whose `PutObject` states none.
    pub default_encryption: Encryption,
    /// Whether buckets that are created keep versions.
    pub versioned_buckets: bool,
    /// The most items on a page of any list.
    pub page_size: Option<usize>,
    /// The most roles in the account.
    pub role_quota: usize,
    /// Whether `CreateOpenIDConnectProvider` contacts the issuer's host, and fails where it does not answer.
    pub contact_provider: bool,
    /// How often IAM answers; calls beyond that get `Throttling`. AWS's documentation gives no numbers. All accounts share it.
    pub iam_rate: Option<CallRate>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            lag_milliseconds: 0,
            federated_provider: FederatedProviderForm::default(),
            missing_role: MissingRole::default(),
            list_roles: ListRolesOn::default(),
            deny_only_trust: true,
            boundary_key: true,
            create_bucket_tags: true,
            public_policy_denial: PublicPolicyDenial::default(),
            account_public_access_block: false,
            settling_milliseconds: 0,
            jwks_cache: JwksCache::default(),
            token_age_cap_seconds: None,
            default_encryption: Encryption::default(),
            versioned_buckets: false,
            page_size: None,
            role_quota: 1000,
            contact_provider: true,
            iam_rate: None,
        }
    }
}

impl Behaviour {
    /// [`Self::lag_milliseconds`].
    #[must_use]
    pub fn lag(&self) -> Duration {
        Duration::from_millis(self.lag_milliseconds)
    }

    /// [`Self::settling_milliseconds`].
    #[must_use]
    pub fn settling(&self) -> Duration {
        Duration::from_millis(self.settling_milliseconds)
    }
}

/// The value of the condition key `aws:FederatedProvider` in the session of a web identity, and while its trust policy
/// is evaluated. IAM's documentation says the ARN; a public experiment saw host and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FederatedProviderForm {
    /// The provider's ARN.
    #[default]
    Arn,
    /// The issuer's URL without `https://`.
    HostPath,
    /// The issuer's URL.
    Url,
    /// The key is absent.
    Absent,
}

impl FederatedProviderForm {
    /// The key's value for a provider, given by its ARN.
    #[must_use]
    pub fn value(self, provider_arn: &str) -> Option<String> {
        let host_path = provider_arn.split_once(":oidc-provider/").map_or(provider_arn, |(_, url)| url);
        match self {
            Self::Arn => Some(provider_arn.to_owned()),
            Self::HostPath => Some(host_path.to_owned()),
            Self::Url => Some(format!("https://{host_path}")),
            Self::Absent => None,
        }
    }
}

/// The resource of a call on a role that does not exist. AWS's documentation does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MissingRole {
    /// `role/NAME`.
    #[default]
    Name,
    /// `*`: only a statement for all resources allows it.
    Any,
}

/// The resource of `ListRoles`. The Service Authorization Reference says `role/`, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ListRolesOn {
    /// `role` and the path prefix.
    #[default]
    Path,
    /// `*`.
    Any,
}

/// How S3 words the refusal of a public bucket policy under a block of public access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PublicPolicyDenial {
    /// With the setting that refuses it.
    #[default]
    Long,
    /// `Access Denied`.
    Bare,
}

/// How long STS keeps an issuer's keys. AWS's documentation does not say it. Until it ends, a key id that is not kept is
/// refused, and nothing is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum JwksCache {
    /// They are read for every exchange.
    #[default]
    Off,
    /// That long.
    Milliseconds(u64),
    /// They are never read again.
    ForEver,
}

/// The encryption of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Encryption {
    /// With keys of S3: invisible to readers.
    #[default]
    Aes256,
    /// With a key of KMS: anonymous reads are refused.
    Kms,
}

impl Encryption {
    /// The value of the header `x-amz-server-side-encryption`.
    #[must_use]
    pub fn header(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
        }
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRate {
    /// Calls a second in the long run.
    pub per_second: u32,
    /// Calls at once after a pause.
    pub burst: u32,
}
