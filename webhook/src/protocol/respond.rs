//! Answers to reviews: allowed, denied, refused until the pod has its identity, or a failed call.
//!
//! A decision is HTTP 200. A review that cannot be read is HTTP 400, and one whose answer is not known is HTTP 503: the API
//! server counts both as a failed call, so that the entry's `failurePolicy` decides.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::{Outcome, WebhookEntry};
use crate::protocol::review::{API_VERSIONS, Request, Response, Review};

/// Two ARNs and what is said of them fit. The API server cuts each warning at 256 characters, but only once all of a request's
/// have more than 4,096 (`endpoints/filters/warning.go`).
const WARNING_LENGTH: usize = 1024;
const MAX_WARNINGS: usize = 16;

/// An answer, ready to be sent, and what is counted about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `AdmissionReview`.
    pub body: Vec<u8>,
    /// The result of the review.
    pub outcome: Outcome,
    /// Where the identity comes from; empty without one.
    pub source: &'static str,
    /// Where the facts come from; empty without any.
    pub lookup: &'static str,
}

/// The pod under review. Contains names only, which may be logged.
pub struct PodRef<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its `ServiceAccount`; empty where it names none.
    pub service_account: &'a str,
    /// Its name, or the prefix of it.
    pub pod: &'a str,
}

/// Answers one review.
pub struct Responder<'a> {
    /// The entry that the review came through.
    pub entry: WebhookEntry,
    /// The review's uid, repeated in the answer.
    pub uid: &'a str,
    /// A warning about the pod's labels, for the user that creates a pod, if it is admitted.
    pub label_warning: Option<&'static str>,
    api_version: &'static str,
}

impl<'a> Responder<'a> {
    /// For a review; an answer at once where it is not a valid one.
    pub fn new<O>(entry: WebhookEntry, review: &'a Review<'_, O>) -> Result<Self, Answer> {
        let known = API_VERSIONS.into_iter().find(|version| *version == &*review.api_version);
        let (Some(api_version), "AdmissionReview") = (known, &*review.kind) else {
            return Err(malformed("apiVersion and kind must be admission.k8s.io/v1 AdmissionReview"));
        };
        if review.request.uid.is_empty() {
            return Err(malformed("request.uid is empty"));
        }
        Ok(Self { entry, uid: &review.request.uid, label_warning: None, api_version })
    }

    /// The answer where the request is not the creation of a pod, which the webhook configuration should not send.
    pub fn not_ours<O>(&self, request: &Request<'_, O>) -> Option<Answer> {
        let is_pod = request.kind.group.is_empty() && &*request.kind.kind == "Pod";
        let ours = is_pod && &*request.operation == "CREATE" && request.sub_resource.is_empty();
        let warning =
            "this webhook answers only for the creation of pods: its configuration sends other reviews, too";
        (!ours).then(|| self.allow(Outcome::NotOurs, None, vec![warning.into()]))
    }

    /// Admits the pod, with a patch or without.
    #[must_use]
    pub fn allow(&self, outcome: Outcome, patch: Option<&[u8]>, mut warnings: Vec<String>) -> Answer {
        warnings.extend(self.label_warning.map(str::to_owned));
        warnings.truncate(MAX_WARNINGS);
        for warning in &mut warnings {
            warning.truncate(warning.floor_char_boundary(WARNING_LENGTH));
        }
        let patch_type = patch.map(|_| "JSONPatch");
        let patch = patch.map(|patch| BASE64_STANDARD.encode(patch));
        self.send(
            200,
            outcome,
            Response { allowed: true, patch_type, patch, warnings, ..Response::default() },
        )
    }

    /// A decision against the pod: no `failurePolicy` admits it.
    #[must_use]
    pub fn deny(&self, code: u16, reason: &'static str, message: &str) -> Answer {
        tracing::warn!(code, message, "pod refused");
        self.send(200, Outcome::Denied, Response::refusal(code, reason, message))
    }

    /// Refuses a pod that requires an identity. Of the reason, only `logged` is logged: `why` may have values of the pod.
    #[must_use]
    pub fn require_identity(&self, pod: &PodRef<'_>, why: &str, logged: &str) -> Answer {
        let PodRef { namespace, service_account, pod } = pod;
        tracing::info!(
            namespace,
            service_account,
            pod,
            why = logged,
            "pod refused until it has its identity"
        );
        let message = format!("this pod must have an AWS identity (podidentity.dev/require=true): {why}");
        self.send(200, Outcome::Required, Response::refusal(403, "Forbidden", &message))
    }

    /// A failed call: the answer is not known.
    #[must_use]
    pub fn unavailable(&self, message: &str) -> Answer {
        self.send(503, Outcome::Unavailable, Response::refusal(503, "ServiceUnavailable", message))
    }

    fn send(&self, status: u16, outcome: Outcome, response: Response<'_>) -> Answer {
        let body = Response { uid: self.uid, ..response }.write(self.api_version);
        Answer { status, body, outcome, source: "", lookup: "" }
    }
}

/// Reads a review whose object is an `O`.
pub fn read<'a, O: Deserialize<'a>>(body: &'a [u8]) -> Result<Review<'a, O>, serde_json::Error> {
    // Whether it is UTF-8 is checked once for all, and not again for each string.
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    }
}

/// The answer to a review that could not be read: a decision against the object if only that is not a pod; a failed call if
/// the body is not a review.
#[must_use]
pub fn unreadable(entry: WebhookEntry, body: &[u8], error: &serde_json::Error) -> Answer {
    let Ok(review) = read::<&RawValue>(body) else {
        return malformed(&format!("not an AdmissionReview: {}", position_of(error)));
    };
    let responder = match Responder::new(entry, &review) {
        Ok(responder) => responder,
        Err(answer) => return answer,
    };
    responder.not_ours(&review.request).unwrap_or_else(|| {
        let message = format!("request.object is not a pod: {}", position_of(error));
        responder.deny(400, "BadRequest", &message)
    })
}

/// The answer to what is not a review; there is no uid to repeat, but the answer is well-formed.
fn malformed(message: &str) -> Answer {
    tracing::warn!(message, "review not understood");
    failure(400, "BadRequest", message, Outcome::Malformed)
}

/// A failed call, as an `AdmissionReview`.
#[must_use]
pub fn failure(code: u16, reason: &'static str, message: &str, outcome: Outcome) -> Answer {
    let responder =
        Responder { entry: WebhookEntry::Pods, uid: "", label_warning: None, api_version: API_VERSIONS[0] };
    responder.send(code, outcome, Response::refusal(code, reason, message))
}

/// The kind and position of a JSON error: its message could quote a value of the pod, its position cannot.
fn position_of(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a field is missing or of the wrong type",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}
