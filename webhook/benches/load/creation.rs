//! The time that the webhook adds to the creation of a pod through a real API server.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster::ControlPlane;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::process::{self, Webhook};
use crate::table::{milliseconds, quantile};

/// Pods in each of the namespaces.
const PODS: usize = 2000;
/// Namespaces: whether the webhook is called there, and whether the `ServiceAccount` has a role.
const CASES: [(&str, bool, bool); 3] =
    [("no webhook", false, true), ("no identity", true, false), ("mutated", true, true)];

/// Creates pods in all namespaces in turn, one at a time, so that whatever else the machine does hits all alike.
pub async fn table(server: &ControlPlane) -> Result<()> {
    let webhook = Webhook::start(server)?;
    webhook.until_ready().await?;
    let client = process::client(server).await?;
    let mut cases = Vec::new();
    for (case, called, role) in CASES {
        let name = case.replace(' ', "-");
        let namespace = json!({"metadata": {"name": name, "labels": {"called": called.to_string()}}});
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
        let annotations = if role {
            json!({"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/r"})
        } else {
            json!({})
        };
        let account = json!({"metadata": {"name": "application", "annotations": annotations}});
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
        accounts.create(&PostParams::default(), &serde_json::from_value(account)?).await?;
        cases.push((case, called && role, Api::<Pod>::namespaced(client.clone(), &name), Vec::new()));
    }
    let configuration = json!({
        "metadata": {"name": "bench"},
        "webhooks": [{
            "name": "pods.podidentity.dev",
            "clientConfig": {"url": webhook.url(), "caBundle": webhook.ca_bundle()},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"called": "true"}},
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2,
            "reinvocationPolicy": "IfNeeded",
        }],
    });
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client);
    configurations.create(&PostParams::default(), &serde_json::from_value(configuration)?).await?;

    let pod = json!({
        "metadata": {"generateName": "application-", "labels": {"app.kubernetes.io/name": "application"}},
        "spec": {"serviceAccountName": "application", "containers": [{
            "name": "application", "image": "registry.example.com/team/application:1.2.3",
            "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "REGION", "value": "eu-central-1"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        }]},
    });
    let pod: Pod = serde_json::from_value(pod)?;
    let mutated = |pod: &Pod| {
        pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|v| v.name == "aws-iam-token")
    };
    cluster::until("the API server to call the webhook", Duration::from_mins(1), || async {
        let (_, _, api, _) = &cases[2];
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        ensure!(mutated(&api.create(&dry_run, &pod).await?), "not mutated");
        Ok(())
    })
    .await?;
    for _ in 0..PODS {
        for (_, expected, api, took) in &mut cases {
            let begun = Instant::now();
            let made = api.create(&PostParams::default(), &pod).await?;
            took.push(begun.elapsed());
            ensure!(mutated(&made) == *expected, "{}", made.name_any());
        }
    }

    println!("\nCreation of a pod through the API server: {PODS} of each, in turn, one at a time");
    println!("{:<12} {:>8} {:>8} {:>14} {:>14}", "case", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms");
    let mut without = None;
    for (case, _, _, mut took) in cases {
        took.sort_unstable();
        let (half, most) = (quantile(&took, 0.5), quantile(&took, 0.99));
        let (half_without, most_without) = *without.get_or_insert((half, most));
        let added = |with: Duration, without: Duration| {
            format!("{:+.2}", (with.as_secs_f64() - without.as_secs_f64()) * 1e3)
        };
        println!(
            "{case:<12} {:>8} {:>8} {:>14} {:>14}",
            milliseconds(half),
            milliseconds(most),
            added(half, half_without),
            added(most, most_without)
        );
    }
    Ok(())
}
