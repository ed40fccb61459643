//! The admission protocol: an `AdmissionReview` in, an `AdmissionReview` out, whatever comes in.
//!
//! Three kinds of answer. A decision is HTTP 200. What cannot be read is HTTP 400 and what cannot be known HTTP 503: the
//! API server counts both as a failed call, so that the entry's `failurePolicy` decides; they are never a silent "yes".

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::identity::{self, Decision, Facts};
use crate::lookup::{Lookup, LookupError, Origin};
use crate::metrics::{Metrics, Outcome, Without};
use crate::mutate::{self, Mutation};
use crate::pod::Pod;
use crate::recent::Early;
use crate::review::{API_VERSIONS, Probe, Request, Response, Review};
use crate::settings::Settings;

/// The API server cuts each warning at 256 characters and all of them at 4096.
const WARNING_LENGTH: usize = 256;
const WARNINGS: usize = 16;
/// What Kubernetes allows a namespace (RFC 1123 label) and any other object's name (RFC 1123 subdomain).
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 253;

/// The entry of the webhook configuration a review came through, told by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Everybody's; fails open.
    Pods,
    /// Of namespaces labelled `podidentity.dev/require=true`: a pod of a bound `ServiceAccount` gets its identity or is
    /// refused.
    RequiredNamespaces,
    /// Of pods labelled so: they are refused until their identity exists.
    RequiredPods,
}

impl Entry {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pods, Self::RequiredNamespaces, Self::RequiredPods];

    /// The path it is called at.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Pods => "/mutate",
            Self::RequiredNamespaces => "/mutate/required-namespaces",
            Self::RequiredPods => "/mutate/required-pods",
        }
    }

    /// As metrics and logs name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::RequiredNamespaces => "required-namespaces",
            Self::RequiredPods => "required-pods",
        }
    }
}

/// What a review is answered from.
#[derive(Clone)]
pub struct Admission {
    /// What the cluster says.
    pub lookup: Arc<Lookup>,
    /// How identities are made and where they go.
    pub settings: Arc<Settings>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
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

impl Admission {
    /// Answers a review. Never panics on what is in `body`, and never repeats any of it beyond names.
    /// `peer` is who asks.
    pub async fn answer(&self, entry: Entry, body: &[u8], peer: IpAddr) -> Answer {
        match read::<Probe<'_>>(body) {
            Ok(review) => match To::of(entry, &review) {
                Ok(to) => self.decide(&to, &review.request, body, peer).await,
                Err(answer) => answer,
            },
            Err(error) => explain(entry, body, &error),
        }
    }

    async fn decide(
        &self,
        to: &To<'_>,
        request: &Request<'_, Probe<'_>>,
        body: &[u8],
        peer: IpAddr,
    ) -> Answer {
        if let Some(answer) = to.not_ours(request) {
            return answer;
        }
        let Some(probe) = &request.object else {
            return to.deny(400, "BadRequest", "request.object is missing");
        };
        if request.namespace.is_empty() {
            return to.deny(400, "BadRequest", "request.namespace is empty");
        }
        let asked = Asked {
            namespace: &request.namespace,
            account: probe.service_account().unwrap_or_default(),
            pod: cut(probe.name()),
            dry_run: request.dry_run.unwrap_or_default(),
            may_have_token: probe.may_have_token(),
        };
        // The API server validates a pod only after it was reviewed, and who calls directly validates nothing.
        if asked.namespace.len() > LONGEST_LABEL || asked.account.len() > LONGEST_NAME {
            return to.deny(400, "BadRequest", "a namespace or ServiceAccount cannot have so long a name");
        }
        if asked.account.is_empty() {
            return match to.entry {
                Entry::RequiredPods => to.refuse(&asked, "it names no ServiceAccount"),
                _ => to.allow(Outcome::NoServiceAccount, None, Vec::new()),
            };
        }
        // That a pod has no identity is believed at once only where it may go without.
        let confirm = to.entry != Entry::Pods;
        match self.lookup.facts(asked.namespace, asked.account, confirm, peer).await {
            Ok((facts, origin)) => {
                let answer = self.apply(to, &asked, &facts, body);
                Answer { lookup: origin.as_str(), ..answer }
            }
            // An earlier entry has looked, and with success.
            Err(_) if to.entry == Entry::Pods && asked.has_token(body) => {
                to.allow(Outcome::Complete, None, Vec::new())
            }
            Err(error) => self.unavailable(to, &asked, &error),
        }
    }

