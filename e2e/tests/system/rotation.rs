//! Certificates rotate unseen: while pods are created all the time, leaf and CA are made anew again and again, and every
//! pod gets its identity. The webhook's failure policy is `Ignore`, so a call that failed shows as a pod without one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::lab::{Lab, SYSTEM};
use serde_json::json;

const LEAVES: usize = 100;
const CAS: usize = 5;
/// kubectl sends at most 50 requests a second each.
const CLIENTS: usize = 4;
const PODS: usize = 100;

/// What became of the pods.
#[derive(Debug, Default)]
struct Load {
    created: usize,
    without_identity: usize,
}

pub async fn loses_no_admission(lab: &Lab) {
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    let rotate = async {
        for _ in 0..LEAVES {
            renewed(lab, "podidentity-webhook-tls", r"{.data.tls\.crt}").await;
        }
        let leaves = begun.elapsed();
        for _ in 0..CAS {
            renewed(lab, "podidentity-webhook-ca", r"{.data.ca\.crt}").await;
        }
        done.store(true, Ordering::Relaxed);
        leaves
    };
    let clients = futures::future::join_all((0..CLIENTS).map(|client| create_pods(lab, client, &done)));
    let (leaves, loads) = futures::future::join(rotate, clients).await;
    let seconds = begun.elapsed().as_secs().max(1);
    let created: usize = loads.iter().map(|load| load.created).sum();
    println!(
        "{LEAVES} leaves in {leaves:.1?}, {CAS} CAs, {created} pods created at {}/s",
        created as u64 / seconds
    );
    assert_eq!(loads.iter().map(|load| load.without_identity).sum::<usize>(), 0, "{loads:?}");
    assert!(created > 5000, "{created} pods are no load");
}

/// Deletes a Secret and waits until the leaf's Secret shows another certificate (of itself, or of its CA).
async fn renewed(lab: &Lab, secret: &str, path: &str) {
    let output = format!("--output=jsonpath={path}");
    let shown = || async {
        lab.kubectl(&["get", "secret", "podidentity-webhook-tls", "--namespace", SYSTEM, &output]).await
    };
    let before = shown().await.unwrap();
    lab.kubectl(&["delete", "secret", secret, "--namespace", SYSTEM]).await.unwrap();
    let another = || async {
        let now = shown().await?;
        ensure!(!now.is_empty() && now != before, "it is still the same");
        Ok(())
    };
    cluster::until(&format!("{secret} to be made anew"), Duration::from_mins(1), another).await.unwrap();
}

/// Creates pods as a dry run, which calls the webhook as any other creation does, until it is done.
async fn create_pods(lab: &Lab, client: usize, done: &AtomicBool) -> Load {
    let pod = |number: usize| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("load-{client}-{number}"), "namespace": "vault"},
            "spec": {"serviceAccountName": "vault", "containers": [{"name": "app", "image": "app"}]},
        })
    };
    let pods: Vec<_> = (0..PODS).map(pod).collect();
    let file = lab.node.state().join(format!("load-{client}.json"));
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string()).unwrap();
    let file = file.display().to_string();
    let names = r#"--output=jsonpath={.spec.containers[0].env[*].name}{"\n"}"#;
    let mut load = Load::default();
    while !done.load(Ordering::Relaxed) {
        let made = lab.kubectl(&["create", "--dry-run=server", "--filename", &file, names]).await.unwrap();
        let lines: Vec<&str> = made.lines().collect();
        assert_eq!(lines.len(), PODS);
        load.created += lines.len();
        load.without_identity += lines.iter().filter(|line| !line.contains("AWS_ROLE_ARN")).count();
    }
    load
}
