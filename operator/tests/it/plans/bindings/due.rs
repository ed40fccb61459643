//! When a role is read.

use binding::due::{as_before, due, is_old};
use binding::model::{Due, InSpec, RoleFacts, RoleState};
use operator::aws::model::{Listed, ListedRole};

use super::case::{Case, name};
use super::*;

const BOTH: Due = Due { role: true, policies: true };
const NONE: Due = Due { role: false, policies: false };

impl Case {
    /// No grant covers the binding, and the status says so.
    fn has_lost_grant(&mut self, reason: Reason) {
        self.lose_grant();
        (self.was_ready, self.ready_reason) = (false, Some(reason));
    }
}

#[test]
fn aws_is_read_when_there_is_a_reason() {
    type Edit = fn(&mut Case);
    let fresh = |case: &mut Case, age: Duration| {
        let at = case.clock.instant.checked_sub(age).unwrap();
        case.memory.generation = case.generation;
        case.memory.role = Some((Some(Box::new(case.role().clone())), at));
        case.memory.policies = Some(Box::new((RolePolicies::default(), at)));
    };
    let table: &[(&str, Edit, u64, Due)] = &[
        ("read a minute ago", |_| {}, 60, NONE),
        ("read an hour ago", |_| {}, 3600, NONE),
        ("read six hours ago", |_| {}, 6 * 3600, BOTH),
        ("only reported drift, read ten minutes ago", |case| case.was_ready = false, 600, BOTH),
        ("its grant is lost, and that is not reported yet", Case::lose_grant, 60, BOTH),
        ("reported as lost", |case| case.has_lost_grant(Reason::GrantLost), 3600, NONE),
        (
            "not revoked before that is confirmed",
            |case| case.has_lost_grant(Reason::GrantChangeSuspicious),
            3600,
            NONE,
        ),
        ("revoked", |case| case.has_lost_grant(Reason::Revoked), 3600, NONE),
        (
            "revoked, and a former pass read it as specified",
            |case| {
                case.has_lost_grant(Reason::Revoked);
                case.memory.in_spec = read_as_specified().memory.in_spec;
            },
            60,
            BOTH,
        ),
        ("revoked, read six hours ago", |case| case.has_lost_grant(Reason::Revoked), 6 * 3600, BOTH),
        (
            "revoked, and the specification is edited",
            |case| {
                case.has_lost_grant(Reason::Revoked);
                case.generation = 2;
            },
            60,
            BOTH,
        ),
        ("edited", |case| case.generation = 2, 60, BOTH),
        ("about to be deleted", |case| (case.deleting, case.generation) = (true, 2), 60, BOTH),
        (
            "its policies were changed",
            |case| case.memory.policies = None,
            60,
            Due { role: false, policies: true },
        ),
        (
            "IAM did not show a document, and the role itself is old, too",
            |case| case.memory.policies.as_mut().unwrap().0.unread_inline = ["x".into()].into(),
            61,
            BOTH,
        ),
        (
            "IAM did not show a document",
            |case| case.memory.policies.as_mut().unwrap().0.unread_inline = ["x".into()].into(),
            60,
            Due { role: false, policies: true },
        ),
        ("it was never acted on", |case| case.finalizer = false, 600, NONE),
        ("made elsewhere since creation", |case| case.spec.role = None, 600, NONE),
        (
            "made elsewhere since creation, and deleted",
            |case| {
                case.spec.role = None;
                (case.deleting, case.generation) = (true, 2);
            },
            600,
            NONE,
        ),
        (
            "made elsewhere since an edit",
            |case| {
                case.spec.role = None;
                case.generation = 2;
            },
            60,
            BOTH,
        ),
    ];
    for (row, change, age, expected) in table {
        let mut case = Case::good();
        fresh(&mut case, Duration::from_secs(*age));
        change(&mut case);
        assert_eq!(
            due(&case.view(), &case.memory, None, &case.clock, &Timings::default()),
            *expected,
            "{row}"
        );
    }
}

