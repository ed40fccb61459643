//! Grants that are missing, that are taken away and that come back; inline policies.

use binding::role::inline;
use crds::names::{CONFIRM_ANNOTATION, REVOKED_POLICY};
use crds::{InlinePolicies, InlinePolicy};
use k8s_openapi::jiff::SignedDuration;
use operator::grant::Losses;

use super::case::{Case, check};
use super::*;

const DENY_ALL: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":["*"],"Resource":"*"}]}"#;

impl Case {
    /// No grant names a policy any more.
    pub fn lose_grant(&mut self) {
        self.issuer.as_mut().unwrap().grants[0].policy_arns.clear();
    }

    /// The role is revoked: both writes were made, and the annotations are gone.
    fn revoked(&mut self) {
        let trust: serde_json::Value = serde_json::from_str(&self.role().trust).unwrap();
        self.role().trust = trust.to_string().replace("Allow", "Deny");
        self.policies().inline.insert(REVOKED_POLICY.into(), DENY_ALL.into());
        self.service_account().annotations.clear();
        self.service_account().ours.clear();
        self.was_ready = false;
    }

    fn inline(&mut self, name: &str, document: &serde_json::Value) {
        self.issuer.as_mut().unwrap().grants[0].inline_policies = Some(InlinePolicies::Allow);
        let document = document.as_object().unwrap().clone();
        self.spec.role.as_mut().unwrap().inline_policies.push(InlinePolicy { name: name.into(), document });
    }
}

