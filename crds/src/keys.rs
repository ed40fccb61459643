//! An issuer's signing keys: how long they stay published, which ones are published in advance, and what the status shows.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a token of a `ServiceAccount` is valid at most, plus an hour: the default and the least `spec.keys.retention`.
/// kube-apiserver itself gives tokens of up to 2^32 seconds; the webhook and EKS ask for 24 h at most.
pub const LEAST_RETENTION: std::time::Duration = std::time::Duration::from_hours(25);

/// How the API server's signing keys are published.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct KeySettings {
    /// How long a key stays published after no API server shows it any more, at least 25h: tokens that it signed are valid for
    /// up to 24h. Default: 25h.
    #[serde(
        default,
        deserialize_with = "crate::duration::optional",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(min = 2, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('25h') && duration(self) <= duration('8760h')")
        .message("a retired key stays published for at least 25h, since tokens are valid for up to 24h, and at most 8760h; written as hours, minutes and seconds: 25h, 36h30m"))]
    pub retention: Option<Duration>,
    /// `ConfigMap`s in the operator's namespace with keys that are published, too, before an API server signs with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub additional: Vec<AdditionalKeys>,
    /// Ids of keys that are not published once no API server shows them, whatever their retention: a stolen key. AWS may still
    /// use what it has read before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 255)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub revoked: Vec<String>,
}

/// A `ConfigMap` of the operator's namespace. Every value of its data is a JWKS or public keys in PEM.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdditionalKeys {
    /// The `ConfigMap`'s name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')")
        .message("the name of a ConfigMap has lower-case letters, digits, hyphens and dots"))]
    pub name: String,
}

/// One key of the published JWKS.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedKey {
    /// The key id (`kid`).
    pub kid: String,
    /// The algorithm, for example `RS256`.
    pub alg: String,
    /// RFC 7638 thumbprint: a published key with another one is not ours, whatever its id.
    pub thumbprint: String,
    /// Where the key is in its life.
    pub state: KeyState,
    /// When no API server showed the key any more: the retention begins here. Of a `Pending` key, when it was last in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Time>,
}

/// Where a key is in its life.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyState {
    /// An API server shows it.
    Active,
    /// No API server shows it; it is published in advance, from a `ConfigMap`.
    Pending,
    /// No API server shows it any more; it stays published for the retention, since its tokens are still in use.
    Retired,
}
