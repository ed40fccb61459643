//! PURE: which reads of a role are due. The sweep lists all roles often; a role is read whole where the list shows a change, after
//! anything that makes memory doubtful, at its age, and always before destruction.

use std::time::{Duration, Instant};

use crds::condition::Summary;
use crds::holder::Claim;
use crds::names::tag;
use crds::{Finding, Reason};

use super::granted;
use super::model::{Due, InSpec, Memory, Observed, RoleState, View};
use super::role::Target;
use crate::aws::model::{Listed, ListedRole};
use crate::clock::Clock;
use crate::timings::Timings;

/// Which reads are due. An object that was never acted on is not read: `CreateRole` answers `EntityAlreadyExists` if there is a role.
#[must_use]
pub fn due(view: &View, memory: &Memory, listed: Option<Listed>, clock: &Clock, timings: &Timings) -> Due {
    if memory.reads_again {
        return Due { role: true, policies: true };
    }
    // A role that this process has read is read again before a change, also where the binding has lost the finalizer.
    let is_known = memory.role.as_ref().is_some_and(|(role, _)| role.is_some());
    let may_have_role = view.object.finalizer || memory.acted || is_known;
    if view.never_had_role() {
        return Due::default();
    }
    if view.object.deleting {
        return Due { role: may_have_role, policies: may_have_role };
    }
    if view.spec().role.is_none() {
        let earlier_role = may_have_role && !memory.no_earlier_role && !view.uses_own_role();
        return Due { role: earlier_role, policies: earlier_role };
    }
    // A role that no grant covers may be revoked. It is read when it loses its grant, and again before it is changed (`is_old`).
    let is_reported = memory.in_spec.is_none()
        && view.grant.is_err()
        && view.ready_reason().is_some_and(granted::is_refusal);
    // A role that was missing or another owner's: whatever wakes the binding may have changed that.
    let is_in_doubt = memory.absent_since.is_some() || (view.grant.is_err() && !is_reported);
    if let (Some(in_spec), Ok(target)) = (&memory.in_spec, &view.target) {
        let role = may_have_role && (is_in_doubt || in_spec.is_doubtful(target, listed, clock.instant));
        return Due { role, policies: role };
    }
    let edited = is_in_doubt || memory.generation != view.object.generation;
    // A person may correct what is only reported; and the list shows a part of the changes early.
    let period =
        if view.object.was_ready || is_reported { timings.role_resync } else { timings.look_again() };
    let old = |read: Option<Instant>| {
        read.is_none_or(|at| {
            edited || clock.since(at) >= period || listed.is_some_and(|l| l.at > at && differs(memory, l))
        })
    };
    let policies = memory.policies.as_deref();
    let policies =
        may_have_role && policies.is_none_or(|(policies, at)| policies.has_unread() || old(Some(*at)));
    // A plan that changes the policies by this read would need a new read of an old role (`is_old`).
    let role = may_have_role
        && (old(memory.role.as_ref().map(|(_, at)| *at)) || (policies && is_old(memory, clock, timings)));
    Due { role, policies: policies || role }
}

/// Whether the last read of the role is older than `reconcile_timeout`. By such a read the role is not changed: another role may have its
/// name now.
#[must_use]
pub fn is_old(memory: &Memory, clock: &Clock, timings: &Timings) -> bool {
    let role = memory.role.as_ref().filter(|(role, _)| role.is_some());
    role.is_some_and(|(_, at)| clock.since(*at) > timings.reconcile_timeout)
}

/// Whether a list shows something else than what was read.
fn differs(memory: &Memory, listed: Listed) -> bool {
    let read = memory.role.as_ref().and_then(|(role, _)| role.as_ref());
    listed.digest != read.map(|role| ListedRole::digest_of_text(&role.trust, &role.settings))
}

/// That an earlier process has read the role as specified, where its status and the list say so. The whole reads after a start are
/// spread over their period.
#[must_use]
pub fn as_before(
    view: &View,
    target: &Target,
    listed: Option<Listed>,
    clock: &Clock,
    timings: &Timings,
) -> Option<InSpec> {
    let digest = ListedRole::digest(&target.trust.policy, &target.settings);
    let is_listed = listed.is_some_and(|listed| listed.digest == Some(digest));
    (is_listed && view.was_in_spec()).then(|| InSpec {
        target: target.digest(),
        listed: digest,
        read: None,
        // Another share at each start: an operator that restarts often reads every role some time.
        until: clock.started + share(timings.role_resync, digest ^ clock.wall.as_second().unsigned_abs()),
    })
}

/// That the role was read as specified, and when it is read again. Not where anything about it changes by time, or is shown beside.
#[must_use]
pub fn in_spec(
    view: &View,
    observed: &Observed,
    memory: &Memory,
    summary: &Summary,
    clock: &Clock,
    timings: &Timings,
) -> Option<InSpec> {
    let is_plain = matches!(summary, Summary::Ready(finding) if finding.reason == Reason::Ready);
    let target = view.target.as_ref().ok().filter(|_| is_plain && view.wants_role())?;
    match observed.role.as_ref().ok()?.as_ref()? {
        RoleState::AsSpecified => memory.in_spec.clone(),
        RoleState::Found(role, Some(policies))
            if !policies.has_unread()
                && !role.tags.contains_key(tag::FORMER_UNTIL)
                && target.owns(role).is_ok() =>
        {
            let read = memory.role.as_ref().map_or(clock.instant, |(_, at)| *at);
            Some(InSpec {
                target: target.digest(),
                listed: ListedRole::digest_of_text(&role.trust, &role.settings),
                read: Some(read),
                until: read + timings.role_resync,
            })
        }
        RoleState::Found(..) | RoleState::Missing => None,
    }
}

