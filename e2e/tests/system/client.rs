//! A Kubernetes client inside the node's network: a call is a request, and no process is started. With it, tests create pods as
//! dry runs: the API server calls the webhook as for any other pod, and stores nothing.

use std::path::PathBuf;
use std::thread;

use e2e::lab::Lab;
use http::Request;
use http::header::CONTENT_TYPE;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;

/// The result of the creation of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// The pod was admitted with its identity.
    Identity,
    /// The pod was admitted without identity.
    NoIdentity,
    /// Admission refused the pod: the webhook denied it, or the call of the webhook failed in an entry that fails closed. The
    /// API server's message.
    Refused(String),
    /// Any other failure.
    Failed(String),
}

/// Runs `work` with the administrator's client in the node's network namespace. It runs on separate threads, because a thread
/// that has entered the namespace cannot leave it.
pub async fn inside<T, F>(lab: &Lab, work: impl FnOnce(Client) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let kubeconfig = lab.node.kubeconfig();
    let network = lab.node.network().unwrap();
    let (sender, ended) = oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        let _sender = sender; // dropped when the thread ends, also by a panic
        network.join().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { work(client_of(kubeconfig).await).await })
    });
    let _ = ended.await;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A client with the user of a kubeconfig, for use [`inside`].
pub async fn client_of(kubeconfig: PathBuf) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    // Tests must see failures, so there are no retries.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// A pod to create, serialised once.
#[derive(Debug, Clone)]
pub struct PodDraft {
    path: String,
    body: Vec<u8>,
}

impl PodDraft {
    /// `pod` is its manifest.
    pub fn new(namespace: &str, pod: &Value) -> Self {
        Self { path: format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"), body: pod.to_string().into() }
    }

    /// Creates it as a dry run. Only a few fields of the response are parsed, since the load creates many pods.
    pub async fn create(&self, client: &Client) -> Creation {
        let request = Request::post(&self.path).header(CONTENT_TYPE, "application/json");
        match client.request::<Pod>(request.body(self.body.clone()).unwrap()).await {
            Ok(pod) if pod.has_identity() => Creation::Identity,
            Ok(_) => Creation::NoIdentity,
            Err(kube::Error::Api(status)) if by_webhook(&status.message) => Creation::Refused(status.message),
            Err(error) => Creation::Failed(format!("{error:?}")),
        }
    }
}

/// The fields of a pod that show whether it has an identity.
#[derive(Debug, Deserialize)]
pub struct Pod {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Spec {
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Container {
    #[serde(default)]
    env: Vec<Variable>,
}

#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
}

impl Pod {
    /// Whether its first container has the environment variable with the role.
    pub fn has_identity(&self) -> bool {
        let first = self.spec.containers.first();
        first.is_some_and(|container| container.env.iter().any(|variable| variable.name == "AWS_ROLE_ARN"))
    }
}

/// Whether the message is one of the two with which the API server reports a refusal by, or a failed call of, a webhook.
fn by_webhook(message: &str) -> bool {
    message.contains("admission webhook") && message.contains("denied the request")
        || message.contains("failed calling webhook")
}
