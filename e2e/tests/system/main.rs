//! The whole system: the demo with assertions, and attacks with the rights of a pod. All parts use one node, because starting a
//! node and installing the chart takes most of the time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod entries;
mod helm_order;
mod hostile;
mod load;
mod monitoring;
mod replicas;
mod rest;
mod restarts;
mod rotation;
mod signing_keys;

use std::time::Duration;

use aws_sim_api::NewRole;
use e2e::binaries::Binaries;
use e2e::lab::{ACCOUNT, BUCKET, DATA_BUCKET, Lab, SYSTEM};
use e2e::story;
use e2e::terminal::{Terminal, progress};
use serde_json::json;

const JWKS: &str = "homelab/openid/v1/jwks";
const PROVIDER: &str = "oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com/homelab";

#[tokio::test]
async fn the_whole_system_works_and_resists_attacks() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::default();
    let lab = Lab::start(folder.path().join("node"), Binaries::fresh().unwrap(), &progress).await.unwrap();

    let flags = story::bootstrap(&lab, &mut terminal).await.unwrap();
    story::switch_issuer(&lab, &flags, &mut terminal).await.unwrap();
    // Short enough for this test, and long enough for a pod that runs between two checks.
    let resync = format!("operator.timings.issuerResync={}s", rest::ISSUER_RESYNC.as_secs());
    let poll = format!("operator.timings.apiServerPoll={}s", signing_keys::API_SERVER_POLL.as_secs());
    let values = [resync.as_str(), &poll, "operator.timings.grantGrace=30s"];
    story::install(&lab, &values, &mut terminal).await.unwrap();
    let applied = story::apply(&lab, &mut terminal).await.unwrap();
    assert!(applied.issuer.as_secs() < 60 && applied.binding.as_secs() < 60, "{applied:?}");
    story::workloads(&lab, &mut terminal).await.unwrap();
    rest::changes_nothing(&lab).await;

    a_pod_with_every_right_on_s3_cannot_replace_the_signing_keys(&lab).await;
    forged_keys_are_refused_and_corrected(&lab).await;
    only_the_operator_may_read_the_ca_key(&lab).await;

    entries::admit_pods_as_documented(&lab).await;
    entries::refuse_a_deployment_before_its_binding(&lab).await;
    helm_order::shows_and_restarts_pods_that_came_before_their_binding(&lab).await;
    monitoring::names_only_existing_metrics(&lab).await;
    hostile::idle_connections_delay_no_review(&lab).await;
    rotation::loses_no_admission(&lab).await;
    restarts::lose_as_few_pods_as_possible(&lab).await;
    signing_keys::rotate_without_a_refused_token(&lab, &flags).await;

    story::look(&lab, &mut terminal).await.unwrap();
    story::leave(&lab, &mut terminal).await.unwrap();
    lab.node.stop().await.unwrap();
}

/// The pod's role is managed by another tool, has `s3:*`, and trusts this issuer.
async fn a_pod_with_every_right_on_s3_cannot_replace_the_signing_keys(lab: &Lab) {
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{PROVIDER}")},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {(format!("{PROVIDER}:sub")): "system:serviceaccount:vault:admin"}},
    }]});
    let role = NewRole {
        path: "/".into(),
        name: "terraform-admin".into(),
        trust,
        attached: vec!["arn:aws:iam::aws:policy/AmazonS3FullAccess".into()],
    };
    let arn = lab.control("POST", "/roles", &serde_json::to_string(&role).unwrap()).await.unwrap();
    lab.kubectl(&["create", "serviceaccount", "admin", "--namespace=vault"]).await.unwrap();
    lab.apply(&json!({
        "apiVersion": "podidentity.dev/v1alpha1",
        "kind": "PodIdentityBinding",
        "metadata": {"name": "admin", "namespace": "vault"},
        "spec": {"serviceAccountName": "admin", "roleARN": arn},
    }))
    .await
    .unwrap();
    lab.kubectl(&["wait", "--for=condition=Ready", "podidentitybinding/admin", "-n=vault", "--timeout=1m"])
        .await
        .unwrap();

    let before = lab.state().await.unwrap().buckets[BUCKET].clone();
    let other_bucket =
        lab.run_pod("vault", "admin", "other-bucket", &["put", DATA_BUCKET, "note", "x"]).await.unwrap();
    assert!(other_bucket.succeeded, "the role has s3:*: {}", other_bucket.log);
    for (name, arguments) in [
        ("overwrite", ["put", BUCKET, JWKS, "forged"].as_slice()),
        ("add", &["put", BUCKET, "homelab/other", "x"]),
        ("delete", &["delete", BUCKET, JWKS]),
    ] {
        let pod = lab.run_pod("vault", "admin", name, arguments).await.unwrap();
        assert!(!pod.succeeded && pod.log.contains("terraform-admin"), "{name}: {}", pod.log);
        assert!(pod.log.contains("explicit deny in a resource-based policy"), "{name}: {}", pod.log);
    }
    assert_eq!(lab.state().await.unwrap().buckets[BUCKET], before);
    lab.control("DELETE", "/roles/terraform-admin", "").await.unwrap();
}

