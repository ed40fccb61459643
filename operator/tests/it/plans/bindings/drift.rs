//! What somebody else has changed: put back, or only reported.

use crds::DriftPolicy;

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
    // A difference that is only reported keeps the digest: the next edit may change nothing of the role.
    let mut case = Case::good();
    case.only_report();
    case.policies().attached.insert(QUEUE.into(), None);
    assert_eq!(case.plan().facts.digest, None);
    case.spec.drift_policy = DriftPolicy::Correct;
    assert_eq!(case.plan().facts.digest, Some(None));
}
