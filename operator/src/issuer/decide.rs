//! PURE: from what was observed to what is done next and what the user is told.

use std::time::{Duration, Instant};

use crds::condition::{ConditionType as C, Summary, Wanted};
use crds::{OidcIssuerSpec, Reason};

use crate::aws::error::PUBLIC_POLICY_BLOCKED;
use crate::aws::{AwsError, Class};
use crate::oidc::{Documents, Keys};
use crate::timings::Timings;

use super::observe::{ApiProblem, ApiServer, Evidence, Memory, Observed, Verification};
use super::publication::{self, Refusal, Target, Write};

/// The object, as far as decisions look at it.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// The specification.
    pub spec: &'a OidcIssuerSpec,
    /// `metadata.generation`.
    pub generation: i64,
    /// Whether deletion was asked for.
    pub deleting: bool,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// Digest of the documents that were last seen to stand.
    pub published: Option<&'a str>,
    /// Whether the status said Ready for this generation. Only evidence seen twice takes that back.
    pub was_ready: bool,
}

/// Which reads are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// The API server's documents.
    pub api: bool,
    /// Bucket and provider.
    pub aws: bool,
}

/// One thing to do; each is one remote call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Put our finalizer on the object.
    AddFinalizer,
    /// Take our finalizer off the object.
    RemoveFinalizer,
    /// Change something in AWS.
    Write(Write),
    /// Look with AWS's eyes: both documents anonymously and, if asked for, a token for credentials.
    Verify {
        /// The documents that must be found.
        documents: Documents,
        /// Whether the token exchange makes sense yet.
        exchange: bool,
    },
}

/// What a reconcile will do and say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In order; the first failure ends them.
    pub steps: Vec<Step>,
    /// The status's conditions if the steps succeed.
    pub conditions: Vec<Wanted>,
    /// The status's facts, as far as they are known.
    pub facts: Facts,
    /// When to look again.
    pub requeue: Duration,
    /// Since when there is definite evidence against the issuer, to be remembered.
    pub bad_since: Option<Instant>,
    /// Whether what is written was changed by somebody else. Keys that the API server added or dropped are news.
    pub drift: bool,
}

/// Facts of the status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The issuer URL.
    pub issuer_url: String,
    /// Public URL of the JWKS.
    pub jwks_uri: String,
    /// Partition.
    pub partition: String,
    /// Account, once known.
    pub account: Option<String>,
    /// Provider ARN, once the account is known.
    pub provider_arn: Option<String>,
    /// Digest of both documents, once both stand as wanted.
    pub digest: Option<String>,
}

/// Which reads are due: at their age, and after anything that makes memory doubtful.
#[must_use]
pub fn due(memory: &Memory, generation: i64, now: Instant, timings: &Timings) -> Due {
    let old = |since: Option<Instant>, age: Duration| since.is_none_or(|at| now.duration_since(at) >= age);
    Due {
        api: old(
            memory.api.as_ref().filter(|(api, _)| api.is_ok()).map(|(_, at)| *at),
            timings.api_server_poll,
        ),
        aws: memory.generation != generation
            || old(memory.aws.as_ref().map(|(_, at)| *at), timings.issuer_resync),
    }
}

