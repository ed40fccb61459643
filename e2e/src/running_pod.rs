//! A pod that runs while the API server is restarted with other flags about tokens.

use anyhow::{Context, ensure};
use cluster::PAUSE;
use serde_json::json;

use crate::lab::Lab;

const NAME: &str = "running-before";
const NAMESPACE: &str = "--namespace=default";

/// The pod, with what was read of it and of its node when it had started.
pub struct RunningPod<'a> {
    lab: &'a Lab,
    state: String,
    /// Its token for the API server.
    token: String,
}

impl<'a> RunningPod<'a> {
    /// Starts it, and reads its token.
    pub async fn start(lab: &'a Lab) -> anyhow::Result<Self> {
        lab.apply(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": NAME, "namespace": "default"},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "pause", "image": PAUSE, "imagePullPolicy": "Never"}],
            },
        }))
        .await?;
        let ready = ["wait", "--for=condition=Ready", "pod", NAME, NAMESPACE, "--timeout=1m"];
        lab.kubectl(&ready).await?;
        let file = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let token = lab.kubectl(&["exec", NAME, NAMESPACE, "--", "/busybox", "cat", file]).await?;
        let pod = Self { lab, state: state(lab).await?, token };
        ensure!(pod.has_accepted_token().await?, "the API server does not accept the pod's token");
        Ok(pod)
    }

    /// An error unless it runs on without a restart, its node was Ready all the time, and the API server accepts the token
    /// that the pod had from its start.
    pub async fn ensure_unaffected(&self) -> anyhow::Result<()> {
        let now = state(self.lab).await?;
        ensure!(now == self.state, "it was {:?}, and is {now:?}", self.state);
        ensure!(self.has_accepted_token().await?, "the API server refuses its token");
        Ok(())
    }

    /// Deletes it.
    pub async fn delete(self) -> anyhow::Result<()> {
        self.lab.kubectl(&["delete", "pod", NAME, NAMESPACE]).await.map(|_| ())
    }

    /// As the API server authenticates a request with it: one of its audiences must be the API server's.
    async fn has_accepted_token(&self) -> anyhow::Result<bool> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": self.token},
        });
        let file = self.lab.node.state().join("review.json");
        std::fs::write(&file, review.to_string())?;
        let path = "--output=jsonpath={.status.authenticated}";
        let reviewed = self.lab.kubectl(&["create", "--filename", &file.display().to_string(), path]).await;
        std::fs::remove_file(file)?;
        Ok(reviewed? == "true")
    }
}

/// What does not change while pod and node go on: the pod's uid, its container and whether that was restarted, and the node's
/// condition Ready with the time of its last change.
async fn state(lab: &Lab) -> anyhow::Result<String> {
    let container = ".status.containerStatuses[0]";
    let path = format!(
        "-o=jsonpath={{.metadata.uid}} {{{container}.containerID}} {{{container}.ready}} {{{container}.restartCount}}"
    );
    let pod = lab.kubectl(&["get", "pod", NAME, NAMESPACE, &path]).await.context("the pod")?;
    let ready = r#".status.conditions[?(@.type=="Ready")]"#;
    let path = format!("-o=jsonpath={{{ready}.status}} {{{ready}.lastTransitionTime}}");
    let nodes = lab.kubectl(&["get", "nodes", &path]).await?;
    Ok(format!("{pod} {nodes}"))
}
