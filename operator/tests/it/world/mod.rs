//! The environment of every test: exclusive use of the one API server, namespaces and an AWS account of its own.

mod aws;
mod cluster_objects;
mod gate;
mod held;
mod operator_process;
mod replica;
mod sites;
mod subcommands;
mod watches;

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sim::{Settings, Sim};
use cluster::{ControlPlane, Options};
use crds::names::OPERATOR_SERVICE_ACCOUNT;
use crds::{OidcIssuer, OidcIssuerSpec, PodIdentityBinding};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Config, Resource, ResourceExt};
use operator::aws::limit::Limits;
use operator::cli::WebhookCertificates;
use operator::installation::NamedIssuer;
use operator::metrics::Metrics;
use operator::pods;
use operator::timings::Timings;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

pub use self::aws::{counts, exchange_token, token, token_for, try_exchange_token};
pub use self::cluster_objects::{apply, has_finalizer};
pub use self::gate::{Reach, Sent};
pub use self::held::{BINDINGS, Hold, ISSUERS, NAMESPACES, Side};
use self::operator_process::RunningOperator;
pub use self::replica::Replica;
pub use self::sites::{Site, Sites};
pub use self::subcommands::Flags;

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "eu-central-1";
pub const BUCKET: &str = "oidc-111122223333-eu-central-1-an";
pub const CLUSTER: &str = "homelab";
/// A managed policy that exists.
pub const STORAGE: &str = "arn:aws:iam::111122223333:policy/storage";
/// Another one.
pub const QUEUE: &str = "arn:aws:iam::111122223333:policy/queue";
/// How long to wait for a condition; far longer than it takes.
const LIMIT: Duration = Duration::from_secs(15);
/// The variable with the lag, in milliseconds, under which IAM's reads are answered from the operator's start on:
/// `PODIDENTITY_LAG=200 cargo test -p operator --test it`. The waits for settled reads are a tenth of their defaults or less,
/// so that 200 ms stand for 2 s. Tests that count calls are for an IAM without lag.
const LAG: &str = "PODIDENTITY_LAG";

fn lag_milliseconds() -> Option<u64> {
    std::env::var(LAG).ok()?.parse().ok()
}

/// Locked by the test that runs: all tests use cluster-scoped objects of the same names.
static EXCLUSIVE: Mutex<()> = Mutex::const_new(());
static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
/// For names that no other test or replica has.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);

/// A test's environment.
pub struct World {
    /// The namespace of bindings.
    pub namespace: String,
    /// The operator's namespace.
    pub system: String,
    pub client: Client,
    /// How `client` reaches the API server.
    pub config: Config,
    pub sim: Sim,
    pub timings: Timings,
    /// Metrics of the operator that was started last.
    pub metrics: Arc<Metrics>,
    /// What makes the webhook's certificates.
    pub webhook_certificates: WebhookCertificates,
    /// How many calls of AWS the operator makes; none is refused by default.
    pub limits: Limits,
    /// How pods are looked at.
    pub pods: pods::Settings,
    /// Public hosts beside AWS's own.
    pub sites: Sites,
    /// The operator's writes to the cluster.
    pub hold: Hold,
    operator: Option<RunningOperator>,
    _exclusive: MutexGuard<'static, ()>,
}

async fn control_plane() -> ControlPlane {
    with_crds(ControlPlane::start(&Options::default()).await.unwrap())
}

/// A control plane with our two CRDs.
pub fn with_crds(cluster: ControlPlane) -> ControlPlane {
    if std::env::var_os("RUST_LOG").is_some() {
        process::logs::LogFormat::Text.install();
    }
    for file in ["oidcissuers.yaml", "podidentitybindings.yaml"] {
        let path =
            format!("{}/../charts/pod-identity-operator/crd-manifests/{file}", env!("CARGO_MANIFEST_DIR"));
        let applied = cluster.kubectl(&["apply", "--server-side", "-f", &path]).output().unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    }
    let established =
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).output().unwrap();
    assert!(established.status.success(), "{}", String::from_utf8_lossy(&established.stderr));
    cluster
}

impl World {
    /// An empty AWS account, an API server without our objects, and new namespaces with the `ServiceAccount` `app`.
    pub async fn new() -> Self {
        let exclusive = EXCLUSIVE.lock().await;
        Self::of(CONTROL_PLANE.get_or_init(control_plane).await, exclusive).await
    }

    /// The same on a control plane of the test's own, whose API servers may be restarted. Nothing starts the operator again here, as
    /// a kubelet does: its lease is longer than a restart.
    pub async fn on(cluster: &ControlPlane) -> Self {
        let mut world = Self::of(cluster, EXCLUSIVE.lock().await).await;
        world.timings.lease_duration = Duration::from_mins(1);
        world
    }

