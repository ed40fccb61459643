//! Pods that run without their identity: what a binding says of them, and what it restarts.

use crds::MissingPods;
use crds::condition::Holds;
use operator::pods::model::{Found, PodsState, WorkloadKind, WorkloadRef};

use binding::model::Trusted;

use super::case::name;
use super::*;

fn found(pods: &[(&str, Option<&str>)], count: usize, workloads: &[&str]) -> PodsState {
    let workload = |name: &&str| WorkloadRef { kind: WorkloadKind::Deployment, name: (*name).into() };
    PodsState::Known(Found {
        count,
        named: pods.iter().map(|(name, why)| ((*name).to_owned(), why.map(Into::into))).collect(),
        workloads: workloads.iter().map(workload).collect(),
    })
}

fn restart(case: &mut Case) {
    case.annotations.insert(names::RESTART_ANNOTATION.to_owned(), "true".into());
}

/// A row: its name, what it changes, the steps, the condition, what its message ends with, and how many pods the status counts.
type Row<'a> = (&'a str, fn(&mut Case), &'a [&'a str], (Holds, Reason), &'a str, Option<i64>);

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn pods_without_identity_are_named_with_what_to_do_and_never_take_part_in_ready() {
    use Holds::{AsBefore, False, True, Unknown};
    let table: &[Row<'_>] = &[
        ("none", |_| {}, &[], (True, Reason::PodsInjected), "runs without the identity", Some(0)),
        (
            "of a Deployment",
            |case| case.observed.pods = found(&[("web-1", None), ("web-2", None)], 2, &["web"]),
            &[],
            (False, Reason::PodsWithoutIdentity),
            "2 pods run without the identity: web-1, web-2. Restart them: kubectl -n vault rollout restart deployment/web. The \
             annotation podidentity.dev/restart-missing=\"true\" on this binding does so, once",
            Some(2),
        ),
        (
            "without a workload",
            |case| case.observed.pods = found(&[("one", None)], 1, &[]),
            &[],
            (False, Reason::PodsWithoutIdentity),
            "1 pod runs without the identity: one. Delete them, or restart what made them: new pods get the identity",
            Some(1),
        ),
        (
            "more than are named",
            |case| {
                let names = ["a", "b", "c", "d", "e"].map(|name| (name, None));
                case.observed.pods = found(&names, 7, &[]);
            },
            &[],
            (False, Reason::PodsWithoutIdentity),
            "7 pods run without the identity: a, b, c, d, e and 2 more. Delete them, or restart what made them: new pods get the \
             identity",
            Some(7),
        ),
        (
            "with a static key",
            |case| case.observed.pods = found(&[("web-1", Some("container app sets a key"))], 1, &[]),
            &[],
            (False, Reason::PodsWithoutIdentity),
            "1 pod runs without the identity: web-1; web-1: container app sets a key",
            Some(1),
        ),
        (
            "restarted by the annotation",
            |case| {
                restart(case);
                case.observed.pods = found(&[("web-1", None)], 1, &["web"]);
                case.observed.restarts =
                    vec![WorkloadRef { kind: WorkloadKind::Deployment, name: "web".into() }];
            },
            &["restart web"],
            (False, Reason::PodsWithoutIdentity),
            "1 pod runs without the identity: web-1. Their workloads are restarted, each once",
            Some(1),
        ),
        (
            "restarted before, and not again",
            |case| {
                restart(case);
                case.observed.pods = found(&[("web-1", None)], 1, &["web"]);
            },
            &[],
            (False, Reason::PodsWithoutIdentity),
            "1 pod runs without the identity: web-1. Their workloads are restarted, each once",
            Some(1),
        ),
        (
            "the restart is refused",
            |case| {
                restart(case);
                case.observed.pods = found(&[("web-1", None)], 1, &["web"]);
                case.memory.restart_refused = Some(Box::new(("forbidden".into(), case.clock.instant)));
            },
            &[],
            (False, Reason::PodsWithoutIdentity),
            "1 pod runs without the identity: web-1. They could not be restarted: forbidden",
            Some(1),
        ),
        (
            "not before the role is as specified",
            |case| {
                restart(case);
                case.role().trust = "{}".into();
                case.observed.pods = found(&[("web-1", None)], 1, &["web"]);
                case.observed.restarts =
                    vec![WorkloadRef { kind: WorkloadKind::Deployment, name: "web".into() }];
            },
            &["trust Allow"],
            (False, Reason::PodsWithoutIdentity),
            "Their workloads are restarted, each once",
            Some(1),
        ),
        (
            "not known yet",
            |case| case.observed.pods = PodsState::NotKnown,
            &[],
            (AsBefore, Reason::Progressing),
            "are not known yet",
            None,
        ),
        (
            "not watched",
            |case| case.observed.pods = PodsState::NotWatched,
            &[],
            (Unknown, Reason::PodsNotWatched),
            "pods are not watched: the chart's value operator.podWatch is false",
            Some(0),
        ),
        (
            "not readable",
            |case| case.observed.pods = PodsState::Unreadable("pods cannot be listed: forbidden".into()),
            &[],
            (Unknown, Reason::PodsNotWatched),
            "pods cannot be listed: forbidden",
            Some(0),
        ),
        (
            "in a namespace without injection",
            |case| {
                case.labels.insert(names::label::INJECTION.to_owned(), "disabled".into());
                case.observed.pods = PodsState::NotKnown;
            },
            &[],
            (Unknown, Reason::PodsNotWatched),
            "the label podidentity.dev/injection=disabled: its pods get no identity",
            Some(0),
        ),
        (
            "while an edit is refused",
            |case| {
                case.wants(&["arn:aws:iam::111122223333:policy/not-granted"]);
                case.generation = 2;
                case.observed.pods = found(&[("one", None)], 1, &[]);
            },
            &[],
            (False, Reason::PodsWithoutIdentity),
            "new pods get the identity",
            Some(1),
        ),
        (
            "being deleted",
            |case| {
                case.deleting = true;
                case.observed.pods = PodsState::NotKnown;
            },
            &["trust Deny", "annotate 0", "detach storage", "delete", "remove finalizer"],
            (False, Reason::Deleting),
            "",
            Some(0),
        ),
    ];
    for (row, change, steps, condition, message, count) in table {
        let mut case = Case::good();
        change(&mut case);
        let plan = case.plan();
        let taken: Vec<String> = plan.steps.iter().map(name).collect();
        assert_eq!(taken, *steps, "{row}");
        let pods = plan.conditions.iter().find(|condition| condition.type_ == C::PodsInjected).unwrap();
        assert_eq!((pods.holds, pods.finding.reason), *condition, "{row}: {}", pods.finding.message);
        assert!(pods.finding.message.ends_with(message), "{row}: {}", pods.finding.message);
        let missing = plan.facts.missing.map(|MissingPods { count, .. }| count);
        assert_eq!(missing, *count, "{row}");
    }
}

