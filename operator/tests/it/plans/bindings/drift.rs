//! What somebody else has changed: put back, or only reported.

use binding::failure::after_failure;
use binding::model::Step;
use crds::{DriftPolicy, RoleDeletionPolicy};
use operator::aws::model::Tags;
use operator::kind::{Failure, Kind};
use operator::pods::model::{WorkloadKind, WorkloadRef};

use super::case::{Case, check, name};
use super::*;

impl Case {
    pub fn only_report(&mut self) {
        self.spec.drift_policy = DriftPolicy::ReportOnly;
    }
}

#[test]
fn drift_that_is_only_reported() {
    check(&[
        (
            "only reported",
            |case| {
                case.only_report();
                case.role().trust = "{}".into();
                case.policies().attached.clear();
            },
            &[],
            "False DriftDetected Stalled",
            "+Granted -DriftDetected +Annotated",
        ),
        (
            "reported before: it stays so",
            |case| {
                case.only_report();
                (case.was_ready, case.ready_reason) = (false, Some(Reason::DriftDetected));
                case.role().trust = "{}".into();
            },
            &[],
            "False DriftDetected Stalled",
            "+Granted -DriftDetected +Annotated",
        ),
        (
            "an edit that changes nothing of the role: what differs is drift still",
            |case| {
                case.only_report();
                (case.was_ready, case.generation) = (false, 2);
                case.role_digest = case.view().target.ok().map(|target| target.digest());
                case.policies().attached.insert(QUEUE.into(), None);
            },
            &[],
            "False DriftDetected Stalled",
            "+Granted -DriftDetected +Annotated",
        ),
        (
            "the boundary is the administrator's: it is put in place, and the rest reported",
            |case| {
                case.only_report();
                case.role().boundary = None;
                case.policies().attached.insert(QUEUE.into(), None);
            },
            &["boundary"],
            "False DriftDetected Stalled",
            "+Granted -DriftDetected +Annotated",
        ),
        (
            "an edit of the specification is no drift",
            |case| {
                case.only_report();
                case.was_ready = false;
                case.wants(&[QUEUE]);
            },
            &["attach queue", "detach storage"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
    ]);
}

fn with_tags(case: &mut Case) {
    let issuer = case.issuer.as_mut().unwrap();
    issuer.tags = [("team", "platform"), ("cost-center", "4711")].map(|(k, v)| (k.into(), v.into())).into();
}

fn steps(case: &Case) -> Vec<String> {
    case.plan().steps.iter().map(name).collect()
}

/// The issuer's tags on a role: only those that it lacks, and what else it has stays.
#[test]
fn the_tags_of_the_issuer_are_put_on_the_role() {
    let put = |case: &Case| -> Option<(Option<String>, Option<String>, Tags)> {
        let steps = case.plan().steps;
        let [Step::Change(Change { old, new, write: Write::Iam(IamWrite::TagRole { tags, .. }), .. })] =
            &*steps
        else {
            return None;
        };
        Some((old.clone(), new.clone(), tags.clone()))
    };
    let cluster = (names::tag::CLUSTER.to_owned(), "homelab".to_owned());
    let mut case = Case::good();
    with_tags(&mut case);
    case.role().tags.extend([("team".into(), "other".into()), ("owner".into(), "jane".into())]);
    let (old, new, tags) = put(&case).unwrap();
    assert_eq!(old.as_deref(), Some("team=other"));
    assert_eq!(new.as_deref(), Some("cost-center=4711 team=platform"));
    let wanted = [("cost-center", "4711"), ("team", "platform")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(tags, wanted.into_iter().chain([cluster]).collect());

    // A key in another case is the same key for IAM, which refuses two that differ only in case.
    case.role().tags.extend([("Team".into(), "platform".into()), ("cost-center".into(), "4711".into())]);
    case.role().tags.remove("team");
    assert_eq!(put(&case), None);
    case.issuer.as_mut().unwrap().tags.insert("TEAM".into(), "platform".into());
    assert_eq!(put(&case), None);
    case.issuer.as_mut().unwrap().tags.insert("TEAM".into(), "storage".into());
    let (old, new, _) = put(&case).unwrap();
    assert_eq!((old.as_deref(), new.as_deref()), (Some("Team=platform"), Some("TEAM=storage")));
}

/// They come last, on a role that is as specified otherwise: AWS may refuse them, and then nothing waits for them.
#[test]
fn nothing_waits_for_the_tags_of_the_issuer() {
    let mut case = Case::good();
    with_tags(&mut case);
    assert_eq!((steps(&case), case.plan().next), (vec!["tags".to_owned()], Next::LookAgain));
    case.observed.restarts = vec![WorkloadRef { kind: WorkloadKind::Deployment, name: "web".into() }];
    assert_eq!((steps(&case), case.plan().next), (vec!["restart web".to_owned()], Next::LookAgain));
    case.service_account().annotations.clear();
    assert_eq!(steps(&case), ["annotate 2"]);
    case.role().trust = "{}".into();
    assert_eq!(steps(&case), ["trust Allow", "annotate 2"]);

    // A move writes only the tags that say whose the role is.
    let mut moved = Case::good();
    with_tags(&mut moved);
    moved.issuer.as_mut().unwrap().audiences.push("vault".into());
    (moved.spec.audience, moved.was_ready, moved.generation) = (Some("vault".into()), false, 2);
    assert_eq!(steps(&moved), ["begin move", "trust Allow", "annotate 3"]);
    let plan = moved.plan();
    let Some(Change { write: Write::Iam(IamWrite::TagRole { tags, .. }), .. }) = plan.steps[0].change()
    else {
        panic!("{plan:?}")
    };
    assert!(tags.keys().all(|key| key.starts_with(names::tag::PREFIX)), "{tags:?}");

    // What a tenant wants to have reported does not count for the administrator's tags, but a report comes first.
    let mut reported = Case::good();
    with_tags(&mut reported);
    reported.only_report();
    assert_eq!(steps(&reported), ["tags"]);
    reported.policies().attached.clear();
    assert_eq!(steps(&reported), [""; 0]);

    for (row, refuse) in [
        ("without a grant", (|case| case.issuer.as_mut().unwrap().grants.clear()) as fn(&mut Case)),
        ("refused", |case| case.spec.audience = Some("other".into())),
        ("of somebody else", |case| case.role().tags.clear()),
        ("shown as that of another binding, which may be late", |case| {
            case.role().tags.insert(names::tag::NAME.into(), "older".into());
            case.just_started();
        }),
        ("made elsewhere", Case::uses_existing_role),
        ("a role of its own, and then one made elsewhere", |case| {
            let own = case.view().target.unwrap().arn;
            (case.spec.role, case.spec.role_arn, case.generation) = (None, Some(own), 2);
        }),
    ] {
        let mut case = Case::good();
        with_tags(&mut case);
        refuse(&mut case);
        assert!(!steps(&case).contains(&"tags".to_owned()), "{row}");
    }
    // A role that is kept says whose it was, and no more.
    let mut kept = Case::good();
    with_tags(&mut kept);
    (kept.deleting, kept.spec.deletion_policy) = (true, RoleDeletionPolicy::Retain);
    let plan = kept.plan();
    let keys = plan.steps.iter().filter_map(Step::change).find_map(|change| match &change.write {
        Write::Iam(IamWrite::TagRole { tags, .. }) => Some(tags.keys().cloned().collect::<Vec<_>>()),
        _ => None,
    });
    assert!(keys.unwrap().iter().all(|key| key.starts_with(names::tag::PREFIX)), "{plan:?}");
}

/// A role that lacks tags is as specified otherwise. An edit of them is no drift, also where the first call fails.
#[test]
fn without_the_tags_of_the_issuer_a_binding_stays_ready() {
    let mut case = Case::good();
    let before = case.view().target.unwrap().digest();
    with_tags(&mut case);
    case.policies().inline.insert(
        "deny".into(),
        json!({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}).to_string(),
    );
    case.was_ready = false;
    for (class, verdict) in [
        (Class::Denied, "AWSReachable-OperatorPermissionMissing"),
        (Class::Quota, "AWSReachable-QuotaExceeded"),
        (Class::Invalid, "AWSReachable-InvalidSpec"),
        (Class::Transient, "AWSReachable-AWSUnavailable"),
    ] {
        let conditions = after_failure(&case.plan(), &case.view(), &aws_error(class));
        assert_eq!(summary(&conditions), "True ForeignDeny", "{class:?}");
        assert!(verdicts(&conditions).contains("+ForeignDeny"), "{class:?}");
        assert!(verdicts(&conditions).contains(verdict), "{class:?}: {}", verdicts(&conditions));
        let ready = conditions.iter().find(|condition| condition.type_ == C::Ready).unwrap();
        assert!(ready.finding.message.contains("not all tags of the issuer are on the role"), "{ready:?}");
    }
    // The status says that the rest was read as specified. So a process that starts reads the role, and what else differs later is drift.
    case.was_ready = true;
    let target = case.view().target.unwrap();
    let without = target.digest_without_tags();
    assert_eq!(before, without);
    for (digest, is_drift) in [(before, false), (target.digest(), true)] {
        case.role_digest = Some(digest);
        let plan = case.plan();
        assert_eq!((plan.drift, plan.facts.digest), (is_drift, Some(Some(without.clone()))));
    }
    // It is taken out before the call: this process may end between the two, and the edit be taken back.
    case.ready_reason = Some(Reason::Ready);
    assert_eq!(steps(&case), ["forget digest", "tags"]);
    case.memory.digest_forgotten = case.role_digest.take().map(Into::into);
    assert!(case.plan().drift, "somebody took tags off, and changed something else that was put back before");
    case.memory.digest_forgotten = None;
    case.role_digest = Some(without);
    assert_eq!(steps(&case), ["tags"], "nobody believes it");
    assert!(!case.view().was_in_spec());
    case.policies().attached.clear();
    assert!(case.plan().drift, "{:?}", steps(&case));
}

/// A binding that is Ready is not tried again and again where a person has to change something.
#[test]
fn tags_that_aws_refuses_are_tried_again_after_the_period_of_a_look() {
    let mut case = Case::good();
    with_tags(&mut case);
    let (plan, view, timings) = (case.plan(), case.view(), Timings::default());
    for (class, repeated, next) in [
        (Class::Denied, false, Next::BackOff),
        (Class::Denied, true, Next::At(timings.look_again())),
        (Class::Quota, true, Next::At(timings.look_again())),
        (Class::Transient, true, Next::BackOff),
    ] {
        let error = aws_error(class);
        let failure = Failure { plan: &plan, view: &view, error: &error, repeated, clock: &case.clock };
        assert_eq!(binding::Binding::step_failed(&failure, &mut case.memory, &timings).1, next, "{class:?}");
    }
}

/// An edit of the issuer, such as another boundary, is no drift: no event says that somebody has changed the role.
#[test]
fn what_is_put_back_is_drift_only_where_the_specification_is_the_same() {
    for (digest, is_drift) in [(None, true), (Some("former"), false), (Some("same"), true)] {
        let mut case = Case::good();
        let same = case.view().target.unwrap().digest();
        case.role_digest = digest.map(|digest| if digest == "same" { same } else { digest.to_owned() });
        case.role().boundary = Some("arn:aws:iam::111122223333:policy/former".into());
        let plan = case.plan();
        assert_eq!(plan.drift, is_drift, "{digest:?}");
        let steps: Vec<String> = plan.steps.iter().map(name).collect();
        assert_eq!(steps.last().unwrap(), "boundary", "{digest:?}");
    }
    // Neither a deletion nor a revocation puts anything back.
    for change in [(|case| case.deleting = true) as fn(&mut Case), |case| {
        case.issuer.as_mut().unwrap().grants.clear();
        case.revoke_in = Some(-1);
    }] {
        let mut case = Case::good();
        case.role_digest = case.view().target.ok().map(|target| target.digest());
        change(&mut case);
        let plan = case.plan();
        assert!(!plan.drift && plan.steps.len() > 1, "{plan:?}");
    }
}

/// Each write of the status is followed by a pass: a step that AWS refuses again and again must not write it in turns.
#[test]
fn a_digest_that_nothing_believes_is_not_taken_out() {
    let mut case = Case::good();
    case.only_report();
    case.role_digest = case.view().target.ok().map(|target| target.digest());
    case.role().boundary = None;
    case.policies().attached.insert(QUEUE.into(), None);
    let steps = |case: &Case| case.plan().steps.iter().map(name).collect::<Vec<_>>();
    assert_eq!(steps(&case), ["forget digest", "boundary"], "Ready");
    (case.was_ready, case.ready_reason) = (false, Some(Reason::DriftDetected));
    assert_eq!(steps(&case), ["boundary"]);
    assert_eq!(case.plan().facts.digest, Some(case.role_digest.clone()), "nothing is written");
    // A revocation must not look like somebody else's change to the process after this one.
    case.issuer.as_mut().unwrap().grants.clear();
    (case.revoke_in, case.ready_reason) = (Some(-1), Some(Reason::GrantLost));
    assert_eq!(steps(&case)[..2], ["forget digest", "put podidentity-revoked"]);
}

/// The next edit may change nothing of the role.
#[test]
fn the_digest_outlives_what_is_only_reported_and_what_is_refused() {
    let same = Case::good().view().target.unwrap().digest();
    for (row, change, digest) in [
        ("reported", Case::only_report as fn(&mut Case), Some(Some(same.clone()))),
        ("put back", |_| {}, Some(None)),
        ("refused", |case| case.spec.audience = Some("unknown".into()), None),
        (
            "moved to an issuer that is being deleted",
            |case| {
                (case.issuer_deleting, case.was_ready) = (true, false);
                case.made_under = case.issuer.clone();
            },
            None,
        ),
        ("missing", |case| case.observed.role = Ok(Some(RoleState::Missing)), Some(None)),
        (
            "missing, and reported",
            |case| {
                case.only_report();
                case.observed.role = Ok(Some(RoleState::Missing));
            },
            Some(Some(same.clone())),
        ),
    ] {
        let mut case = Case::good();
        case.policies().attached.insert(QUEUE.into(), None);
        change(&mut case);
        assert_eq!(case.plan().facts.digest, digest, "{row}");
    }
    // Ready is said while the role cannot be read, without the policy that only denies: it is read at the next start.
    let mut unread = Case::good();
    unread.observed.role = Err(aws_error(Class::Throttled));
    assert_eq!(unread.plan().facts.digest, None);
    unread.ready_reason = Some(Reason::ForeignDeny);
    assert_eq!(unread.plan().facts.digest, Some(None));
    let mut denied = Case::good();
    denied.policies().inline.insert("AWSRevokeOlderSessions".into(), REVOKE_OLDER.into());
    assert_eq!(denied.plan().facts.digest, Some(Some(same)));
    // What was taken out before the role was changed does not come back with an old copy of the binding.
    let mut forgotten = Case::good();
    forgotten.memory.digest_forgotten = Some("former".into());
    forgotten.spec.audience = Some("unknown".into());
    assert_eq!(forgotten.plan().facts.digest, Some(None));
}

/// Nothing says Ready, beside which the next process would believe the digest.
#[test]
fn a_boundary_that_cannot_be_put_in_place_now_leaves_the_report() {
    let mut case = Case::good();
    case.only_report();
    case.role().boundary = None;
    case.policies().attached.insert(QUEUE.into(), None);
    let conditions = after_failure(&case.plan(), &case.view(), &aws_error(Class::Throttled));
    assert_eq!(summary(&conditions), "False DriftDetected Stalled");
    let conditions = after_failure(&case.plan(), &case.view(), &aws_error(Class::Transient));
    assert_eq!(summary(&conditions), "False DriftDetected Stalled");
    // An administrator names one that does not exist.
    let missing = AwsError { operation: "iam:PutRolePermissionsBoundary", ..aws_error(Class::NotFound) };
    let found = after_failure(&case.plan(), &case.view(), &missing);
    assert_eq!(summary(&found), "False DriftDetected Stalled");
    assert!(found[0].finding.message.contains("run `operator bootstrap` again"), "{found:?}");
    assert!(conditions.iter().any(|condition| condition.type_ == C::AWSReachable));
}
