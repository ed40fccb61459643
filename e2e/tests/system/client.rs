//! An API client inside the node's network: a call is a request, not a process. And the one thing most tests do with it:
//! a pod, created as a dry run, which passes admission as any other and leaves nothing behind.

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

/// What became of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// It was admitted with its identity.
    Identity,
    /// It was admitted without one.
    NoIdentity,
    /// Admission refused it: the webhook said no, or could not be asked and must be. This is the API server's message.
    Refused(String),
    /// Anything else that went wrong.
    Failed(String),
}

/// Does something as the administrator. It runs on threads of its own, because a thread that has joined the node's network
/// does not come back.
pub async fn inside<T, F>(lab: &Lab, work: impl FnOnce(Client) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let kubeconfig = lab.node.kubeconfig();
    let network = lab.node.network().unwrap();
    let (ends, ended) = oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        let _ends = ends; // dropped with the thread, whichever way it goes
        network.join().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { work(client_of(kubeconfig).await).await })
    });
    let _ = ended.await;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The client of a kubeconfig's user, for use [`inside`].
pub async fn client_of(kubeconfig: PathBuf) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    // What failed is to be seen, not tried again.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// A pod to create, written once.
#[derive(Debug, Clone)]
pub struct Draft {
    path: String,
    body: Vec<u8>,
}

impl Draft {
    /// Of a pod in its manifest's form.
    pub fn new(namespace: &str, pod: &Value) -> Self {
        Self { path: format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"), body: pod.to_string().into() }
    }

    /// Creates it as a dry run. Only what is looked at of the answer is read: the load's pods are many.
    pub async fn create(&self, client: &Client) -> Became {
        let request = Request::post(&self.path).header(CONTENT_TYPE, "application/json");
        match client.request::<Pod>(request.body(self.body.clone()).unwrap()).await {
            Ok(made) if made.has_identity() => Became::Identity,
            Ok(_) => Became::NoIdentity,
            Err(kube::Error::Api(status)) if by_webhook(&status.message) => Became::Refused(status.message),
            Err(error) => Became::Failed(format!("{error:?}")),
        }
    }
}

/// As much of a pod as tells whether it has its identity.
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
    /// Whether its first container knows its role.
    pub fn has_identity(&self) -> bool {
        let first = self.spec.containers.first();
        first.is_some_and(|container| container.env.iter().any(|variable| variable.name == "AWS_ROLE_ARN"))
    }
}

/// Whether an admission webhook is why: the two ways the API server says so.
fn by_webhook(message: &str) -> bool {
    message.contains("admission webhook") && message.contains("denied the request")
        || message.contains("failed calling webhook")
}
