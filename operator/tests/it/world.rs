//! What every test stands on: a turn on the one API server, namespaces of its own, an account of its own.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sim::{Call, Settings, Sim, sdk};
use cluster::{ControlPlane, Options};
use crds::condition::{ConditionType, find};
use crds::names::{self, FINALIZER, OPERATOR_SERVICE_ACCOUNT};
use crds::{OidcIssuer, OidcIssuerSpec, PodIdentityBinding, Reason};
use futures::FutureExt;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config, Resource, ResourceExt};
use operator::aws::accounts::Accounts;
use operator::aws::public::PublicReader;
use operator::bootstrap::{Bootstrap, issuers_of};
use operator::installation::NamedIssuer;
use operator::metrics::Metrics;
use operator::run::{Ended, Operator};
use operator::teardown::Teardown;
use operator::terminal::Terminal;
use operator::timings::Timings;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{MutexGuard, OnceCell};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "eu-central-1";
pub const BUCKET: &str = "oidc-111122223333-eu-central-1-an";
pub const CLUSTER: &str = "homelab";
/// A managed policy that exists.
pub const STORAGE: &str = "arn:aws:iam::111122223333:policy/storage";
/// Another one.
pub const QUEUE: &str = "arn:aws:iam::111122223333:policy/queue";
/// How long a condition may take to come true; far longer than it does.
const LIMIT: Duration = Duration::from_secs(15);

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A test's world.
pub struct World {
    /// Where bindings are made.
    pub namespace: String,
    /// The operator's own.
    pub system: String,
    pub client: Client,
    pub sim: Sim,
    pub timings: Timings,
    pub metrics: Arc<Metrics>,
    running: Option<Running>,
    _turn: MutexGuard<'static, ()>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<Ended>>,
}

/// What `bootstrap` is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flags {
    pub dry_run: bool,
    pub replace_keys: bool,
}

/// A name for every call: service and operation.
pub type Counts = BTreeMap<String, usize>;

