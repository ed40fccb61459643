//! The environment of every test: one control plane with the project's kinds and the chart's webhook configuration, and in it
//! the test's own namespaces.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cluster::{ControlPlane, Options, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::api::{Api, accounts, bindings, pods};
use crate::pki::{Authority, Pair};

/// How long a condition may take to come true; far longer than it does.
const LIMIT: Duration = Duration::from_mins(1);
/// The label that leads a namespace's pods to the webhook of its test, and to no other.
pub const TEST: &str = "test";
/// The common name that the API server shows to webhooks which ask for one.
pub const CALLER: &str = "kube-apiserver";
/// The role of a test's binding.
pub const ROLE: &str = "arn:aws:iam::111122223333:role/app";

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static TURN: RwLock<()> = RwLock::const_new(());

/// The control plane that all tests share.
pub struct Cluster {
    control_plane: ControlPlane,
    state: PathBuf,
    /// The CA of the API server's client certificate.
    pub callers: Authority,
    /// `MutatingWebhookConfiguration`, as the chart renders it.
    configuration: Value,
}

/// A test's world.
pub struct World {
    /// The test's name; its namespaces begin with it.
    pub name: &'static str,
    pub api: Api,
    pub cluster: &'static Cluster,
    /// For its files.
    pub folder: TempDir,
    _turn: Turn,
}

#[expect(dead_code, reason = "held until it is dropped")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl World {
    /// For a test that runs in parallel with others.
    pub async fn new(name: &'static str) -> Self {
        Self::with(name, Turn::Shared(TURN.read().await)).await
    }

    /// For a test that runs while no other does: it changes what exists once in a cluster, or measures time.
    pub async fn alone(name: &'static str) -> Self {
        Self::with(name, Turn::Alone(TURN.write().await)).await
    }

    async fn with(name: &'static str, turn: Turn) -> Self {
        let cluster = CLUSTER.get_or_init(Cluster::start).await;
        let api = Api::new(cluster.kubeconfig()).await;
        let folder = tempfile::tempdir().unwrap();
        let world = Self { name, api, cluster, folder, _turn: turn };
        world.namespace(name, json!({})).await;
        world
    }

    /// Creates a namespace whose pods are sent to this test's webhook.
    pub async fn namespace(&self, name: &str, labels: Value) {
        self.api.create("/api/v1/namespaces", &self.namespace_object(name, labels)).await.unwrap();
    }

    /// The same, not yet created.
    pub fn namespace_object(&self, name: &str, mut labels: Value) -> Value {
        labels[TEST] = self.name.into();
        json!({"metadata": {"name": name, "labels": labels}})
    }

    /// Makes a `ServiceAccount`.
    pub async fn account(&self, namespace: &str, name: &str) {
        self.api.create(&accounts(namespace), &json!({"metadata": {"name": name}})).await.unwrap();
    }

    /// Waits until pods of the `ServiceAccount` `app` get their identity.
    pub async fn identified(&self, namespace: &str) {
        eventually("a pod has its identity", || async {
            let list = pods(namespace);
            let made = self.api.create_dry(&list, &conforming(pod("app"))).await;
            let made = made.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
            anyhow::ensure!(variable(&made, "AWS_ROLE_ARN").as_deref() == Some(ROLE), "{made}");
            Ok(())
        })
        .await;
    }

    /// Creates a binding of that name for the `ServiceAccount` of that name; its identity depends on no issuer.
    pub async fn bind(&self, namespace: &str, name: &str) {
        let binding = json!({
            "apiVersion": "podidentity.dev/v1alpha1",
            "kind": "PodIdentityBinding",
            "metadata": {"name": name},
            "spec": {
                "serviceAccountName": name, "roleARN": ROLE, "region": "eu-central-1", "audience": "sts.amazonaws.com",
            },
        });
        self.api.create(&bindings(namespace), &binding).await.unwrap();
    }

    /// Makes the chart's three entries send the pods of this test's namespaces to this address.
    pub async fn configure(&self, address: SocketAddr, bundle: &str) {
        let mut configuration = self.cluster.configuration.clone();
        configuration["metadata"] = json!({"name": self.name});
        for entry in configuration["webhooks"].as_array_mut().unwrap() {
            let path = entry["clientConfig"]["service"]["path"].as_str().unwrap();
            let url = format!("https://{address}{path}");
            assert_eq!(entry["timeoutSeconds"], 2, "an API server does not wait longer for us");
            // These tests ask what is answered, not how soon: a machine with other work must not make them fail.
            entry["timeoutSeconds"] = json!(10);
            entry["clientConfig"] = json!({"url": url, "caBundle": BASE64_STANDARD.encode(bundle)});
            entry["namespaceSelector"]["matchLabels"][TEST] = self.name.into();
        }
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        self.api.create(path, &configuration).await.unwrap();
    }

    /// The same, and returns once that is in force: whether the API server reaches the webhook or not, a pod that requires an
    /// identity and has none is refused.
    pub async fn configured(&self, address: SocketAddr, bundle: &str) {
        self.configure(address, bundle).await;
        eventually("the webhook configuration is in force", || async {
            match self.api.create_dry(&pods(self.name), &required(pod("default"))).await {
                Err(refusal) if refusal.message.contains("required-pods.podidentity.dev") => Ok(()),
                other => anyhow::bail!("a pod that must be refused: {other:?}"),
            }
        })
        .await;
    }
}