/// What comes from outside of the binding is no reason to read its role, and may be a reason to change it.
#[test]
fn a_role_that_was_read_longer_ago_than_a_pass_lasts_is_old() {
    let timings = Timings::default();
    for (seconds, old) in [(0, false), (60, false), (61, true), (600, true)] {
        let mut case = Case::good();
        let at = case.clock.instant.checked_sub(Duration::from_secs(seconds)).unwrap();
        case.memory.role = Some((Some(Box::new(case.role().clone())), at));
        assert_eq!(is_old(&case.memory, &case.clock, &timings), old, "{seconds}");
        // There is nothing that could be changed.
        case.memory.role = Some((None, at));
        assert!(!is_old(&case.memory, &case.clock, &timings), "{seconds}");
    }
    for edit in [
        (|_| {}) as fn(&mut Case),
        |case| case.memory.in_spec = read_as_specified().memory.in_spec,
        |case| (case.spec.role, case.generation, case.memory.no_earlier_role) = (None, 2, true),
        |case| case.finalizer = false,
    ] {
        let mut case = Case::good();
        let at = case.clock.instant;
        case.memory.generation = case.generation;
        case.memory.role = Some((None, at));
        case.memory.policies = Some(Box::new((RolePolicies::default(), at)));
        edit(&mut case);
        let reads = |case: &Case| due(&case.view(), &case.memory, None, &case.clock, &timings);
        assert_eq!(reads(&case), NONE);
        case.memory.reads_again = true;
        assert_eq!(reads(&case), BOTH);
    }
}

/// [`Case::good`], whose role was read as specified an hour ago.
fn read_as_specified() -> Case {
    let mut case = Case::good();
    let plan = case.plan();
    case.memory.in_spec = plan.note.in_spec;
    case.memory.generation = case.generation;
    (case.memory.role, case.memory.policies) = (None, None);
    case.observed.role = Ok(Some(RoleState::AsSpecified));
    case.clock.instant += Duration::from_hours(1);
    case
}

fn digest(case: &Case) -> u64 {
    let target = case.view().target.unwrap();
    ListedRole::digest(&target.trust.policy, &target.settings)
}

/// A row: its name, what it changes, the list (how long after the read, and how its digest differs), the reads that are due.
type Row<'a> = (&'a str, fn(&mut Case), Option<(i64, Option<u64>)>, Due);

#[test]
fn a_role_that_was_read_as_specified_is_not_kept_and_read_again_for_a_reason_only() {
    let case = read_as_specified();
    let known = case.memory.in_spec.clone().unwrap();
    assert_eq!(known.listed, digest(&case));
    let plan = case.plan();
    assert_eq!((plan.steps, &plan.note.in_spec), (vec![], &case.memory.in_spec));
    // Also where the status has lost it.
    let target = case.view().target.unwrap();
    assert_eq!(
        plan.facts.role,
        Some(RoleFacts { arn: Some(target.arn.clone()), name: Some(target.name.clone()) })
    );
    assert_eq!(plan.facts.digest, Some(Some(target.digest())));
    // Not before it is due: five hours are left.
    assert_eq!(plan.next, Next::At(Duration::from_hours(5)));

    let table: &[Row<'_>] = &[
        ("nothing has changed", |_| {}, None, NONE),
        ("the list shows the same", |_| {}, Some((60, Some(0))), NONE),
        ("the list shows something else", |_| {}, Some((60, Some(1))), BOTH),
        ("the list shows no such role", |_| {}, Some((60, None)), BOTH),
        ("a list that is older than the read shows something else", |_| {}, Some((-60, Some(1))), NONE),
        (
            "edited without effect on the role",
            |case| {
                case.spec.region = Some("eu-west-1".into());
                case.generation = 2;
            },
            None,
            NONE,
        ),
        ("another policy", |case| case.wants(&[QUEUE]), None, BOTH),
        (
            "another boundary",
            |case| {
                let boundary = format!("arn:aws:iam::{ACCOUNT}:policy/own");
                case.issuer.as_mut().unwrap().permissions_boundary = Some(boundary);
            },
            None,
            BOTH,
        ),
        ("no grant any more", |case| case.issuer.as_mut().unwrap().grants.clear(), None, BOTH),
        ("its age", |case| case.clock.instant += Duration::from_hours(5), None, BOTH),
        ("about to be deleted", |case| case.deleting = true, None, BOTH),
    ];
    for (row, change, list, expected) in table {
        let mut case = read_as_specified();
        change(&mut case);
        let read = case.memory.in_spec.as_ref().and_then(|in_spec| in_spec.read).unwrap();
        let listed = list.map(|(seconds, differs)| Listed {
            at: if seconds < 0 {
                read.checked_sub(Duration::from_mins(1)).unwrap()
            } else {
                read + Duration::from_mins(1)
            },
            digest: differs.map(|differs| known.listed + differs),
        });
        assert_eq!(
            due(&case.view(), &case.memory, listed, &case.clock, &Timings::default()),
            *expected,
            "{row}"
        );
    }
}