/// The plan of one reconcile. `started` is when this process began to look.
#[must_use]
pub fn decide(
    subject: &Subject<'_>,
    observed: &Observed,
    memory: &Memory,
    now: Instant,
    started: Instant,
    timings: &Timings,
) -> Plan {
    let Observed { identity, api, aws, dependents } = observed;
    let spec = subject.spec;
    let mut plan = Plan {
        steps: Vec::new(),
        conditions: Vec::new(),
        facts: Facts {
            issuer_url: spec.issuer_url(),
            jwks_uri: spec.jwks_uri(),
            partition: spec.partition().id.to_owned(),
            ..Facts::default()
        },
        requeue: timings.api_server_poll.min(timings.issuer_resync),
        bad_since: None,
        drift: false,
    };
    if subject.deleting {
        return deletion(plan, subject, dependents, timings);
    }
    if !subject.finalizer {
        plan.steps.push(Step::AddFinalizer);
    }
    let mut say = Conditions::default();
    let keys = api.as_ref().ok().map(|api| &api.keys);
    let mut bad = say.api_server(api, &plan.facts.issuer_url, subject.was_ready);
    let ours = |keys: &&Keys| {
        bad.is_none() || !aws.as_ref().is_ok_and(|state| publication::foreign_keys(state, keys))
    };
    let documents = keys.filter(ours).map(|keys| publication::documents(spec, keys));

    // AWS: is everything written as specified?
    let writes = match (identity, aws) {
        (Err(error), _) | (_, Err(error)) => {
            say.aws_failed(error);
            None
        }
        (Ok(identity), Ok(state)) => {
            let target = Target::new(subject.name, spec, &identity.account);
            plan.facts.account = Some(identity.account.clone());
            plan.facts.provider_arn = Some(target.provider_arn.clone());
            let writes = publication::check_account(spec, &identity.account)
                .and_then(|()| publication::plan(&target, state, documents.as_ref()));
            match writes {
                Ok(writes) => Some(writes),
                Err(refusal) => {
                    say.refused(&refusal);
                    None
                }
            }
        }
    };
    if let Some(writes) = writes {
        say.written(&writes);
        let complete = writes.is_empty();
        let as_published = |documents: &Documents| Some(documents.digest().as_str()) == subject.published;
        plan.drift = !complete && subject.was_ready && documents.as_ref().is_none_or(as_published);
        plan.steps.extend(writes.into_iter().map(Step::Write));
        match documents {
            Some(documents) if complete => {
                plan.facts.digest = Some(documents.digest());
                let matches = bad.is_none();
                let fresh = memory.verification.as_ref().filter(|v| v.digest == documents.digest());
                let window_open =
                    now.duration_since(memory.last_write.unwrap_or(started)) < timings.not_yet_window;
                say.verified(fresh, matches, window_open, &mut bad);
                let period = verification_period(fresh, matches, window_open, timings);
                match fresh.map(|v| (v.at + period).saturating_duration_since(now)) {
                    Some(wait)
                        if !wait.is_zero() && fresh.is_some_and(|v| v.exchange.is_some() || !matches) =>
                    {
                        plan.requeue = plan.requeue.min(wait);
                    }
                    _ => plan.steps.push(Step::Verify { documents, exchange: matches }),
                }
            }
            _ => say.unverified(subject.was_ready),
        }
    } else {
        say.unverified(subject.was_ready);
    }

    // What could not be read is asked for again soon, not at its period.
    if plan.steps.is_empty() && observed.failure().is_some() {
        plan.requeue = Duration::ZERO;
    }
    // The summary: Ready is taken back only by evidence that stood for a while.
    plan.bad_since = bad.as_ref().map(|_| memory.bad_since.unwrap_or(now));
    let stood = plan.bad_since.is_some_and(|since| now.duration_since(since) >= timings.verify_retry);
    if let Some((reason, message)) = bad.filter(|_| stood || !subject.was_ready) {
        say.wait(reason, &message);
    }
    if !plan.steps.is_empty() {
        plan.requeue = Duration::ZERO; // look again at what was done
    }
    plan.conditions = say.finish(subject.was_ready);
    plan
}

/// Deletion is `Retain`: nothing in AWS is touched, but an issuer does not go while bindings rest on it.
fn deletion(mut plan: Plan, subject: &Subject<'_>, dependents: &[String], timings: &Timings) -> Plan {
    // The end of a binding wakes us.
    plan.requeue = timings.api_server_poll;
    let summary = if dependents.is_empty() {
        if subject.finalizer {
            plan.steps.push(Step::RemoveFinalizer);
        }
        Summary::Reconciling(Reason::Deleting, "what was published and registered stays in AWS".into())
    } else {
        let named: Vec<&str> = dependents.iter().take(5).map(String::as_str).collect();
        let message = format!(
            "{} PodIdentityBinding(s) still use this issuer: {}{}. Delete them first",
            dependents.len(),
            named.join(", "),
            if dependents.len() > named.len() { ", …" } else { "" }
        );
        Summary::Reconciling(Reason::DeletionBlocked, message)
    };
    plan.conditions = summary.conditions();
    plan
}