#[test]
fn what_the_webhook_gives_is_what_is_expected_of_pods() {
    let mut case = Case::good();
    let expected = |case: &Case| {
        let expected = case.view().expected();
        expected.map(|e| (e.role_arn.into_string(), e.audience.into_string()))
    };
    let arn = names::role_arn("aws", "111122223333", "homelab", "vault", "vault");
    assert_eq!(expected(&case), Some((arn.clone(), "sts.amazonaws.com".into())));
    case.spec.audience = Some("vault".into());
    assert_eq!(expected(&case), Some((arn.clone(), "vault".into())));
    // Not in effect: the role trusts the former one, unless there is none yet.
    case.was_ready = false;
    assert_eq!(expected(&case), Some((arn.clone(), "sts.amazonaws.com".into())));
    case.has_role = false;
    assert_eq!(expected(&case), Some((arn, "vault".into())));
    for (row, change) in [
        ("being deleted", (|case: &mut Case| case.deleting = true) as fn(&mut Case)),
        ("revoked", |case| case.ready_reason = Some(Reason::Revoked)),
        ("the operator's own", |case| case.namespace = "podidentity-system"),
        ("no issuer", |case| case.issuer = None),
        ("refused, and never had a role", |case| {
            (case.has_role, case.is_stalled) = (false, true);
        }),
        ("in a namespace without injection", |case| {
            case.labels.insert(names::label::INJECTION.to_owned(), "disabled".into());
        }),
    ] {
        let mut case = Case::good();
        change(&mut case);
        assert_eq!(expected(&case), None, "{row}");
    }
    // Of another workload in the namespace of the webhook.
    let mut view = Case::good().view();
    view.own_namespace = true;
    assert_eq!(view.expected(), None);
}

/// What the webhook gives to new pods while a specification is not in effect.
#[test]
fn the_status_has_issuer_and_audience_that_the_role_was_read_to_trust() {
    let recorded = |case: &Case| case.plan().facts.trusted;
    let default_issuer = |audience: Option<&str>| {
        Some(Trusted { issuer: Some("default".into()), audience: audience.map(str::to_owned) })
    };
    let mut case = Case::good();
    assert_eq!(recorded(&case), default_issuer(None), "the default ones");
    case.spec.audience = Some("vault".into());
    assert_eq!(recorded(&case), None, "refused: the role does not trust it");
    case.issuer.as_mut().unwrap().audiences.push("vault".into());
    assert_eq!(recorded(&case), None, "the trust policy is changed only now");
    let trust = case.view().target.unwrap().trust.policy.to_string();
    case.role().trust = trust;
    assert_eq!(recorded(&case), default_issuer(Some("vault")));
    // What was left is still trusted for a while: an edit back to it that is refused is not in effect.
    case.wants(&["arn:aws:iam::111122223333:policy/not-granted"]);
    assert_eq!(recorded(&case), None);
    case.wants(&[STORAGE]);
    case.issuer.as_mut().unwrap().audiences.pop();
    assert_eq!(recorded(&case), None);
    case.issuer.as_mut().unwrap().audiences.push("vault".into());
    assert_eq!(recorded(&case), default_issuer(Some("vault")));
    case.role().tags.clear();
    assert_eq!(recorded(&case), None, "of another owner");
    case.observed.role = Ok(Some(RoleState::Missing));
    assert_eq!(recorded(&case), None);
}

/// A pass looks at a part of many workloads. The next part comes soon, also where the role is not due for hours.
#[test]
fn where_workloads_remain_to_be_restarted_the_binding_is_looked_at_again_soon() {
    let mut case = Case::good();
    let period = Timings::default();
    assert_eq!(case.plan().next, Next::At(period.role_resync));
    let last = WorkloadRef { kind: WorkloadKind::Deployment, name: "web".into() };
    case.memory.restart_after = Some(Box::new(last));
    assert_eq!(case.plan().next, Next::At(period.look_again()));
}
