//! PURE: how an issuer is removed. While bindings use it, it is not, and everything that it publishes is kept as specified: a
//! deletion by mistake must not cut pods off. Then `spec.deletionPolicy` decides: `Retain` leaves everything in AWS, `Delete`
//! removes the provider, and the documents and the bucket only after IAM has shown that the provider is gone: a provider must
//! never trust a place that somebody else may claim.

use std::time::Instant;

use crds::condition::Summary;
use crds::{DeletionPolicy, Finding, Management, Reason};

use super::model::{AwsState, Memory, Missing, Observed, Step, View};
use super::publication::target::Target;
use super::publication::{bucket, documents, provider};
use super::verdict;
use crate::clock::Clock;
use crate::model::Next;
use crate::timings::Timings;

/// How far the removal is.
pub(super) enum Removal {
    /// Something still rests on the issuer.
    Waits(Summary),
    /// Nothing does: what is left to be done.
    Ends(Vec<Step>, Summary, Next),
}

/// What is done of the removal in this pass.
pub(super) fn decide(
    view: &View,
    observed: &Observed,
    memory: &Memory,
    foreign: Option<&Finding>,
    clock: &Clock,
    timings: &Timings,
) -> Removal {
    if !observed.dependents.is_empty() {
        return Removal::Waits(Summary::Reconciling(in_use(&observed.dependents)));
    }
    match view.spec().deletion_policy {
        DeletionPolicy::Retain => end(
            view,
            timings,
            "what was published and registered stays in AWS; `operator teardown` removes it",
        ),
        DeletionPolicy::Delete => delete(view, observed, memory, foreign, clock, timings),
    }
}

/// That bindings use it, with some of their names.
pub(super) fn in_use(dependents: &[String]) -> Finding {
    /// More names would not be read.
    const NAMED: usize = 5;
    let named: Vec<&str> = dependents.iter().take(NAMED).map(String::as_str).collect();
    let message = format!(
        "{} PodIdentityBinding(s) still use this issuer: {}{}. Delete them first. Until then its documents and provider are \
         kept as specified",
        dependents.len(),
        named.join(", "),
        if dependents.len() > named.len() { ", …" } else { "" }
    );
    Finding::new(Reason::DeletionBlocked, message)
}

fn end(view: &View, timings: &Timings, message: &str) -> Removal {
    let steps = view.object.finalizer.then_some(Step::RemoveFinalizer).into_iter().collect();
    let summary = Summary::Reconciling(Finding::new(Reason::Deleting, message));
    Removal::Ends(steps, summary, Next::At(timings.api_server_poll))
}