    fn apply(&self, to: &To<'_>, asked: &Asked<'_>, facts: &Facts, body: &[u8]) -> Answer {
        let Decision { identity, warnings } =
            identity::decide(asked.namespace, asked.account, facts, &self.settings);
        let Some(identity) = identity else {
            return self.without(to, asked, facts, warnings, body);
        };
        let source = identity.source.as_str();
        // The second look, now that the whole pod counts.
        let pod = match read::<Pod<'_>>(body) {
            Ok(review) => review.request.object,
            Err(error) => return explain(to.entry, body, &error),
        };
        let Some(pod) = pod else { return to.deny(400, "BadRequest", "request.object is missing") };
        let answer = match mutate::mutate(&pod, &identity, &self.settings, to.uid) {
            Ok(Mutation { left_out, .. }) if !left_out.is_empty() && to.entry != Entry::Pods => {
                to.refuse(asked, &format!("there is no place for the token in {}", left_out.join(", ")))
            }
            Ok(Mutation { patch, left_out, warnings: further }) => {
                if !left_out.is_empty() {
                    let places = format!("there is no place for the token in {}", left_out.join(", "));
                    self.count_without(asked, Without::NoPlace, &[places]);
                }
                let warnings = [warnings, further].concat();
                if patch.is_empty() {
                    to.allow(Outcome::Complete, None, warnings)
                } else {
                    let Asked { namespace, account, pod, .. } = asked;
                    tracing::debug!(
                        namespace,
                        service_account = account,
                        pod,
                        source,
                        "identity given to a pod"
                    );
                    // Strings and numbers into memory: nothing that can fail.
                    let patch = serde_json::to_vec(&patch).unwrap_or_default();
                    to.allow(Outcome::Mutated, Some(&patch), warnings)
                }
            }
            Err(error) => to.deny(403, "Forbidden", &error.to_string()),
        };
        Answer { source, ..answer }
    }

    /// The pod has no identity: whether it may go without, and what is remembered of it.
    fn without(
        &self,
        to: &To<'_>,
        asked: &Asked<'_>,
        facts: &Facts,
        warnings: Vec<String>,
        body: &[u8],
    ) -> Answer {
        let bound = !facts.bindings.is_empty();
        // An earlier entry may have given it the identity that its binding does not give any more, or that this copy does
        // not know of yet.
        if (bound || to.entry == Entry::Pods) && asked.has_token(body) {
            return to.allow(Outcome::Complete, None, warnings);
        }
        let refused = match to.entry {
            Entry::Pods => false,
            Entry::RequiredNamespaces => bound,
            Entry::RequiredPods => true,
        };
        if refused {
            let why = match warnings.first() {
                Some(warning) => warning.clone(),
                None => format!(
                    "ServiceAccount {}/{} has no identity: make a PodIdentityBinding for it; the pod is admitted once that \
                     is known",
                    asked.namespace, asked.account
                ),
            };
            return to.refuse(asked, &why);
        }
        if bound {
            self.count_without(asked, Without::BindingUnusable, &warnings);
        } else if !asked.dry_run && to.entry == Entry::Pods {
            self.lookup.note_early(Early {
                namespace: asked.namespace.into(),
                account: asked.account.into(),
                pod: asked.pod.into(),
                at: Instant::now(),
            });
        }
        to.allow(Outcome::NoRole, None, warnings)
    }

    fn unavailable(&self, to: &To<'_>, asked: &Asked<'_>, error: &LookupError) -> Answer {
        let message = error.to_string();
        if to.entry == Entry::Pods {
            self.count_without(asked, Without::Unknown, std::slice::from_ref(&message));
        } else {
            let Asked { namespace, account, pod, .. } = asked;
            let error = &message;
            tracing::warn!(
                namespace,
                service_account = account,
                pod,
                error,
                "review not answered: the pod is refused"
            );
        }
        let response = Response::refusal(503, "ServiceUnavailable", &message);
        let answer = to.send(503, Outcome::Unavailable, response);
        Answer { lookup: Origin::Live.as_str(), ..answer }
    }

    fn count_without(&self, asked: &Asked<'_>, why: Without, said: &[String]) {
        if asked.dry_run {
            return;
        }
        self.metrics.without_identity(why);
        let said = said.first().map(String::as_str).unwrap_or_default();
        let Asked { namespace, account, pod, .. } = asked;
        let why = why.as_str();
        tracing::warn!(
            namespace,
            service_account = account,
            pod,
            why,
            said,
            "a pod goes without its identity"
        );
    }
}

