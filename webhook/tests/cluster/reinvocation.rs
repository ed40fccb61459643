//! Another webhook that is called later and adds a container, as service meshes do: that container gets the identity, too,
//! because the API server calls this webhook a second time.

use axum::Router;
use axum::routing::post;
use axum_server::tls_rustls::RustlsConfig;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::api::pods;
use crate::pki::{Authority, Pair};
use crate::process::Webhook;
use crate::world::{ROLE, TEST, World, eventually, pod};

#[tokio::test]
async fn a_container_that_a_later_webhook_adds_gets_the_identity() {
    let world = World::new("reinvocation").await;
    let authority = Authority::new("webhook");
    let webhook = Webhook::ready(&world, &authority, &[]).await;
    world.account(world.name, "app").await;
    world.bind(world.name, "app").await;
    let injector = injector(&authority).await;
    // Webhooks are called in the order of their configurations' names.
    let later = format!("{}-later", world.name);
    let configuration = json!({
        "metadata": {"name": later},
        "webhooks": [{
            "name": "sidecars.example.com",
            "clientConfig": {"url": injector, "caBundle": BASE64_STANDARD.encode(&authority.certificate)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {TEST: world.name}},
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
        }],
    });
    world
        .api
        .create("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", &configuration)
        .await
        .unwrap();
    world.identified(world.name).await;
    let has_sidecar = async || {
        let made = world.api.create_dry(&pods(world.name), &pod("app")).await.unwrap();
        (made["spec"]["containers"].as_array().unwrap().len() == 2).then_some(made)
    };
    eventually("the later webhook is in force", || async {
        anyhow::ensure!(has_sidecar().await.is_some(), "no sidecar yet");
        Ok(())
    })
    .await;

    let reviews = || webhook.metric("reviews_total", &["entry=\"pods\"", "outcome=\"mutated\""]);
    let before = reviews();
    let made = has_sidecar().await.unwrap();
    assert_eq!(reviews() - before, 2, "it was asked twice, and each time something was missing");
    for container in made["spec"]["containers"].as_array().unwrap() {
        let roles: Vec<&Value> =
            container["env"].as_array().unwrap().iter().filter(|v| v["name"] == "AWS_ROLE_ARN").collect();
        assert_eq!(roles, [&json!({"name": "AWS_ROLE_ARN", "value": ROLE})], "{container}");
        assert_eq!(mounts(container), 1, "{container}");
    }
    let volumes = made["spec"]["volumes"].as_array().unwrap();
    assert_eq!(volumes.iter().filter(|volume| volume["name"] == "aws-iam-token").count(), 1, "{volumes:?}");
}

fn mounts(container: &Value) -> usize {
    let mounts = container["volumeMounts"].as_array().unwrap();
    mounts.iter().filter(|mount| mount["name"] == "aws-iam-token").count()
}

/// A webhook that adds a container to every pod. Returns its URL.
async fn injector(authority: &Authority) -> String {
    let Pair { certificate, key } = authority.server();
    let tls = RustlsConfig::from_pem(certificate.into_bytes(), key.into_bytes()).await.unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let inject = async |review: String| {
        let review: Value = serde_json::from_str(&review).unwrap();
        let patch = json!([{
            "op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": "sidecar"},
        }]);
        let answer = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {
                "uid": review["request"]["uid"],
                "allowed": true,
                "patchType": "JSONPatch",
                "patch": BASE64_STANDARD.encode(patch.to_string()),
            },
        });
        ([("content-type", "application/json")], answer.to_string())
    };
    let router = Router::new().route("/", post(inject));
    let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
    tokio::spawn(server.serve(router.into_make_service()));
    format!("https://{address}/")
}
