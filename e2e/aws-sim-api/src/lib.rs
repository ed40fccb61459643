//! The types of aws-sim's control API, shared by the simulator and by its clients: what the account holds
//! (`GET /state`), the call log (`GET /calls`), the administrator's keys (`GET /administrator`), faults (`POST /faults`),
//! roles and policies that a test creates (`POST /roles`, `POST /policies`), and how AWS behaves where it could behave
//! otherwise (`GET` and `PUT /behaviour`). All bodies are JSON.

mod account;
mod behaviour;
mod faults;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use account::{Bucket, Object, ObjectVersion, Policy, Provider, Role, State, Tags};
pub use behaviour::{
    Behaviour, CallRate, Encryption, FederatedProviderForm, JwksCache, ListRolesOn, MissingRole,
    PublicPolicyDenial,
};
pub use faults::{Fault, FaultKind};

/// Long-lived keys of an IAM user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// Access key.
    pub access_key_id: String,
    /// Secret key.
    pub secret_access_key: String,
}

/// One call in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// `iam`, `sts` or `s3`.
    pub service: String,
    /// The API operation.
    pub action: String,
    /// What the call is about: an ARN.
    pub resource: String,
    /// ARN of the caller, or `anonymous`.
    pub principal: String,
    /// HTTP status.
    pub status: u16,
    /// AWS's error code.
    pub code: Option<String>,
    /// Whether authorisation refused it.
    pub denied: bool,
    /// Whether the operation changes something.
    pub write: bool,
    /// When it was answered, since the simulator was made.
    #[serde(default)]
    pub at: Duration,
}

/// Body of `POST /roles`: a role that is not created through IAM. The response is its ARN.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewRole {
    /// Its path, `/…/`.
    pub path: String,
    /// Its name.
    pub name: String,
    /// The trust policy.
    pub trust: Value,
    /// ARNs of attached managed policies.
    #[serde(default)]
    pub attached: Vec<String>,
}

/// Body of `POST /policies`: a managed policy that is not created through IAM. The response is its ARN.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewPolicy {
    /// Its name; the path is `/`.
    pub name: String,
    /// The policy document.
    pub document: Value,
}
