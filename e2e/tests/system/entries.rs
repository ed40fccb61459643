//! Executes the table in `docs/webhook-entries.md`: each row is a pod that is created with all replicas up and again with none.
//! A second test creates a pod that requires its identity before its binding.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use crds::names::label;
use e2e::binaries::root;
use e2e::lab::{ACCOUNT, Lab};
use serde_json::{Value, json};

use crate::client::{Creation, PodDraft, client_of, inside};
use crate::replicas::{REPLICAS, failed_open, scale};

/// The entry that fails open: it admits pods when no replica answers.
const FAILS_OPEN: &str = "pods.podidentity.dev";

const BOUND: &str = "bound";
const UNBOUND: &str = "unbound";

/// A row of the table.
#[derive(Debug)]
struct Row {
    text: String,
    pod: PodDraft,
    mirror: bool,
    /// The expected result with all replicas up.
    up: String,
    /// The expected result with no replica.
    down: String,
    /// What shows, with no replica, that the webhook was not called.
    shown_by: String,
}

pub async fn admit_pods_as_documented(lab: &Lab) {
    let document = std::fs::read_to_string(root().join("docs/webhook-entries.md")).unwrap();
    let table = cells(&document);
    assert!(table.len() > 20, "the table was not found: {table:?}");
    let namespaces = create_objects(lab, &table).await;
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
                let before = failed_open(&client, FAILS_OPEN).await;
                let creation = row.pod.create(if row.mirror { &node } else { &client }).await;
                let counted = failed_open(&client, FAILS_OPEN).await - before;
                let expected_count = u64::from(replicas == 0 && row.shown_by == "counter");
                if word(&creation) != expected || counted != expected_count {
                    wrong.push(format!("{replicas} replicas, {}: {creation:?}, {counted} counted", row.text));
                }
            }
        }
        scale(&client, REPLICAS).await;
        wrong
    })
    .await;
    assert!(wrong.is_empty(), "the table is wrong:\n{}", wrong.join("\n"));
    println!("{} rows of docs/webhook-entries.md are correct", table.len());
    delete_objects(lab, &namespaces).await;
}

/// The word for a result in the table.
fn word(creation: &Creation) -> &'static str {
    match creation {
        Creation::Identity => "identity",
        Creation::NoIdentity => "none",
        Creation::Refused(_) => "refused",
        Creation::Failed(_) => "failed",
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

/// Parses `a=b, c=d`; a dash means no labels.
fn labels(cell: &str) -> BTreeMap<String, String> {
    let pairs = cell.split(", ").filter_map(|label| label.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn row(cells: &[String], namespaces: &BTreeMap<(String, String), String>, node: &Value) -> Row {
    let [namespace, namespace_labels, pod, account, up, down, shown_by, _] = cells else {
        panic!("not eight cells: {cells:?}")
    };
    assert!(["counter", "refusal", "–"].contains(&shown_by.as_str()), "{cells:?}");
    assert_eq!(shown_by == "refusal", down == "refused", "{cells:?}");
    let namespace = &namespaces[&(namespace.clone(), namespace_labels.clone())];
    let mirror = pod == "mirror pod";
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "row", "labels": labels(pod)},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    if mirror {
        // As a kubelet creates it; the API server accepts no other pods from a kubelet.
        object["spec"]["nodeName"] = node["metadata"]["name"].clone();
        object["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "e2e"});
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Node", "controller": true,
            "name": node["metadata"]["name"], "uid": node["metadata"]["uid"],
        }]);
    } else {
        assert!([BOUND, UNBOUND].contains(&account.as_str()), "unknown ServiceAccount: {cells:?}");
        object["spec"]["serviceAccountName"] = json!(account);
    }
    Row {
        text: cells.join(" | "),
        pod: PodDraft::new(namespace, &object),
        mirror,
        up: up.clone(),
        down: down.clone(),
        shown_by: shown_by.clone(),
    }
}

/// Creates the objects of the rows: namespaces with their labels, and in each a `ServiceAccount` with a binding and one without.
/// Returns the name of each namespace.
async fn create_objects(lab: &Lab, table: &[Vec<String>]) -> BTreeMap<(String, String), String> {
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

async fn delete_objects(lab: &Lab, namespaces: &BTreeMap<(String, String), String>) {
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

/// As in a first sync from Git: a Deployment is applied before its binding.
pub async fn refuse_a_deployment_before_its_binding(lab: &Lab) {
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
        let messages = lab.kubectl(&[&events[..], &["-o=jsonpath={.items[*].message}"]].concat()).await?;
        ensure!(messages.contains(label::REQUIRE), "the messages are {messages:?}");
        Ok(messages)
    };
    cluster::until("the refusal of the ReplicaSet's pod", Duration::from_mins(1), || async {
        refused().await.map(|_| ())
    })
    .await
    .unwrap();
    let messages = refused().await.unwrap();
    let reason = "ServiceAccount vault/later has no identity: make a PodIdentityBinding";
    assert!(messages.contains(reason), "{messages}");
    let pods = lab.kubectl(&[&["get", "pods", "-o=name"], &later[..]].concat()).await.unwrap();
    assert_eq!(pods, "", "no pod was created");

    let policy = format!("arn:aws:iam::{ACCOUNT}:policy/vault-storage");
    lab.apply(&binding("vault", "later", &json!({"role": {"policyARNs": [policy]}}))).await.unwrap();
    let has_role = || async {
        let name = r#"-o=jsonpath={.items[0].spec.containers[0].env[?(@.name=="AWS_ROLE_ARN")].value}"#;
        let arn = lab.kubectl(&[&["get", "pods", name], &later[..]].concat()).await?;
        ensure!(arn.contains("homelab.vault.later"), "the role is {arn:?}");
        Ok(())
    };
    let begun = std::time::Instant::now();
    cluster::until("the pod with its identity", Duration::from_mins(2), has_role).await.unwrap();
    println!(
        "pod of a Deployment that was applied before its binding: refused, and admitted {:.1?} after the binding",
        begun.elapsed()
    );
    lab.kubectl(&["delete", "deployment/later", "podidentitybinding/later", "-n=vault", "--timeout=1m"])
        .await
        .unwrap();
}
