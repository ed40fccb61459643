//! The life of signing keys: single polls, as tables.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crds::{KeyState, PublishedKey};
use issuer::keys::{Life, Sources, life, stored_clocks};
use k8s_openapi::jiff::SignedDuration;
use operator::api_servers::model::{Coverage, NoAnswer};
use operator::oidc::jwk::thumbprint;

use super::*;

pub const RETENTION: Duration = Duration::from_hours(25);

pub fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// RSA keys; the modulus follows from the id.
pub fn rsa(ids: &[&str]) -> Keys {
    let modulus = |id: &str| URL_SAFE_NO_PAD.encode(format!("modulus of {id}"));
    let jwk = |id: &&str| json!({"kty": "RSA", "kid": id, "alg": "RS256", "n": modulus(id), "e": "AQAB"});
    if ids.is_empty() {
        return Keys::default();
    }
    Keys::parse(json!({"keys": ids.iter().map(jwk).collect::<Vec<_>>()}).to_string().as_bytes()).unwrap()
}

fn record(id: &str, state: KeyState, hours_ago: Option<i64>) -> PublishedKey {
    let keys = rsa(&[id]);
    PublishedKey {
        kid: id.into(),
        alg: "RS256".into(),
        thumbprint: thumbprint(keys.get(id).unwrap()).unwrap(),
        state,
        retired_at: hours_ago.map(|hours| Time(start() - SignedDuration::from_hours(hours))),
    }
}