/// What the status says of the digest; `None` leaves it as it is. A role that lacks no more than tags of the issuer is read again by the next
/// process (`was_in_spec`).
#[must_use]
pub fn recorded_digest(
    view: &View,
    observed: &Observed,
    memory: &Memory,
    summary: &Summary,
    in_spec: Option<&InSpec>,
    lacks_tags: bool,
) -> Option<Option<String>> {
    // What is shown beside the specification is so after an edit, too, that changes nothing of the role. The next process does not believe
    // a digest beside these reasons (`was_in_spec`).
    let is_shown = match summary {
        Summary::Ready(finding) => finding.reason == Reason::ForeignDeny,
        Summary::Reconciling(_) => false,
        Summary::Stalled(finding) => finding.reason == Reason::DriftDetected,
    };
    let is_ready = matches!(summary, Summary::Ready(_));
    // The role stays as it was.
    let is_refused = matches!(
        summary,
        Summary::Stalled(Finding {
            reason: Reason::InvalidSpec
                | Reason::DependencyNotReady
                | Reason::NotGranted
                | Reason::GrantLost
                | Reason::GrantChangeSuspicious,
            ..
        })
    );
    match (in_spec, &observed.role, &view.target) {
        (Some(in_spec), _, _) => Some(Some(in_spec.target.clone())),
        (None, Ok(Some(RoleState::Found(role, _))), Ok(target)) if is_shown || lacks_tags => {
            Some(Some(target.digest_of(role)))
        }
        (None, Ok(Some(RoleState::Missing)), Ok(target)) if is_shown => Some(Some(target.digest())),
        // Ready is said then, and no more what is shown beside.
        (None, Err(_), _) if is_ready && view.ready_reason() == Some(Reason::ForeignDeny) => Some(None),
        (None, Ok(Some(RoleState::Found(..) | RoleState::Missing)), _) if !is_refused => Some(None),
        // This copy of the binding may still have the digest that was taken out.
        (None, _, _) => memory.digest_forgotten.as_ref().map(|_| None),
    }
}

/// A share of a period, by a number.
fn share(period: Duration, number: u64) -> Duration {
    let thousandth = u32::try_from(number % 1000).unwrap_or_default();
    period / 1000 * thousandth
}

impl View {
    /// Where its role is listed.
    #[must_use]
    pub fn place(&self, target: &Target) -> (Option<String>, String) {
        let account = self.issuer.as_ref().and_then(|issuer| issuer.spec.operator_role_arn.clone());
        (account, target.path.clone())
    }

    /// Whether the status says that the role was read as it is specified now.
    #[must_use]
    pub fn was_in_spec(&self) -> bool {
        self.wants_role()
            && self.object.finalizer
            && self.object.was_ready
            && self.binding.has_role()
            && self.ready_reason() == Some(Reason::Ready)
            && self.target.as_ref().is_ok_and(|target| self.digest() == Some(&target.digest()))
    }

    /// Whether the role was read as it is specified now, with the tags of the issuer: by the digest in the status, or the one that this
    /// process has taken out.
    #[must_use]
    pub fn had_tags(&self, memory: &Memory) -> bool {
        let digest = self.digest().map(String::as_str).or(memory.digest_forgotten.as_deref());
        self.target.as_ref().is_ok_and(|target| digest == Some(&*target.digest()))
    }

    fn digest(&self) -> Option<&String> {
        self.binding.status.as_ref()?.role_digest.as_ref()
    }

    /// Whether the role was read, or its differences were reported, under what is specified now, and not under something else; `None` where
    /// the status does not say that. An edit of the issuer, such as another boundary, changes what is specified, too. Tags of the issuer are
    /// not compared.
    #[must_use]
    pub fn was_read_as_target(&self) -> Option<bool> {
        let digest = self.digest()?;
        self.target.as_ref().ok().map(|target| digest.starts_with(&target.digest_without_tags()))
    }

    /// Whether the status has a digest that the next process would believe although this one may have ended between two changes. Where the
    /// pass writes it again (`next`), and it is not believed (`was_in_spec`), because of the reason beside it or because tags of the issuer are
    /// missing, it stays: each write of the status is followed by a pass.
    #[must_use]
    pub fn records_digest(&self, next: Option<&Option<String>>) -> bool {
        let is_believed = |next: &String| {
            let lacks_tags = self.target.as_ref().is_ok_and(|target| *next != target.digest());
            self.ready_reason() == Some(Reason::Ready) && !(lacks_tags && self.digest() == Some(next))
        };
        self.digest().is_some()
            && !self.object.deleting
            && next.and_then(Option::as_ref).is_none_or(is_believed)
    }

    /// Whether the binding makes a role, and is not being deleted.
    #[must_use]
    pub fn wants_role(&self) -> bool {
        self.spec().role.is_some() && !self.object.deleting
    }
}

impl InSpec {
    /// Whether it has to be read again, as far as `target` and the last list say.
    #[must_use]
    pub fn is_doubtful(&self, target: &Target, listed: Option<Listed>, now: Instant) -> bool {
        // A list that began before the read is older than it.
        let is_newer = |listed: &Listed| self.read.is_none_or(|read| listed.at > read);
        let differs = listed.filter(is_newer).is_some_and(|listed| listed.digest != Some(self.listed));
        now >= self.until || differs || self.target != target.digest()
    }
}
