//! The listener over real TLS: limits, readiness, certificates that change while it serves, and a shutdown that loses no call.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use process::health;
use process::limiter::CapacityLimiter;
use rcgen::KeyPair;
use rustls::version;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use webhook::health::Health;
use webhook::metrics::Metrics;
use webhook::serving::tls::Certificate;
use webhook::serving::trust::{Trust, Trusted};

use crate::fake::{Api, Gate, eventually, within};
use crate::listener::{
    Body, CONNECTIONS, MAX_BODY, NAME, Pair, SECRETS, Webhook, configuration, full, post, send,
};
use crate::reviews::{cluster, review};

#[tokio::test]
async fn a_review_over_tls() {
    let (webhook, mut connection) = Webhook::ready(Duration::from_secs(10)).await;
    let (status, body) = post(&mut connection, review("vault", "vault").to_string()).await;
    assert_eq!((status, &body["response"]["patchType"]), (StatusCode::OK, &json!("JSONPatch")));
    let (status, _) = send(&mut connection, "/other", "application/json", full("")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for (content_type, expected) in [
        ("text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/yaml", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json; charset=utf-8", StatusCode::OK),
    ] {
        let review = review("vault", "vault").to_string();
        let (status, body) = send(&mut connection, "/mutate", content_type, full(review)).await;
        assert_eq!((status, &body["kind"]), (expected, &json!("AdmissionReview")), "{content_type}");
    }
    let text = webhook.metrics.text();
    for line in [
        r#"podidentity_webhook_reviews_total{entry="pods",outcome="mutated",source="binding",lookup="cache"} 2"#,
        r#"podidentity_webhook_reviews_total{entry="pods",outcome="malformed",source="",lookup=""} 2"#,
        "podidentity_webhook_review_duration_seconds_count 4",
        r#"podidentity_webhook_cache_synced{kind="ServiceAccount"} 1"#,
        r#"podidentity_webhook_cache_objects{kind="ServiceAccount"} 3"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn only_tls_1_3() {
    let (webhook, _connection) = Webhook::ready(Duration::from_secs(10)).await;
    let pair = Pair::new();
    webhook.serve(&pair);
    assert!(webhook.connect(&pair, &version::TLS12).await.is_err());
    assert!(webhook.connect(&pair, &version::TLS13).await.is_ok());
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let (_webhook, mut connection) = Webhook::ready(Duration::from_secs(10)).await;
    let mut fitting = review("vault", "vault").to_string();
    fitting.extend(std::iter::repeat_n(' ', MAX_BODY - fitting.len()));
    assert_eq!(post(&mut connection, fitting.clone()).await.0, StatusCode::OK);
    fitting.push(' ');
    let (status, body) = post(&mut connection, fitting).await;
    assert_eq!((status, &body["response"]["allowed"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(false)));
}

#[tokio::test]
async fn a_body_that_does_not_end_times_out() {
    let (_webhook, mut connection) = Webhook::ready(Duration::from_millis(50)).await;
    let never = futures::stream::once(pending::<io::Result<hyper::body::Frame<Bytes>>>());
    let body = StreamBody::new(never).boxed_unsync();
    let answer = send(&mut connection, "/mutate", "application/json", body);
    let (status, body) = within("an answer", answer).await;
    assert_eq!(
        (status, &body["response"]["status"]["reason"]),
        (StatusCode::GATEWAY_TIMEOUT, &json!("Timeout"))
    );
}

/// A body of which only `sent` arrives.
fn unfinished(sent: Vec<u8>) -> Body {
    let begun = futures::stream::once(async move { Ok(hyper::body::Frame::data(Bytes::from(sent))) });
    StreamBody::new(begun.chain(futures::stream::pending())).boxed_unsync()
}

#[tokio::test]
async fn bodies_that_do_not_end_are_evicted_for_others() {
    let (webhook, mut connection) = Webhook::ready(Duration::from_secs(10)).await;
    // Each has half of the capacity; a third does not fit.
    let half = || unfinished(vec![b' '; MAX_BODY / 2]);
    let mut slow: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = connection.clone();
            let body = half();
            tokio::spawn(async move { send(&mut connection, "/mutate", "application/json", body).await })
        })
        .collect();
    eventually("both in progress", || webhook.bodies.used() == MAX_BODY).await;
    let (status, _) = within("an answer", post(&mut connection, review("vault", "vault").to_string())).await;
    assert_eq!(status, StatusCode::OK);
    let (status, body) = within("the end of the older one", slow.remove(0)).await.unwrap();
    assert_eq!((status, &body["response"]["allowed"]), (StatusCode::TOO_MANY_REQUESTS, &json!(false)));
    assert!(!slow[0].is_finished(), "the other is kept");
    slow[0].abort();
    eventually("all capacity released", || webhook.bodies.used() == 0).await;
}

#[tokio::test]
async fn a_request_counts_against_the_limit_before_its_body_and_until_its_answer() {
    const REQUESTS: usize = MAX_BODY / (4 << 10);
    let (webhook, mut connection) = Webhook::ready(Duration::from_secs(10)).await;
    let silent: Vec<_> = (0..=REQUESTS)
        .map(|_| {
            let mut connection = connection.clone();
            let body = unfinished(Vec::new());
            tokio::spawn(async move { send(&mut connection, "/mutate", "application/json", body).await })
        })
        .collect();
    let (first, _, silent) = within("one too many", futures::future::select_all(silent)).await;
    assert_eq!((first.unwrap().0, webhook.bodies.used()), (StatusCode::TOO_MANY_REQUESTS, MAX_BODY));
    assert_eq!(post(&mut connection, review("vault", "vault").to_string()).await.0, StatusCode::OK);
    silent.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("all capacity released", || webhook.bodies.used() == 0).await;

    webhook.api.live.send_replace(Gate::Held);
    let mut large = review("late", "late");
    large["request"]["object"]["metadata"]["annotations"] = json!({"note": "x".repeat(MAX_BODY / 2)});
    let in_progress = tokio::spawn(async move { post(&mut connection, large.to_string()).await });
    eventually("the lookup", || webhook.api.calls().iter().any(|call| call.contains("/late/"))).await;
    assert!(webhook.bodies.used() > MAX_BODY / 2, "{}", webhook.bodies.used());
    webhook.api.live.send_replace(Gate::Open);
    assert_eq!(within("the answer", in_progress).await.unwrap().0, StatusCode::OK);
    eventually("all capacity released", || webhook.bodies.used() == 0).await;
}

#[tokio::test]
async fn idle_connections_are_evicted_for_new_ones_and_one_with_reviews_is_not() {
    let (webhook, mut working) = Webhook::ready(Duration::from_secs(10)).await;
    assert_eq!(post(&mut working, review("vault", "vault").to_string()).await.0, StatusCode::OK);
    let mut idle = Vec::new();
    for _ in 0..10 * CONNECTIONS {
        idle.push(TcpStream::connect(webhook.address).await.unwrap());
    }
    eventually("the evictions", || webhook.connections.counts() == (CONNECTIONS, 9 * CONNECTIONS as u64 + 1))
        .await;
    assert_eq!(post(&mut working, review("vault", "vault").to_string()).await.0, StatusCode::OK);
    let (mut new, _) = webhook.connect(&webhook.pair, &version::TLS13).await.unwrap();
    assert_eq!(post(&mut new, review("vault", "vault").to_string()).await.0, StatusCode::OK);
    // The oldest idle connection was closed.
    let mut byte = [0];
    let read = within("its end", tokio::io::AsyncReadExt::read(&mut idle[0], &mut byte)).await;
    assert!(!matches!(read, Ok(1..)), "{read:?}");
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused() {
    let (_webhook, mut connection) = Webhook::ready(Duration::from_secs(10)).await;
    let request = Request::post(format!("https://{NAME}/mutate"))
        .header("content-type", "application/json")
        .header("x-long", "x".repeat(32 << 10))
        .body(full(review("vault", "vault").to_string()))
        .unwrap();
    connection.ready().await.unwrap();
    let status = connection.send_request(request).await.map(|response| response.status());
    assert!(!matches!(status, Ok(status) if status.is_success()), "{status:?}");
}

#[tokio::test]
async fn the_certificate_changes_while_a_connection_is_open() {
    let webhook = Webhook::start(Duration::from_secs(10));
    let (first, second) = (Pair::new(), Pair::new());
    assert!(webhook.connect(&first, &version::TLS13).await.is_err(), "no certificate yet");
    webhook.serve(&first);
    eventually("synced", || webhook.admission.lookup.is_synced()).await;
    let (mut old, served) = webhook.connect(&first, &version::TLS13).await.unwrap();
    assert_eq!(served, first.certificate);

    webhook.serve(&second);
    assert!(webhook.connect(&first, &version::TLS13).await.is_err(), "the old one is no longer served");
    let (mut new, served) = webhook.connect(&second, &version::TLS13).await.unwrap();
    assert_eq!(served, second.certificate);
    for connection in [&mut old, &mut new] {
        assert_eq!(post(connection, review("vault", "vault").to_string()).await.0, StatusCode::OK);
    }

    let expired = Pair::with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    for (what, certificate, key) in [
        ("nothing", "", ""),
        ("no certificate", "", &*second.key),
        ("no PEM", "garbage", &second.key),
        ("garbled", &second.pem.replace('M', "!"), &second.key),
        ("no key", &second.pem, "garbage"),
        ("another key", &second.pem, &other_key),
        ("expired", &expired.pem, &expired.key),
    ] {
        webhook.certificate.apply(certificate.as_bytes(), key.as_bytes());
        assert!(webhook.certificate.is_valid(), "{what}");
        assert_eq!(webhook.connect(&second, &version::TLS13).await.unwrap().1, second.certificate, "{what}");
    }
    let text = webhook.metrics.text();
    assert!(text.contains(r#"podidentity_webhook_certificate_loads_total{result="refused"} 7"#), "{text}");
    // A certificate that is not valid yet is not served while the current one is valid.
    webhook.serve(&Pair::with(|params| params.not_before = rcgen::date_time_ymd(4000, 1, 1)));
    assert!(webhook.certificate.is_valid());
    assert_eq!(webhook.connect(&second, &version::TLS13).await.unwrap().1, second.certificate);
}

#[tokio::test]
async fn the_secret_is_watched_by_its_name() {
    let api = Api::new();
    let pair = Pair::new();
    let mut secret = serde_json::to_value(pair.secret()).unwrap();
    secret["metadata"] = json!({"namespace": "podidentity-system", "name": "podidentity-webhook-tls"});
    api.put(SECRETS, secret);
    let certificate = Arc::new(Certificate::new(Arc::default()));
    let (follower, client) = (Arc::clone(&certificate), api.client());
    tokio::spawn(async move {
        follower.follow_secret(client, "podidentity-system", "podidentity-webhook-tls").await;
    });
    eventually("a certificate", || certificate.is_valid()).await;
    let listed = |call: &String| {
        call.starts_with("GET /api/v1/namespaces/podidentity-system/secrets?")
            && call.contains("fieldSelector=metadata.name%3Dpodidentity-webhook-tls")
    };
    assert!(api.calls().iter().all(listed), "{:?}", api.calls());
}

#[tokio::test]
async fn a_shutdown_finishes_the_calls_in_progress() {
    let (webhook, mut connection) = Webhook::ready(Duration::from_secs(10)).await;
    webhook.api.put_account("late", "late", Some("arn:aws:iam::111122223333:role/late"));
    webhook.api.live.send_replace(Gate::Held);
    let in_progress =
        tokio::spawn(async move { post(&mut connection, review("late", "late").to_string()).await });
    eventually("in progress", || webhook.api.calls().iter().any(|call| call.contains("/late/"))).await;

    webhook.handle.graceful_shutdown(Some(Duration::from_secs(10)));
    while TcpStream::connect(webhook.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!webhook.served.is_finished(), "it waits for the call");
    webhook.api.live.send_replace(Gate::Open);
    let (status, body) = within("the answer", in_progress).await.unwrap();
    assert_eq!((status, &body["response"]["patchType"]), (StatusCode::OK, &json!("JSONPatch")));
    within("the end", webhook.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn readiness_requires_copies_and_a_trusted_certificate_and_no_shutdown() {
    let api = cluster();
    api.lists.send_replace(Gate::Held);
    let metrics = Arc::new(Metrics::default());
    let admission = api.admission(&metrics);
    let certificate = Arc::new(Certificate::new(Arc::clone(&metrics)));
    let stopping = Arc::new(AtomicBool::new(false));
    let trust = Arc::new(Trust::new(Arc::clone(&certificate)));
    let health = Health {
        lookup: Arc::clone(&admission.lookup),
        certificate: Arc::clone(&certificate),
        trust: Some(Arc::clone(&trust)),
        trusted_once: Arc::default(),
        stopping: Arc::clone(&stopping),
        connections: CapacityLimiter::new(1),
        metrics,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(health::serve(listener, Arc::new(health)));
    let get = async |path: &str| {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "x").body(full("")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        (
            status,
            String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap(),
        )
    };

    assert_eq!(get("/healthz").await, (200, "ok".to_owned()));
    let (status, why) = get("/readyz").await;
    assert!(status == 503 && why.contains("not complete"), "{why}");
    api.lists.send_replace(Gate::Open);
    eventually("synced", || admission.lookup.is_synced()).await;
    let (status, why) = get("/readyz").await;
    assert!(status == 503 && why.contains("certificate"), "{why}");
    let take = |pair: &Pair| certificate.apply(pair.pem.as_bytes(), pair.key.as_bytes());
    take(&Pair::with(|params| params.not_before = rcgen::date_time_ymd(4000, 1, 1)));
    assert_eq!(get("/readyz").await.0, 503, "not valid yet");
    let pair = Pair::new();
    take(&pair);
    assert!(get("/readyz").await.1.contains("not been read"), "the configuration is not known");
    // An entry trusts another CA, or none; then all of them trust the certificate.
    for bundles in [[&*pair.pem, ""], [&pair.pem, &Pair::new().pem]] {
        trust.apply(Some(&configuration(&bundles)));
        let (status, why) = get("/readyz").await;
        assert!(status == 503 && why.contains("does not trust") && why.contains("entry-1"), "{why}");
    }
    let text = get("/metrics").await.1;
    assert!(text.contains("podidentity_webhook_ca_bundle_trusts_certificate 0"), "{text}");
    let both = Pair::new().pem + &pair.pem;
    trust.apply(Some(&configuration(&[&pair.pem, &both])));
    assert_eq!(get("/readyz").await, (200, "ok".to_owned()));
    let text = get("/metrics").await.1;
    assert!(text.contains("podidentity_webhook_ca_bundle_trusts_certificate 1"), "{text}");
    // Once it was ready, only the metric changes.
    trust.apply(Some(&configuration(&["", ""])));
    assert_eq!(get("/readyz").await, (200, "ok".to_owned()));
    trust.apply(None);
    assert_eq!(trust.trusted(), Trusted::NoConfiguration, "the emergency stop");
    stopping.store(true, Ordering::Relaxed);
    assert_eq!(get("/readyz").await, (503, "stopping".to_owned()));
    assert_eq!(get("/healthz").await.0, 200);
    let (status, text) = get("/metrics").await;
    assert!(status == 200 && text.contains("certificate_not_after_timestamp_seconds"), "{text}");
}

/// The API server calls a Service over HTTP/1.1 connections that are kept alive.
#[tokio::test]
async fn a_shutdown_closes_http_1_connections_with_their_answer() {
    let (webhook, _connection) = Webhook::ready(Duration::from_secs(10)).await;
    let tls = webhook.tls(&webhook.pair, &version::TLS13, b"http/1.1").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    let ended = tokio::spawn(connection);
    let mut call = async || {
        let request = Request::post("/mutate")
            .header("host", NAME)
            .header("content-type", "application/json")
            .body(full(review("vault", "vault").to_string()))
            .unwrap();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        let (head, body) = response.into_parts();
        body.collect().await.unwrap();
        (head.status, head.headers.get("connection").map(|value| value.to_str().unwrap().to_owned()))
    };
    for _ in 0..2 {
        assert_eq!(call().await, (StatusCode::OK, None));
    }
    webhook.stopping.store(true, Ordering::Relaxed);
    assert_eq!(call().await, (StatusCode::OK, Some("close".to_owned())));
    within("its end", ended).await.unwrap().unwrap();
}

/// Without the header a client sends its next review on a connection that is being closed, and does not repeat it.
#[tokio::test]
async fn an_http_1_connection_is_closed_exactly_where_the_answer_says_so() {
    let (webhook, _connection) = Webhook::ready(Duration::from_secs(10)).await;
    let request = |line: &str, content_type: &str, length: usize, body: &str| {
        format!(
            "{line} HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let whole = |line: &str, body: &str| request(line, "application/json", body.len(), body);
    // Its body never ends.
    let begun = |line: &str, content_type: &str, length: usize| request(line, content_type, length, " ");
    for (what, sent, status, closed) in [
        ("a review", whole("POST /mutate", &review("vault", "vault").to_string()), 200, false),
        ("not a review", whole("POST /mutate", "{}"), 400, false),
        ("no body", whole("GET /healthz", ""), 200, false),
        ("another path without a body", whole("GET /other", ""), 404, false),
        ("another path", begun("POST /other", "application/json", MAX_BODY), 404, true),
        ("another method", begun("PUT /mutate", "application/json", MAX_BODY), 405, true),
        ("another type", begun("POST /mutate", "text/plain", MAX_BODY), 415, true),
        ("too long", begun("POST /mutate", "application/json", MAX_BODY + 1), 413, true),
        ("not HTTP", "GARBAGE\r\n\r\n".to_owned(), 400, true),
    ] {
        let mut tls = webhook.tls(&webhook.pair, &version::TLS13, b"http/1.1").await.unwrap();
        tls.write_all(sent.as_bytes()).await.unwrap();
        if !closed {
            let last = whole("GET /healthz", "").replace("host:", "connection: close\r\nhost:");
            tls.write_all(last.as_bytes()).await.unwrap();
        }
        let mut answers = Vec::new();
        let _ = within("the end", tls.read_to_end(&mut answers)).await;
        let answers = String::from_utf8_lossy(&answers).to_ascii_lowercase();
        let answers: Vec<&str> = answers.split("http/1.1 ").skip(1).collect();
        assert_eq!(answers.len(), if closed { 1 } else { 2 }, "{what}: {answers:?}");
        assert!(answers[0].starts_with(&status.to_string()), "{what}: {answers:?}");
        assert_eq!(answers[0].contains("connection: close"), closed, "{what}: {answers:?}");
    }
}

/// The API server keeps a connection open for 90 s, even if it was never used.
#[tokio::test]
async fn an_idle_connection_is_not_closed_before_the_api_server_closes_it() {
    let (webhook, _connection) = Webhook::ready(Duration::from_secs(10)).await;
    let tls = webhook.tls(&webhook.pair, &version::TLS13, b"http/1.1").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    // A review on another connection: when it is answered, every task that was ready before has run.
    let turns = async || {
        let mut other = webhook.connect(&webhook.pair, &version::TLS13).await.unwrap().0;
        assert_eq!(post(&mut other, review("vault", "vault").to_string()).await.0, StatusCode::OK);
    };
    for time in ["before its first review", "between two"] {
        turns().await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(91)).await;
        tokio::time::resume();
        turns().await;
        let request = Request::post("/mutate")
            .header("host", NAME)
            .header("content-type", "application/json")
            .body(full(review("vault", "vault").to_string()))
            .unwrap();
        sender.ready().await.unwrap_or_else(|error| panic!("closed {time}: {error}"));
        let response =
            sender.send_request(request).await.unwrap_or_else(|error| panic!("closed {time}: {error}"));
        assert_eq!(response.status(), StatusCode::OK, "{time}");
        response.into_body().collect().await.unwrap();
    }
}
