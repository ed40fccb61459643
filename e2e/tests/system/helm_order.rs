//! Helm's order: pods come before their binding, and run without an identity. kubectl shows which ones, and an annotation of the binding
//! restarts them. Then their namespace is deleted with everything in it.

use std::time::Duration;

use anyhow::ensure;
use cluster::until;
use crds::names::{RESTART_ANNOTATION, role_name};
use e2e::lab::{ACCOUNT, Lab, condition};
use serde_json::{Value, json};

const NAMESPACE: &str = "helm";
const BINDING: [&str; 2] = ["podidentitybinding/app", "-n=helm"];
const PODS: usize = 2;

pub async fn shows_and_restarts_pods_that_came_before_their_binding(lab: &Lab) {
    let grants = lab.kubectl(&["get", "oidcissuer/default", "-o=jsonpath={.spec.grants}"]).await.unwrap();
    let names = json!([{"op": "add", "path": "/spec/grants/0/namespaces/names/-", "value": NAMESPACE}]);
    patch_issuer(lab, &names).await;
    lab.kubectl(&["create", "namespace", NAMESPACE]).await.unwrap();
    lab.apply(&workload()).await.unwrap();
    lab.kubectl(&["rollout", "status", "deployment/app", "-n=helm", "--timeout=1m"]).await.unwrap();
    lab.apply(&binding()).await.unwrap();
    lab.kubectl(&[&["wait", "--for=condition=Ready", "--timeout=1m"], &BINDING[..]].concat()).await.unwrap();
    lab.until_field(&BINDING, ".status.missing.count", &PODS.to_string()).await.unwrap();

    // What a user looks at.
    let table = lab.kubectl(&["get", "pib", "-n=helm"]).await.unwrap();
    assert_eq!(cell(&table, "MISSING"), PODS.to_string(), "{table}");
    assert_eq!((cell(&table, "READY"), cell(&table, "ROLE")), ("True".into(), role()), "{table}");
    let described = lab.kubectl(&["describe", "pib", "app", "-n=helm"]).await.unwrap();
    let pods = pods(lab).await;
    assert_eq!(pods.len(), PODS);
    for (name, arn) in &pods {
        assert_eq!(arn, "", "{name} was created without its binding");
        assert!(described.contains(name), "{described}");
    }
    for part in ["PodsWithoutIdentity", "kubectl -n helm rollout restart deployment/app"] {
        assert!(described.contains(part), "no {part}: {described}");
    }

    // The right to change workloads is given for as long as it is used.
    lab.upgrade(&["operator.restartMissing=true"]).await.unwrap();
    let annotation = format!("{RESTART_ANNOTATION}=true");
    lab.kubectl(&[&["annotate"], &BINDING[..], &[&annotation]].concat()).await.unwrap();
    lab.until_field(&BINDING, &condition("PodsInjected", "status"), "True").await.unwrap();
    lab.kubectl(&["rollout", "status", "deployment/app", "-n=helm", "--timeout=1m"]).await.unwrap();
    let exchanged = || async {
        let log = lab.kubectl(&["logs", "deployment/app", "-n=helm"]).await?;
        ensure!(log.contains(&format!("assumed-role/{}/", role())), "{log}");
        Ok(())
    };
    until("credentials of the restarted pod", Duration::from_mins(1), exchanged).await.unwrap();
    let table = lab.kubectl(&["get", "pib", "-n=helm"]).await.unwrap();
    assert_eq!(cell(&table, "MISSING"), "", "{table}");
    let generation = "-o=jsonpath={.metadata.generation}";
    let restarts = lab.kubectl(&["get", "deployment/app", "-n=helm", generation]).await.unwrap();
    assert_eq!(restarts, "2", "it is restarted once");
    lab.upgrade(&["operator.restartMissing=false"]).await.unwrap();

    the_namespace_ends(lab).await;
    let grants: Value = serde_json::from_str(&grants).unwrap();
    patch_issuer(lab, &json!([{"op": "replace", "path": "/spec/grants", "value": grants}])).await;
}

/// Its controller deletes the objects in an order of its own.
async fn the_namespace_ends(lab: &Lab) {
    let deletions = async || {
        let calls = lab.calls().await.unwrap();
        let is_it = |call: &&aws_sim_api::Call| call.action == "DeleteRole" && call.status == 200;
        calls.iter().filter(is_it).filter(|call| call.resource.contains(&role())).count()
    };
    assert_eq!(deletions().await, 0);
    lab.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=2m"]).await.unwrap();
    assert!(!lab.state().await.unwrap().roles.contains_key(&role()), "the role is left");
    assert_eq!(deletions().await, 1);
}

fn role() -> String {
    role_name("homelab", NAMESPACE, "app")
}

/// Name and `AWS_ROLE_ARN` of all its pods.
async fn pods(lab: &Lab) -> Vec<(String, String)> {
    let row = r#"{range .items[*]}{.metadata.name}={.spec.containers[0].env[?(@.name=="AWS_ROLE_ARN")].value}{"\n"}{end}"#;
    let all = lab.kubectl(&["get", "pods", "-n=helm", &format!("-o=jsonpath={row}")]).await.unwrap();
    all.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

/// The cell of a table with one row: what is below the heading of its column.
fn cell(table: &str, column: &str) -> String {
    let (headings, row) = table.split_once('\n').unwrap();
    let begin = headings.find(column).unwrap();
    row.chars().skip(begin).take_while(|c| !c.is_whitespace()).collect()
}

async fn patch_issuer(lab: &Lab, operations: &Value) {
    let patch = format!("--patch={operations}");
    lab.kubectl(&["patch", "oidcissuer/default", "--type=json", &patch]).await.unwrap();
}

fn workload() -> Value {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": NAMESPACE}});
    let container = json!({
        "name": "app", "image": "podidentity.local/workload:demo", "imagePullPolicy": "Never", "args": ["exchange"],
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": NAMESPACE},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {"serviceAccountName": "app", "terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [account, deployment]})
}

fn binding() -> Value {
    let policy = format!("arn:aws:iam::{ACCOUNT}:policy/vault-storage");
    json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding",
        "metadata": {"name": "app", "namespace": NAMESPACE},
        "spec": {"serviceAccountName": "app", "role": {"policyARNs": [policy]}},
    })
}
