//! What the simulated account holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::behaviour::Encryption;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// Everything in the account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Roles by lower-case name: IAM compares without regard to case.
    pub roles: BTreeMap<String, Role>,
    /// Managed policies by ARN.
    pub policies: BTreeMap<String, Policy>,
    /// OIDC providers by ARN.
    pub providers: BTreeMap<String, Provider>,
    /// Buckets by name, including those of other accounts.
    pub buckets: BTreeMap<String, Bucket>,
}

impl State {
    /// The role of that name.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(&name.to_lowercase())
    }
}

/// A role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Its name, as it was created.
    pub name: String,
    /// Its path, `/…/`.
    pub path: String,
    /// Its ARN, path included.
    pub arn: String,
    /// Its unique id.
    pub id: String,
    /// The trust policy.
    pub trust: Value,
    /// Tags.
    pub tags: Tags,
    /// ARNs of attached managed policies.
    pub attached: Vec<String>,
    /// Inline policies by name.
    pub inline: BTreeMap<String, Value>,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// Description.
    pub description: String,
    /// Longest session in seconds.
    pub max_session_duration: i64,
    /// Names of instance profiles that it is in.
    #[serde(default)]
    pub instance_profiles: Vec<String>,
}

/// A managed policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Tags.
    pub tags: Tags,
    /// Versions, oldest first: id, document.
    pub versions: Vec<(String, Value)>,
    /// Id of the default version.
    pub default: String,
    /// When each version was created, in seconds since 1970, by id; also those that were deleted.
    #[serde(default)]
    pub created: BTreeMap<String, i64>,
}

impl Policy {
    /// A policy with one version.
    #[must_use]
    pub fn new(name: &str, path: &str, tags: Tags, document: Value, now: i64) -> Self {
        let mut policy = Self {
            name: name.to_owned(),
            path: path.to_owned(),
            tags,
            versions: Vec::new(),
            default: "v1".into(),
            created: BTreeMap::new(),
        };
        policy.add(document, now);
        policy
    }

    /// Adds a version, and returns its id. Ids and dates only increase: an id does not come again after its version is
    /// deleted.
    pub fn add(&mut self, document: Value, now: i64) -> String {
        let id = format!("v{}", self.created.len() + 1);
        let last = self.created.values().max().map_or(now, |last| last + 1);
        self.created.insert(id.clone(), now.max(last));
        self.versions.push((id.clone(), document));
        id
    }

    /// The document of the default version.
    #[must_use]
    pub fn document(&self) -> &Value {
        self.versions
            .iter()
            .find(|(id, _)| *id == self.default)
            .map_or(&Value::Null, |(_, document)| document)
    }
}

/// An OIDC provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// The URL, without scheme.
    pub url: String,
    /// Audiences.
    pub client_ids: Vec<String>,
    /// Tags.
    pub tags: Tags,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Id of the owner's account, twelve digits.
    pub owner: String,
    /// Region.
    pub region: String,
    /// Tags.
    pub tags: Tags,
    /// The bucket policy.
    pub policy: Option<Value>,
    /// The text of the policy as it was put. Not part of the JSON.
    #[serde(skip)]
    pub policy_text: String,
    /// `BlockPublicAcls`, `IgnorePublicAcls`, `BlockPublicPolicy`, `RestrictPublicBuckets`.
    pub public_access_block: [bool; 4],
    /// Object ownership.
    pub ownership: String,
    /// Objects by key.
    pub objects: BTreeMap<String, Object>,
    /// Whether it keeps versions.
    #[serde(default)]
    pub versioned: bool,
    /// All versions of all objects, oldest first. Empty where it keeps none.
    #[serde(default)]
    pub versions: Vec<ObjectVersion>,
}

/// A version of an object, or a delete marker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectVersion {
    /// The object's key.
    pub key: String,
    /// The version's id.
    pub id: String,
    /// The object; `None` for a delete marker.
    pub object: Option<Object>,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// The content. Not part of the JSON, where the entity tag represents it.
    #[serde(skip)]
    pub body: bytes::Bytes,
    /// The entity tag, with its quotes.
    pub etag: String,
    /// `Content-Type`.
    pub content_type: String,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// User-defined metadata: the headers `x-amz-meta-…`, without that prefix.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// How it is encrypted.
    #[serde(default)]
    pub encryption: Encryption,
}
