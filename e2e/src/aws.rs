//! What the stand-in's control door tells, as far as the demo and the tests look at it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The account, as somebody with the console sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct State {
    /// Roles by lower-case name.
    pub roles: BTreeMap<String, Role>,
    /// Managed policies by ARN.
    pub policies: BTreeMap<String, Value>,
    /// OIDC providers by ARN.
    pub providers: BTreeMap<String, Value>,
    /// Buckets by name.
    pub buckets: BTreeMap<String, Value>,
}

/// A role.
#[derive(Debug, Clone, Deserialize)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// Its trust policy.
    pub trust: Value,
    /// Attached managed policies.
    pub attached: Vec<String>,
    /// Its boundary.
    pub boundary: Option<String>,
}

/// One call of the log.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    /// `iam`, `sts` or `s3`.
    pub service: String,
    /// The API operation.
    pub action: String,
    /// ARN, bucket or key.
    pub resource: String,
    /// Who called.
    pub principal: String,
    /// HTTP status.
    pub status: u16,
    /// Whether authorisation refused it.
    pub denied: bool,
    /// Whether it changes something.
    pub write: bool,
}

/// Keys of the administrator.
#[derive(Debug, Clone, Deserialize)]
pub struct Keys {
    /// Access key.
    pub access_key_id: String,
    /// Secret key.
    pub secret_access_key: String,
}
