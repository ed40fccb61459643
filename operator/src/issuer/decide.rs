//! PURE: from what was observed to what is done next and what the user is told.

use std::time::{Duration, Instant};

use crds::condition::{Summary, Wanted};
use crds::{Finding, Reason};

use super::key_set;
use super::keys::Life;
use super::model::{
    Due, Evidence, Expected, Facts, Fence, Memory, Note, Observed, Plan, Step, Verification, Verify, View,
};
use super::publication::{Publication, documents};
use super::verdict::{self, Case};
use super::{publication, removal};
use crate::aws::error::AwsError;
use crate::change::Change;
use crate::clock::Clock;
use crate::model::Next;
use crate::oidc::Documents;
use crate::timings::Timings;

/// Which reads are due: at their age, and after anything that makes memory doubtful. An edit of grants does not. `deletes`:
/// something in AWS is to be removed, which is read live before.
#[must_use]
pub fn due(memory: &Memory, same_effect: bool, deletes: bool, clock: &Clock, timings: &Timings) -> Due {
    let old = |read: Option<Instant>, age: Duration| read.is_none_or(|at| clock.since(at) >= age);
    Due {
        api: !same_effect
            || old(
                memory.api.as_ref().filter(|(api, _)| api.is_ok()).map(|(_, at)| *at),
                timings.api_server_poll,
            ),
        aws: !same_effect || deletes || old(memory.aws.as_ref().map(|(_, at)| *at), timings.issuer_resync),
    }
}

/// The plan of one pass.
#[must_use]
pub fn decide(view: &View, observed: &Observed, memory: &Memory, clock: &Clock, timings: &Timings) -> Plan {
    if let Some(why) = &view.untouched {
        return untouched(view, observed, why, timings);
    }
    let was_ready = view.object.was_ready;
    let mismatch = verdict::mismatch(view, observed);
    let out_of_reach_since = key_set::out_of_reach_since(observed, memory, clock);
    let life = key_set::decide(view, observed, memory, clock, timings);
    let foreign = life.as_ref().err().and_then(Option::as_ref);
    let life = life.as_ref().ok();
    let expected = expected(view, observed, life);
    let documents = expected.as_ref().and_then(Expected::documents);
    let publication = publication(view, observed, documents);
    let changes = publication.as_ref().ok().and_then(|publication| publication.changes().ok());
    let as_specified = changes.as_ref().is_some_and(Vec::is_empty);
    let published = expected.as_ref().filter(|_| as_specified);
    let digest = published.map(Expected::digest);
    let verification = memory
        .verification
        .as_ref()
        .filter(|last| digest.as_ref().is_some_and(|digest| last.digest == *digest));
    let last_write = memory.last_write.unwrap_or(clock.started);
    let window_open = clock.since(last_write) < timings.not_yet_window;
    let early = verification
        .is_some_and(|last| last.at.saturating_duration_since(last_write) < timings.not_yet_window);

    let bad = mismatch.clone().or_else(|| foreign.cloned());
    let bad = bad.or_else(|| verdict::locked_out(observed));
    let bad = bad.or_else(|| verdict::definite(verification, window_open));
    let bad_since = bad.as_ref().map(|_| memory.bad_since.unwrap_or(clock.instant));
    let lasted = bad_since.is_some_and(|since| clock.since(since) >= timings.verify_retry);
    let case = Case {
        view,
        observed,
        mismatch: mismatch.as_ref(),
        foreign,
        publication: publication.as_ref().map_err(|error| *error),
        published: published.is_some(),
        notes: life.map_or(&[], |life| &life.notes),
        verification,
        last_verification: memory.verification.as_ref(),
        window_open,
        early,
        // Ready is taken back only by evidence that lasted.
        against: bad.as_ref().filter(|_| lasted || !was_ready),
    };

    let removal =
        view.object.deleting.then(|| removal::decide(view, observed, memory, foreign, clock, timings));
    let (steps, summary, next) = if let Some(removal::Removal::Ends(steps, summary, next)) = removal {
        (steps, summary, next)
    } else {
        // While bindings use it, pods rest on it: a deletion that waits for them changes nothing of what is kept true.
        let finalizer = (!view.object.finalizer && !view.object.deleting).then_some(Step::AddFinalizer);
        let changes = changes.clone().into_iter().flatten().map(Step::Change);
        let mut steps: Vec<Step> = finalizer.into_iter().chain(changes).collect();
        let mut wait = timings.api_server_poll.min(timings.issuer_resync);
        if let Some(expected) = published {
            let matches = mismatch.is_none();
            match verified_for(verification, matches, window_open, early, clock, timings) {
                Some(left) => wait = wait.min(left),
                None => steps.push(Step::Own(Verify { expected: expected.clone(), exchange: matches })),
            }
        }
        let no_credentials = observed.aws.as_ref().is_err_and(|error| error.class.is_of_credentials());
        let next = match (steps.is_empty(), observed.failed_read()) {
            (false, _) => Next::LookAgain,
            (true, Some(_)) if no_credentials => Next::At(timings.credentials_retry),
            (true, Some(_)) => Next::BackOff,
            (true, None) => Next::At(wait),
        };
        let summary = match removal {
            Some(removal::Removal::Waits(blocked)) => blocked,
            _ => verdict::summary(&case),
        };
        (steps, summary, next)
    };
    Plan {
        conditions: verdict::conditions(&case, &summary),
        facts: facts(view, published.and_then(Expected::documents), life),
        events: key_set::events(observed, memory, life),
        note: Note {
            bad_since,
            out_of_reach_since,
            missing: removal::missing(view, observed, memory, clock),
            keys: life.cloned(),
            invalid: observed.additional.invalid.clone(),
        },
        drift: was_ready && is_drift(view, memory, changes.as_deref(), life.zip(documents)),
        steps,
        next,
    }
}

