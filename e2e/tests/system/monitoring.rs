//! Every metric in alerts and dashboard is served by operator, webhook or API server.

use std::collections::BTreeSet;

use anyhow::Context;
use e2e::binaries::root;
use e2e::lab::{Lab, SYSTEM};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::client::inside;

const FOLDER: &str = "charts/pod-identity-operator/monitoring";

pub async fn names_only_existing_metrics(lab: &Lab) {
    let texts = ["rules.yaml", "dashboard.json"]
        .map(|file| std::fs::read_to_string(root().join(FOLDER).join(file)).unwrap());
    let named: BTreeSet<String> = texts.iter().flat_map(|text| metrics(text)).collect();
    assert!(named.len() > 15, "{named:?}");
    let served = inside(lab, async |client| scrape(&client).await).await;
    let is_served = |name: &str| {
        served.lines().any(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(['{', ' '])))
    };
    let missing: Vec<_> = named.iter().filter(|name| !is_served(name)).collect();
    assert!(missing.is_empty(), "not served: {missing:?}");
    println!("{} metrics of alerts and dashboard are served", named.len());
}

/// The metrics in a text with `PromQL`.
fn metrics(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = ["podidentity_webhook_", "podidentity_operator_", "apiserver_"];
    words.filter(move |word| ours.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned)
}

/// The metrics of the API server and of each of our pods.
async fn scrape(client: &Client) -> String {
    let mut served = get(client, "/metrics").await.unwrap();
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=podidentity");
    for pod in Api::<Pod>::namespaced(client.clone(), SYSTEM).list(&ours).await.unwrap() {
        served += &metrics_of(client, &pod).await.unwrap();
    }
    served
}

/// The metrics of one of our pods.
pub async fn metrics_of(client: &Client, pod: &Pod) -> anyhow::Result<String> {
    let ports = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.ports.as_ref());
    let http = ports.and_then(|ports| ports.iter().find(|port| port.name.as_deref() == Some("http")));
    let (name, port) = (pod.name_any(), http.context("the pod has no port named http")?.container_port);
    get(client, &format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:{port}/proxy/metrics")).await
}

async fn get(client: &Client, path: &str) -> anyhow::Result<String> {
    Ok(client.request_text(Request::get(path).body(Vec::new())?).await?)
}
