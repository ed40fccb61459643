//! What goes wrong on request.

use serde::{Deserialize, Serialize};

/// A fault, and which calls it meets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    /// `iam`, `sts` or `s3`; any where absent.
    #[serde(default)]
    pub service: Option<String>,
    /// The API operation; any where absent.
    #[serde(default)]
    pub action: Option<String>,
    /// What happens.
    pub kind: FaultKind,
    /// How many matching calls it meets; all where absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many matching calls are let through first.
    #[serde(default)]
    pub after: u32,
}

/// What happens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultKind {
    /// This answer, without effect.
    Error {
        /// HTTP status.
        status: u16,
        /// AWS's error code.
        code: String,
        /// AWS's message.
        message: String,
    },
    /// The effect happens, the answer is lost.
    LostResponse,
    /// No effect, no answer.
    LostRequest,
    /// The effect happens, and the caller waits for an answer that never comes.
    Silence,
    /// The answer comes late.
    Delay {
        /// How late.
        milliseconds: u64,
    },
}

impl Fault {
    /// Every matching call meets it.
    #[must_use]
    pub fn on(service: &str, action: &str, kind: FaultKind) -> Self {
        let named = |name: &str| Some(name.to_owned()).filter(|n| !n.is_empty());
        Self { service: named(service), action: named(action), kind, times: None, after: 0 }
    }

    /// The first `times` matching calls meet it.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// The first `after` matching calls are let through.
    #[must_use]
    pub fn after(self, after: u32) -> Self {
        Self { after, ..self }
    }
}

impl FaultKind {
    /// IAM's and STS's throttling.
    #[must_use]
    pub fn throttle() -> Self {
        Self::Error { status: 400, code: "Throttling".into(), message: "Rate exceeded".into() }
    }

    /// A bad day at AWS.
    #[must_use]
    pub fn server_error() -> Self {
        Self::Error {
            status: 500,
            code: "InternalFailure".into(),
            message: "An internal error occurred".into(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Active {
    fault: Fault,
    seen: u32,
}

impl Active {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { fault, seen: 0 }
    }

    /// What happens to this call, if it is met.
    pub(crate) fn hit(&mut self, service: &str, action: &str) -> Option<FaultKind> {
        let Fault { service: wanted, action: operation, kind, times, after } = &self.fault;
        let meets =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        if !meets(wanted, service) || !meets(operation, action) {
            return None;
        }
        self.seen += 1;
        let met = self.seen > *after && times.is_none_or(|times| self.seen <= after + times);
        met.then(|| kind.clone())
    }
}
