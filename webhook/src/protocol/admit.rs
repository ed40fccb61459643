//! Answers a review: reads it, gets the facts about the pod's `ServiceAccount`, decides, and answers. What is not known is
//! never answered with "no identity".

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crds::pod::Pod;
use crds::pod::problem::PodProblem;

use crate::cluster::live::LookupError;
use crate::cluster::lookup::Lookup;
use crate::cluster::recent::PodWithoutIdentity;
use crate::identity::decide::decide;
use crate::identity::model::{Decision, ServiceAccountFacts};
use crate::identity::mutate;
use crate::identity::settings::Settings;
use crate::metrics::Metrics;
use crate::model::{FactsOrigin, MissingIdentityReason, Outcome, WebhookEntry};
use crate::protocol::respond::{Answer, PodRef, Responder, read, unreadable};
use crate::protocol::review::{PodSummary, Request};

/// The longest names that Kubernetes accepts: of a namespace (RFC 1123 label) and of any other object (RFC 1123 subdomain).
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 253;

/// The warning about a label value that has no effect.
const UNKNOWN_REQUIRE_LABEL: &str = "label podidentity.dev/require has no effect as it is: its value must be exactly \"true\", and \
    without it the pod may be admitted without an AWS identity";

/// What a review is answered from.
#[derive(Clone)]
pub struct Admission {
    /// The facts about `ServiceAccount`s.
    pub lookup: Arc<Lookup>,
    /// How identities are made and where in a pod they are added.
    pub settings: Arc<Settings>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// The pod of a review.
struct ReviewedPod<'a> {
    names: PodRef<'a>,
    dry_run: bool,
    summary: &'a PodSummary<'a>,
}

impl ReviewedPod<'_> {
    /// Whether an earlier entry gave the pod its identity.
    fn has_token(&self, body: &[u8]) -> bool {
        let pod = || read::<Pod<'_>>(body).ok()?.request.object;
        self.summary.may_have_token() && pod().is_some_and(|pod| mutate::has_token(&pod))
    }
}

