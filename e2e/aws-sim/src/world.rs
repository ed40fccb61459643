//! What stands in the stand-in's one account, as a person with the console would see it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// Everything there is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct State {
    /// Roles by lower-case name: IAM compares without regard to case.
    pub roles: BTreeMap<String, Role>,
    /// Managed policies by ARN.
    pub policies: BTreeMap<String, Policy>,
    /// OIDC providers by ARN.
    pub providers: BTreeMap<String, Provider>,
    /// Buckets by name, those of other accounts too.
    pub buckets: BTreeMap<String, Bucket>,
    /// Sessions that STS issued, by access key.
    #[serde(skip)]
    pub(crate) sessions: BTreeMap<String, Session>,
    #[serde(skip)]
    pub(crate) counter: u64,
    /// How far AWS's clock is ahead, in seconds.
    #[serde(skip)]
    pub(crate) clock: i64,
}

impl State {
    /// The role of that name.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(&name.to_lowercase())
    }

    /// The document of a managed policy in force, AWS's own among them.
    #[must_use]
    pub fn policy_document(&self, arn: &str) -> Option<Value> {
        self.policies.get(arn).map(|policy| policy.document().clone()).or_else(|| aws_managed(arn))
    }

    /// Seconds since 1970 by AWS's clock.
    pub(crate) fn now(&self) -> i64 {
        jiff::Timestamp::now().as_second() + self.clock
    }

    /// A number that was not given out before.
    pub(crate) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

/// The two of AWS's own policies that this stand-in knows (AWS managed policy reference).
fn aws_managed(arn: &str) -> Option<Value> {
    let actions = match arn.strip_prefix("arn:aws:iam::aws:policy/")? {
        "AmazonS3ReadOnlyAccess" => json!(["s3:Get*", "s3:List*", "s3:Describe*"]),
        "AmazonS3FullAccess" => json!("s3:*"),
        _ => return None,
    };
    Some(json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}],
    }))
}

/// A role.
#[derive(Debug, Clone, Serialize)]
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
}

/// A managed policy.
#[derive(Debug, Clone, Serialize)]
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
}

impl Policy {
    /// The document in force.
    #[must_use]
    pub fn document(&self) -> &Value {
        self.versions
            .iter()
            .find(|(id, _)| *id == self.default)
            .map_or(&Value::Null, |(_, document)| document)
    }
}

/// An OIDC provider.
#[derive(Debug, Clone, Serialize)]
pub struct Provider {
    /// The URL, without scheme.
    pub url: String,
    /// Audiences.
    pub client_ids: Vec<String>,
    /// Tags.
    pub tags: Tags,
}

/// A bucket.
#[derive(Debug, Clone, Serialize)]
pub struct Bucket {
    /// Twelve digits.
    pub owner: String,
    /// Region.
    pub region: String,
    /// Tags.
    pub tags: Tags,
    /// The bucket policy.
    pub policy: Option<Value>,
    /// The text of the policy as it was put.
    #[serde(skip)]
    pub policy_text: String,
    /// `BlockPublicAcls`, `IgnorePublicAcls`, `BlockPublicPolicy`, `RestrictPublicBuckets`.
    pub public_access_block: [bool; 4],
    /// Object ownership.
    pub ownership: String,
    /// Objects by key.
    pub objects: BTreeMap<String, Object>,
}

/// An object.
#[derive(Debug, Clone, Serialize)]
pub struct Object {
    /// The content.
    #[serde(skip)]
    pub body: bytes::Bytes,
    /// The entity tag, with its quotes.
    pub etag: String,
    /// `Content-Type`.
    pub content_type: String,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
}

impl Object {
    /// An object of that content.
    #[must_use]
    pub fn new(body: bytes::Bytes, content_type: &str, cache_control: Option<&str>) -> Self {
        Self {
            etag: format!("\"{}\"", &crate::sigv4::sha256_hex(&body)[..32]),
            body,
            content_type: content_type.to_owned(),
            cache_control: cache_control.map(str::to_owned),
        }
    }
}

/// A session that STS issued: real to every later call.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub role: String,
    pub role_arn: String,
    pub role_id: String,
    pub name: String,
    pub secret: String,
    pub token: String,
    /// Seconds since 1970.
    pub expires: i64,
    /// ARN of the provider it came through; not carried into a session made from it.
    pub provider: Option<String>,
    pub policy: Option<Value>,
}