/// `id` with its state, and for how many hours its retention has run.
fn shown(life: &Life) -> String {
    let one = |record: &PublishedKey| {
        let state = match record.state {
            KeyState::Active => "active",
            KeyState::Pending => "pending",
            KeyState::Retired => "retired",
        };
        let hours = record.retired_at.as_ref().map(|at| start().duration_since(at.0).as_hours());
        format!("{} {state}{}", record.kid, hours.map_or(String::new(), |hours| format!(" {hours}")))
    };
    assert!(life.keys.ids().eq(life.records.iter().map(|record| record.kid.as_str())), "{life:?}");
    life.records.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn reasons(life: &Life) -> Vec<Reason> {
    life.events.iter().map(|event| event.reason).collect()
}

/// What a row may change.
struct Poll {
    seen: Keys,
    complete: bool,
    additional: Keys,
    additional_complete: bool,
    recorded: Vec<PublishedKey>,
    own: Keys,
    bucket: Keys,
    stored_clocks: String,
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn one_poll() {
    use KeyState::{Active, Pending, Retired};
    use Reason::{KeyHistoryMissing, KeyRemoved, KeyRetired};
    type Edit = fn(&mut Poll);
    let table: &[(&str, Edit, &str, &[Reason])] = &[
        ("one key", |_| {}, "a active", &[]),
        ("a new key", |p| p.seen = rsa(&["a", "b"]), "a active, b active", &[]),
        ("a key that is only in a ConfigMap", |p| p.additional = rsa(&["b"]), "a active, b pending", &[]),
        ("a key of a ConfigMap that is in use", |p| p.additional = rsa(&["a"]), "a active", &[]),
        (
            "a key that no API server shows any more: its retention begins",
            |p| p.seen = rsa(&["b"]),
            "a retired 0, b active",
            &[KeyRetired],
        ),
        (
            "the same, while an API server refuses to answer: nothing is concluded",
            |p| (p.seen, p.complete) = (rsa(&["b"]), false),
            "a active, b active",
            &[],
        ),
        (
            "retired, and shown again: the clock is cleared",
            |p| p.recorded = vec![record("a", Retired, Some(24))],
            "a active",
            &[],
        ),
        (
            "retired for less than the retention",
            |p| {
                (p.own, p.bucket) = (rsa(&["a", "b"]), rsa(&["a", "b"]));
                p.recorded = vec![record("a", Active, None), record("b", Retired, Some(24))];
            },
            "a active, b retired 24",
            &[],
        ),
        (
            "retired for the retention",
            |p| {
                (p.own, p.bucket) = (rsa(&["a", "b"]), rsa(&["a", "b"]));
                p.recorded = vec![record("a", Active, None), record("b", Retired, Some(25))];
            },
            "a active",
            &[KeyRemoved],
        ),
        (
            "retired for the retention, while an API server refuses to answer",
            |p| {
                (p.own, p.bucket, p.complete) = (rsa(&["a", "b"]), rsa(&["a", "b"]), false);
                p.recorded = vec![record("a", Active, None), record("b", Retired, Some(25))];
            },
            "a active, b retired 25",
            &[],
        ),
        (
            "retired, and the bucket has lost it: this process still has it",
            |p| {
                (p.own, p.bucket) = (rsa(&["a", "b"]), Keys::default());
                p.recorded = vec![record("a", Active, None), record("b", Retired, Some(1))];
            },
            "a active, b retired 1",
            &[],
        ),
        (
            "retired, and nothing has its bytes any more",
            |p| p.recorded = vec![record("a", Active, None), record("b", Retired, Some(1))],
            "a active",
            &[KeyRemoved],
        ),
        (
            "retired, and the bucket has another key of that id: it is not ours",
            |p| {
                p.bucket = rsa(&["a", "b"]);
                p.recorded = vec![record("a", Active, None), record("b", Retired, Some(1))];
                p.recorded[1].thumbprint = record("a", Active, None).thumbprint;
            },
            "a active",
            &[KeyRemoved],
        ),
        (
            "a key in the bucket that was never published: removed at once",
            |p| p.bucket = rsa(&["a", "forged"]),
            "a active",
            &[],
        ),
        (
            "a ConfigMap without the key that it had, and that was never used: removed at once",
            |p| {
                (p.own, p.bucket) = (rsa(&["a", "b"]), rsa(&["a", "b"]));
                p.recorded = vec![record("a", Active, None), record("b", Pending, None)];
            },
            "a active",
            &[KeyRemoved],
        ),
        (
            "the same, while the ConfigMap cannot be read",
            |p| {
                (p.own, p.bucket, p.additional_complete) = (rsa(&["a", "b"]), rsa(&["a", "b"]), false);
                p.recorded = vec![record("a", Active, None), record("b", Pending, None)];
            },
            "a active, b pending",
            &[],
        ),
        (
            "a key that was in use and is only in a ConfigMap: its clock runs meanwhile",
            |p| {
                (p.seen, p.additional) = (rsa(&["b"]), rsa(&["a"]));
                p.recorded = vec![record("a", Active, None), record("b", Active, None)];
            },
            "a pending 0, b active",
            &[],
        ),
        (
            "the same, while an API server does not answer: it is in use",
            |p| {
                (p.seen, p.additional, p.complete) = (rsa(&["b"]), rsa(&["a"]), false);
                p.recorded = vec![record("a", Active, None), record("b", Active, None)];
            },
            "a active, b active",
            &[],
        ),
        (
            "the same, when the ConfigMap ends",
            |p| {
                (p.seen, p.own) = (rsa(&["b"]), rsa(&["a", "b"]));
                p.recorded = vec![record("a", Pending, Some(3)), record("b", Active, None)];
            },
            "a retired 3, b active",
            &[],
        ),
        (
            "a revoked key that no API server shows: removed at once, from a ConfigMap, too",
            |p| {
                (p.own, p.additional) = (rsa(&["a", "gone"]), rsa(&["gone"]));
                p.recorded = vec![record("a", Active, None), record("gone", Active, None)];
            },
            "a active",
            &[KeyRemoved],
        ),
        (
            "a revoked key, while an API server does not answer: it may show it",
            |p| {
                (p.own, p.complete) = (rsa(&["a", "gone"]), false);
                p.recorded = vec![record("a", Active, None), record("gone", Active, None)];
            },
            "a active, gone active",
            &[],
        ),
        (
            "a revoked key that an API server shows",
            |p| p.seen = rsa(&["a", "gone"]),
            "a active, gone active",
            &[],
        ),
        (
            "nothing is recorded: what is in the bucket is kept for the retention from now",
            |p| {
                (p.recorded, p.own, p.bucket) = (Vec::new(), Keys::default(), rsa(&["a", "b"]));
            },
            "a active, b retired 0",
            &[KeyRetired],
        ),
        (
            "nothing is recorded, but the published object has the clock",
            |p| {
                (p.recorded, p.own, p.bucket) = (Vec::new(), Keys::default(), rsa(&["a", "b"]));
                p.stored_clocks = stored_clocks(&[record("b", Retired, Some(7))]);
            },
            "a active, b retired 7",
            &[KeyHistoryMissing],
        ),
        (
            "nothing is recorded, and the clock is in the future",
            |p| {
                (p.recorded, p.own, p.bucket) = (Vec::new(), Keys::default(), rsa(&["a", "b"]));
                p.stored_clocks = stored_clocks(&[record("b", Retired, Some(-90))]);
            },
            "a active, b retired 0",
            &[KeyHistoryMissing],
        ),
        (
            "nothing is recorded, and not every API server has answered",
            |p| {
                (p.recorded, p.own, p.bucket) = (Vec::new(), Keys::default(), rsa(&["a", "b"]));
                p.complete = false;
            },
            "a active, b active",
            &[],
        ),
        (
            "something is recorded: the clock in the published object does not count",
            |p| {
                (p.own, p.bucket) = (rsa(&["a", "b"]), rsa(&["a", "b"]));
                p.recorded = vec![record("a", Active, None), record("b", Retired, Some(1))];
                p.stored_clocks = stored_clocks(&[record("b", Retired, Some(30))]);
            },
            "a active, b retired 1",
            &[],
        ),
    ];
    for (row, edit, expected, events) in table {
        let mut poll = Poll {
            seen: rsa(&["a"]),
            complete: true,
            additional: Keys::default(),
            additional_complete: true,
            recorded: vec![record("a", Active, None)],
            own: rsa(&["a"]),
            bucket: rsa(&["a"]),
            stored_clocks: String::new(),
        };
        edit(&mut poll);
        let Poll { seen, complete, additional, additional_complete, recorded, own, bucket, stored_clocks } =
            &poll;
        let life = life(&Sources {
            seen,
            complete: *complete,
            additional,
            additional_complete: *additional_complete,
            recorded,
            published: [own, bucket],
            stored_clocks,
            now: start(),
            retention: RETENTION,
            revoked: &["gone".to_owned()],
        });
        assert_eq!(shown(&life), *expected, "{row}");
        assert_eq!(reasons(&life), *events, "{row}");
    }
}

#[test]
fn what_one_poll_shows_of_all_api_servers() {
    let server = || ApiServer { issuer: OTHER.into(), keys: rsa(&["a"]), left_out: Vec::new() };
    let no_answer = |reached| Err(NoAnswer { reached, why: "no".into() });
    let (refuses, out_of_reach) = (|| no_answer(true), || no_answer(false));
    let yes = || Ok(server());
    for (row, service, endpoints, unlisted, expected) in [
        ("one, at both addresses", yes(), vec![yes()], None, Coverage::All),
        ("one, at the service address only", yes(), vec![out_of_reach()], None, Coverage::All),
        ("one, at its own address only", out_of_reach(), vec![yes()], None, Coverage::All),
        ("three", yes(), vec![yes(), yes(), yes()], None, Coverage::All),
        (
            "one of three is out of reach",
            yes(),
            vec![yes(), out_of_reach(), yes()],
            None,
            Coverage::AllInReach,
        ),
        ("one of three refuses", yes(), vec![yes(), refuses(), yes()], None, Coverage::Partial),
        (
            "three, none of them in reach",
            yes(),
            vec![out_of_reach(), out_of_reach()],
            None,
            Coverage::Partial,
        ),
        ("the service address refuses", refuses(), vec![yes()], None, Coverage::Partial),
        ("none is listed", yes(), vec![], None, Coverage::Partial),
        ("the list cannot be read", yes(), vec![], Some("403".to_owned()), Coverage::Partial),
    ] {
        let endpoints =
            endpoints.into_iter().enumerate().map(|(n, answer)| (format!("192.0.2.{n}:6443"), answer));
        let servers = ApiServers { service, endpoints: endpoints.collect(), unlisted };
        assert_eq!(servers.coverage(), expected, "{row}");
    }
}

#[test]
fn of_more_keys_than_sts_reads_the_longest_to_live_are_published() {
    let ids: Vec<String> = (0..100).map(|n| format!("k{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (seen, all) = (rsa(&ids[..98]), rsa(&ids));
    let mut all = all;
    all.extend(&rsa(&["old"]));
    let mut recorded = vec![record("old", KeyState::Retired, Some(20))];
    recorded.extend(ids[98..].iter().map(|id| record(id, KeyState::Retired, Some(2))));
    let life = life(&Sources {
        seen: &seen,
        complete: true,
        additional: &Keys::default(),
        additional_complete: true,
        recorded: &recorded,
        published: [&all, &all],
        stored_clocks: "",
        now: start(),
        retention: RETENTION,
        revoked: &[],
    });
    assert_eq!(life.records.len(), 100);
    assert_eq!(life.notes, ["key old is not published: AWS STS reads at most 100 keys of a type"]);
    // As many clocks as fit in the metadata of an object in S3.
    let many: Vec<PublishedKey> = ids.iter().map(|id| record(id, KeyState::Retired, Some(1))).collect();
    assert!((1500..=1800).contains(&stored_clocks(&many).len()));
}
