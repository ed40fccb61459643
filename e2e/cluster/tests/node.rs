//! The node tier: a real pod runs, and afterwards nothing is left. Fails, in one line, where root or namespaces are
//! missing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cluster::image::Image;
use cluster::{Node, NodeOptions, until};

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

#[tokio::test]
async fn a_real_pod_runs_and_nothing_is_left() {
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
    let pod = folder.path().join("pod.json");
    let spec = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
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
    std::fs::write(&pod, spec.to_string()).unwrap();
    node.kubectl(&["apply", "-f", pod.to_str().unwrap()]).await.unwrap();
    let done = || async {
        let phase = node.kubectl(&["get", "pod", "probe", "-o", "jsonpath={.status.phase}"]).await?;
        (phase == "Succeeded").then_some(()).ok_or_else(|| anyhow::anyhow!("its phase is {phase}"))
    };
    until("the pod to succeed", Duration::from_mins(1), done).await.unwrap();
    let token = node.kubectl(&["logs", "probe"]).await.unwrap();
    assert_eq!(token.split('.').count(), 3, "a projected token: {token}");
    node.stop().await.unwrap();
    assert_eq!(traces(&state, &others), Vec::<String>::new());
}