/// The owner of the bucket (not a pod) replaces the keys. The operator can correct this, since its credentials are valid for an
/// hour.
async fn forged_keys_are_refused_and_corrected(lab: &Lab) {
    // With the right key id and a wrong key, no signature is valid.
    let keys = lab.kubectl(&["get", "--raw", "/openid/v1/jwks"]).await.unwrap();
    let mut forged: serde_json::Value = serde_json::from_str(&keys).unwrap();
    let modulus = forged["keys"][0]["n"].as_str().unwrap();
    forged["keys"][0]["n"] = json!(modulus.chars().rev().collect::<String>());
    let expected = lab.state().await.unwrap().buckets[BUCKET].clone();

    // Forge them right after a check of the operator, so that the pod runs before the next check.
    let checks = async || {
        let calls = lab.calls().await.unwrap();
        calls
            .iter()
            .filter(|c| c.action == "GetObject" && c.resource.ends_with(JWKS) && c.principal != "anonymous")
            .count()
    };
    let before = checks().await;
    let checked = || async {
        anyhow::ensure!(checks().await > before, "the operator has not read the keys");
        Ok(())
    };
    cluster::until("a check of the operator", Duration::from_mins(1), checked).await.unwrap();
    lab.control("PUT", &format!("/buckets/{BUCKET}/{JWKS}"), &forged.to_string()).await.unwrap();
    let read = ["get", DATA_BUCKET, "greeting"];
    let refused = lab.run_pod("vault", "vault", "while-forged", &read).await.unwrap();
    assert!(!refused.succeeded && refused.log.contains("InvalidIdentityToken"), "{}", refused.log);

    let corrected = || async {
        anyhow::ensure!(lab.state().await?.buckets[BUCKET] == expected, "the keys are still the forged ones");
        Ok(())
    };
    cluster::until("the correction of the keys", Duration::from_mins(1), corrected).await.unwrap();
    let admitted = lab.run_pod("vault", "vault", "after-correction", &read).await.unwrap();
    assert!(admitted.succeeded, "{}", admitted.log);
}

/// The chart's RBAC: the webhook may read its certificate, and not the CA's key.
async fn only_the_operator_may_read_the_ca_key(lab: &Lab) {
    let webhook_may = async |verb: &str, resource: &str| {
        let account = format!("--as=system:serviceaccount:{SYSTEM}:podidentity-webhook");
        let output = lab.kubectl(&["auth", "can-i", verb, resource, "-n", SYSTEM, &account]).await;
        output.is_ok_and(|answer| answer.trim() == "yes")
    };
    assert!(webhook_may("watch", "secrets/podidentity-webhook-tls").await);
    for (verb, resource) in [
        ("get", "secrets/podidentity-webhook-ca"),
        ("list", "secrets"),
        ("create", "pods"),
        ("update", "mutatingwebhookconfigurations.admissionregistration.k8s.io"),
    ] {
        assert!(!webhook_may(verb, resource).await, "the webhook may {verb} {resource}");
    }
}