impl Admission {
    /// Answers a review from the caller `peer`. Never panics on anything in `body`, and never repeats anything of it except
    /// names.
    pub async fn answer(&self, entry: WebhookEntry, body: &[u8], peer: IpAddr) -> Answer {
        match read::<PodSummary<'_>>(body) {
            Ok(review) => match Responder::new(entry, &review) {
                Ok(mut responder) => {
                    let summary = review.request.object.as_ref();
                    let unknown = summary.is_some_and(PodSummary::has_unknown_require_label);
                    responder.label_warning = unknown.then_some(UNKNOWN_REQUIRE_LABEL);
                    self.answer_request(&responder, &review.request, body, peer).await
                }
                Err(answer) => answer,
            },
            Err(error) => unreadable(entry, body, &error),
        }
    }

    async fn answer_request(
        &self,
        responder: &Responder<'_>,
        request: &Request<'_, PodSummary<'_>>,
        body: &[u8],
        peer: IpAddr,
    ) -> Answer {
        if let Some(answer) = responder.not_ours(request) {
            return answer;
        }
        let Some(summary) = &request.object else {
            return responder.deny(400, "BadRequest", "request.object is missing");
        };
        if request.namespace.is_empty() {
            return responder.deny(400, "BadRequest", "request.namespace is empty");
        }
        let reviewed = ReviewedPod {
            names: PodRef {
                namespace: &request.namespace,
                service_account: summary.service_account().unwrap_or_default(),
                pod: truncated(summary.name()),
            },
            dry_run: request.dry_run.unwrap_or_default(),
            summary,
        };
        let PodRef { namespace, service_account, .. } = reviewed.names;
        // The API server validates a pod only after its review, and other callers validate nothing.
        if namespace.len() > LONGEST_LABEL || service_account.len() > LONGEST_NAME {
            let message = "the name of the namespace or ServiceAccount is longer than Kubernetes allows";
            return responder.deny(400, "BadRequest", message);
        }
        if service_account.is_empty() {
            return match responder.entry {
                WebhookEntry::RequiredPods => {
                    let why = "it names no ServiceAccount";
                    responder.require_identity(&reviewed.names, why, why)
                }
                _ => responder.allow(Outcome::NoServiceAccount, None, Vec::new()),
            };
        }
        // The copies may lack a new binding: where the pod requires an identity, a live lookup confirms that there is none.
        let confirm = responder.entry != WebhookEntry::Pods;
        match self.lookup.facts(namespace, service_account, confirm, peer).await {
            Ok((facts, origin)) => {
                let answer = self.apply(responder, &reviewed, &facts, body);
                Answer { lookup: origin.as_str(), ..answer }
            }
            // An earlier entry has found the identity.
            Err(_) if responder.entry == WebhookEntry::Pods && reviewed.has_token(body) => {
                responder.allow(Outcome::Complete, None, Vec::new())
            }
            Err(error) => self.unavailable(responder, &reviewed, &error),
        }
    }

    fn apply(
        &self,
        responder: &Responder<'_>,
        reviewed: &ReviewedPod<'_>,
        facts: &ServiceAccountFacts,
        body: &[u8],
    ) -> Answer {
        let PodRef { namespace, service_account, pod: pod_name } = reviewed.names;
        let Decision { identity, mut warnings, lifetime_warnings, mut problems } =
            decide(namespace, service_account, facts, &self.settings);
        let Some(identity) = identity else {
            problems.extend(reviewed.summary.role_annotations(&self.settings.annotation_prefix));
            return self.without_identity(responder, reviewed, facts, warnings, &problems, body);
        };
        let source = identity.source.as_str();
        // Only now is the whole pod needed.
        let pod = match read::<Pod<'_>>(body) {
            Ok(review) => review.request.object,
            Err(error) => return unreadable(responder.entry, body, &error),
        };
        let Some(pod) = pod else {
            return responder.deny(400, "BadRequest", "request.object is missing");
        };
        let no_mount_path = |containers: &[String]| {
            format!("there is no free mount path for the token in {}", containers.join(", "))
        };
        let answer = match mutate::mutate(&pod, &identity, &self.settings, responder.uid) {
            Ok(mutation) => {
                problems.extend(mutation.problems);
                warnings.extend(lifetime_warnings.into_iter().filter(|_| mutation.has_lifetime_of_identity));
                warnings.extend(problems.iter().map(PodProblem::to_string));
                warnings.extend(mutation.warnings);
                let required = is_required(responder.entry, !facts.bindings.is_empty());
                if required && !mutation.left_out.is_empty() {
                    self.count_problems(reviewed, &problems);
                    let why = no_mount_path(&mutation.left_out);
                    return responder.require_identity(&reviewed.names, &why, &why);
                }
                if required && problems.iter().any(PodProblem::prevents_identity) {
                    self.count_problems(reviewed, &problems);
                    return refuse_for(responder, reviewed, &problems);
                }
                if responder.entry == WebhookEntry::Pods {
                    self.count_problems(reviewed, &problems);
                }
                if !mutation.left_out.is_empty() {
                    let details = [no_mount_path(&mutation.left_out)];
                    self.count_without_identity(reviewed, MissingIdentityReason::NoMountPath, &details);
                }
                if mutation.patch.is_empty() {
                    responder.allow(Outcome::Complete, None, warnings)
                } else {
                    tracing::debug!(
                        namespace,
                        service_account,
                        pod = pod_name,
                        source,
                        "identity given to a pod"
                    );
                    // Writing strings and numbers into memory cannot fail.
                    let patch = serde_json::to_vec(&mutation.patch).unwrap_or_default();
                    responder.allow(Outcome::Mutated, Some(&patch), warnings)
                }
            }
            Err(error) => responder.deny(403, "Forbidden", &error.to_string()),
        };
        Answer { source, ..answer }
    }

    /// Counts the problems of a pod where it is refused, and in the entry of all pods, through which every admitted pod comes.
    fn count_problems(&self, reviewed: &ReviewedPod<'_>, problems: &[PodProblem]) {
        if !reviewed.dry_run {
            for problem in problems {
                self.metrics.pod_problem(problem.reason());
            }
        }
    }

    /// The pod has no identity: refuses it where it requires one, and otherwise remembers or counts it.
    fn without_identity(
        &self,
        responder: &Responder<'_>,
        reviewed: &ReviewedPod<'_>,
        facts: &ServiceAccountFacts,
        mut warnings: Vec<String>,
        problems: &[PodProblem],
        body: &[u8],
    ) -> Answer {
        let PodRef { namespace, service_account, pod } = reviewed.names;
        let bound = !facts.bindings.is_empty();
        if is_required(responder.entry, bound) {
            self.count_problems(reviewed, problems);
            let why = match (warnings.first(), problems.first()) {
                (Some(warning), _) => warning.clone(),
                (None, Some(problem)) => {
                    let (why, logged) = (problem.to_string(), problem.reason());
                    return responder.require_identity(&reviewed.names, &why, logged);
                }
                (None, None) => format!(
                    "ServiceAccount {namespace}/{service_account} has no identity: make a PodIdentityBinding for it; the pod \
                     is admitted once that is known"
                ),
            };
            return responder.require_identity(&reviewed.names, &why, &why);
        }
        if responder.entry == WebhookEntry::Pods {
            self.count_problems(reviewed, problems);
        }
        warnings.extend(problems.iter().map(PodProblem::to_string));
        // An earlier entry may have given it an identity that its binding no longer gives, or that the copies do not have yet.
        // Where an identity is required this is no answer: the pod may have brought it from another cluster.
        if responder.entry == WebhookEntry::Pods && reviewed.has_token(body) {
            return responder.allow(Outcome::Complete, None, warnings);
        }
        if bound {
            self.count_without_identity(reviewed, MissingIdentityReason::BindingUnusable, &warnings);
        } else if !reviewed.dry_run && responder.entry == WebhookEntry::Pods {
            self.lookup.remember(PodWithoutIdentity {
                namespace: namespace.into(),
                service_account: service_account.into(),
                pod: pod.into(),
                admitted: Instant::now(),
            });
        }
        responder.allow(Outcome::NoRole, None, warnings)
    }

    fn unavailable(
        &self,
        responder: &Responder<'_>,
        reviewed: &ReviewedPod<'_>,
        error: &LookupError,
    ) -> Answer {
        let error = error.to_string();
        if responder.entry == WebhookEntry::Pods {
            let details = std::slice::from_ref(&error);
            self.count_without_identity(reviewed, MissingIdentityReason::Unknown, details);
        } else {
            let PodRef { namespace, service_account, pod } = reviewed.names;
            tracing::warn!(namespace, service_account, pod, error, "review not answered: the pod is refused");
        }
        Answer { lookup: FactsOrigin::Live.as_str(), ..responder.unavailable(&error) }
    }

    fn count_without_identity(
        &self,
        reviewed: &ReviewedPod<'_>,
        reason: MissingIdentityReason,
        details: &[String],
    ) {
        if reviewed.dry_run {
            return;
        }
        self.metrics.without_identity(reason);
        let PodRef { namespace, service_account, pod } = reviewed.names;
        let details = details.first().map(String::as_str).unwrap_or_default();
        let reason = reason.as_str();
        tracing::warn!(
            namespace,
            service_account,
            pod,
            reason,
            details,
            "a pod was admitted without its identity: it cannot be given, or is not known"
        );
    }
}

/// Whether a pod is refused in an entry rather than admitted without its identity.
fn is_required(entry: WebhookEntry, is_bound: bool) -> bool {
    match entry {
        WebhookEntry::Pods => false,
        WebhookEntry::RequiredNamespaces => is_bound,
        WebhookEntry::RequiredPods => true,
    }
}

/// Refuses a pod that requires its identity, and in which something keeps a container from using it.
fn refuse_for(responder: &Responder<'_>, reviewed: &ReviewedPod<'_>, problems: &[PodProblem]) -> Answer {
    let preventing = || problems.iter().filter(|problem| problem.prevents_identity());
    let message = preventing().map(PodProblem::to_string).collect::<Vec<_>>().join("; ");
    // The message has values of the pod's variables.
    let reasons: BTreeSet<_> = preventing().map(PodProblem::reason).collect();
    let reasons = reasons.into_iter().collect::<Vec<_>>().join(", ");
    responder.require_identity(&reviewed.names, &message, &reasons)
}

/// A name, cut at the length that Kubernetes allows: what is remembered and logged of pods is bounded.
fn truncated(name: &str) -> &str {
    &name[..name.floor_char_boundary(LONGEST_NAME)]
}
