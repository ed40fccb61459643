//! The node tier: real pods run, the API server is restarted, and afterwards nothing is left. Fails, in one line, where root or namespaces are
//! missing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cluster::image::Image;
use cluster::{Addresses, KeyType, Node, NodeOptions, Tokens, until};
use data_encoding::BASE64URL_NOPAD;

/// Cgroups of nodes, of other folders' and earlier runs' too: they outlive a run that was killed with all its helpers.
fn cgroups() -> Vec<String> {
    let groups = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", "podidentity-*"])
        .output()
        .unwrap();
    String::from_utf8(groups.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What there is of this node; `others` are the cgroups that were there before it.
fn traces(state: &Path, others: &[String]) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found: Vec<String> =
        mounts.lines().filter(|line| line.contains(&*state.to_string_lossy())).map(str::to_owned).collect();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*state.to_string_lossy()) {
            found.push(line);
        }
    }
    found.extend(cgroups().into_iter().filter(|group| !others.contains(group)));
    found.extend(state.exists().then(|| state.display().to_string()));
    found
}

/// Runs a pod to its end, and returns the projected token that it had.
async fn token_of_a_pod(node: &Node, folder: &Path, name: &str) -> String {
    let file = folder.join("pod.json");
    let spec = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "c", "image": "podidentity.local/box:1", "imagePullPolicy": "Never",
                "command": ["/busybox", "sh", "-c", "/busybox cat /token/token"],
                "volumeMounts": [{"name": "t", "mountPath": "/token"}],
            }],
            "volumes": [{"name": "t", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "audience": "sts.amazonaws.com"}}]}}],
        },
    });
    std::fs::write(&file, spec.to_string()).unwrap();
    node.kubectl(&["apply", "-f", file.to_str().unwrap()]).await.unwrap();
    let done = || async {
        let phase = node.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]).await?;
        (phase == "Succeeded").then_some(()).ok_or_else(|| anyhow::anyhow!("its phase is {phase}"))
    };
    until("the pod to succeed", Duration::from_mins(1), done).await.unwrap();
    node.kubectl(&["logs", name]).await.unwrap()
}

fn issuer_of(token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "a projected token: {token}");
    let claims = BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap();
    serde_json::from_slice::<serde_json::Value>(&claims).unwrap()["iss"].as_str().unwrap().to_owned()
}

/// The address in the `EndpointSlice` of Service default/kubernetes.
async fn endpoint(node: &Node) -> String {
    let path = "-o=jsonpath={.items[*].endpoints[*].addresses[*]}";
    node.kubectl(&["get", "endpointslices", "-l=kubernetes.io/service-name=kubernetes", path]).await.unwrap()
}

/// How many processes of kube-apiserver the node has; `nsenter`, which started it, is not one.
fn api_servers(state: &Path) -> usize {
    let traces = traces(state, &[]);
    traces.iter().filter(|t| t.split(' ').next().is_some_and(|p| p.ends_with("/kube-apiserver"))).count()
}

#[tokio::test]
async fn real_pods_run_also_after_a_restart_of_the_api_server_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("node");
    let others = cgroups();
    let node = Node::start(&NodeOptions::new(state.clone()), &|line| eprintln!("{line}")).await.unwrap();
    assert!(
        traces(&state, &others).iter().any(|trace| trace.starts_with("/sys/fs/cgroup")),
        "cgroups are found"
    );
    assert!(traces(&state, &others).iter().any(|trace| trace.contains("kubelet")), "processes are found");
    let image = Image {
        name: "podidentity.local/box:1",
        program: Path::new("/bin/busybox"),
        arguments: &[],
        files: vec![],
    };
    node.load(&image).await.unwrap();
    assert_eq!(issuer_of(&token_of_a_pod(&node, folder.path(), "before").await), Tokens::KUBEADM_ISSUER);
    assert_eq!(endpoint(&node).await, Addresses::API_SERVER);

    let new = "https://issuer.example.com/one";
    node.signing_key("new", KeyType::EcP256).unwrap();
    let tokens = Tokens {
        issuers: vec![new.into(), Tokens::KUBEADM_ISSUER.into()],
        api_audiences: vec![Tokens::KUBEADM_ISSUER.into()],
        signing_key: "new".into(),
        accepted_keys: vec!["sa".into()],
    };
    node.restart_api_server(&tokens).await.unwrap();
    assert_eq!(api_servers(&state), 1);
    assert_eq!(issuer_of(&token_of_a_pod(&node, folder.path(), "after").await), new);
    // Another program that finds the node by its folder only.
    let attached = Node::attach(&state).unwrap();
    attached.restart_api_server(&tokens).await.unwrap();
    assert_eq!(api_servers(&state), 1);
    assert_eq!(endpoint(&node).await, Addresses::API_SERVER);
    let jwks = node.kubectl(&["get", "--raw", "/openid/v1/jwks"]).await.unwrap();
    assert_eq!(jwks.matches("\"kid\"").count(), 2, "{jwks}");
    node.stop().await.unwrap();
    assert_eq!(traces(&state, &others), Vec::<String>::new());
}