async fn control_plane() -> ControlPlane {
    if std::env::var_os("RUST_LOG").is_some() {
        process::logs::LogFormat::Text.install();
    }
    let cluster = ControlPlane::start(&Options::default()).await.unwrap();
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
    /// An empty account, an API server without our objects, fresh namespaces with the `ServiceAccount` `app`.
    pub async fn new() -> Self {
        let turn = TURN.lock().await;
        let cluster = CONTROL_PLANE.get_or_init(control_plane).await;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let sim = Sim::new(Settings::default());
        for policy in ["storage", "queue"] {
            sim.put_managed_policy(policy, reader());
        }
        let world = Self {
            namespace: format!("t{number}"),
            system: format!("t{number}-system"),
            client,
            sim,
            timings: Timings {
                // What fails is tried again soon; what is looked at from time to time keeps its real period.
                backoff_min: Duration::from_millis(50),
                backoff_max: Duration::from_millis(200),
                not_yet_retry: Duration::from_millis(50),
                ..Timings::default()
            },
            metrics: Arc::default(),
            running: None,
            _turn: turn,
        };
        world.sweep::<OidcIssuer>().await;
        world.sweep::<PodIdentityBinding>().await;
        for name in [&world.namespace, &world.system] {
            world.create_cluster::<Namespace>(json!({"metadata": {"name": name}})).await;
        }
        world.service_account(&world.namespace, "app").await;
        world.service_account(&world.system, OPERATOR_SERVICE_ACCOUNT).await;
        world
    }

    /// A world after `bootstrap`, with a grant for its namespace.
    pub async fn bootstrapped() -> Self {
        let world = Self::new().await;
        world.bootstrap(&world.spec()).await.unwrap();
        world
    }

    /// A world whose issuer is Ready and whose operator runs.
    pub async fn ready() -> Self {
        Self::ready_with(|_| {}).await
    }

    /// The same with other waits and periods.
    pub async fn ready_with(change: impl FnOnce(&mut Timings)) -> Self {
        let mut world = Self::bootstrapped().await;
        change(&mut world.timings);
        world.apply_issuer(&world.spec()).await;
        world.start().await;
        world.issuer_is("Ready").await;
        world
    }

    /// What an earlier test left, finalizers or not.
    async fn sweep<K>(&self)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let all: Api<K> = Api::all(self.client.clone());
        for left in all.list(&ListParams::default()).await.unwrap() {
            let path = format!("{}/{}", K::url_path(&(), left.namespace().as_deref()), left.name_any());
            let unheld = serde_json::to_vec(&json!({"metadata": {"finalizers": null}})).unwrap();
            let request = http::Request::patch(&path).header("content-type", "application/merge-patch+json");
            self.client.request_text(request.body(unheld).unwrap()).await.unwrap();
            let request = http::Request::delete(&path).body(Vec::new()).unwrap();
            match self.client.request_text(request).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The smallest issuer, with a grant of both policies for the world's namespace.
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

    /// AWS with those credentials, over the in-process stand-in.
    async fn aws(&self, credentials: Credentials, metrics: Arc<Metrics>) -> Accounts {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .http_client(sdk::http_client(&self.sim))
            .credentials_provider(credentials)
            // The SDK's own retries, without their long waits.
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(20)))
            .load()
            .await;
        let sim = self.sim.clone();
        let read = move |uri: http::Uri| {
            let sim = sim.clone();
            async move {
                let request = http::Request::get(uri).body(bytes::Bytes::new()).map_err(|e| e.to_string())?;
                let answer = sim.handle(request).await.map_err(|_| "connection lost".to_owned())?;
                Ok((answer.status().as_u16(), answer.into_body().to_vec()))
            }
            .boxed()
        };
        Accounts::new(&config, PublicReader::from_fn(read), metrics, self.timings.identity_refresh)
    }

    /// AWS as the administrator.
    pub async fn administrator(&self) -> Accounts {
        let keys = self.sim.administrator();
        let credentials =
            Credentials::new(keys.access_key_id, keys.secret_access_key, None, None, "administrator");
        self.aws(credentials, Arc::default()).await
    }

    /// What an administrator does once. Returns what it printed.
    pub async fn bootstrap(&self, spec: &OidcIssuerSpec) -> anyhow::Result<String> {
        self.bootstrap_with(spec, Flags::default(), &self.client).await
    }

    pub async fn bootstrap_with(
        &self,
        spec: &OidcIssuerSpec,
        flags: Flags,
        client: &Client,
    ) -> anyhow::Result<String> {
        self.bootstrap_all(&[issuer("default", spec)], flags, client).await
    }

    /// What an administrator does with a file of several issuers.
    pub async fn bootstrap_all(
        &self,
        issuers: &[NamedIssuer],
        Flags { dry_run, replace_keys }: Flags,
        client: &Client,
    ) -> anyhow::Result<String> {
        let accounts = self.administrator().await;
        let (account, public) = (accounts.own(), &accounts.public);
        let printed = Printed::default();
        let bootstrap = Bootstrap { issuers, namespace: &self.system, account, public, client, replace_keys };
        bootstrap.run(dry_run, &mut Terminal::to(Box::new(printed.clone()))).await?;
        Ok(printed.text())
    }

    /// `operator teardown`.
    pub async fn teardown(&self, spec: &OidcIssuerSpec, dry_run: bool) -> anyhow::Result<String> {
        self.teardown_all(&[issuer("default", spec)], dry_run).await
    }

    /// `operator teardown` with a file of several issuers.
    pub async fn teardown_all(&self, issuers: &[NamedIssuer], dry_run: bool) -> anyhow::Result<String> {
        let printed = Printed::default();
        let mut terminal = Terminal::to(Box::new(printed.clone()));
        let accounts = self.administrator().await;
        let of_cluster = issuers_of(&self.client).await?;
        Teardown { issuers, of_cluster, account: accounts.own() }.run(dry_run, &mut terminal).await?;
        Ok(printed.text())
    }

    /// Credentials of a `ServiceAccount`'s role: a real token of this API server, exchanged.
    pub async fn exchange(
        &self,
        namespace: &str,
        service_account: &str,
        role: &str,
    ) -> Result<Credentials, String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![names::DEFAULT_AUDIENCE.into()],
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let token = accounts
            .create_token_request(service_account, &PostParams::default(), &request)
            .await
            .unwrap()
            .status
            .unwrap()
            .token;
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
            .region(Region::new(REGION))
            .http_client(sdk::http_client(&self.sim))
            .allow_no_auth()
            .build();
        let answer = aws_sdk_sts::Client::from_conf(config)
            .assume_role_with_web_identity()
            .role_arn(role)
            .role_session_name("test")
            .web_identity_token(token)
            .send()
            .await
            .map_err(|error| {
                let error = error.into_service_error();
                error.meta().code().unwrap_or_default().to_owned()
            })?;
        let keys = answer.credentials.unwrap();
        Ok(Credentials::new(
            keys.access_key_id,
            keys.secret_access_key,
            Some(keys.session_token),
            None,
            "web identity",
        ))
    }

    /// Starts the operator with nothing but its own token, exchanged for its own role, and forgets all calls so far.
    pub async fn start(&mut self) {
        let role = names::operator_role_arn("aws", ACCOUNT, CLUSTER);
        let credentials = self.exchange(&self.system, OPERATOR_SERVICE_ACCOUNT, &role).await.unwrap();
        self.start_as(credentials).await;
    }

    /// Starts it with credentials that were obtained before.
    pub async fn start_as(&mut self, credentials: Credentials) {
        self.metrics = Arc::default();
        self.sim.clear_calls();
        let stop = CancellationToken::new();
        let operator = Operator {
            client: self.client.clone(),
            accounts: self.aws(credentials, self.metrics.clone()).await,
            metrics: self.metrics.clone(),
            timings: self.timings.clone(),
            namespace: self.system.clone(),
            identity: format!("replica-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        let health = TcpListener::bind("127.0.0.1:0").unwrap();
        let task = tokio::spawn(operator.run(health, stop.clone()));
        self.running = Some(Running { stop, task });
    }

    /// SIGTERM: the lease is given back.
    pub async fn stop(&mut self) {
        let Running { stop, task } = self.running.take().unwrap();
        stop.cancel();
        assert_eq!(task.await.unwrap().unwrap(), Ended::Stopped);
    }

    /// SIGKILL: nothing is finished. Its lease would run out by itself.
    pub async fn kill(&mut self) {
        let Running { task, .. } = self.running.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.system);
        leases.delete(names::LEASE, &DeleteParams::default()).await.unwrap();
    }

    // The cluster.

    async fn create_cluster<K>(&self, object: Value)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let api: Api<K> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    pub async fn service_account(&self, namespace: &str, name: &str) {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let account = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        api.create(&PostParams::default(), &account).await.unwrap();
    }

    pub fn issuers(&self) -> Api<OidcIssuer> {
        Api::all(self.client.clone())
    }

    pub fn bindings(&self) -> Api<PodIdentityBinding> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn accounts(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// As `kubectl apply` does.
    pub async fn apply_issuer(&self, spec: &OidcIssuerSpec) {
        self.apply_issuer_as("default", spec).await;
    }

    /// The same under another name.
    pub async fn apply_issuer_as(&self, name: &str, spec: &OidcIssuerSpec) {
        apply(&self.issuers(), name, json!(spec)).await.unwrap();
    }

    pub async fn apply_binding(&self, name: &str, spec: Value) {
        apply(&self.bindings(), name, spec).await.unwrap();
    }

    /// A binding of `ServiceAccount` `app` with those policies.
    pub async fn bind(&self, name: &str, policies: &[&str]) {
        let spec = json!({"serviceAccountName": "app", "role": {"policyARNs": policies}});
        self.apply_binding(name, spec).await;
    }

    pub async fn binding(&self, name: &str) -> PodIdentityBinding {
        self.bindings().get(name).await.unwrap()
    }

    /// Waits until an object is as wanted; fails with the object as it is.
    pub async fn until<K>(&self, api: &Api<K>, name: &str, what: &str, holds: impl Fn(Option<&K>) -> bool)
    where
        K: Clone + Debug + Send + DeserializeOwned + Resource + 'static,
    {
        let waited = tokio::time::timeout(LIMIT, await_condition(api.clone(), name, holds)).await;
        if !waited.is_ok_and(|seen| seen.is_ok()) {
            let calls: Vec<String> = self
                .sim
                .calls()
                .iter()
                .map(|c| format!("{} {} {}", c.action, c.resource, c.status))
                .collect();
            let ended = self.running.as_ref().is_none_or(|running| running.task.is_finished());
            panic!(
                "{name} never came to {what}: {:?}\ncalls: {calls:#?}\nthe operator {}",
                api.get_opt(name).await.unwrap(),
                if ended { "does not run" } else { "runs" },
            );
        }
    }

    /// Waits until the issuer's Ready carries that reason for its present generation.
    pub async fn issuer_is(&self, reason: &str) {
        self.issuer_named_is("default", reason).await;
    }

    /// The same of an issuer of that name.
    pub async fn issuer_named_is(&self, name: &str, reason: &str) {
        let holds = |issuer: Option<&OidcIssuer>| {
            issuer.is_some_and(|i| {
                i.status.as_ref().is_some_and(|s| {
                    s.observed_generation == i.metadata.generation && says(&s.conditions, reason)
                })
            })
        };
        self.until(&self.issuers(), name, reason, holds).await;
    }

    /// Waits until a binding's Ready carries that reason for its present generation.
    pub async fn binding_is(&self, name: &str, reason: &str) {
        let holds = |binding: Option<&PodIdentityBinding>| {
            binding.is_some_and(|b| {
                b.status.as_ref().is_some_and(|s| {
                    s.observed_generation == b.metadata.generation && says(&s.conditions, reason)
                })
            })
        };
        self.until(&self.bindings(), name, reason, holds).await;
    }

    /// Deletes a binding and waits until it is gone.
    pub async fn unbind(&self, name: &str) {
        self.bindings().delete(name, &DeleteParams::default()).await.unwrap();
        self.until(&self.bindings(), name, "its end", |b: Option<&PodIdentityBinding>| b.is_none()).await;
    }

    /// A condition of a binding: status, reason, message.
    pub async fn condition(&self, binding: &str, type_: ConditionType) -> (String, String, String) {
        let binding = self.binding(binding).await;
        let conditions = binding.status.unwrap_or_default().conditions;
        told(&conditions, type_)
    }

    pub async fn issuer_condition(&self, type_: ConditionType) -> (String, String, String) {
        self.issuer_named_condition("default", type_).await
    }

    pub async fn issuer_named_condition(&self, name: &str, type_: ConditionType) -> (String, String, String) {
        let issuer = self.issuers().get(name).await.unwrap();
        told(&issuer.status.unwrap_or_default().conditions, type_)
    }

    /// The annotations of a `ServiceAccount`.
    pub async fn annotations(&self, account: &str) -> BTreeMap<String, String> {
        self.accounts().get(account).await.unwrap().metadata.annotations.unwrap_or_default()
    }

    /// Notes of all events with that reason on objects of a name.
    pub async fn events(&self, name: &str, reason: Reason) -> Vec<String> {
        let events: Api<Event> = Api::all(self.client.clone());
        let all = events.list(&ListParams::default()).await.unwrap();
        all.into_iter()
            .filter(|e| e.reason.as_deref() == Some(reason.as_str()))
            .filter(|e| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name))
            .filter(|e| {
                let namespace = e.regarding.as_ref().and_then(|r| r.namespace.as_deref());
                namespace.is_none_or(|namespace| namespace == self.namespace)
            })
            .filter_map(|e| e.note)
            .collect()
    }

    // AWS.

    /// The name of a `ServiceAccount`'s role.
    pub fn role_name(&self, account: &str) -> String {
        names::role_name(CLUSTER, &self.namespace, account)
    }

    /// The role of `ServiceAccount` `app`, as somebody with the console sees it.
    pub fn role(&self) -> Option<aws_sim::world::Role> {
        self.sim.state().role(&self.role_name("app")).cloned()
    }

    /// The operator's own calls by operation.
    pub fn counts(&self) -> Counts {
        count(self.operators())
    }

    /// The operator's own calls that concern roles under the cluster's path.
    pub fn role_calls(&self) -> Vec<Call> {
        let ours = |c: &Call| c.resource.contains(":role/") && !c.resource.contains("podidentity-operator.");
        self.operators().into_iter().filter(ours).filter(|c| c.service == "iam").collect()
    }

    /// What the operator has called.
    pub fn operators(&self) -> Vec<Call> {
        let role = names::operator_role_name(CLUSTER);
        let own = |c: &Call| c.principal.contains(&format!("assumed-role/{role}/"));
        self.sim.calls().into_iter().filter(own).collect()
    }

    /// What the operator has changed in AWS.
    pub fn writes(&self) -> Vec<String> {
        self.operators().into_iter().filter(|c| c.write).map(|c| c.action).collect()
    }

    /// Waits until something is so in AWS.
    pub async fn until_aws(&self, what: &str, holds: impl Fn(&aws_sim::State) -> bool) {
        let look = || async {
            anyhow::ensure!(holds(&self.sim.state()), "it is not");
            Ok(())
        };
        cluster::until(what, LIMIT, look).await.unwrap();
    }

    /// Waits until the operator has made a call so many times.
    pub async fn until_called(&self, action: &str, times: usize) {
        let look = || async {
            let made = self.sim.calls().iter().filter(|c| c.action == action).count();
            anyhow::ensure!(made >= times, "it was made {made} times");
            Ok(())
        };
        cluster::until(&format!("{times} × {action}"), LIMIT, look).await.unwrap();
    }

    /// Waits until both controllers have looked at everything at least once since the start.
    pub async fn until_looked(&self) {
        let look = || async {
            let text = self.metrics.text();
            for kind in ["OidcIssuer", "PodIdentityBinding"] {
                let line = format!("podidentity_operator_reconciles_total{{kind=\"{kind}\",outcome=\"ok\"}}");
                anyhow::ensure!(text.contains(&line), "{kind} was not looked at: {text}");
            }
            Ok(())
        };
        cluster::until("both controllers", LIMIT, look).await.unwrap();
    }

    /// Least privilege is executed in every test: the operator's own printed policy allowed all it did.
    pub fn nothing_denied(&self) {
        let denied: Vec<Call> = self.sim.calls().into_iter().filter(|c| c.denied).collect();
        assert!(denied.is_empty(), "AWS denied {denied:#?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(Running { task, .. }) = &self.running {
            task.abort();
        }
        if !std::thread::panicking() {
            self.nothing_denied();
        }
    }
}

