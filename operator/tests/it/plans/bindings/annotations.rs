//! Annotations that somebody removes again and again, or that are refused.

use binding::model::{Annotate, Annotated, Own, Refusal, Step};

use super::case::{Case, name};
use super::*;

/// The annotations are missing, and were applied before; put back so many seconds ago.
fn removed(put_back: Option<u64>, same: bool) -> Case {
    let mut case = Case::good();
    case.service_account().annotations.clear();
    let Some(Step::Own(Own::Annotate(step))) = case.plan().steps.pop() else { panic!("{:?}", case.plan()) };
    let put_back =
        put_back.map(|seconds| case.clock.instant.checked_sub(Duration::from_secs(seconds)).unwrap());
    let content = if same { step.content() } else { 0 };
    case.memory.annotated = Some(Annotated { content, put_back });
    case
}

#[test]
fn what_is_removed_again_is_put_back_once_a_minute_and_the_condition_says_why() {
    for (row, case, annotates, reason) in [
        ("removed once", removed(None, true), true, Reason::Progressing),
        ("removed again at once", removed(Some(10), true), false, Reason::AnnotationOwnedByOther),
        ("removed again, a minute later", removed(Some(60), true), true, Reason::Progressing),
        ("other annotations are meant", removed(Some(10), false), true, Reason::Progressing),
    ] {
        let plan = case.plan();
        let steps: Vec<String> = plan.steps.iter().map(name).collect();
        assert_eq!(steps, if annotates { vec!["annotate 2"] } else { vec![] }, "{row}");
        let condition = plan.conditions.iter().find(|c| c.type_ == C::ServiceAccountAnnotated).unwrap();
        assert_eq!((condition.holds, condition.finding.reason), (Holds::False, reason), "{row}");
        let ready = plan.conditions.iter().find(|condition| condition.type_ == C::Ready).unwrap();
        assert_eq!(ready.holds, Holds::True, "{row}");
        if !annotates {
            assert_eq!(plan.next, Next::At(Duration::from_secs(50)), "{row}");
        }
    }
    // Another ServiceAccount of that name is another one.
    let of =
        |uid: &str| Annotate { uid: uid.into(), version: "1".into(), annotations: BTreeMap::new() }.content();
    assert_ne!(of("a"), of("b"));
}

impl Case {
    /// The annotation has another value, and its apply was refused so long ago.
    pub fn refused(&mut self, reason: Reason, ago: Duration) {
        self.service_account().annotations.insert(annotation::ROLE_ARN.into(), "x".into());
        let refusal = Refusal { version: "1".into(), finding: Finding::new(reason, "test") };
        let at = self.clock.instant.checked_sub(ago).unwrap();
        (self.memory.refused, self.memory.generation) = (Some(Box::new((refusal, at))), 1);
    }
}

/// Another owner lets go by a change of the `ServiceAccount`. What an admission policy refuses may be allowed without one.
#[test]
fn what_the_api_server_refuses_is_tried_again_at_a_role_s_age() {
    const AGE: Duration = Duration::from_mins(10);
    const READ_AGAIN: Duration = Duration::from_hours(6);
    let (owned, denied) = (Reason::AnnotationOwnedByOther, Reason::AnnotationRefused);
    let minute = Duration::from_mins(1);
    for (reason, ago, annotates, next) in [
        (owned, minute, false, READ_AGAIN),
        (owned, AGE, false, READ_AGAIN),
        (denied, minute, false, Duration::from_mins(9)),
        (denied, AGE, true, Duration::ZERO),
    ] {
        let mut case = Case::good();
        case.refused(reason, ago);
        let plan = case.plan();
        let steps: Vec<String> = plan.steps.iter().map(name).collect();
        assert_eq!(steps, if annotates { vec!["annotate 2"] } else { vec![] }, "{reason:?} {ago:?}");
        if !annotates {
            assert!(matches!(plan.next, Next::At(at) if at <= next), "{reason:?} {ago:?}: {:?}", plan.next);
            let condition = plan.conditions.iter().find(|c| c.type_ == C::ServiceAccountAnnotated).unwrap();
            assert_eq!((condition.holds, condition.finding.reason), (Holds::False, reason));
        }
        let mut changed = case;
        changed.service_account().version = "2".into();
        assert_eq!(changed.plan().steps.iter().map(name).collect::<Vec<_>>(), ["annotate 2"]);
    }
    // A program that writes the ServiceAccount each second causes one apply a minute.
    let mut case = Case::good();
    case.refused(owned, Duration::from_secs(20));
    case.service_account().version = "2".into();
    let plan = case.plan();
    assert_eq!((plan.steps.len(), plan.next), (0, Next::At(Duration::from_secs(40))));
    let condition = plan.conditions.iter().find(|c| c.type_ == C::ServiceAccountAnnotated).unwrap();
    assert_eq!((condition.holds, condition.finding.reason), (Holds::False, owned));
}