/// The plan of an issuer that changes nothing, and of which nothing is read.
fn untouched(view: &View, observed: &Observed, why: &Finding, timings: &Timings) -> Plan {
    let in_use = !observed.dependents.is_empty();
    let ends = view.object.deleting && view.object.finalizer && !in_use;
    // Without the issuer, its bindings could not remove their roles.
    let summary = if in_use { removal::in_use(&observed.dependents) } else { why.clone() };
    Plan {
        steps: ends.then_some(Step::RemoveFinalizer).into_iter().collect(),
        conditions: verdict::unknown(&Summary::Stalled(summary), why),
        facts: facts(view, None, None),
        note: Note::default(),
        drift: false,
        next: Next::At(timings.api_server_poll),
        // Nobody would read it in the status of an object that is gone.
        events: (ends && why.reason == Reason::Abandoned).then(|| why.clone()).into_iter().collect(),
    }
}

/// What anonymous readers must find; `None` while that is not known.
fn expected(view: &View, observed: &Observed, life: Option<&Life>) -> Option<Expected> {
    if view.spec().s3.is_none() {
        return observed.api.as_ref().ok().map(|api| Expected::Elsewhere(api.keys()));
    }
    life.map(|life| Expected::Published(documents::wanted(view.spec(), life)))
}

fn publication<'a>(
    view: &'a View,
    observed: &'a Observed,
    documents: Option<&Documents>,
) -> Result<Publication, &'a AwsError> {
    let (target, aws) = (view.target.as_ref()?, observed.aws.as_ref()?);
    Ok(publication::diff(target, aws.bucket.as_ref(), aws.provider.as_ref(), documents))
}

/// How long the last verification's answer is still good; `None` where it is time for another.
fn verified_for(
    last: Option<&Verification>,
    matches: bool,
    window_open: bool,
    early: bool,
    clock: &Clock,
    timings: &Timings,
) -> Option<Duration> {
    let last = last.filter(|last| last.exchange.is_some() || !matches)?;
    let good = match &last.exchange {
        Some(exchange) => *exchange == Evidence::Good,
        None => last.public == Evidence::Good,
    };
    // What was written a moment before it was tried may not have been in force yet: it is tried once more.
    let unproved = |fence: &Fence| !matches!(fence, Fence::Holds | Fence::NotManaged);
    let fence_is_open = early && last.fence.as_ref().is_some_and(unproved);
    let period = match (good, window_open) {
        (true, _) if fence_is_open => timings.verify_retry,
        (true, _) => timings.verify_period,
        (false, true) => timings.not_yet_retry,
        (false, false) => timings.verify_retry,
    };
    Some(period.saturating_sub(clock.since(last.at))).filter(|left| !left.is_zero())
}

/// Whether what is put back was changed by somebody else. Keys that the API server added or removed are not drift.
fn is_drift(
    view: &View,
    memory: &Memory,
    changes: Option<&[Change]>,
    wanted: Option<(&Life, &Documents)>,
) -> bool {
    let as_published = |(life, documents): (&Life, &Documents)| {
        Some(documents.digest().as_str()) == view.published_digest()
            && life.records == key_set::recorded(view, memory)
    };
    changes.is_some_and(|changes| !changes.is_empty()) && wanted.is_none_or(as_published)
}

fn facts(view: &View, published: Option<&Documents>, life: Option<&Life>) -> Facts {
    let (spec, target) = (view.spec(), view.target.as_ref().ok());
    Facts {
        issuer_url: spec.issuer_url(),
        jwks_uri: spec.jwks_uri(),
        partition: target.map(|target| target.partition.to_owned()),
        account: target.map(|target| target.account.clone()),
        provider_arn: target.map(|target| target.provider_arn.clone()),
        digest: published.map(Documents::digest),
        // Somebody else publishes: there is nothing to show.
        keys: if spec.s3.is_none() { Some(Vec::new()) } else { life.map(|life| life.records.clone()) },
        keys_complete: true,
    }
}

/// What a failed step means for the status: the plan's own words where AWS just needs time, else the failure's.
#[must_use]
pub fn after_failure(
    plan: &Plan,
    view: &View,
    error: &AwsError,
    window_open: bool,
    timings: &Timings,
) -> (Vec<Wanted>, Next) {
    let blocked = error.public_policy_blocked();
    if blocked && window_open {
        return (plan.conditions.clone(), Next::At(timings.not_yet_retry));
    }
    let summary = if blocked {
        Summary::Stalled(Finding::new(Reason::PublicAccessBlocked, error.public_policy_advice()))
    } else {
        verdict::settled(verdict::failure(error), view.object.was_ready)
    };
    let mut conditions = summary.conditions();
    conditions.extend(
        plan.conditions.iter().filter(|wanted| !verdict::is_replaced_by_failure(wanted.type_)).cloned(),
    );
    conditions.extend(verdict::aws_unreachable(error).filter(|_| !blocked));
    let no_credentials = error.class.is_of_credentials();
    (conditions, if no_credentials { Next::At(timings.credentials_retry) } else { Next::BackOff })
}
