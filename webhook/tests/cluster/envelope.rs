//! What an API server sends: the review of a Deployment's pod, stored in `tests/reviews` for other tests and benchmarks. With
//! `PODIDENTITY_RECORD` set the file is written again.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use axum::Router;
use axum::extract::State;
use axum_server::tls_rustls::RustlsConfig;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;
use webhook::serving::tls::Certificate;

use crate::api::pods;
use crate::pki::{Authority, Pair};
use crate::process::REVIEW;
use crate::world::{World, eventually, pod};

/// Admits every pod and stores the review.
async fn record(State(kept): State<watch::Sender<Vec<Bytes>>>, body: Bytes) -> String {
    let review: Value = serde_json::from_slice(&body).unwrap();
    kept.send_modify(|kept| kept.push(body));
    let response = json!({"uid": review["request"]["uid"], "allowed": true});
    json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}).to_string()
}

#[tokio::test]
async fn a_review_has_the_fields_of_the_stored_one() {
    let world = World::new("envelope").await;
    let authority = Authority::new("recorder");
    let certificate = Arc::new(Certificate::new(Arc::default()));
    let Pair { certificate: pem, key } = authority.server();
    certificate.apply(pem.as_bytes(), key.as_bytes());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let tls = RustlsConfig::from_config(Arc::new(certificate.server_config(None).unwrap()));
    let (sender, kept) = watch::channel(Vec::<Bytes>::new());
    let app = Router::new().fallback(record).with_state(sender);
    let served = axum_server::from_tcp_rustls(listener, tls).unwrap().serve(app.into_make_service());
    tokio::spawn(served);

    world.configure(address, &authority.certificate).await;
    eventually("the webhook configuration is in force", || async {
        let made = world.api.create_dry(&pods(world.name), &pod("default")).await;
        ensure!(made.is_ok(), "the ServiceAccount exists as soon as its controller has created it: {made:?}");
        ensure!(!kept.borrow().is_empty(), "nothing was sent");
        Ok(())
    })
    .await;
    let mut template = pod("default");
    template["metadata"] = json!({"labels": {"app": "app"}});
    let deployment = json!({
        "metadata": {"name": "app"},
        "spec": {"selector": {"matchLabels": {"app": "app"}}, "template": template},
    });
    let deployments = format!("/apis/apps/v1/namespaces/{}/deployments", world.name);
    world.api.create(&deployments, &deployment).await.unwrap();
    let review = || {
        let all = kept.borrow().clone();
        let text = all.iter().map(|body| std::str::from_utf8(body).unwrap().to_owned());
        text.into_iter().find(|text| text.contains("replicaset-controller"))
    };
    eventually("the Deployment's pod was reviewed", || async {
        ensure!(review().is_some(), "not yet");
        Ok(())
    })
    .await;

    let review = pretty(&review().unwrap());
    if std::env::var_os("PODIDENTITY_RECORD").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reviews/deployment-pod-1.37.json");
        std::fs::write(file, &review).unwrap();
    } else {
        let [sent, kept] = [&*review, REVIEW].map(|text| shape(&serde_json::from_str(text).unwrap()));
        assert_eq!(sent, kept, "record it again: PODIDENTITY_RECORD=1\n{review}");
    }
}

/// The text of a JSON value with line breaks, its keys in the order they have.
fn pretty(json: &str) -> String {
    let (mut text, mut depth, mut quoted, mut escaped) = (String::new(), 0, false, false);
    let mut rest = json.trim().chars().peekable();
    let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
    while let Some(letter) = rest.next() {
        if quoted {
            text.push(letter);
            quoted = letter != '"' || escaped;
            escaped = letter == '\\' && !escaped;
            continue;
        }
        match letter {
            '{' | '[' => {
                text.push(letter);
                if let Some(end) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    text.push_str(&line(depth));
                }
            }
            '}' | ']' => {
                depth -= 1;
                text.push_str(&line(depth));
                text.push(letter);
            }
            ',' => {
                text.push(letter);
                text.push_str(&line(depth));
            }
            ':' => text.push_str(": "),
            letter => {
                quoted = letter == '"';
                text.push(letter);
            }
        }
    }
    text + "\n"
}

/// Keys and kinds of values, without the values, which differ each time.
fn shape(value: &Value) -> Value {
    // managedFields has the owner's uid as a key.
    let name = |key: &str| if key.starts_with(r#"k:{"uid""#) { "k:uid".to_owned() } else { key.to_owned() };
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (name(key), shape(value))).collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "yes or no".into(),
        Value::Null => Value::Null,
    }
}
