//! The trust policy while a binding moves to another audience.

use binding::model::Plan;
use binding::role::trust::{Moves, Wanted, wanted};
use crds::names::tag;
use k8s_openapi::jiff::SignedDuration;
use operator::policy::trust::{Trust, of_statements, statements};

use super::case::{Case, name};
use super::*;

const URL: &str = "https://oidc.example.com/homelab";
const DAY: SignedDuration = SignedDuration::from_hours(25);

fn provider() -> String {
    names::provider_arn("aws", ACCOUNT, URL)
}

fn trust(audience: &str) -> Wanted {
    let subject = names::subject("vault", "vault");
    let trust = Trust { provider_arn: &provider(), issuer_url: URL, audience, subject: &subject };
    wanted(&trust, [provider()].into())
}

/// A role that trusts these audiences; `until`: the end of the former one, in hours from now.
fn role(audiences: &[&str], until: Option<i64>, now: Timestamp) -> Role {
    let mut role = Case::good().role().clone();
    let all = audiences.iter().flat_map(|audience| statements(&trust(audience).policy));
    role.trust = of_statements(all).to_string();
    let until = until.map(|hours| (now + SignedDuration::from_hours(hours)).as_second().to_string());
    role.tags.extend(until.map(|until| (tag::FORMER_UNTIL.to_owned(), until)));
    role
}

/// Its name, the trusted audiences, the end of the former one in hours from now, what is known of the move, and what is done.
type Row<'a> = (&'a str, &'a [&'a str], Option<i64>, Moves, &'a [&'a str]);

#[test]
fn both_are_trusted_until_the_end_of_the_retention() {
    let now = clock().wall;
    let moves = Moves { now, may_begin: true, retention: DAY, is_in_use: false };
    let steady = Moves { may_begin: false, ..moves };
    let in_use = Moves { is_in_use: true, ..steady };
    let table: &[Row<'_>] = &[
        ("nothing to do", &["b"], None, steady, &[]),
        ("a move begins with its end", &["a"], None, moves, &["until 25", "trust b a"]),
        ("another statement, and no move", &["a", "b"], None, steady, &["trust b"]),
        ("both", &["b", "a"], Some(20), steady, &[]),
        ("both, in another order", &["a", "b"], Some(20), steady, &[]),
        ("still in use: the end is moved on", &["b", "a"], Some(23), in_use, &["until 25"]),
        ("still in use, and moved on a moment ago", &["b", "a"], Some(25), in_use, &[]),
        ("over, and in use", &["b", "a"], Some(-1), in_use, &["until 25"]),
        ("over", &["b", "a"], Some(-1), steady, &["trust b", "end"]),
        ("over, and the trust is written already", &["b"], Some(-1), steady, &["end"]),
        (
            "another move before the end of the first",
            &["a", "c"],
            Some(20),
            moves,
            &["until 25", "trust b a c"],
        ),
        (
            "another move where the first was not cleaned up",
            &["a", "c"],
            Some(-1),
            moves,
            &["until 25", "trust b a c"],
        ),
        ("an end that nobody writes is not believed", &["b", "a"], Some(9_000), in_use, &[]),
    ];
    for (row, found, until, moves, expected) in table {
        let found = role(found, *until, now);
        let changes = trust("b").diff("role", &found, &found.tags, moves);
        let described: Vec<String> = changes.iter().map(|change| describe(change, now)).collect();
        assert_eq!(described, *expected, "{row}");
    }
}

