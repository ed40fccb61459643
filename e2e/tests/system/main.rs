//! The whole system: the demo's story as assertions, and what an attacker with the rights of a pod tries meanwhile. One
//! node for all of it, since starting one and installing the chart is what takes the time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod entries;
mod hostile;
mod load;
mod monitoring;
mod replicas;
mod restarts;
mod rotation;

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
async fn the_main_job_and_those_who_want_to_break_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::default();
    let lab = Lab::start(folder.path().join("node"), Binaries::fresh().unwrap(), &progress).await.unwrap();

    story::bootstrap(&lab, &mut terminal).await.unwrap();
    // Often enough to see it, seldom enough to try something in between.
    story::install(&lab, &["operator.timings.issuerResync=40s"], &mut terminal).await.unwrap();
    let applied = story::apply(&lab, &mut terminal).await.unwrap();
    assert!(applied.issuer.as_secs() < 60 && applied.binding.as_secs() < 60, "{applied:?}");
    story::workloads(&lab, &mut terminal).await.unwrap();

    a_pod_with_every_right_on_s3_cannot_replace_the_signing_keys(&lab).await;
    forged_keys_are_refused_and_put_back(&lab).await;
    the_operator_alone_holds_the_ca_key(&lab).await;

    entries::are_as_the_document_says(&lab).await;
    entries::a_deployment_before_its_binding_waits(&lab).await;
    monitoring::names_only_what_exists(&lab).await;
    hostile::idle_connections_keep_nobody_out(&lab).await;
    rotation::loses_no_admission(&lab).await;
    restarts::lose_no_pod_that_can_be_kept(&lab).await;

    story::look(&lab, &mut terminal).await.unwrap();
    story::leave(&lab, &mut terminal).await.unwrap();
    lab.node.stop().await.unwrap();
}

/// A role that somebody made outside, with `s3:*`, trusted through this issuer.
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
    let elsewhere =
        lab.run_pod("vault", "admin", "elsewhere", &["put", DATA_BUCKET, "note", "x"]).await.unwrap();
    assert!(elsewhere.succeeded, "its rights are real: {}", elsewhere.log);
    for (name, arguments) in [
        ("overwrite", ["put", BUCKET, JWKS, "forged"].as_slice()),
        ("add", &["put", BUCKET, "homelab/other", "x"]),
        ("delete", &["delete", BUCKET, JWKS]),
    ] {
        let tried = lab.run_pod("vault", "admin", name, arguments).await.unwrap();
        assert!(!tried.succeeded && tried.log.contains("terraform-admin"), "{name}: {}", tried.log);
        assert!(tried.log.contains("explicit deny in a resource-based policy"), "{name}: {}", tried.log);
    }
    assert_eq!(lab.state().await.unwrap().buckets[BUCKET], before);
    lab.control("DELETE", "/roles/terraform-admin", "").await.unwrap();
}

/// Somebody who owns the bucket (not a pod) replaces the keys. The operator lives on: its credentials are good for an hour.
async fn forged_keys_are_refused_and_put_back(lab: &Lab) {
    // The key id is right, the key is not: the signature cannot be.
    let keys = lab.kubectl(&["get", "--raw", "/openid/v1/jwks"]).await.unwrap();
    let mut forged: serde_json::Value = serde_json::from_str(&keys).unwrap();
    let modulus = forged["keys"][0]["n"].as_str().unwrap();
    forged["keys"][0]["n"] = json!(modulus.chars().rev().collect::<String>());
    let good = lab.state().await.unwrap().buckets[BUCKET].clone();

    // Right after the operator has looked, so that it does not look again before we have tried.
    let looks = async || {
        let calls = lab.calls().await.unwrap();
        calls
            .iter()
            .filter(|c| c.action == "GetObject" && c.resource.ends_with(JWKS) && c.principal != "anonymous")
            .count()
    };
    let before = looks().await;
    let looked = || async {
        anyhow::ensure!(looks().await > before, "it has not");
        Ok(())
    };
    cluster::until("the operator to look", Duration::from_mins(1), looked).await.unwrap();
    lab.control("PUT", &format!("/buckets/{BUCKET}/{JWKS}"), &forged.to_string()).await.unwrap();
    let read = ["get", DATA_BUCKET, "greeting"];
    let refused = lab.run_pod("vault", "vault", "meanwhile", &read).await.unwrap();
    assert!(!refused.succeeded && refused.log.contains("InvalidIdentityToken"), "{}", refused.log);

    let put_back = || async {
        anyhow::ensure!(lab.state().await?.buckets[BUCKET] == good, "the keys are still the forged ones");
        Ok(())
    };
    cluster::until("the keys to be put back", Duration::from_mins(1), put_back).await.unwrap();
    let admitted = lab.run_pod("vault", "vault", "afterwards", &read).await.unwrap();
    assert!(admitted.succeeded, "{}", admitted.log);
}

/// The chart's RBAC, executed: the webhook can read its certificate and nothing that could sign another.
async fn the_operator_alone_holds_the_ca_key(lab: &Lab) {
    let may = async |verb: &str, what: &str| {
        let account = format!("--as=system:serviceaccount:{SYSTEM}:podidentity-webhook");
        let asked = lab.kubectl(&["auth", "can-i", verb, what, "-n", SYSTEM, &account]).await;
        asked.is_ok_and(|answer| answer.trim() == "yes")
    };
    assert!(may("watch", "secrets/podidentity-webhook-tls").await);
    for (verb, what) in [
        ("get", "secrets/podidentity-webhook-ca"),
        ("list", "secrets"),
        ("create", "pods"),
        ("update", "mutatingwebhookconfigurations.admissionregistration.k8s.io"),
    ] {
        assert!(!may(verb, what).await, "the webhook may {verb} {what}");
    }
}