fn read_data() -> serde_json::Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]})
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn a_grant_that_is_taken_away() {
    check(&[
        (
            "reported at once, and nothing is changed",
            Case::lose_grant,
            &[],
            "False GrantLost Stalled",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "after 15 minutes: denied, closed, and pods do not get it any more",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
            },
            &["put podidentity-revoked", "trust Deny", "annotate 0"],
            "False Revoked Stalled",
            "-NotGranted +Verified -Revoked",
        ),
        (
            "a time in the status that is too late is not believed",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(86_400);
                case.memory.revoke_at = Some(case.clock.wall);
            },
            &["put podidentity-revoked", "trust Deny", "annotate 0"],
            "False Revoked Stalled",
            "-NotGranted +Verified -Revoked",
        ),
        (
            "half revoked: the rest follows without a wait",
            |case| {
                case.lose_grant();
                case.policies().inline.insert(REVOKED_POLICY.into(), DENY_ALL.into());
            },
            &["trust Deny", "annotate 0"],
            "False Revoked Stalled",
            "-NotGranted -Revoked -Revoked",
        ),
        (
            "revoked: nothing to do",
            |case| {
                case.lose_grant();
                case.revoked();
            },
            &[],
            "False Revoked Stalled",
            "-NotGranted -Revoked -Revoked",
        ),
        (
            "the issuer under which the role was made grants it no more, and the one of a refused edit does",
            |case| {
                case.made_under = case.issuer.clone();
                case.made_under.as_mut().unwrap().grants.clear();
                case.spec.audience = Some("unknown".into());
            },
            &[],
            "False GrantLost Stalled",
            "+Granted -GrantLost -GrantLost",
        ),
        (
            "an edit to an issuer that does not grant it, while the former one does",
            |case| {
                case.made_under = case.issuer.clone();
                case.issuer.as_mut().unwrap().grants.clear();
            },
            &[],
            "False NotGranted Stalled",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "an edit to an issuer that grants it, after the former one does not: a move",
            |case| {
                case.made_under = case.issuer.clone();
                case.made_under.as_mut().unwrap().grants.clear();
                case.was_ready = false;
                case.revoked();
            },
            &["trust Allow", "remove podidentity-revoked", "annotate 2"],
            "False Progressing Reconciling",
            "+Granted -Progressing -Progressing",
        ),
        (
            "the grant is back: trust and annotations, and the denial is taken away last",
            Case::revoked,
            &["trust Allow", "remove podidentity-revoked", "annotate 2"],
            "False Progressing Reconciling",
            "+Granted -Progressing -Progressing",
        ),
        (
            "the grant is back, and the specification is not accepted: the role stays revoked",
            |case| {
                case.revoked();
                case.spec.audience = Some("unknown".into());
            },
            &[],
            "False Revoked Stalled",
            "+Granted -Revoked -Revoked",
        ),
        (
            "the specification asks for more: the role stays as it is",
            |case| case.wants(&[STORAGE, "arn:aws:iam::111122223333:policy/admin"]),
            &[],
            "False NotGranted Stalled",
            "-NotGranted -NotGranted +Annotated",
        ),
        (
            "the specification asks for more, and what the role has is not covered either",
            |case| {
                case.wants(&[STORAGE, "arn:aws:iam::111122223333:policy/admin"]);
                case.lose_grant();
            },
            &[],
            "False GrantLost Stalled",
            "-NotGranted -GrantLost +Annotated",
        ),
        (
            "an edit that is not accepted keeps no rights: an unknown audience",
            |case| {
                case.lose_grant();
                case.spec.audience = Some("unknown".into());
            },
            &[],
            "False GrantLost Stalled",
            "-NotGranted -GrantLost -GrantLost",
        ),
        (
            "the same, with a specification that is covered",
            |case| {
                case.lose_grant();
                case.wants(&[]);
                case.spec.audience = Some("unknown".into());
                case.revoke_in = Some(-1);
            },
            &["put podidentity-revoked", "trust Deny", "annotate 0"],
            "False Revoked Stalled",
            "+Granted -Revoked -Revoked",
        ),
        (
            "what is not covered is taken first: the new policy may not exist",
            |case| {
                case.issuer.as_mut().unwrap().grants[0].policy_arns = vec![QUEUE.into()];
                case.wants(&[QUEUE]);
            },
            &["detach storage", "attach queue"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "also where drift is only reported",
            |case| {
                case.only_report();
                case.lose_grant();
                case.wants(&[]);
            },
            &["detach storage"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "no space for the denial: what allows something goes first",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
                let padded = REVOKE_OLDER.replace("TokenIssueTime", &"x".repeat(9_700));
                case.policies().inline.insert("pad".into(), padded);
                case.policies().inline.insert("use".into(), ALLOW.replace('*', &"y".repeat(150)));
            },
            &["remove use", "put podidentity-revoked", "trust Deny", "annotate 0"],
            "False Revoked Stalled",
            "-NotGranted -Revoked -Revoked",
        ),
        (
            "no space at all: the trust is closed",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
                let padded = REVOKE_OLDER.replace("TokenIssueTime", &"x".repeat(10_050));
                case.policies().inline.insert("pad".into(), padded);
            },
            &["trust Deny", "annotate 0"],
            "False Revoked Stalled",
            "-NotGranted +ForeignDeny -Revoked",
        ),
        (
            "no space at all, and closed: it stays so",
            |case| {
                case.lose_grant();
                case.revoked();
                let padded = REVOKE_OLDER.replace("TokenIssueTime", &"x".repeat(10_050));
                case.policies().inline = BTreeMap::from([("pad".into(), padded)]);
            },
            &[],
            "False Revoked Stalled",
            "-NotGranted -Revoked -Revoked",
        ),
        (
            "the role cannot be read: what was said of it stays",
            |case| {
                case.lose_grant();
                case.revoked();
                case.ready_reason = Some(Reason::Revoked);
                case.observed.role = Err(aws_error(Class::Transient));
            },
            &[],
            "False Revoked Stalled",
            "-NotGranted ?AWSUnavailable -Revoked",
        ),
        (
            "the specification is narrowed together with the grant",
            |case| {
                case.wants(&[]);
                case.lose_grant();
            },
            &["detach storage"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "sessions that are longer than a grant allows now",
            |case| {
                case.spec.role.as_mut().unwrap().max_session_duration = Some(Duration::from_hours(2).into());
                case.role().settings.max_session_seconds = 7200;
            },
            &[],
            "False GrantLost Stalled",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "a policy of an incident responder is no right",
            |case| {
                case.wants(&[QUEUE, "arn:aws:iam::111122223333:policy/admin"]);
                case.policies().attached = BTreeMap::from([
                    (QUEUE.to_owned(), None),
                    ("arn:aws:iam::111122223333:policy/quarantine".into(), Some(REVOKE_OLDER.into())),
                ]);
            },
            &[],
            "False NotGranted Stalled",
            "-NotGranted -NotGranted +Annotated",
        ),
        (
            "many at once: nothing is revoked",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
                case.losses = Losses { lost: 6, roles: 50 };
            },
            &[],
            "False GrantChangeSuspicious Stalled",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "many at once, confirmed for this generation of the issuer and this number",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
                case.losses = Losses { lost: 6, roles: 50 };
                case.annotations.insert(CONFIRM_ANNOTATION.into(), "7:6".into());
            },
            &["put podidentity-revoked", "trust Deny", "annotate 0"],
            "False Revoked Stalled",
            "-NotGranted +Verified -Revoked",
        ),
        (
            "confirmed for fewer",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
                case.losses = Losses { lost: 7, roles: 50 };
                case.annotations.insert(CONFIRM_ANNOTATION.into(), "7:6".into());
            },
            &[],
            "False GrantChangeSuspicious Stalled",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "confirmed for an earlier change",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
                case.losses = Losses { lost: 6, roles: 50 };
                case.annotations.insert(CONFIRM_ANNOTATION.into(), "6:50".into());
            },
            &[],
            "False GrantChangeSuspicious Stalled",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "six of sixty are 10 %, and not more",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
                case.losses = Losses { lost: 6, roles: 60 };
            },
            &["put podidentity-revoked", "trust Deny", "annotate 0"],
            "False Revoked Stalled",
            "-NotGranted +Verified -Revoked",
        ),
        (
            "five of five are not many",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
                case.losses = Losses { lost: 5, roles: 5 };
            },
            &["put podidentity-revoked", "trust Deny", "annotate 0"],
            "False Revoked Stalled",
            "-NotGranted +Verified -Revoked",
        ),
        (
            "a role of somebody else is not revoked",
            |case| {
                case.lose_grant();
                case.revoke_in = Some(-1);
                case.role().tags.clear();
            },
            &[],
            "False NotGranted Stalled",
            "-NotGranted -NotOwned +Annotated",
        ),
    ]);
}

