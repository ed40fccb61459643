//! `docs/webhook-entries.md`, executed: each row of its table is a pod, created with all replicas up and again with none.
//! And the pod that must not go without its identity, made before its binding.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use crds::names::label;
use e2e::binaries::root;
use e2e::lab::{ACCOUNT, Lab};
use serde_json::{Value, json};

use crate::client::{Became, Draft, client_of, inside};
use crate::replicas::{REPLICAS, failed_open, scale};

/// The entry that lets pods pass when the webhook cannot be asked.
const LENIENT: &str = "pods.podidentity.dev";

const BOUND: &str = "bound";
const UNBOUND: &str = "unbound";

/// A row of the document.
#[derive(Debug)]
struct Row {
    text: String,
    pod: Draft,
    mirror: bool,
    up: String,
    down: String,
    told_by: String,
}

pub async fn are_as_the_document_says(lab: &Lab) {
    let document = std::fs::read_to_string(root().join("docs/webhook-entries.md")).unwrap();
    let table = cells(&document);
    assert!(table.len() > 20, "the table was not found: {table:?}");
    let namespaces = furnish(lab, &table).await;
    let node: Value = serde_json::from_str(&lab.kubectl(&["get", "node", "-o=json"]).await.unwrap()).unwrap();
    let rows: Vec<Row> = table.iter().map(|cells| row(cells, &namespaces, &node["items"][0])).collect();
    let of_node = lab.node.own_kubeconfig();
    let wrong = inside(lab, async move |client| {
        let node = client_of(of_node).await;
        let mut wrong = Vec::new();
        for replicas in [REPLICAS, 0] {
            scale(&client, replicas).await;
            for row in &rows {
                let expected = if replicas == 0 { &row.down } else { &row.up };
                let before = failed_open(&client, LENIENT).await;
                let became = row.pod.create(if row.mirror { &node } else { &client }).await;
                let counted = failed_open(&client, LENIENT).await - before;
                let expected_count = u64::from(replicas == 0 && row.told_by == "counter");
                if word(&became) != expected || counted != expected_count {
                    wrong.push(format!("{replicas} replicas, {}: {became:?}, {counted} counted", row.text));
                }
            }
        }
        scale(&client, REPLICAS).await;
        wrong
    })
    .await;
    assert!(wrong.is_empty(), "the document is wrong:\n{}", wrong.join("\n"));
    println!("{} rows of docs/webhook-entries.md hold, with {REPLICAS} replicas and with none", table.len());
    clear(lab, &namespaces).await;
}

/// The document's word for what became of a pod.
fn word(became: &Became) -> &'static str {
    match became {
        Became::Identity => "identity",
        Became::NoIdentity => "none",
        Became::Refused(_) => "refused",
        Became::Failed(_) => "failed",
    }
}

/// The cells of the table whose first column is `namespace`.
fn cells(document: &str) -> Vec<Vec<String>> {
    let table = document.lines().skip_while(|line| !line.starts_with("| namespace |")).skip(2);
    let cells = |line: &str| {
        line.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
    };
    table.take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// `a=b, c=d`; a dash is none.
fn labels(cell: &str) -> BTreeMap<String, String> {
    let pairs = cell.split(", ").filter_map(|label| label.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn row(cells: &[String], namespaces: &BTreeMap<(String, String), String>, node: &Value) -> Row {
    let [namespace, theirs, pod, account, up, down, told_by, _] = cells else {
        panic!("not eight cells: {cells:?}")
    };
    assert!(["counter", "refusal", "–"].contains(&told_by.as_str()), "told by whom? {cells:?}");
    assert_eq!(told_by == "refusal", down == "refused", "{cells:?}");
    let namespace = &namespaces[&(namespace.clone(), theirs.clone())];
    let mirror = pod == "mirror pod";
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "row", "labels": labels(pod)},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    if mirror {
        // What a kubelet sends, and all that the API server takes from one.
        object["spec"]["nodeName"] = node["metadata"]["name"].clone();
        object["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "e2e"});
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Node", "controller": true,
            "name": node["metadata"]["name"], "uid": node["metadata"]["uid"],
        }]);
    } else {
        assert!([BOUND, UNBOUND].contains(&account.as_str()), "whose pod is it? {cells:?}");
        object["spec"]["serviceAccountName"] = json!(account);
    }
    Row {
        text: cells.join(" | "),
        pod: Draft::new(namespace, &object),
        mirror,
        up: up.clone(),
        down: down.clone(),
        told_by: told_by.clone(),
    }
}