/// How long a verification's answer is good for.
fn verification_period(
    last: Option<&Verification>,
    matches: bool,
    window_open: bool,
    timings: &Timings,
) -> Duration {
    let good = last.is_some_and(|v| match &v.exchange {
        Some(exchange) => *exchange == Evidence::Good,
        None => !matches && v.public == Evidence::Good,
    });
    match (good, window_open) {
        (true, _) => timings.verify_period,
        (false, true) => timings.not_yet_retry,
        (false, false) => timings.verify_retry,
    }
}

/// What a failed step means for the status: the plan's own words where AWS just needs time, else the failure's.
#[must_use]
pub fn after_failure(
    plan: &Plan,
    subject: &Subject<'_>,
    error: &AwsError,
    within_window: bool,
    retry: Duration,
) -> (Vec<Wanted>, Duration) {
    let blocked = error.public_policy_blocked();
    if blocked && within_window {
        return (plan.conditions.clone(), retry);
    }
    let mut say = Conditions::default();
    say.list.extend(plan.conditions.iter().filter(|w| !is_summary(w.type_)).cloned());
    if blocked {
        say.stall(Reason::PublicAccessBlocked, PUBLIC_POLICY_BLOCKED);
    } else {
        say.aws_failed(error);
    }
    (say.finish(subject.was_ready), Duration::ZERO)
}

const fn is_summary(type_: C) -> bool {
    matches!(type_, C::Ready | C::Reconciling | C::Stalled | C::AWSReachable)
}

/// The exact flag, since this is where most people stop.
fn mismatch(found: &str, wanted: &str) -> String {
    format!(
        "the API server issues tokens as {found}. Start it with --service-account-issuer={wanted} \
         --service-account-issuer={found} (the first signs, the second stays accepted) and, unless it is set already, \
         --api-audiences={found}; docs/issuer-flags.md has the place for kubeadm, k3s, RKE2, Talos, k0s and kind"
    )
}

/// Collects conditions, and the first thing that keeps the issuer from being Ready.
#[derive(Debug, Default)]
struct Conditions {
    list: Vec<Wanted>,
    summary: Option<Summary>,
}

impl Conditions {
    fn push(&mut self, wanted: Wanted) {
        self.list.push(wanted);
    }

    fn wait(&mut self, reason: Reason, message: &str) {
        self.summary.get_or_insert_with(|| Summary::Reconciling(reason, message.into()));
    }

    fn stall(&mut self, reason: Reason, message: &str) {
        if !matches!(self.summary, Some(Summary::Stalled(..))) {
            self.summary = Some(Summary::Stalled(reason, message.into()));
        }
    }

    /// Does the API server issue under our URL? Returns the evidence against it.
    fn api_server(
        &mut self,
        api: &Result<ApiServer, ApiProblem>,
        wanted: &str,
        was_ready: bool,
    ) -> Option<(Reason, String)> {
        match api {
            Ok(api) if api.issuer == wanted => {
                let message = "the API server issues tokens under this issuer";
                self.push(Wanted::yes(C::IssuerMatches, Reason::Verified, message));
                None
            }
            Ok(api) => {
                let message = mismatch(&api.issuer, wanted);
                self.push(Wanted::no(C::IssuerMatches, Reason::IssuerMismatch, &message));
                if !was_ready {
                    // The cause of whatever else does not work yet, the operator's own credentials among it.
                    self.wait(Reason::IssuerMismatch, &message);
                }
                Some((Reason::IssuerMismatch, message))
            }
            Err(problem) => {
                self.push(Wanted::unknown(C::IssuerMatches, Reason::APIServerUnreachable, &problem.0));
                self.wait(Reason::APIServerUnreachable, &problem.0);
                None
            }
        }
    }