fn describe(change: &Change, now: Timestamp) -> String {
    match &change.write {
        Write::Iam(IamWrite::TagRole { tags, .. }) if !tags.contains_key(tag::FORMER_UNTIL) => {
            format!("issuer {}", tags[tag::ISSUER])
        }
        Write::Iam(IamWrite::TagRole { tags, .. }) => {
            let until = Timestamp::from_second(tags[tag::FORMER_UNTIL].parse().unwrap()).unwrap();
            format!("until {}", until.duration_since(now).as_hours())
        }
        Write::Iam(IamWrite::UntagRole { .. }) => "end".into(),
        Write::Iam(IamWrite::PutTrust { document, .. }) => {
            let audience = |statement: &serde_json::Value| {
                statement["Condition"]["StringEquals"]["oidc.example.com/homelab:aud"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            };
            let all: Vec<String> = statements(document).iter().map(audience).collect();
            format!("trust {}", all.join(" "))
        }
        other => panic!("{other:?}"),
    }
}

/// A revoked or retained role that is used under another issuer: the former one may be deleted.
#[test]
fn a_role_without_a_former_statement_gets_the_tag_of_its_issuer() {
    let now = clock().wall;
    let moves = Moves { now, may_begin: true, retention: DAY, is_in_use: true };
    let mut found = role(&["b"], None, now);
    found.trust = trust("b").revoked.to_string();
    let mut owner = found.tags.clone();
    owner.insert(tag::ISSUER.into(), URL.into());
    let changes = trust("b").diff("role", &found, &owner, &moves);
    let described: Vec<String> = changes.iter().map(|change| describe(change, now)).collect();
    assert_eq!(described, [format!("issuer {URL}"), "trust b".into()]);
    assert_eq!(trust("b").diff("role", &found, &found.tags, &moves).len(), 1);
}

/// A binding moves to another issuer and back within the retention. The other issuer can be deleted then, so the tag must not name it.
#[test]
fn a_role_that_trusts_both_gets_the_tag_of_its_issuer() {
    let now = clock().wall;
    let moves = Moves { now, may_begin: true, retention: DAY, is_in_use: false };
    let issuer = format!("issuer {URL}");
    let table: [(&[&str], i64, Vec<&str>); 3] = [
        (&["a", "b"], 20, vec![&issuer]),
        (&["a", "b"], -1, vec![&issuer, "trust b", "end"]),
        // The move was begun, and no trust policy written.
        (&["b"], 20, vec![&issuer, "end"]),
    ];
    for (trusted, until, expected) in table {
        let found = role(trusted, Some(until), now);
        let mut owner = found.tags.clone();
        owner.remove(tag::FORMER_UNTIL);
        owner.insert(tag::ISSUER.into(), URL.into());
        let changes = trust("b").diff("role", &found, &owner, &moves);
        let described: Vec<String> = changes.iter().map(|change| describe(change, now)).collect();
        assert_eq!(described, expected);
    }
}

/// A revocation keeps the former statement for as long as the move lasts: pods have tokens of the former issuer when the grant is back.
#[test]
fn a_role_that_is_restored_during_a_move_trusts_the_former_statement_again() {
    let now = clock().wall;
    let steady = Moves { now, may_begin: false, retention: DAY, is_in_use: false };
    let in_use = Moves { is_in_use: true, ..steady };
    let b = trust("b");
    let table: [(&str, i64, Moves, &[&str]); 3] = [
        ("during the retention", 20, steady, &["trust b a"]),
        ("over, and in use", -1, in_use, &["until 25", "trust b a"]),
        ("over", -1, steady, &["trust b", "end"]),
    ];
    for (row, until, moves, expected) in table {
        for denies in [true, false] {
            let mut found = role(&["b", "a"], Some(until), now);
            assert!(!b.is_revoked(&found), "{row}");
            let change = b.revocation("role", &found).unwrap();
            let Write::Iam(IamWrite::PutTrust { document, otherwise, .. }) = change.write else { panic!() };
            found.trust = if denies { document } else { otherwise.unwrap() }.to_string();
            assert!(b.is_revoked(&found) && !b.lets_in(&found.trust), "{row}");
            assert_eq!(b.revocation("role", &found), None, "{row}");
            let changes = b.diff("role", &found, &found.tags, &moves);
            let described: Vec<String> = changes.iter().map(|change| describe(change, now)).collect();
            assert_eq!(described, expected, "{row} {denies}");
        }
    }
    // The specification was moved on, and the role does not have it: the restoration begins that move.
    let mut found = role(&["b", "a"], Some(1), now);
    let Write::Iam(IamWrite::PutTrust { document, .. }) =
        trust("c").revocation("role", &found).unwrap().write
    else {
        panic!()
    };
    found.trust = document.to_string();
    let changes = trust("c").diff("role", &found, &found.tags, &Moves { may_begin: true, ..steady });
    let described: Vec<String> = changes.iter().map(|change| describe(change, now)).collect();
    assert_eq!(described, ["until 25", "trust c b a"]);
    // It is left out where IAM would refuse the policy by its length: the revocation comes first.
    let long = "x".repeat(1_500);
    let found = role(&["b", &long], Some(20), now);
    let change = b.revocation("role", &found).unwrap();
    assert_eq!(describe(&change, now), "trust b");
}

/// What lets somebody else in is never a former statement.
#[test]
fn a_statement_of_another_subject_or_account_is_put_back() {
    let now = clock().wall;
    let moves = Moves { now, may_begin: true, retention: DAY, is_in_use: true };
    let own = role(&["b", "a"], Some(20), now);
    for (from, to) in [
        ("serviceaccount:vault:vault", "serviceaccount:vault:other"),
        (ACCOUNT, "999999999999"),
        ("StringEquals", "StringLike"),
        ("AssumeRoleWithWebIdentity", "AssumeRole"),
    ] {
        let [b, a] = &statements(&serde_json::from_str(&own.trust).unwrap())[..] else { panic!() };
        let edited = serde_json::from_str(&a.to_string().replace(from, to)).unwrap();
        let found = Role { trust: of_statements([b.clone(), edited]).to_string(), ..own.clone() };
        let changes = trust("b").diff("role", &found, &found.tags, &moves);
        let described: Vec<String> = changes.iter().map(|change| describe(change, now)).collect();
        assert_eq!(described, ["trust b", "end"], "{to}");
    }
}

/// Each further move within the retention adds a statement.
#[test]
fn a_trust_policy_that_iam_would_refuse_is_not_written() {
    let moving = |audiences: usize| {
        let mut case = Case::good();
        let trust = case.view().target.unwrap().trust.policy.to_string();
        let former =
            |number: usize| trust.replace(names::DEFAULT_AUDIENCE, &format!("former-audience-{number}"));
        let all =
            (0..audiences).flat_map(|number| statements(&serde_json::from_str(&former(number)).unwrap()));
        case.role().trust = of_statements(all).to_string();
        let until = (case.clock.wall + DAY).as_second().to_string();
        case.role().tags.insert(tag::FORMER_UNTIL.into(), until);
        case.was_ready = false;
        case.plan()
    };
    let steps = |plan: &Plan| plan.steps.iter().map(name).collect::<Vec<_>>();
    let few = moving(3);
    assert_eq!((steps(&few).len(), summary(&few.conditions).as_str()), (2, "False Progressing Reconciling"));
    let many = moving(8);
    assert_eq!(
        (steps(&many), summary(&many.conditions).as_str()),
        (Vec::new(), "False QuotaExceeded Stalled")
    );
}