/// What is asked about; names only, fit to be logged.
struct Asked<'a> {
    namespace: &'a str,
    account: &'a str,
    pod: &'a str,
    dry_run: bool,
    may_have_token: bool,
}

impl Asked<'_> {
    /// Whether an earlier entry gave the pod its identity.
    fn has_token(&self, body: &[u8]) -> bool {
        let pod = || read::<Pod<'_>>(body).ok()?.request.object;
        self.may_have_token && pod().is_some_and(|pod| mutate::has_token(&pod))
    }
}

/// A name as far as it can be one: what is remembered and logged of pods is bounded.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(LONGEST_NAME)]
}

/// Whom an answer is for.
struct To<'a> {
    entry: Entry,
    api_version: &'static str,
    uid: &'a str,
}

impl<'a> To<'a> {
    /// The review's sender; an answer at once where the review is none.
    fn of<O>(entry: Entry, review: &'a Review<'_, O>) -> Result<Self, Answer> {
        let known = API_VERSIONS.into_iter().find(|version| *version == &*review.api_version);
        let (Some(api_version), "AdmissionReview") = (known, &*review.kind) else {
            return Err(malformed("apiVersion and kind must be admission.k8s.io/v1 AdmissionReview"));
        };
        if review.request.uid.is_empty() {
            return Err(malformed("request.uid is empty"));
        }
        Ok(Self { entry, api_version, uid: &review.request.uid })
    }

    /// An answer for what should never have been asked.
    fn not_ours<O>(&self, request: &Request<'_, O>) -> Option<Answer> {
        let is_pod = request.kind.group.is_empty() && &*request.kind.kind == "Pod";
        let ours = is_pod && &*request.operation == "CREATE" && request.sub_resource.is_empty();
        let warning = "this webhook answers for the creation of pods only: its configuration asks for more";
        (!ours).then(|| self.allow(Outcome::NotOurs, None, vec![warning.into()]))
    }

    fn allow(&self, outcome: Outcome, patch: Option<&[u8]>, mut warnings: Vec<String>) -> Answer {
        warnings.truncate(WARNINGS);
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

    /// A decision against the pod: no `failurePolicy` lets it pass.
    fn deny(&self, code: u16, reason: &'static str, message: &str) -> Answer {
        tracing::warn!(code, message, "pod refused");
        self.send(200, Outcome::Denied, Response::refusal(code, reason, message))
    }

    /// A pod that must not go without its identity.
    fn refuse(&self, asked: &Asked<'_>, why: &str) -> Answer {
        let Asked { namespace, account, pod, .. } = asked;
        tracing::info!(
            namespace,
            service_account = account,
            pod,
            why,
            "pod refused until it has its identity"
        );
        let message = format!("this pod must have an AWS identity (podidentity.dev/require=true): {why}");
        self.send(200, Outcome::Required, Response::refusal(403, "Forbidden", &message))
    }

    fn send(&self, status: u16, outcome: Outcome, response: Response<'_>) -> Answer {
        let body = Response { uid: self.uid, ..response }.write(self.api_version);
        Answer { status, body, outcome, source: "", lookup: "" }
    }
}

fn read<'a, O: Deserialize<'a>>(body: &'a [u8]) -> Result<Review<'a, O>, serde_json::Error> {
    serde_json::from_slice(body)
}

/// Why a review could not be read: its object is no pod, which is a decision against it, or it is no review at all.
fn explain(entry: Entry, body: &[u8], error: &serde_json::Error) -> Answer {
    let Ok(review) = read::<&RawValue>(body) else {
        return malformed(&format!("not an AdmissionReview: {}", place_of(error)));
    };
    let to = match To::of(entry, &review) {
        Ok(to) => to,
        Err(answer) => return answer,
    };
    to.not_ours(&review.request).unwrap_or_else(|| {
        let message = format!("request.object is not a pod: {}", place_of(error));
        to.deny(400, "BadRequest", &message)
    })
}

/// A review that could not be read has no uid to answer to; the answer is well-formed all the same.
fn malformed(message: &str) -> Answer {
    tracing::warn!(message, "review not understood");
    failure(400, "BadRequest", message, Outcome::Malformed)
}

/// A failed call, said in the protocol's own form.
#[must_use]
pub fn failure(code: u16, reason: &'static str, message: &str, outcome: Outcome) -> Answer {
    let to = To { entry: Entry::Pods, api_version: API_VERSIONS[0], uid: "" };
    to.send(code, outcome, Response::refusal(code, reason, message))
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
