//! `PodIdentityBinding`.

mod annotations;
mod case;
mod drift;
mod due;
mod grants;
mod moves;
mod pods;
mod removal;
mod siblings;
mod unread;

use binding::model::{RoleFacts, RoleState};
use case::{Case, check};

use super::*;

/// A policy that gives a right.
const ALLOW: &str = r#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
/// What the IAM console's button "Revoke active sessions" makes.
const REVOKE_OLDER: &str = r#"{"Statement":[{"Effect":"Deny","Action":["*"],"Resource":["*"],"Condition":{"DateLessThan":{"aws:TokenIssueTime":"2026-11-29T12:00:00.000Z"}}}]}"#;

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn from_what_is_observed_to_steps_and_conditions() {
    check(&[
        ("nothing to do", |_| {}, &[], "True Ready", "+Granted +Verified +Annotated"),
        (
            "new: CreateRole answers whether it exists",
            |case| {
                (case.finalizer, case.was_ready) = (false, false);
                case.observed.role = Ok(None);
                case.service_account().annotations.clear();
            },
            &["add finalizer", "create", "attach storage", "annotate 2"],
            "False Progressing Reconciling",
            "+Granted -Progressing -Progressing",
        ),
        (
            "gone",
            |case| case.observed.role = Ok(Some(RoleState::Missing)),
            &["create", "attach storage"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "trust",
            |case| case.role().trust = "{}".into(),
            &["trust Allow"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            // What IAM shows in place of a principal that was deleted.
            "a deleted principal in the trust",
            |case| {
                let added = r#""Statement":[{"Effect":"Allow","Principal":{"AWS":"AIDAQ3EGHEXAMPLE"},"Action":"sts:AssumeRole"},"#;
                case.role().trust = case.role().trust.replacen("\"Statement\":[", added, 1);
            },
            &["trust Allow"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "a session limit",
            |case| case.role().settings.max_session_seconds = 43_200,
            &["settings"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "a description",
            |case| case.spec.role.as_mut().unwrap().description = Some("for Vault".into()),
            &["settings"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "a longer session than the grant allows",
            |case| {
                case.spec.role.as_mut().unwrap().max_session_duration = Some(Duration::from_hours(2).into());
            },
            &[],
            "False NotGranted Stalled",
            "-NotGranted -NotGranted +Annotated",
        ),
        (
            "boundary before trust",
            |case| {
                case.role().boundary = None;
                case.role().trust = "{}".into();
            },
            &["boundary", "trust Allow"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "attach before detach",
            |case| case.wants(&[QUEUE]),
            &["attach queue", "detach storage"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "detach before attach where the quota asks for it",
            |case| {
                let granted = format!("arn:aws:iam::{ACCOUNT}:policy/p*");
                case.issuer.as_mut().unwrap().grants[0].policy_arns.push(granted);
                case.policies().attached =
                    (0..10).map(|n| (format!("arn:aws:iam::{ACCOUNT}:policy/p{n}"), None)).collect();
            },
            &[
                "detach p0",
                "attach storage",
                "detach p1",
                "detach p2",
                "detach p3",
                "detach p4",
                "detach p5",
                "detach p6",
                "detach p7",
                "detach p8",
                "detach p9",
            ],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "named twice, attached once",
            |case| {
                case.wants(&[QUEUE, QUEUE]);
                case.policies().attached.clear();
            },
            &["attach queue"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "inline",
            |case| {
                case.policies().inline.insert("backdoor".into(), ALLOW.into());
            },
            &["remove backdoor"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "somebody else's",
            |case| case.role().tags.clear(),
            &[],
            "False NotOwned Stalled",
            "+Granted -NotOwned +Annotated",
        ),
        (
            "of another cluster with this name",
            |case| {
                case.role().tags.insert(names::tag::ISSUER.into(), OTHER.into());
            },
            &[],
            "False NotOwned Stalled",
            "+Granted -NotOwned +Annotated",
        ),
        (
            "no issuer",
            |case| case.issuer = None,
            &[],
            "False DependencyNotReady Reconciling",
            "?DependencyNotReady ?DependencyNotReady ?DependencyNotReady",
        ),
        (
            "issuer being deleted, binding without a role",
            |case| {
                (case.issuer_deleting, case.finalizer) = (true, false);
            },
            &[],
            "False DependencyNotReady Reconciling",
            "+Granted +Verified +Annotated",
        ),
        (
            "issuer being deleted, binding with a role",
            |case| case.issuer_deleting = true,
            &[],
            "True Ready",
            "+Granted +Verified +Annotated",
        ),
        (
            "issuer being deleted, and the binding was under another one",
            |case| {
                (case.issuer_deleting, case.was_ready) = (true, false);
                case.made_under = case.issuer.clone();
                case.role().trust = "{}".into();
            },
            &[],
            "False DependencyNotReady Stalled",
            "+Granted -DependencyNotReady +Annotated",
        ),
        (
            "an existing role, issuer being deleted, new binding",
            |case| {
                case.uses_existing_role();
                (case.issuer_deleting, case.finalizer) = (true, false);
            },
            &[],
            "False DependencyNotReady Reconciling",
            "+NotRequired +NotRequired -DependencyNotReady",
        ),
        (
            "an existing role, no issuer",
            |case| {
                case.uses_existing_role();
                case.spec.issuer_ref = Some(crds::IssuerRef { name: "typo".into() });
                case.issuer = None;
            },
            &["annotate 2"],
            "False DependencyNotReady Reconciling",
            "+NotRequired +NotRequired -Progressing",
        ),
        (
            "an existing role, no issuer of the default name: the webhook uses its own options",
            |case| {
                case.uses_existing_role();
                case.issuer = None;
            },
            &["annotate 2"],
            "True Ready",
            "+NotRequired +NotRequired -Progressing",
        ),
        (
            "an unregistered audience",
            |case| case.spec.audience = Some("other".into()),
            &[],
            "False InvalidSpec Stalled",
            "+Granted -InvalidSpec -InvalidSpec",
        ),
        (
            "no grant, and new",
            |case| {
                case.issuer.as_mut().unwrap().grants.clear();
                (case.finalizer, case.age) = (false, Duration::ZERO);
            },
            &[],
            "False WaitingForGrant Reconciling",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "no grant for two minutes",
            |case| {
                case.issuer.as_mut().unwrap().grants.clear();
                (case.finalizer, case.age) = (false, Duration::from_mins(2));
            },
            &[],
            "False NotGranted Stalled",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "a grant that is removed: the role is not changed",
            |case| {
                case.issuer.as_mut().unwrap().grants.clear();
                case.role().trust = "{}".into();
            },
            &[],
            "False GrantLost Stalled",
            "-NotGranted -GrantLost +Annotated",
        ),
        (
            "the operator's own",
            |case| {
                case.namespace = "podidentity-system";
                case.spec.service_account_name = "podidentity-operator".into();
            },
            &[],
            "False ReservedServiceAccount Stalled",
            "-NotGranted -ReservedServiceAccount -ReservedServiceAccount",
        ),
        (
            "AWS unreachable",
            |case| case.observed.role = Err(aws_error(Class::Transient)),
            &[],
            "True Ready",
            "+Granted =AWSUnavailable +Annotated AWSReachable-AWSUnavailable",
        ),
        (
            "AWS unreachable, new binding",
            |case| {
                case.observed.role = Err(aws_error(Class::Transient));
                case.was_ready = false;
            },
            &[],
            "False AWSUnavailable Reconciling",
            "+Granted ?AWSUnavailable +Annotated AWSReachable-AWSUnavailable",
        ),
        (
            "denied",
            |case| {
                case.observed.role = Err(aws_error(Class::Denied));
                case.was_ready = false;
            },
            &[],
            "False OperatorPermissionMissing Reconciling",
            "+Granted ?OperatorPermissionMissing +Annotated AWSReachable-OperatorPermissionMissing",
        ),
        (
            "no ServiceAccount",
            |case| case.observed.service_account = None,
            &[],
            "True Ready",
            "+Granted +Verified -ServiceAccountNotFound",
        ),
        (
            "another role in the annotation",
            |case| {
                case.service_account().annotations.insert(annotation::ROLE_ARN.into(), "x".into());
            },
            &["annotate 2"],
            "True Ready",
            "+Granted +Verified -Progressing",
        ),
        (
            "somebody else owns the annotation: no retry on this version",
            |case| {
                case.service_account().annotations.insert(annotation::ROLE_ARN.into(), "x".into());
                case.refused(Reason::AnnotationOwnedByOther, Duration::from_hours(7));
            },
            &[],
            "True Ready",
            "+Granted +Verified -AnnotationOwnedByOther",
        ),
        (
            "policies that only deny stay, and are reported",
            |case| {
                case.policies().inline.insert("AWSRevokeOlderSessions".into(), REVOKE_OLDER.into());
                case.policies().attached.insert(QUEUE.into(), Some(REVOKE_OLDER.into()));
            },
            &[],
            "True ForeignDeny",
            "+Granted +ForeignDeny +Annotated",
        ),
        (
            "a policy that denies and allows is drift",
            |case| {
                let both = r#"{"Statement":[{"Effect":"Deny"},{"Effect":"Allow"}]}"#;
                case.policies().inline.insert("both".into(), both.into());
                case.policies().attached.insert(QUEUE.into(), Some(both.into()));
            },
            &["remove both", "detach queue"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "somebody else's, while IAM may not show the hand-over yet: no answer",
            |case| {
                case.just_started();
                case.role().tags.clear();
            },
            &[],
            "True Ready",
            "+Granted =NotOwned +Annotated",
        ),
        (
            "somebody else's, and never Ready, while IAM may not show the hand-over yet",
            |case| {
                case.just_started();
                case.role().tags.clear();
                case.was_ready = false;
            },
            &[],
            "False NotOwned Reconciling",
            "+Granted -NotOwned +Annotated",
        ),
    ]);
}

/// The status says only what was seen.
#[test]
fn a_role_is_reported_once_it_was_seen() {
    let mut case = Case::good();
    let (arn, name) = (case.role().arn.clone(), names::role_name("homelab", "vault", "vault"));
    assert_eq!(case.plan().facts.role, Some(RoleFacts { arn: Some(arn), name: Some(name) }));
    for missing in [None, Some(RoleState::Missing)] {
        case.observed.role = Ok(missing);
        case.has_role = true;
        case.just_started();
        assert_eq!(
            case.plan().facts.role,
            None,
            "a role that was seen before keeps its name until it is certain"
        );
        case.has_role = false;
        assert_eq!(case.plan().facts.role, Some(RoleFacts::default()), "what was never seen is not claimed");
    }
    case.has_role = true;
    case.clock.started = case.clock.instant.checked_sub(Duration::from_hours(1)).unwrap();
    assert_eq!(case.plan().facts.role, Some(RoleFacts::default()), "certainly gone");
    // What is refused ties no binding to a role that is gone: it could never be accepted.
    for edit in [
        (|case| case.spec.audience = Some("unknown".into())) as fn(&mut Case),
        |case| (case.generation, case.spec.role) = (2, None),
        |case| case.issuer.as_mut().unwrap().grants.clear(),
    ] {
        let mut case = Case::good();
        edit(&mut case);
        case.observed.role = Ok(Some(RoleState::Missing));
        assert_eq!(case.plan().facts.role, Some(RoleFacts::default()));
        // Another role was looked for.
        case.named_arn = Some("arn:aws:iam::111122223333:role/podidentity/office/office.vault.vault-x");
        assert_eq!(case.plan().facts.role, None);
        case.named_arn = None;
        case.just_started();
        assert_eq!(case.plan().facts.role, None);
    }
}

#[test]
fn without_a_role_in_the_specification_the_grants_hold_for_the_one_that_was_made() {
    check(&[
        (
            "neither a role nor an ARN, which no CRD of ours allows: the role stays",
            |case| (case.generation, case.spec.role) = (2, None),
            &[],
            "False InvalidSpec Stalled",
            "+NotRequired +NotRequired +Annotated",
        ),
        (
            "the same without a grant: the role is lost",
            |case| {
                (case.generation, case.spec.role) = (2, None);
                case.issuer.as_mut().unwrap().grants.clear();
            },
            &[],
            "False GrantLost Stalled",
            "+NotRequired +NotRequired +Annotated",
        ),
    ]);
}
