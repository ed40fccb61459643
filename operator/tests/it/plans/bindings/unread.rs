//! A role, or the document of a policy, that cannot be read.

use k8s_openapi::jiff::SignedDuration;

use super::case::Case;
use super::*;

/// What was reported of a lost grant stays while the role, or the document of one of its policies, cannot be read.
#[test]
fn what_cannot_be_read_ends_no_report_of_a_lost_grant() {
    type Edit = fn(&mut Case);
    let not_shown: [(&str, Edit); 2] = [
        ("the role", |case| case.observed.role = Err(aws_error(Class::Throttled))),
        ("a document", |case| case.policies().unread_inline = ["x".into()].into()),
    ];
    let refusals: [(&str, Edit); 2] = [
        ("granted", |_| {}),
        ("an audience that the issuer lacks", |case| case.spec.audience = Some("other".into())),
    ];
    for (read, unread) in not_shown {
        for (row, refuse) in refusals {
            for reason in [Reason::GrantLost, Reason::GrantChangeSuspicious, Reason::Revoked] {
                let mut case = Case::good();
                // Nothing that was read is without a grant.
                case.policies().attached.clear();
                case.lose_grant();
                refuse(&mut case);
                unread(&mut case);
                (case.was_ready, case.ready_reason, case.revoke_in) = (false, Some(reason), Some(60));
                let plan = case.plan();
                let ready = plan.conditions.iter().find(|condition| condition.type_ == C::Ready).unwrap();
                assert_eq!(ready.finding.reason, reason, "{read} {row}");
                assert_eq!((plan.steps.len(), plan.next), (0, Next::BackOff), "{read} {row}");
                assert_eq!(
                    plan.facts.revoke_at,
                    Some(case.clock.wall + SignedDuration::from_mins(1)),
                    "{read} {row}"
                );
            }
        }
    }
}

/// A document that IAM does not show puts nothing off.
#[test]
fn a_document_that_is_not_shown_is_read_again_soon_and_the_revocation_comes_in_time() {
    let unread = |edit: fn(&mut Case)| {
        let mut case = Case::good();
        case.policies().unread_inline.insert("x".into());
        edit(&mut case);
        case.plan()
    };
    let ready = unread(|_| {});
    assert_eq!((ready.steps.len(), ready.next, ready.note.in_spec), (0, Next::BackOff, None));
    let message =
        &ready.conditions.iter().find(|condition| condition.type_ == C::Ready).unwrap().finding.message;
    assert!(message.ends_with("they are read again: inline policy x"), "{message}");
    let lost = unread(|case| {
        case.lose_grant();
        case.revoke_in = Some(5);
    });
    assert_eq!((lost.steps.len(), lost.next), (0, Next::At(Duration::from_secs(5))));
}

/// The role was as specified, so it has rights that no grant covers: the wait begins with the first pass that sees the loss.
#[test]
fn a_loss_is_reported_where_the_role_cannot_be_read() {
    let mut case = Case::good();
    case.lose_grant();
    case.observed.role = Err(aws_error(Class::Transient));
    let plan = case.plan();
    let ready = plan.conditions.iter().find(|condition| condition.type_ == C::Ready).unwrap();
    assert_eq!((ready.finding.reason, plan.steps.len(), plan.next), (Reason::GrantLost, 0, Next::BackOff));
    assert_eq!(plan.facts.revoke_at, Some(case.clock.wall + SignedDuration::from_mins(15)));
    // An edit that asks for more than is granted is no loss.
    case.was_ready = false;
    let plan = case.plan();
    let ready = plan.conditions.iter().find(|condition| condition.type_ == C::Ready).unwrap();
    assert_eq!((ready.finding.reason, plan.facts.revoke_at), (Reason::NotGranted, None));
}