/// An issuer as a file holds it.
pub fn issuer(name: &str, spec: &OidcIssuerSpec) -> NamedIssuer {
    NamedIssuer { name: name.into(), spec: spec.clone() }
}

/// Server-side apply as a person's tool does it.
pub async fn apply<K>(api: &Api<K>, name: &str, spec: Value) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec,
    });
    api.patch(name, &PatchParams::apply("gitops").force(), &Patch::Apply(object)).await
}

/// Whether Ready carries that reason.
fn says(conditions: &[Condition], reason: &str) -> bool {
    find(conditions, ConditionType::Ready).is_some_and(|c| c.reason == reason)
}

fn told(conditions: &[Condition], type_: ConditionType) -> (String, String, String) {
    let found = find(conditions, type_);
    let found = found.unwrap_or_else(|| panic!("no condition {}: {conditions:#?}", type_.as_str()));
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

pub fn count(calls: Vec<Call>) -> Counts {
    let mut counts = Counts::new();
    for call in calls {
        *counts.entry(format!("{}:{}", call.service, call.action)).or_default() += 1;
    }
    counts
}

/// A table of counts, to compare with.
pub fn counts(table: &[(&str, usize)]) -> Counts {
    table.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect()
}

/// A document that allows something harmless.
fn reader() -> Value {
    json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"},
    ]})
}

#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether our finalizer is on it.
pub fn held<K: Resource>(object: &K) -> bool {
    object.meta().finalizers.iter().flatten().any(|f| f == FINALIZER)
}