    fn aws_failed(&mut self, error: &AwsError) {
        let (reason, message) = (error.class.reason(), error.for_user());
        match error.class {
            class if class.needs_a_person() => self.stall(reason, &message),
            Class::NotFound | Class::AlreadyExists | Class::Conflict => self.wait(reason, &message),
            _ => {
                self.push(Wanted::no(C::AWSReachable, reason, &message));
                self.wait(reason, &message);
            }
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        self.push(Wanted::no(C::Published, refusal.reason, &refusal.message));
        self.stall(refusal.reason, &refusal.message);
    }

    fn written(&mut self, writes: &[Write]) {
        let (provider, bucket): (Vec<&Write>, Vec<&Write>) = writes.iter().partition(|w| {
            matches!(w, Write::CreateProvider | Write::AddAudience(_) | Write::RemoveAudience(_))
        });
        for (type_, writes, done) in [
            (C::Published, bucket, "both documents stand in the bucket"),
            (C::ProviderRegistered, provider, "the OIDC provider is registered with the specified audiences"),
        ] {
            if writes.is_empty() {
                self.push(Wanted::yes(type_, Reason::Verified, done));
            } else {
                let mut attributes: Vec<&str> = writes.iter().map(|w| w.attribute()).collect();
                attributes.dedup();
                let message = format!("to be written: {}", attributes.join(", "));
                self.push(Wanted::no(type_, Reason::Publishing, &message));
                self.wait(Reason::Publishing, &message);
            }
        }
    }

    /// STS is the judge: a failed anonymous read with a successful exchange is a warning.
    fn verified(
        &mut self,
        verification: Option<&Verification>,
        matches: bool,
        window_open: bool,
        bad: &mut Option<(Reason, String)>,
    ) {
        let Some(Verification { public, exchange, .. }) = verification else {
            self.unverified(false);
            return;
        };
        self.push(evidence(C::PubliclyReachable, public, "anybody can read both documents, byte for byte"));
        let Some(exchange) = exchange else {
            self.push(Wanted::unknown(
                C::TokenExchangeVerified,
                Reason::NotVerified,
                "waits for the API server's issuer",
            ));
            if matches {
                self.wait(Reason::NotVerified, "the token exchange has not been tried yet");
            }
            return;
        };
        let worked = "AWS STS gave credentials for a real token of this cluster";
        match exchange {
            Evidence::Bad(_, message) if window_open => {
                let message = format!("not yet: {message}");
                self.push(Wanted::no(C::TokenExchangeVerified, Reason::Propagating, &message));
                self.wait(Reason::Propagating, &message);
            }
            _ => self.push(evidence(C::TokenExchangeVerified, exchange, worked)),
        }
        match exchange {
            Evidence::Good => {}
            Evidence::Bad(..) if window_open => {}
            Evidence::Bad(reason, message) => {
                bad.get_or_insert_with(|| (*reason, message.clone()));
            }
            Evidence::Unclear(reason, message) => self.wait(*reason, message),
        }
    }

    /// What was verified stays so until it is looked at again.
    fn unverified(&mut self, was_ready: bool) {
        if was_ready {
            return;
        }
        let message = "waits for publication";
        self.push(Wanted::unknown(C::PubliclyReachable, Reason::NotVerified, message));
        self.push(Wanted::unknown(C::TokenExchangeVerified, Reason::NotVerified, message));
        self.wait(Reason::NotVerified, "publication has not been verified yet");
    }

    /// What was Ready stays Ready through everything that passes by itself; only `bad` evidence and what needs a person
    /// end it, and those have put their own summary.
    fn finish(mut self, was_ready: bool) -> Vec<Wanted> {
        let keeps = |reason: &Reason| !matches!(reason, Reason::IssuerMismatch | Reason::TokenExchangeFailed);
        let ready = || Summary::Ready("a token of this cluster was exchanged for AWS credentials".into());
        let summary = match self.summary.take() {
            Some(Summary::Reconciling(reason, _)) if was_ready && keeps(&reason) => ready(),
            Some(summary) => summary,
            None => ready(),
        };
        let mut conditions = summary.conditions();
        conditions.append(&mut self.list);
        conditions
    }
}

fn evidence(type_: C, evidence: &Evidence, good: &str) -> Wanted {
    match evidence {
        Evidence::Good => Wanted::yes(type_, Reason::Verified, good),
        Evidence::Bad(reason, message) => Wanted::no(type_, *reason, message),
        Evidence::Unclear(reason, message) => Wanted::unknown(type_, *reason, message),
    }
}