#[test]
fn what_is_not_plainly_as_specified_is_kept_and_read_again() {
    for (row, change) in [
        (
            "a policy that only denies",
            (|case: &mut Case| {
                case.policies().inline.insert("AWSRevokeOlderSessions".into(), super::REVOKE_OLDER.into());
            }) as fn(&mut Case),
        ),
        ("a former trust that ends", |case| {
            case.role().tags.insert(names::tag::FORMER_UNTIL.into(), "9999999999".into());
        }),
        ("drift", |case| case.role().trust = "{}".into()),
        ("another owner", |case| {
            case.role().tags.clear();
        }),
    ] {
        let mut case = Case::good();
        change(&mut case);
        let plan = case.plan();
        assert_eq!(plan.note.in_spec, None, "{row}");
        // The next process reads it at once.
        let ready = plan.conditions.iter().find(|condition| condition.type_ == C::Ready).unwrap();
        (case.role_digest, case.ready_reason) = (plan.facts.digest.unwrap(), Some(ready.finding.reason));
        assert!(!case.view().was_in_spec(), "{row}");
    }
}

#[test]
fn before_a_role_is_changed_the_status_says_no_more_that_it_is_as_specified() {
    let drifted = || {
        let mut case = Case::good();
        case.role().settings.description = "other".into();
        case.role_digest = case.view().target.ok().map(|target| target.digest());
        case.ready_reason = Some(Reason::Ready);
        case
    };
    for (row, change, steps) in [
        ("drift", (|_: &mut Case| {}) as fn(&mut Case), &["forget digest", "settings"][..]),
        ("an edit", |case| case.was_ready = false, &["forget digest", "settings"]),
        ("the status says nothing", |case| case.role_digest = None, &["settings"]),
        ("nothing is changed in AWS", |case| case.spec.drift_policy = crds::DriftPolicy::ReportOnly, &[]),
        (
            "deletion",
            |case| case.deleting = true,
            &["trust Deny", "annotate 0", "detach storage", "delete", "remove finalizer"],
        ),
    ] {
        let mut case = drifted();
        change(&mut case);
        let taken: Vec<String> = case.plan().steps.iter().map(name).collect();
        assert_eq!(taken, steps, "{row}");
    }
    // The next pass cannot read the role, and its copy of the binding may still have the digest.
    let mut unread = drifted();
    unread.observed.role = Err(aws_error(Class::Transient));
    assert_eq!(unread.plan().facts.digest, None);
    unread.memory.digest_forgotten = Some("former".into());
    assert_eq!(unread.plan().facts.digest, Some(None));
}

#[test]
fn after_a_start_the_whole_reads_are_spread_where_status_and_list_say_that_nothing_has_changed() {
    let good = || {
        let mut case = Case::good();
        case.role_digest = case.view().target.ok().map(|target| target.digest());
        case.ready_reason = Some(Reason::Ready);
        case.just_started();
        case
    };
    let found = |case: &Case, listed: Option<Option<u64>>| -> Option<InSpec> {
        let view = case.view();
        let listed = listed.map(|digest| Listed { at: case.clock.instant, digest });
        as_before(&view, view.target.as_ref().ok()?, listed, &case.clock, &Timings::default())
    };
    let same = Some(Some(digest(&good())));
    let known = found(&good(), same).unwrap();
    let (started, period) = (good().clock.started, Timings::default().role_resync);
    assert!((started..started + period).contains(&known.until));
    // Another role is read at another time.
    let mut other = good();
    other.spec.service_account_name = "other".into();
    other.role_digest = other.view().target.ok().map(|target| target.digest());
    assert_ne!(
        found(&other, Some(Some(digest(&other)))).unwrap().until - other.clock.started,
        known.until - started
    );

    for (row, change, listed) in [
        ("no list", (|_: &mut Case| {}) as fn(&mut Case), None),
        ("not in the list", |_| {}, Some(None)),
        ("the list shows something else", |_| {}, Some(Some(1))),
        ("an earlier version has written no digest", |case| case.role_digest = None, same),
        (
            "another boundary since then",
            |case| {
                let boundary = format!("arn:aws:iam::{ACCOUNT}:policy/own");
                case.issuer.as_mut().unwrap().permissions_boundary = Some(boundary);
            },
            same,
        ),
        ("it was not Ready", |case| case.was_ready = false, same),
        ("drift was reported", |case| case.ready_reason = Some(Reason::DriftDetected), same),
        ("a policy that denies was reported", |case| case.ready_reason = Some(Reason::ForeignDeny), same),
        ("about to be deleted", |case| case.deleting = true, same),
    ] {
        let mut case = good();
        change(&mut case);
        assert_eq!(found(&case, listed), None, "{row}");
    }
}