/// The smallest pod of a `ServiceAccount`.
pub fn pod(account: &str) -> Value {
    json!({
        "metadata": {"generateName": "pod-", "labels": {}},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
    })
}

/// The same pod, which requires its identity.
pub fn required(mut pod: Value) -> Value {
    pod["metadata"]["labels"][crds::names::label::REQUIRE] = json!("true");
    pod
}

/// The pod, conforming to the Pod Security Standard `restricted`.
fn conforming(mut pod: Value) -> Value {
    pod["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    pod["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    pod
}

/// The value of an environment variable of a pod's first container.
pub fn variable(pod: &Value, name: &str) -> Option<String> {
    let env = pod["spec"]["containers"][0]["env"].as_array()?;
    let found = env.iter().find(|variable| variable["name"] == name)?;
    Some(found["value"].as_str()?.to_owned())
}

impl Cluster {
    async fn start() -> Self {
        let state = tempfile::Builder::new().prefix("podidentity-").tempdir().unwrap().keep();
        let write = |name: &str, content: String| {
            let path = state.join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let callers = Authority::new("callers");
        let Pair { certificate, key } = callers.client(CALLER);
        let user = json!({
            "client-certificate": write("caller.crt", certificate),
            "client-key": write("caller.key", key),
        });
        // "*": for every host and port of a webhook.
        let kubeconfig =
            json!({"apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": user}]});
        let webhooks = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": write("callers.kubeconfig", kubeconfig.to_string()),
        });
        let admission = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": [{"name": "MutatingAdmissionWebhook", "configuration": webhooks}],
        });
        let recorded = json!([
            {"group": "", "resources": ["namespaces", "pods", "serviceaccounts"]},
            {"group": "apps", "resources": ["deployments"]},
            {"group": "podidentity.dev", "resources": ["podidentitybindings", "oidcissuers", "oidcissuers/status"]},
        ]);
        let audit = json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "Metadata", "verbs": ["create", "patch", "delete"], "resources": recorded},
                {"level": "None"},
            ],
        });
        let flag = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
        let flags = vec![
            flag("admission-control-config-file", write("admission.json", admission.to_string())),
            flag("audit-policy-file", write("audit.json", audit.to_string())),
            flag("audit-log-path", state.join("audit.log")),
        ];
        let options = Options { flags, state: Some(state.clone()), controllers: true, ..Options::default() };
        let control_plane = ControlPlane::start(&options).await.unwrap();
        for (file, text) in crds::generate::manifests() {
            let path = write(file.rsplit('/').next().unwrap(), text);
            run(control_plane.kubectl(&["apply", "--server-side", "-f", &path.display().to_string()]));
        }
        run(control_plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]));
        let configuration = configuration(&control_plane, &state);
        Self { control_plane, state, callers, configuration }
    }

    pub fn kubeconfig(&self) -> &Path {
        self.control_plane.kubeconfig()
    }

    /// The API server's record of calls for pods and for the project's kinds, oldest first.
    pub fn audit(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.state.join("audit.log")).unwrap();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn configuration(control_plane: &ControlPlane, home: &Path) -> Value {
    let mut helm = Command::new(control_plane.tools().path("helm"));
    helm.args(["template", "podidentity", "--show-only=templates/webhook.yaml"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/pod-identity-operator"))
        .args(["--namespace=podidentity-system", "--set=aws.region=eu-central-1"])
        .arg("--set=aws.roleARN=arn:aws:iam::111122223333:role/podidentity-system/podidentity-operator.homelab")
        .args(["--set=operator.image.repository=operator", "--set=webhook.image.repository=webhook"])
        // helm keeps its own files in HOME.
        .env("HOME", home);
    let rendered = run(helm);
    let found =
        rendered.split("\n---\n").find(|text| text.contains("\nkind: MutatingWebhookConfiguration\n"));
    serde_saphyr::from_str(found.expect("the chart has a webhook configuration")).unwrap()
}

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for a condition and fails the test if it does not come true.
pub async fn eventually<F: Future<Output = anyhow::Result<()>>>(what: &str, holds: impl FnMut() -> F) {
    if let Err(error) = until(what, LIMIT, holds).await {
        panic!("{error:#}");
    }
}