#[test]
fn the_time_of_a_revocation_is_fixed_when_the_loss_is_seen_first() {
    let mut case = Case::good();
    case.lose_grant();
    let wall = case.clock.wall;
    let in_minutes = |minutes| Some(wall + SignedDuration::from_mins(minutes));
    assert_eq!(case.plan().facts.revoke_at, in_minutes(15));
    assert_eq!(case.plan().note.revoke_at, in_minutes(15));
    assert_eq!(case.plan().next, Next::At(Duration::from_mins(15)));
    // A status that says a later time is not believed, also by another process.
    case.revoke_in = Some(86_400);
    assert_eq!(case.plan().facts.revoke_at, in_minutes(15));
    // Another process goes by the status; a failed read does not begin anew.
    case.revoke_in = Some(180);
    assert_eq!(case.plan().facts.revoke_at, in_minutes(3));
    case.observed.role = Err(aws_error(Class::Transient));
    assert_eq!(case.plan().facts.revoke_at, in_minutes(3));
    // A grant ends it.
    let mut case = Case::good();
    case.revoke_in = Some(180);
    assert_eq!(case.plan().facts.revoke_at, None);
}

#[test]
fn inline_policies() {
    check(&[
        (
            "an inline policy",
            |case| case.inline("data", &read_data()),
            &["put data"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "an inline policy that is there, written in another way",
            |case| {
                case.inline("data", &read_data());
                let stored = r#"{"Statement":{"Resource":["*"],"Action":["s3:GetObject"],"Effect":"Allow","Sid":"x"},"Version":"2012-10-17"}"#;
                case.policies().inline.insert("data".into(), stored.into());
            },
            &[],
            "True Ready",
            "+Granted +Verified +Annotated",
        ),
        (
            "one that is missing before one that is surplus",
            |case| {
                case.inline("data", &read_data());
                case.policies().inline.insert("added".into(), ALLOW.into());
            },
            &["put data", "remove added"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "additions of either sort before removals",
            |case| {
                case.wants(&[QUEUE]);
                case.inline("new", &read_data());
                case.policies().inline.insert("old".into(), ALLOW.into());
            },
            &["put new", "attach queue", "remove old", "detach storage"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "smaller documents first, so that others have room",
            |case| {
                let (short, long) = (read_data(), json!({"Sid": "x".repeat(6_000)}));
                case.inline("a", &long);
                case.inline("b", &short);
                case.policies().inline.insert("a".into(), short.to_string());
                case.policies().inline.insert("b".into(), long.to_string());
            },
            &["put b", "put a"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "removed before added where IAM's limit of their size asks for it, after what is added of the other sort",
            |case| {
                case.wants(&[STORAGE, QUEUE]);
                let long = json!({"Sid": "x".repeat(6_000)});
                case.inline("new", &long);
                case.policies().inline.insert("old".into(), long.to_string());
            },
            &["attach queue", "remove old", "put new"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "a specified one that only denies is no foreign one",
            |case| {
                let deny: serde_json::Value = serde_json::from_str(REVOKE_OLDER).unwrap();
                case.inline("limits", &deny);
                case.policies().inline.insert("limits".into(), REVOKE_OLDER.into());
            },
            &[],
            "True Ready",
            "+Granted +Verified +Annotated",
        ),
        (
            "without a grant for documents",
            |case| {
                case.inline("data", &read_data());
                case.issuer.as_mut().unwrap().grants[0].inline_policies = None;
            },
            &[],
            "False NotGranted Stalled",
            "-NotGranted -NotGranted +Annotated",
        ),
        (
            "longer than IAM allows",
            |case| {
                let long = "x".repeat(inline::QUOTA);
                case.inline("data", &json!({"Version": "2012-10-17", "Statement": [], "Id": long}));
            },
            &[],
            "False InvalidSpec Stalled",
            "+Granted -InvalidSpec +Annotated",
        ),
    ]);
}
