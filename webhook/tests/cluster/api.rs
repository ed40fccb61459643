//! The API server, as JSON in and JSON out: what a typed object does not know stays.

use std::path::Path;

use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

pub fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

pub fn accounts(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/serviceaccounts")
}

pub fn bindings(namespace: &str) -> String {
    format!("/apis/podidentity.dev/v1alpha1/namespaces/{namespace}/podidentitybindings")
}

/// The way to the API server, as administrator.
#[derive(Clone)]
pub struct Api(Client);

/// A call that the API server has refused.
#[derive(Debug)]
pub struct Refusal {
    pub code: u16,
    pub message: String,
}

impl Api {
    pub async fn new(kubeconfig: &Path) -> Self {
        let file = Kubeconfig::read_from(kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        Self(Client::try_from(config).unwrap())
    }

    pub async fn create(&self, list: &str, object: &Value) -> Result<Value, Refusal> {
        self.send(Method::POST, list, Some(object)).await
    }

    /// A POST of any text, whose answer need not be decodable here.
    pub async fn create_text(&self, list: &str, object: String) {
        let request = Request::post(list).header("content-type", "application/json");
        self.0.request_text(request.body(object.into_bytes()).unwrap()).await.unwrap();
    }

    /// As if: admission and validation run, nothing is kept.
    pub async fn create_dry(&self, list: &str, object: &Value) -> Result<Value, Refusal> {
        self.send(Method::POST, &format!("{list}?dryRun=All"), Some(object)).await
    }

    pub async fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.send(Method::GET, path, None).await
    }

    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, Refusal> {
        self.send(Method::PUT, path, Some(object)).await
    }

    /// A merge patch.
    pub async fn merge(&self, path: &str, changes: &Value) -> Result<Value, Refusal> {
        self.send(Method::PATCH, path, Some(changes)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, Refusal> {
        self.send(Method::DELETE, path, None).await
    }

    /// The API server's own metrics.
    pub async fn metrics(&self) -> String {
        self.0.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refusal> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        match self.0.request(request.body(body).unwrap()).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) => {
                Err(Refusal { code: status.code, message: status.message.clone() })
            }
            Err(error) => panic!("{path}: {error}"),
        }
    }
}
