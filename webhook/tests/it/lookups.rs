//! Where facts come from: the watched copies, and live lookups, whose capacity no caller can exhaust for others.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::json;
use webhook::cluster::sources::Sources;
use webhook::identity::facts::Annotations;
use webhook::metrics::Metrics;
use webhook::model::{FactsOrigin, Outcome, WebhookEntry};

use crate::fake::{ACCOUNTS, BINDINGS, Gate, Streaming, eventually};
use crate::identity::binding;
use crate::reviews::{PEER, ask, cluster, deleting, live_calls, review, synced};

#[tokio::test]
async fn before_the_copies_are_complete_facts_are_looked_up_live() {
    let api = cluster();
    api.lists.send_replace(Gate::Held);
    let admission = api.admission(&Arc::default());
    eventually("listing", || api.calls().len() >= 3).await;
    let (answer, _) = ask(&admission, &review("vault", "vault")).await;
    assert_eq!((answer.outcome, answer.source, answer.lookup), (Outcome::Mutated, "binding", "live"));
    assert_eq!(live_calls(&api).len(), 2, "one GET, one LIST: {:?}", live_calls(&api));
    api.live.send_replace(Gate::Failing);
    let (answer, body) = ask(&admission, &review("vault", "vault")).await;
    assert_eq!(
        (answer.status, answer.outcome),
        (503, Outcome::Unavailable),
        "never admitted without an answer"
    );
    assert_eq!(body["response"]["allowed"], false);

    api.lists.send_replace(Gate::Open);
    eventually("synced", || admission.lookup.is_synced()).await;
    let (answer, _) = ask(&admission, &review("vault", "vault")).await;
    assert_eq!((answer.outcome, answer.lookup), (Outcome::Mutated, "cache"));
}

#[tokio::test]
async fn a_service_account_the_copy_lacks_is_looked_up_once_for_concurrent_reviews() {
    let api = cluster();
    let admission = synced(&api).await;
    api.put_account("late", "late", None);
    let spec = json!({"serviceAccountName": "late", "role": {}});
    api.put(BINDINGS, binding("late", 0, &spec, &json!({"metadata": {"namespace": "late"}})));

    api.live.send_replace(Gate::Held);
    let reviews: Vec<_> = (0..1000)
        .map(|_| {
            let admission = admission.clone();
            tokio::spawn(async move { ask(&admission, &review("late", "late")).await.0 })
        })
        .collect();
    eventually("both calls in progress", || live_calls(&api).len() == 2).await;
    // A review that is cancelled does not cancel the lookup for the others.
    reviews[0].abort();
    api.live.send_replace(Gate::Open);
    for review in reviews.into_iter().skip(1) {
        let answer = review.await.unwrap();
        assert_eq!((answer.outcome, answer.source, answer.lookup), (Outcome::Mutated, "binding", "live"));
    }
    let expected = [
        "GET /api/v1/namespaces/late/serviceaccounts/late? metadata only",
        "GET /apis/podidentity.dev/v1alpha1/namespaces/late/podidentitybindings?&limit=50",
    ];
    assert_eq!(live_calls(&api), expected);
}

#[tokio::test]
async fn names_that_no_object_can_have_are_not_looked_up() {
    let api = cluster();
    let admission = synced(&api).await;
    for (namespace, account) in [("n".repeat(64), "app".to_owned()), ("vault".into(), "a".repeat(254))] {
        let (_, body) = ask(&admission, &review(&namespace, &account)).await;
        assert_eq!(body["response"]["status"]["code"], 400, "{body}");
    }
    assert_eq!(live_calls(&api), [""; 0]);
}

