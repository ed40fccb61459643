//! The end of a role: the binding is deleted, or uses another role.

use binding::decide::decide;
use binding::model::{RoleFacts, RoleState};
use crds::{DriftPolicy, RoleDeletionPolicy};
use operator::aws::model::Written;
use operator::kind::{Failure, Kind};

use super::case::{Case, check};
use super::*;

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn how_a_role_ends() {
    check(&[
        (
            "made elsewhere",
            |case| {
                (case.spec.role, case.spec.role_arn) =
                    (None, Some("arn:aws:iam::999999999999:role/x".into()));
                case.observed.role = Ok(None);
            },
            &["annotate 2"],
            "True Ready",
            "+NotRequired +NotRequired -Progressing",
        ),
        (
            "made elsewhere, after a role of its own",
            |case| {
                (case.spec.role, case.spec.role_arn) =
                    (None, Some("arn:aws:iam::999999999999:role/x".into()));
                case.generation = 2;
            },
            &["trust Deny", "detach storage", "delete", "annotate 2"],
            "True Ready",
            "+NotRequired +NotRequired -Progressing",
        ),
        (
            "deletion: trust revoked first, the finalizer last",
            |case| case.deleting = true,
            &["trust Deny", "annotate 0", "detach storage", "delete", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion with Retain: denied, closed, marked, and kept",
            |case| {
                case.deleting = true;
                case.spec.deletion_policy = RoleDeletionPolicy::Retain;
            },
            &["put podidentity-revoked", "trust Deny", "mark as retained", "annotate 0", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion with Release: only our tags are taken off",
            |case| {
                case.deleting = true;
                case.spec.deletion_policy = RoleDeletionPolicy::Release;
            },
            &["annotate 0", "untag 5", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "a retained role is used again: trust, mark, and the denial last",
            |case| {
                case.role().tags.insert(names::tag::RETAINED.into(), "true".into());
                case.policies().inline.insert(names::REVOKED_POLICY.into(), REVOKE_OLDER.into());
                case.role().trust = "{}".into();
            },
            &["trust Allow", "untag 1", "remove podidentity-revoked"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "made elsewhere with Retain, after a role of its own",
            |case| {
                (case.spec.role, case.spec.role_arn) =
                    (None, Some("arn:aws:iam::999999999999:role/x".into()));
                case.spec.deletion_policy = RoleDeletionPolicy::Retain;
                case.generation = 2;
            },
            &["put podidentity-revoked", "trust Deny", "mark as retained", "annotate 2"],
            "True Ready",
            "+NotRequired +NotRequired -Progressing",
        ),
        (
            "deletion where drift is only reported, and somebody added a policy",
            |case| {
                case.deleting = true;
                case.spec.drift_policy = DriftPolicy::ReportOnly;
                case.policies().attached.insert(QUEUE.into(), None);
            },
            &["trust Deny"],
            "False DeletionBlocked Reconciling",
            "+Granted -DeletionBlocked -DeletionBlocked",
        ),
        (
            "deletion: the operator may only change bounded roles",
            |case| {
                case.deleting = true;
                case.role().boundary = None;
            },
            &["trust Deny", "boundary", "annotate 0", "detach storage", "delete", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: with another boundary, too, the trust policy is tried first",
            |case| {
                case.deleting = true;
                case.role().boundary = Some(ADMINISTRATOR.into());
            },
            &["trust Deny", "boundary", "annotate 0", "detach storage", "delete", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: IAM has refused the trust policy of a role with another boundary",
            |case| {
                case.deleting = true;
                case.memory.boundary_first = true;
                case.role().boundary = Some(ADMINISTRATOR.into());
            },
            &["boundary", "trust Deny", "annotate 0", "detach storage", "delete", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "made elsewhere, after a role of its own: the same",
            |case| {
                case.made_elsewhere();
                case.memory.boundary_first = true;
                case.role().boundary = Some(ADMINISTRATOR.into());
            },
            &["boundary", "trust Deny", "detach storage", "delete", "annotate 2"],
            "True Ready",
            "+NotRequired +NotRequired -Progressing",
        ),
        (
            "made elsewhere, where drift is only reported: the role is removed by the edit, with what somebody added",
            |case| {
                case.made_elsewhere();
                case.spec.drift_policy = DriftPolicy::ReportOnly;
                case.policies().attached.insert(QUEUE.into(), None);
            },
            &["trust Deny", "detach queue", "detach storage", "delete", "annotate 2"],
            "True Ready",
            "+NotRequired +NotRequired -Progressing",
        ),
        (
            "the same, deleted before the role has ended: nothing says which policies were specified",
            |case| {
                case.made_elsewhere();
                (case.deleting, case.generation) = (true, 3);
                case.spec.drift_policy = DriftPolicy::ReportOnly;
            },
            &["trust Deny", "annotate 0", "detach storage", "delete", "remove finalizer"],
            "False Deleting Reconciling",
            "+NotRequired -Deleting -Deleting",
        ),
        (
            "deletion: policies whose documents IAM does not show are removed last",
            |case| {
                case.deleting = true;
                case.policies().unread_attached.insert(QUEUE.into());
                case.policies().unread_inline.insert("unknown".into());
            },
            &[
                "trust Deny",
                "annotate 0",
                "detach storage",
                "detach queue",
                "remove unknown",
                "delete",
                "remove finalizer",
            ],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion where drift is only reported, and IAM does not show the document of what somebody added",
            |case| {
                case.deleting = true;
                case.spec.drift_policy = DriftPolicy::ReportOnly;
                case.policies().unread_attached.insert(QUEUE.into());
            },
            &["trust Deny"],
            "False DeletionBlocked Reconciling",
            "+Granted -DeletionBlocked -DeletionBlocked",
        ),
        (
            "deletion: revoked already, in the form for an IAM that refuses a policy that only denies",
            |case| {
                let closed = case.view().target.unwrap().trust.closed.to_string();
                (case.role().trust, case.deleting) = (closed, true);
            },
            &["annotate 0", "detach storage", "delete", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: nothing was made",
            |case| {
                (case.deleting, case.finalizer) = (true, false);
            },
            &[],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: already gone",
            |case| {
                case.deleting = true;
                case.observed.role = Ok(Some(RoleState::Missing));
            },
            &["annotate 0", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: a role of somebody else is kept",
            |case| {
                case.deleting = true;
                case.role().tags.clear();
            },
            &["annotate 0", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: AWS unreachable",
            |case| {
                case.deleting = true;
                case.observed.role = Err(aws_error(Class::Transient));
            },
            &[],
            "False DeletionBlocked Reconciling",
            "+Granted -DeletionBlocked -DeletionBlocked",
        ),
        (
            "deletion: without its issuer the role's owner is not known",
            |case| {
                (case.deleting, case.issuer) = (true, None);
                case.observed.role = Ok(None);
            },
            &[],
            "False DeletionBlocked Reconciling",
            "?DependencyNotReady -DeletionBlocked -DeletionBlocked",
        ),
        (
            "its own role by its ARN: it stays as it is, and is not read",
            |case| {
                let arn = case.role().arn.clone();
                (case.spec.role, case.spec.role_arn) = (None, Some(arn));
                case.generation = 2;
                case.role().trust = "{}".into();
            },
            &[],
            "True Ready",
            "+NotRequired +NotRequired +Annotated",
        ),
        (
            "its own role by its ARN in other case and without its path: IAM has one role of that name",
            |case| {
                let name = names::role_name("homelab", "vault", "vault").to_uppercase();
                (case.spec.role, case.spec.role_arn) =
                    (None, Some(format!("arn:aws:iam::{ACCOUNT}:role/{name}")));
                case.generation = 2;
            },
            &["annotate 2"],
            "True Ready",
            "+NotRequired +NotRequired -Progressing",
        ),
        (
            "deletion: its own role by its ARN stays",
            |case| {
                let arn = case.role().arn.clone();
                (case.spec.role, case.spec.role_arn) = (None, Some(arn));
                (case.generation, case.deleting) = (3, true);
            },
            &["annotate 0", "remove finalizer"],
            "False Deleting Reconciling",
            "+NotRequired -Deleting -Deleting",
        ),
        (
            "deletion: what only denies goes last",
            |case| {
                case.deleting = true;
                case.policies().inline.insert("AWSRevokeOlderSessions".into(), REVOKE_OLDER.into());
                case.policies().inline.insert("backdoor".into(), ALLOW.into());
                case.policies().attached.insert(QUEUE.into(), Some(REVOKE_OLDER.into()));
            },
            &[
                "trust Deny",
                "annotate 0",
                "detach storage",
                "remove backdoor",
                "detach queue",
                "remove AWSRevokeOlderSessions",
                "delete",
                "remove finalizer",
            ],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: missing, said once by an operator that has just started",
            |case| {
                case.just_started();
                case.deleting = true;
                case.observed.role = Ok(Some(RoleState::Missing));
            },
            &[],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: missing, said once of a role that was made a second ago",
            |case| {
                case.deleting = true;
                case.made_a_second_ago();
                case.observed.role = Ok(Some(RoleState::Missing));
            },
            &[],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: missing, said twice",
            |case| {
                case.just_started();
                case.deleting = true;
                case.memory.absent_since = case.clock.instant.checked_sub(Duration::from_secs(30));
                case.observed.role = Ok(Some(RoleState::Missing));
            },
            &["annotate 0", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: made under an issuer that the cluster does not have any more",
            |case| {
                case.deleting = true;
                case.role().tags.insert(names::tag::ISSUER.into(), OTHER.into());
            },
            &[],
            "False DeletionBlocked Reconciling",
            "+Granted -DeletionBlocked -DeletionBlocked",
        ),
        (
            "deletion: made in another account than the one that is asked now",
            |case| {
                case.deleting = true;
                case.named_arn = Some("arn:aws:iam::999999999999:role/podidentity/homelab/x");
                case.observed.role = Ok(Some(RoleState::Missing));
            },
            &[],
            "False DeletionBlocked Reconciling",
            "+Granted -DeletionBlocked -DeletionBlocked",
        ),
        (
            "deletion: another owner's, said once of a role that was handed over a second ago",
            |case| {
                case.deleting = true;
                case.made_a_second_ago();
                case.role().tags.clear();
            },
            &[],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
    ]);
}

const ADMINISTRATOR: &str = "arn:aws:iam::aws:policy/AdministratorAccess";

impl Case {
    /// An edit names a role made elsewhere.
    fn made_elsewhere(&mut self) {
        (self.spec.role, self.spec.role_arn) = (None, Some("arn:aws:iam::999999999999:role/x".into()));
        self.generation = 2;
    }
}

/// Nothing else says where the earlier role is, once the specification names another issuer.
#[test]
fn the_status_names_an_earlier_role_until_it_has_ended() {
    let facts = |edit: fn(&mut Case)| {
        let mut case = Case::good();
        case.made_elsewhere();
        edit(&mut case);
        case.plan().facts.role
    };
    let elsewhere = RoleFacts { arn: Some("arn:aws:iam::999999999999:role/x".into()), name: None };
    assert_eq!(facts(|_| {}), None, "it is being removed");
    assert_eq!(facts(|case| case.observed.role = Err(aws_error(Class::Throttled))), None);
    assert_eq!(facts(|case| case.account = Err(aws_error(Class::Transient))), None);
    assert_eq!(
        facts(|case| case.named_arn = Some("arn:aws:iam::999999999999:role/podidentity/b/former")),
        None
    );
    for (row, edit) in [
        ("IAM shows none", (|case| case.observed.role = Ok(Some(RoleState::Missing))) as fn(&mut Case)),
        ("it never had one", |case| {
            (case.has_role, case.observed.role) = (false, Err(aws_error(Class::Transient)));
        }),
        ("a restored status says that it had one before", |case| {
            (case.generation, case.observed.role) = (1, Ok(None));
        }),
        ("that is known", |case| (case.memory.no_earlier_role, case.observed.role) = (true, Ok(None))),
    ] {
        assert_eq!(facts(edit), Some(elsewhere.clone()), "{row}");
    }
}

/// The binding still has an earlier role, under another issuer than the specified one.
#[test]
fn the_statement_that_a_role_made_elsewhere_needs_names_the_specified_issuer() {
    let mut case = Case::good();
    case.made_elsewhere();
    let mut view = case.view();
    let mut specified = OidcIssuer::new("next", issuer_spec());
    specified.spec.s3.as_mut().unwrap().bucket = "next".into();
    specified.spec.audiences.insert(0, "vault".into());
    let bare = specified.spec.issuer_url().trim_start_matches("https://").to_owned();
    view.own_issuers = vec![("next".into(), Some(Arc::new(specified)))];
    let plan = decide(&view, &case.observed, &case.memory, &case.clock, &Timings::default());
    let role_ready = plan.conditions.iter().find(|condition| condition.type_ == C::RoleReady).unwrap();
    let message = &role_ready.finding.message;
    assert!(message.contains(&format!("oidc-provider/{bare}")), "{message}");
    assert_eq!(view.annotations("x").get(annotation::AUDIENCE).map(String::as_str), Some("vault"));
}

/// The second answer is asked for, and what would end the search for an earlier role is not believed before.
#[test]
fn missing_ends_nothing_before_it_was_said_twice() {
    let mut case = Case::good();
    case.just_started();
    case.deleting = true;
    case.observed.role = Ok(Some(RoleState::Missing));
    assert_eq!(case.plan().next, Next::At(Duration::from_secs(30)));

    case.deleting = false;
    (case.spec.role, case.spec.role_arn) = (None, Some("arn:aws:iam::999999999999:role/x".into()));
    case.generation = 2;
    assert!(!case.plan().note.no_earlier_role);
    case.memory.absent_since = case.clock.instant.checked_sub(Duration::from_secs(30));
    assert!(case.plan().note.no_earlier_role);
}

/// IAM may refuse to change the trust policy of a role with another boundary, and may refuse to put ours. Each is tried first in turn.
#[test]
fn the_boundary_comes_first_only_after_iam_has_refused_the_change_behind_it() {
    let mut case = Case::good();
    case.deleting = true;
    case.role().boundary = Some(ADMINISTRATOR.into());
    let refused = |case: &mut Case, operation: &'static str, class: Class| {
        let (plan, view) = (case.plan(), case.view());
        let error = AwsError { operation, ..aws_error(class) };
        let failure =
            Failure { plan: &plan, view: &view, error: &error, repeated: false, clock: &case.clock };
        binding::Binding::step_failed(&failure, &mut case.memory, &Timings::default());
        case.memory.boundary_first
    };
    assert!(refused(&mut case, "iam:UpdateAssumeRolePolicy", Class::Denied));
    assert!(!refused(&mut case, "iam:PutRolePermissionsBoundary", Class::Denied));
    assert!(refused(&mut case, "iam:PutRolePolicy", Class::Denied));
    assert!(!refused(&mut case, "iam:UpdateAssumeRolePolicy", Class::Transient));

    assert!(refused(&mut case, "iam:UpdateAssumeRolePolicy", Class::Denied));
    let plan = case.plan();
    let boundary = plan.steps.iter().find_map(|step| step.change()).unwrap();
    assert!(matches!(boundary.write, Write::Iam(IamWrite::PutBoundary { .. })));
    binding::Binding::changed(&mut case.memory, boundary, Written::Done, &case.clock);
    assert!(!case.memory.boundary_first, "it is in place");
}
