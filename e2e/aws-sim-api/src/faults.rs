//! Faults that a test asks for.

use serde::{Deserialize, Serialize};

/// A fault, and the calls it applies to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    /// `iam`, `sts` or `s3`; any service where absent.
    #[serde(default)]
    pub service: Option<String>,
    /// The API operation; any operation where absent.
    #[serde(default)]
    pub action: Option<String>,
    /// What happens.
    pub kind: FaultKind,
    /// How many matching calls it applies to; all where absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many matching calls are answered normally before it applies.
    #[serde(default)]
    pub after: u32,
}

/// What happens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultKind {
    /// The call has no effect and is answered with this error.
    Error {
        /// HTTP status.
        status: u16,
        /// AWS's error code.
        code: String,
        /// AWS's message.
        message: String,
    },
    /// The call has its effect; the connection breaks before the response.
    LostResponse,
    /// The call has no effect; the connection breaks.
    LostRequest,
    /// The call has its effect; no response ever comes, and the connection stays open.
    Silence,
    /// The response is late.
    Delay {
        /// How late.
        milliseconds: u64,
    },
}

impl Fault {
    /// Applies to every matching call. An empty name matches any.
    #[must_use]
    pub fn on(service: &str, action: &str, kind: FaultKind) -> Self {
        let named = |name: &str| Some(name.to_owned()).filter(|n| !n.is_empty());
        Self { service: named(service), action: named(action), kind, times: None, after: 0 }
    }

    /// Applies to the first `times` matching calls.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Does not apply to the first `after` matching calls.
    #[must_use]
    pub fn after(self, after: u32) -> Self {
        Self { after, ..self }
    }
}

impl FaultKind {
    /// Throttling, as IAM and STS report it.
    #[must_use]
    pub fn throttle() -> Self {
        Self::Error { status: 400, code: "Throttling".into(), message: "Rate exceeded".into() }
    }

    /// An internal error of AWS.
    #[must_use]
    pub fn server_error() -> Self {
        Self::Error {
            status: 500,
            code: "InternalFailure".into(),
            message: "An internal error occurred".into(),
        }
    }
}