/// A caller asks for thousands of `ServiceAccount`s that do not exist: lookups of another caller are neither delayed by them nor
/// evicted.
#[tokio::test]
async fn a_flood_of_unknown_service_accounts_evicts_no_other_caller_s_lookup() {
    let api = cluster();
    let admission = synced(&api).await;
    api.put_account("late", "late", Some("arn:aws:iam::111122223333:role/late"));
    let answer_to = |account: String, peer: IpAddr| {
        let admission = admission.clone();
        tokio::spawn(async move {
            admission.answer(WebhookEntry::Pods, review("late", &account).to_string().as_bytes(), peer).await
        })
    };
    api.live.send_replace(Gate::Held);
    let flood_review =
        |number: u32| answer_to(format!("unknown-{number}"), Ipv4Addr::new(127, 0, 0, 2).into());
    let mut flood: Vec<_> = (0..400).map(flood_review).collect();
    eventually("lookups in progress", || live_calls(&api).len() == 2 * 32).await;
    let genuine = answer_to("late".into(), PEER);
    flood.extend((400..1000).map(flood_review));
    // The limit is 512; the oldest lookups of the address with the most are evicted.
    let evicted = 1000 + 1 - 512;
    for lookup in &mut flood[..evicted] {
        let answer = lookup.await.unwrap();
        assert_eq!((answer.status, answer.outcome), (503, Outcome::Unavailable));
    }
    let text = admission.metrics.text();
    assert!(text.contains(&format!(r#"live_lookups_total{{result="busy"}} {evicted}"#)), "{text}");
    api.live.send_replace(Gate::Open);
    assert_eq!(genuine.await.unwrap().outcome, Outcome::Mutated);
}

#[tokio::test]
async fn a_failed_lookup_is_a_failed_call_and_is_not_cached() {
    let api = cluster();
    let admission = synced(&api).await;
    api.put_account("late", "late", Some("arn:aws:iam::111122223333:role/late"));
    api.live.send_replace(Gate::Failing);
    for _ in 0..2 {
        let (answer, _) = ask(&admission, &review("late", "late")).await;
        assert_eq!((answer.status, answer.outcome), (503, Outcome::Unavailable));
    }
    api.live.send_replace(Gate::Open);
    assert_eq!(ask(&admission, &review("late", "late")).await.0.outcome, Outcome::Mutated);
    let (answer, _) = ask(&admission, &review("late", "missing")).await;
    assert_eq!(answer.outcome, Outcome::NoRole, "the API server says that it does not exist");
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_takes_too_long_is_a_failed_call() {
    let api = cluster();
    let admission = synced(&api).await;
    api.live.send_replace(Gate::Held);
    let (answer, body) = ask(&admission, &review("late", "late")).await;
    assert_eq!((answer.status, answer.outcome), (503, Outcome::Unavailable));
    assert!(body["response"]["status"]["message"].as_str().unwrap().contains("in time"), "{body}");
}

#[tokio::test]
async fn only_metadata_of_service_accounts_is_requested() {
    let api = cluster();
    let admission = synced(&api).await;
    let (facts, _) = admission.lookup.facts("vault", "annotated", false, PEER).await.unwrap();
    let role = "arn:aws:iam::111122223333:role/annotated";
    let expected = Annotations { role_arn: Some(role.into()), ..Annotations::default() };
    assert_eq!(facts.annotations.as_deref(), Some(&expected), "nothing else is kept");
    let calls: Vec<_> = api.calls().into_iter().filter(|call| call.contains(ACCOUNTS)).collect();
    assert!(!calls.is_empty() && calls.iter().all(|call| call.ends_with(" metadata only")), "{calls:?}");
}

#[tokio::test]
async fn service_accounts_are_listed_in_pages_only_where_they_cannot_be_streamed() {
    let expected = [
        (Streaming::Done, vec!["stream"]),
        (Streaming::Refused, vec!["stream", "list", "watch"]),
        (Streaming::Endless, vec!["stream", "stream", "list", "watch"]),
    ];
    for (streaming, expected) in expected {
        let api = cluster();
        *api.streaming.lock().unwrap() = streaming;
        let admission = synced(&api).await;
        let (facts, origin) = admission.lookup.facts("vault", "annotated", false, PEER).await.unwrap();
        assert!(facts.annotations.is_some() && origin == FactsOrigin::Cache, "{streaming:?}");
        let kinds = || -> Vec<&str> {
            let calls = api.calls().into_iter().filter(|call| call.contains(ACCOUNTS));
            let kind = |call: String| match call {
                call if call.contains("sendInitialEvents=true") => "stream",
                call if call.contains("watch=true") => "watch",
                _ => "list",
            };
            calls.map(kind).collect()
        };
        eventually("the last call", || kinds().last() == expected.last()).await;
        assert_eq!(kinds(), expected, "{streaming:?}");
        // A new list is requested in the way that worked.
        api.end_watches();
        let again = if streaming == Streaming::Done { "stream" } else { "list" };
        eventually("started again", || kinds().get(expected.len()) == Some(&again)).await;
    }
}

#[tokio::test]
async fn before_the_config_map_is_read_no_pod_that_it_may_name_is_admitted_without_identity() {
    let api = cluster();
    // An audience, and no role: the ConfigMap may have one.
    let metadata =
        json!({"namespace": "vault", "name": "mapped", "annotations": {"eks.amazonaws.com/audience": "a"}});
    api.put(ACCOUNTS, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
    api.put_account("vault", "leaving", None);
    api.put(BINDINGS, deleting("leaving"));
    let metrics = Arc::new(Metrics::default());
    let admission = api.admission_with(Sources::new(true, Arc::clone(&metrics)), &metrics);
    for account in ["mapped", "leaving", "plain"] {
        let (answer, _) = ask(&admission, &review("vault", account)).await;
        assert_eq!((answer.status, answer.outcome), (503, Outcome::Unavailable), "{account}");
    }
    for account in ["vault", "annotated"] {
        let (answer, _) = ask(&admission, &review("vault", account)).await;
        assert_eq!(answer.outcome, Outcome::Mutated, "{account}: whatever the ConfigMap says");
    }
}