    async fn of(cluster: &ControlPlane, exclusive: MutexGuard<'static, ()>) -> Self {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config.clone()).unwrap();
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let sim = Sim::new(Settings::default());
        for policy in ["storage", "queue"] {
            sim.put_managed_policy(policy, read_only_policy());
        }
        let world = Self {
            namespace: format!("t{number}"),
            system: format!("t{number}-system"),
            client,
            config,
            sim,
            timings: Timings {
                // Retries are fast; periodic checks keep their periods.
                missing_period: Duration::from_millis(300),
                backoff_min: Duration::from_millis(50),
                backoff_max: Duration::from_millis(200),
                not_yet_retry: Duration::from_millis(50),
                // As by default, the one is a quarter of the other.
                role_settling: Duration::from_millis(800),
                role_confirmation: Duration::from_millis(200),
                ..Timings::default()
            },
            metrics: Arc::default(),
            webhook_certificates: WebhookCertificates::Operator,
            limits: Limits::default(),
            pods: pods::Settings::default(),
            sites: Sites::default(),
            hold: Hold::default(),
            operator: None,
            _exclusive: exclusive,
        };
        world.delete_all::<OidcIssuer>().await;
        world.delete_all::<PodIdentityBinding>().await;
        for name in [&world.namespace, &world.system] {
            world.create_cluster_scoped::<Namespace>(json!({"metadata": {"name": name}})).await;
        }
        world.service_account(&world.namespace, "app").await;
        world.service_account(&world.system, OPERATOR_SERVICE_ACCOUNT).await;
        world
    }

    /// [`Self::new`] after `bootstrap`, with a grant for its namespace.
    pub async fn bootstrapped() -> Self {
        let world = Self::new().await;
        world.bootstrap(&world.spec()).await.unwrap();
        world
    }

    /// [`Self::bootstrapped`] with a running operator and a Ready issuer.
    pub async fn ready() -> Self {
        Self::ready_with(|_| {}).await
    }

    /// [`Self::ready`] with other timings.
    pub async fn ready_with(change: impl FnOnce(&mut Timings)) -> Self {
        let mut world = Self::bootstrapped().await;
        change(&mut world.timings);
        world.apply_issuer(&world.spec()).await;
        world.start().await;
        world.issuer_is("Ready").await;
        world
    }

    /// Deletes all issuers and bindings, in spite of their finalizers.
    pub async fn delete_objects(&self) {
        self.delete_all::<PodIdentityBinding>().await;
        self.delete_all::<OidcIssuer>().await;
    }

    /// Deletes the objects of earlier tests, in spite of finalizers.
    async fn delete_all<K>(&self)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        // A test may leave what cannot be decoded otherwise.
        let all: Api<PartialObjectMeta<K>> = Api::all(process::responses::decodable(self.client.clone()));
        for object in all.list(&ListParams::default()).await.unwrap() {
            let path = format!("{}/{}", K::url_path(&(), object.namespace().as_deref()), object.name_any());
            let no_finalizers = serde_json::to_vec(&json!({"metadata": {"finalizers": null}})).unwrap();
            let request = http::Request::patch(&path).header("content-type", "application/merge-patch+json");
            self.client.request_text(request.body(no_finalizers).unwrap()).await.unwrap();
            let request = http::Request::delete(&path).body(Vec::new()).unwrap();
            match self.client.request_text(request).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The smallest issuer, with a grant of both policies for the test's namespace.
    pub fn spec(&self) -> OidcIssuerSpec {
        serde_json::from_value(json!({
            "clusterName": CLUSTER,
            "s3": {"bucket": BUCKET, "region": REGION},
            "grants": [{
                "name": "tests",
                "namespaces": {"names": [self.namespace]},
                "policyARNs": [STORAGE, QUEUE],
            }],
        }))
        .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(operator) = &self.operator {
            operator.abort();
        }
        if !std::thread::panicking() {
            self.assert_nothing_denied();
        }
    }
}

/// The file with which a process reaches the API server that a [`World`] has started.
pub fn kubeconfig() -> &'static Path {
    CONTROL_PLANE.get().unwrap().kubeconfig()
}

/// kubectl, as a user runs it, for that API server.
pub fn kubectl(arguments: &[&str]) -> tokio::process::Command {
    CONTROL_PLANE.get().unwrap().kubectl(arguments).into()
}

/// An issuer, as a file contains it.
pub fn issuer(name: &str, spec: &OidcIssuerSpec) -> NamedIssuer {
    NamedIssuer { name: name.into(), spec: spec.clone() }
}

/// The document of a managed policy.
pub fn read_only_policy() -> Value {
    json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"},
    ]})
}
