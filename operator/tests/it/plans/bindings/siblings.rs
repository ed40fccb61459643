//! Several bindings on one `ServiceAccount`: which one holds it, and how its role goes to another.

use super::case::{Case, check};
use super::*;

impl Case {
    /// The conflict was seen first so many seconds ago.
    fn is_bound_by_another_for(&mut self, seconds: u64) {
        self.memory.conflict_since = self.clock.instant.checked_sub(Duration::from_secs(seconds));
    }
}

/// Two minutes after the conflict began, however old the binding is.
#[test]
fn the_wait_for_the_end_of_a_conflict_begins_with_it() {
    let mut case = Case::good();
    case.is_role_of("older");
    case.add_sibling(|_| {});
    let plan = case.plan();
    assert_eq!(plan.note.conflict_since, Some(case.clock.instant));
    assert_eq!(plan.next, Next::At(Duration::from_mins(2)));
    case.is_bound_by_another_for(30);
    let plan = case.plan();
    assert_eq!(plan.note.conflict_since, case.memory.conflict_since);
    assert_eq!(plan.next, Next::At(Duration::from_secs(90)));
    // It has ended.
    case.siblings.clear();
    assert_eq!(case.plan().note.conflict_since, None);
}

/// The webhook takes the binding whose status names the role.
#[test]
fn a_role_that_became_another_bindings_is_not_named_any_more() {
    let mut case = Case::good();
    case.is_role_of("renamed");
    case.has_role = true;
    case.add_sibling(|sibling| sibling.name = "renamed".into());
    assert_eq!(case.plan().facts.role, Some(RoleFacts::default()));
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn one_of_several_bindings_acts() {
    check(&[
        (
            "bound by another, for a moment",
            |case| {
                (case.has_role, case.finalizer, case.age) = (false, false, Duration::ZERO);
                case.observed.role = Ok(None);
                case.add_sibling(|_| {});
            },
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "an old binding, bound by another since this pass",
            |case| {
                case.is_role_of("older");
                case.add_sibling(|_| {});
            },
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "bound by another for less than two minutes",
            |case| {
                case.is_role_of("older");
                case.add_sibling(|_| {});
                case.is_bound_by_another_for(119);
            },
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "reported before this process started",
            |case| {
                case.is_role_of("older");
                case.add_sibling(|_| {});
                (case.ready_reason, case.is_stalled) = (Some(Reason::ServiceAccountAlreadyBound), true);
            },
            &[],
            "False ServiceAccountAlreadyBound Stalled",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "bound by another for two minutes",
            |case| {
                case.is_role_of("older");
                case.add_sibling(|_| {});
                case.is_bound_by_another_for(120);
            },
            &[],
            "False ServiceAccountAlreadyBound Stalled",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "bound by another that is being deleted",
            |case| {
                case.is_role_of("older");
                case.add_sibling(|sibling| sibling.deleting = true);
            },
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "the one that has the role keeps the ServiceAccount, although another is older",
            |case| case.add_sibling(|sibling| sibling.has_role = false),
            &[],
            "True Ready",
            "+Granted +Verified +Annotated",
        ),
        (
            "the tags say that the role is its own, whatever the statuses say",
            |case| {
                case.has_role = false;
                case.add_sibling(|_| {});
            },
            &[],
            "True Ready",
            "+Granted +Verified +Annotated",
        ),
        (
            "the role was handed over to it, and IAM still shows its former owner: it comes before one that is older",
            |case| {
                case.is_role_of("ended");
                case.has_role = false;
                case.made_a_second_ago();
                case.add_sibling(|sibling| sibling.has_role = false);
            },
            &[],
            "True Ready",
            "+Granted =NotOwned +Annotated",
        ),
        (
            "an older one that the operator acts on",
            |case| {
                case.is_role_of("ended");
                case.has_role = false;
                case.add_sibling(|sibling| (sibling.has_role, sibling.acted_on) = (false, true));
            },
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "the tags say that another one was faster: it is no foreign owner",
            |case| {
                case.is_role_of("zz-same-second");
                case.add_sibling(|sibling| {
                    (sibling.name, sibling.has_role) = ("zz-same-second".into(), false);
                });
            },
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "the same specification as one that is Ready: Ready, and nothing is done",
            |case| {
                (case.has_role, case.finalizer, case.was_ready) = (false, false, false);
                case.observed.role = Ok(None);
                case.add_sibling(|sibling| sibling.same_effect = true);
            },
            &[],
            "True ServedByOlderBinding",
            "+Granted +ServedByOlderBinding +ServedByOlderBinding",
        ),
        (
            "the same specification as one that is not Ready",
            |case| {
                (case.has_role, case.finalizer, case.was_ready) = (false, false, false);
                case.observed.role = Ok(None);
                case.add_sibling(|sibling| (sibling.same_effect, sibling.ready) = (true, false));
            },
            &[],
            "False ServedByOlderBinding Reconciling",
            "+Granted -ServedByOlderBinding -ServedByOlderBinding",
        ),
        (
            "the same specification as one that is being deleted: it stays Ready",
            |case| {
                (case.has_role, case.finalizer) = (false, false);
                case.observed.role = Ok(None);
                case.add_sibling(|sibling| {
                    (sibling.same_effect, sibling.ready, sibling.deleting) = (true, false, true);
                });
            },
            &[],
            "True ServedByOlderBinding",
            "+Granted +ServedByOlderBinding +ServedByOlderBinding",
        ),
        (
            "deletion: the role is handed over, and the annotations stay",
            |case| {
                case.deleting = true;
                let heir = case.heir("renamed");
                case.add_sibling(|sibling| {
                    (sibling.name, sibling.has_role, sibling.heir) = ("renamed".into(), false, Some(heir));
                });
            },
            &["lock renamed", "hand over to renamed", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: of several, the oldest that can take it over",
            |case| {
                case.deleting = true;
                for (name, deleting, age) in [("deleting", true, 3), ("young", false, 1), ("old", false, 2)] {
                    let heir = case.heir(name);
                    let created = case.clock.wall - Duration::from_mins(age);
                    case.add_sibling(|sibling| {
                        (sibling.name, sibling.deleting, sibling.has_role) = (name.into(), deleting, false);
                        (sibling.created, sibling.heir) = (Some(created), Some(heir));
                    });
                }
            },
            &["lock old", "hand over to old", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: nobody can take it over",
            |case| {
                case.deleting = true;
                case.add_sibling(|sibling| sibling.has_role = false);
            },
            &["trust Deny", "annotate 0", "detach storage", "delete", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: its own role by its ARN is handed over, too",
            |case| {
                let (arn, heir) = (case.role().arn.clone(), case.heir("renamed"));
                (case.spec.role, case.spec.role_arn) = (None, Some(arn));
                (case.deleting, case.generation, case.has_role) = (true, 3, false);
                case.add_sibling(|sibling| {
                    (sibling.name, sibling.has_role, sibling.heir) = ("renamed".into(), false, Some(heir));
                });
            },
            &["lock renamed", "hand over to renamed", "remove finalizer"],
            "False Deleting Reconciling",
            "+NotRequired -Deleting -Deleting",
        ),
        (
            "deletion: another binding uses the role by its ARN: the role stays",
            |case| {
                case.deleting = true;
                case.add_sibling(|sibling| (sibling.has_role, sibling.uses_role) = (false, true));
            },
            &["annotate 0", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion with Release, and another binding uses the role by its ARN: our tags are taken off",
            |case| {
                case.deleting = true;
                case.spec.deletion_policy = crds::RoleDeletionPolicy::Release;
                case.add_sibling(|sibling| (sibling.has_role, sibling.uses_role) = (false, true));
            },
            &["annotate 0", "untag 5", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "the same specification, which no grant covers any more: it could not take over",
            |case| {
                (case.has_role, case.finalizer) = (false, false);
                case.observed.role = Ok(None);
                case.issuer.as_mut().unwrap().grants.clear();
                case.add_sibling(|sibling| {
                    (sibling.same_effect, sibling.ready, sibling.deleting) = (true, false, true);
                });
            },
            &[],
            "False ServedByOlderBinding Reconciling",
            "-NotGranted -ServedByOlderBinding -ServedByOlderBinding",
        ),
        (
            "deletion: after the hand-over nothing of the other's is touched",
            |case| {
                case.deleting = true;
                case.is_role_of("renamed");
                case.add_sibling(|sibling| sibling.name = "renamed".into());
            },
            &["remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
    ]);
}
