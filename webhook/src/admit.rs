//! The admission protocol: an `AdmissionReview` in, an `AdmissionReview` out, whatever comes in.
//!
//! Three kinds of answer. A decision is HTTP 200. What cannot be read is HTTP 400 and what cannot be known HTTP 503: the
//! API server counts both as a failed call, so that the entry's `failurePolicy` decides; they are never a silent "yes".

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::identity::{self, Defaults, Identity, Source};
use crate::lookup::{Facts, Lookup, LookupError};
use crate::metrics::Outcome;
use crate::mutate::{self, MutateError, Pod, Target};

/// The versions answered; both have the same shape.
const API_VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];
/// The API server cuts each warning at 256 characters and all of them at 4096.
const WARNING_LENGTH: usize = 256;
const WARNINGS: usize = 16;

/// What a review is answered from.
#[derive(Clone)]
pub struct Admission {
    /// What the cluster says.
    pub lookup: Arc<Lookup>,
    /// What identities are made of where no object says otherwise.
    pub defaults: Defaults,
    /// Where in a pod the identity goes.
    pub target: Target,
}

/// An answer, ready to be sent, and what is counted about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `AdmissionReview`.
    pub body: Vec<u8>,
    /// What became of the review.
    pub outcome: Outcome,
    /// Where the identity comes from; empty without one.
    pub source: &'static str,
    /// Where the facts come from; empty without any.
    pub lookup: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: String,
    kind: String,
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Kind {
    group: String,
    kind: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    api_version: &'a str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A `metav1.Status`.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(rename = "status")]
    result: &'static str,
    code: u16,
    reason: &'static str,
    message: &'a str,
}

impl Admission {
    /// Answers a review. Never panics on what is in `body`, and never repeats any of it beyond names.
    pub async fn answer(&self, body: &[u8]) -> Answer {
        let review: Review<'_> = match serde_json::from_slice(body) {
            Ok(review) => review,
            Err(error) => return malformed(&format!("not an AdmissionReview: {}", place_of(&error))),
        };
        let known = API_VERSIONS.into_iter().find(|version| *version == review.api_version);
        let (Some(api_version), "AdmissionReview") = (known, review.kind.as_str()) else {
            return malformed("apiVersion and kind must be admission.k8s.io/v1 AdmissionReview");
        };
        if review.request.uid.is_empty() {
            return malformed("request.uid is empty");
        }
        self.decide(&To { api_version, uid: &review.request.uid }, &review.request).await
    }

    async fn decide(&self, to: &To<'_>, request: &Request<'_>) -> Answer {
        let is_pod = request.kind.group.is_empty() && request.kind.kind == "Pod";
        if !is_pod || request.operation != "CREATE" || !request.sub_resource.is_empty() {
            let warning =
                "this webhook answers for the creation of pods only: its configuration asks for more";
            return to.allow(Outcome::NotOurs, None, vec![warning.into()]);
        }
        let Some(object) = request.object else {
            return to.deny(400, "BadRequest", "request.object is missing");
        };
        let pod: Pod = match serde_json::from_str(object.get()) {
            Ok(pod) => pod,
            Err(error) => {
                let message = format!("request.object is not a pod: {}", place_of(&error));
                return to.deny(400, "BadRequest", &message);
            }
        };
        if request.namespace.is_empty() {
            return to.deny(400, "BadRequest", "request.namespace is empty");
        }
        let Some(account) = pod.service_account() else {
            return to.allow(Outcome::NoServiceAccount, None, Vec::new());
        };
        match self.lookup.facts(&request.namespace, account).await {
            Ok(facts) => self.apply(to, &request.namespace, account, &pod, &facts),
            Err(error) => to.unavailable(&error),
        }
    }

    fn apply(&self, to: &To<'_>, namespace: &str, account: &str, pod: &Pod, facts: &Facts) -> Answer {
        let Facts { annotations, bindings, issuer, lookup } = facts;
        let decision =
            identity::decide(namespace, account, annotations, bindings, issuer.as_deref(), &self.defaults);
        let mut warnings = decision.warnings;
        let Some(identity) = decision.identity else {
            return Answer { lookup, ..to.allow(Outcome::NoRole, None, warnings) };
        };
        let answer = match mutate::mutate(pod, &identity, &self.target) {
            Ok(mutation) if mutation.patch.is_empty() => {
                warnings.extend(mutation.warnings);
                to.allow(Outcome::Complete, None, warnings)
            }
            Ok(mutation) => {
                warnings.extend(mutation.warnings);
                let Identity { role_arn, .. } = &identity;
                tracing::info!(
                    namespace,
                    service_account = account,
                    role_arn,
                    lookup,
                    "identity given to a pod"
                );
                match serde_json::to_vec(&mutation.patch) {
                    Ok(patch) => to.allow(Outcome::Mutated, Some(&patch), warnings),
                    Err(error) => to.deny(500, "InternalError", &error.to_string()),
                }
            }
            Err(error @ MutateError::VolumeNamesTaken) => to.deny(403, "Forbidden", &error.to_string()),
        };
        let source = match identity.source {
            Source::Binding => "binding",
            Source::Annotations => "annotations",
        };
        Answer { source, lookup, ..answer }
    }
}