/// Makes what the rows speak of: namespaces with their labels, and in each a `ServiceAccount` that is bound and one that is
/// not. Returns the name of each namespace.
async fn furnish(lab: &Lab, table: &[Vec<String>]) -> BTreeMap<(String, String), String> {
    let mut namespaces = BTreeMap::new();
    let mut objects = Vec::new();
    for cells in table {
        let number = namespaces.len();
        namespaces.entry((cells[0].clone(), cells[1].clone())).or_insert_with(|| {
            let name = if cells[0] == "any" { format!("entries-{number}") } else { cells[0].clone() };
            if cells[0] == "any" {
                objects.push(json!({
                    "apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": name, "labels": labels(&cells[1])},
                }));
            }
            for account in [BOUND, UNBOUND] {
                objects.push(json!({
                    "apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"name": account, "namespace": name},
                }));
            }
            objects.push(binding(
                &name,
                BOUND,
                &json!({"roleARN": format!("arn:aws:iam::{ACCOUNT}:role/entries")}),
            ));
            name
        });
    }
    lab.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects})).await.unwrap();
    for name in namespaces.values() {
        let object = [&format!("podidentitybinding/{BOUND}"), "-n", name];
        lab.kubectl(&[["wait", "--for=condition=Ready", "--timeout=1m"], object].concat()).await.unwrap();
    }
    namespaces
}

async fn clear(lab: &Lab, namespaces: &BTreeMap<(String, String), String>) {
    for name in namespaces.values() {
        let objects = format!("podidentitybinding/{BOUND},serviceaccount/{BOUND},serviceaccount/{UNBOUND}");
        let objects: Vec<&str> = objects.split(',').collect();
        let delete = ["delete", "-n", name, "--timeout=1m"];
        lab.kubectl(&[delete.as_slice(), &objects].concat()).await.unwrap();
        if name.starts_with("entries-") {
            lab.kubectl(&["delete", "namespace", name, "--wait=false"]).await.unwrap();
        }
    }
}

fn binding(namespace: &str, account: &str, role: &Value) -> Value {
    let mut spec = role.clone();
    spec["serviceAccountName"] = json!(account);
    json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding",
        "metadata": {"name": account, "namespace": namespace}, "spec": spec,
    })
}

/// The usual first sync from Git: a Deployment is applied, and its binding only after it.
pub async fn a_deployment_before_its_binding_waits(lab: &Lab) {
    let later = ["-n=vault", "--selector=app=later"];
    lab.kubectl(&["create", "serviceaccount", "later", "-n=vault"]).await.unwrap();
    lab.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "later", "namespace": "vault"},
        "spec": {
            "selector": {"matchLabels": {"app": "later"}},
            "template": {
                "metadata": {"labels": {"app": "later", (label::REQUIRE): "true"}},
                "spec": {
                    "serviceAccountName": "later",
                    "containers": [{"name": "app", "image": "podidentity.local/workload:demo", "imagePullPolicy": "Never"}],
                },
            },
        },
    }))
    .await
    .unwrap();
    let refused = || async {
        let events = ["get", "events", "-n=vault", "--field-selector=reason=FailedCreate"];
        let said = lab.kubectl(&[&events[..], &["-o=jsonpath={.items[*].message}"]].concat()).await?;
        ensure!(said.contains(label::REQUIRE), "it says {said:?}");
        Ok(said)
    };
    cluster::until("its ReplicaSet to be refused", Duration::from_mins(1), || async {
        refused().await.map(|_| ())
    })
    .await
    .unwrap();
    let said = refused().await.unwrap();
    assert!(said.contains("ServiceAccount vault/later has no identity: make a PodIdentityBinding"), "{said}");
    let pods = lab.kubectl(&[&["get", "pods", "-o=name"], &later[..]].concat()).await.unwrap();
    assert_eq!(pods, "", "none was made");

    let policy = format!("arn:aws:iam::{ACCOUNT}:policy/vault-storage");
    lab.apply(&binding("vault", "later", &json!({"role": {"policyARNs": [policy]}}))).await.unwrap();
    let appears = || async {
        let name = r#"-o=jsonpath={.items[0].spec.containers[0].env[?(@.name=="AWS_ROLE_ARN")].value}"#;
        let arn = lab.kubectl(&[&["get", "pods", name], &later[..]].concat()).await?;
        ensure!(arn.contains("homelab.vault.later"), "its role is {arn:?}");
        Ok(())
    };
    let begun = std::time::Instant::now();
    cluster::until("its pod to appear with its identity", Duration::from_mins(2), appears).await.unwrap();
    println!("a Deployment before its binding: refused, then admitted {:.1?} after it", begun.elapsed());
    lab.kubectl(&["delete", "deployment/later", "podidentitybinding/later", "-n=vault", "--timeout=1m"])
        .await
        .unwrap();
}
