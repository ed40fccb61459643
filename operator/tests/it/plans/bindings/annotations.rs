//! Annotations that somebody removes again and again.

use binding::model::{Annotate, Annotated, Own, Step};

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