/// Whom an answer is for.
struct To<'a> {
    api_version: &'static str,
    uid: &'a str,
}

impl To<'_> {
    fn allow(&self, outcome: Outcome, patch: Option<&[u8]>, mut warnings: Vec<String>) -> Answer {
        warnings.truncate(WARNINGS);
        for warning in &mut warnings {
            warning.truncate(warning.floor_char_boundary(WARNING_LENGTH));
        }
        self.send(
            200,
            outcome,
            Response {
                allowed: true,
                patch_type: patch.map(|_| "JSONPatch"),
                patch: patch.map(|patch| BASE64_STANDARD.encode(patch)),
                warnings,
                ..Response::default()
            },
        )
    }

    /// A decision against the pod: no `failurePolicy` lets it pass.
    fn deny(&self, code: u16, reason: &'static str, message: &str) -> Answer {
        tracing::warn!(code, message, "pod refused");
        self.send(200, Outcome::Denied, refusal(code, reason, message))
    }

    fn unavailable(&self, error: &LookupError) -> Answer {
        tracing::warn!(error = %error, "review not answered: the API server counts a failed call");
        let message = error.to_string();
        self.send(503, Outcome::Unavailable, refusal(503, "ServiceUnavailable", &message))
    }

    fn send(&self, status: u16, outcome: Outcome, response: Response<'_>) -> Answer {
        let response = Response { uid: self.uid, ..response };
        let reply = Reply { api_version: self.api_version, kind: "AdmissionReview", response };
        // Strings, numbers and flags: nothing that cannot be written.
        let body = serde_json::to_vec(&reply).unwrap_or_default();
        Answer { status, body, outcome, source: "", lookup: "" }
    }
}

fn refusal<'a>(code: u16, reason: &'static str, message: &'a str) -> Response<'a> {
    let status = Some(Status { result: "Failure", code, reason, message });
    Response { status, ..Response::default() }
}

/// A review that could not be read has no uid to answer to; the answer is well-formed all the same.
fn malformed(message: &str) -> Answer {
    tracing::warn!(message, "review not understood");
    failure(400, "BadRequest", message, Outcome::Malformed)
}

/// A failed call, said in the protocol's own form.
#[must_use]
pub fn failure(code: u16, reason: &'static str, message: &str, outcome: Outcome) -> Answer {
    To { api_version: API_VERSIONS[0], uid: "" }.send(code, outcome, refusal(code, reason, message))
}

/// What a JSON error may tell: its message could quote a value from the pod, its place cannot.
fn place_of(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a field is missing or of the wrong type",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}
