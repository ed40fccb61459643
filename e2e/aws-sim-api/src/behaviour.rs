//! How AWS answers where its documentation leaves the choice, or where an account's configuration decides.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Body of `PUT /behaviour` and of the response to `GET /behaviour`. A field that is absent has its default: what AWS
/// does most probably.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// How old the state is that IAM's reads and STS see, for each role, policy and provider by itself. Writes see the
    /// present (IAM user guide, "Changes that I make are not always immediately visible").
    pub lag_milliseconds: u64,
    /// The value of `aws:FederatedProvider`.
    pub federated_provider: FederatedProviderForm,
}

impl Behaviour {
    /// [`Self::lag_milliseconds`].
    #[must_use]
    pub fn lag(&self) -> Duration {
        Duration::from_millis(self.lag_milliseconds)
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