fn delete(
    view: &View,
    observed: &Observed,
    memory: &Memory,
    foreign: Option<&Finding>,
    clock: &Clock,
    timings: &Timings,
) -> Removal {
    let (target, aws) = match (&view.target, &observed.aws) {
        (Ok(target), Ok(aws)) => (target, aws),
        (Err(error), _) | (_, Err(error)) => {
            return Removal::Ends(Vec::new(), verdict::failure(error), Next::BackOff);
        }
    };
    if !memory.provider_deleted && operator_rests_on(target, observed) {
        return Removal::Waits(Summary::Stalled(operator_depends(target)));
    }
    let AwsState { bucket: found, provider: registered } = aws;
    let deleting = |attribute: &str| {
        let message = format!("spec.deletionPolicy is Delete: the {attribute} is being removed");
        Summary::Reconciling(Finding::new(Reason::Deleting, message))
    };
    // What somebody else owns is not removed, nor what it may trust.
    let checks = [provider::check(target, registered.as_ref()), bucket::check(target, found.as_ref())];
    let mut refused = checks.into_iter().filter_map(Result::err).chain(foreign.cloned());
    let is_of_others = |finding: &Finding| matches!(finding.reason, Reason::NotOwned | Reason::ForeignKeys);
    if let Some(Finding { reason, message }) = refused.find(is_of_others) {
        let message = format!("{message}. To leave all of it in AWS, set spec.deletionPolicy to Retain");
        return Removal::Ends(Vec::new(), Summary::Stalled(Finding::new(reason, message)), Next::BackOff);
    }
    if let Some(other) = observed.same_url.first().filter(|_| target.location.is_some()) {
        let message = format!(
            "OidcIssuer {other} has the same issuer URL, and its provider trusts these documents: delete it first, or set \
             spec.deletionPolicy to Retain"
        );
        return Removal::Waits(Summary::Stalled(Finding::new(Reason::DeletionBlocked, message)));
    }
    if target.provider_management == Management::Existing && registered.is_some() {
        return Removal::Waits(Summary::Stalled(still_trusted(target)));
    }
    if let Some(change) = provider::removal(target, registered.as_ref()) {
        return Removal::Ends(vec![Step::Change(change)], deleting("provider"), Next::LookAgain);
    }
    if !memory.provider_deleted && !provider_is_certainly_missing(memory, clock, timings) {
        return Removal::Ends(Vec::new(), deleting("provider"), Next::At(timings.role_confirmation));
    }
    let documents = documents::removal(target, found.as_ref());
    let bucket = bucket::removal(target, found.as_ref());
    let changes: Vec<Step> = documents.into_iter().chain(bucket).map(Step::Change).collect();
    if !changes.is_empty() {
        return Removal::Ends(changes, deleting("bucket"), Next::LookAgain);
    }
    let had_bucket = target.location.is_some() && found.is_none();
    if had_bucket && !memory.bucket_deleted && !was_said_twice(memory.missing.bucket_since, clock, timings) {
        return Removal::Ends(Vec::new(), deleting("bucket"), Next::At(timings.role_confirmation));
    }
    end(view, timings, "spec.deletionPolicy is Delete: everything that was made is removed from AWS")
}

/// What this read and all before it in a deletion have not shown.
pub(super) fn missing(view: &View, observed: &Observed, memory: &Memory, clock: &Clock) -> Missing {
    let Ok(aws) = &observed.aws else { return Missing::default() };
    let since = |is_missing: bool, before: Option<Instant>| {
        (view.object.deleting && is_missing).then(|| before.unwrap_or(clock.instant))
    };
    Missing {
        provider_since: since(aws.provider.is_none(), memory.missing.provider_since),
        bucket_since: since(aws.bucket.is_none(), memory.missing.bucket_since),
    }
}

/// IAM is eventually consistent: nothing was made a moment ago, either.
fn provider_is_certainly_missing(memory: &Memory, clock: &Clock, timings: &Timings) -> bool {
    let last_write = memory.last_write.unwrap_or(clock.started).max(clock.started);
    clock.since(last_write) >= timings.role_settling
        && was_said_twice(memory.missing.provider_since, clock, timings)
}

fn was_said_twice(missing_since: Option<Instant>, clock: &Clock, timings: &Timings) -> bool {
    missing_since.is_some_and(|since| clock.since(since) >= timings.role_confirmation)
}

/// Whether the operator's own credentials come from a token of this issuer, now or with its next token: then it would lose them
/// in the middle. Where the API servers cannot be asked, they do.
fn operator_rests_on(target: &Target, observed: &Observed) -> bool {
    let is_this = |issuer: &String| *issuer == target.issuer_url;
    let issues_it = match &observed.api {
        Ok(api) => api.answers().any(|server| is_this(&server.issuer)),
        Err(_) => true,
    };
    target.is_operators_role && (issues_it || observed.own_token_issuer.as_ref().is_some_and(is_this))
}

/// A provider of somebody else is not removed, so what it trusts must not be free for others to claim.
fn still_trusted(target: &Target) -> Finding {
    let message = format!(
        "OIDC provider {} is somebody else's (spec.provider.management is Existing) and still trusts this issuer: whoever keeps it \
         has to remove it first, or set spec.deletionPolicy to Retain",
        target.provider_arn
    );
    Finding::new(Reason::DeletionBlocked, message)
}

fn operator_depends(target: &Target) -> Finding {
    let message = format!(
        "the operator's own credentials come from tokens of {}: nothing is removed. Set spec.deletionPolicy to Retain and, at \
         the end, run `operator teardown` as an administrator; or let the API server issue tokens under another OidcIssuer first",
        target.issuer_url
    );
    Finding::new(Reason::OperatorDependsOnIssuer, message)
}
