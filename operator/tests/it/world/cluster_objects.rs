//! Kubernetes objects: creates, reads and waits for them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crds::condition::ConditionType;
use crds::conditions::{Condition, find};
use crds::names::FINALIZER;
use crds::{OidcIssuer, OidcIssuerSpec, PodIdentityBinding, Reason};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::operator_process::RunningOperator;
use super::{LIMIT, World};

impl World {
    pub(super) async fn create_cluster_scoped<K>(&self, object: Value)
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

    /// Creates a `ServiceAccount`.
    pub async fn service_account(&self, namespace: &str, name: &str) {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    pub fn issuers(&self) -> Api<OidcIssuer> {
        Api::all(self.client.clone())
    }

    pub fn bindings(&self) -> Api<PodIdentityBinding> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// `ServiceAccount`s.
    pub fn accounts(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies the issuer `default`.
    pub async fn apply_issuer(&self, spec: &OidcIssuerSpec) {
        self.apply_issuer_as("default", spec).await;
    }

    /// Applies an issuer of that name.
    pub async fn apply_issuer_as(&self, name: &str, spec: &OidcIssuerSpec) {
        apply(&self.issuers(), name, json!(spec)).await.unwrap();
    }

    pub async fn apply_binding(&self, name: &str, spec: Value) {
        apply(&self.bindings(), name, spec).await.unwrap();
    }

    /// Applies a binding of `ServiceAccount` `app` with those policies.
    pub async fn bind(&self, name: &str, policies: &[&str]) {
        let spec = json!({"serviceAccountName": "app", "role": {"policyARNs": policies}});
        self.apply_binding(name, spec).await;
    }

    pub async fn binding(&self, name: &str) -> PodIdentityBinding {
        self.bindings().get(name).await.unwrap()
    }

    /// Deletes a binding and waits until it no longer exists.
    pub async fn unbind(&self, name: &str) {
        self.bindings().delete(name, &DeleteParams::default()).await.unwrap();
        let deleted = |b: Option<&PodIdentityBinding>| b.is_none();
        self.until(&self.bindings(), name, "its deletion", deleted).await;
    }

    /// Waits until an object meets a condition. A failure shows the object and all calls to AWS.
    pub async fn until<K>(&self, api: &Api<K>, name: &str, what: &str, holds: impl Fn(Option<&K>) -> bool)
    where
        K: Clone + Debug + Send + DeserializeOwned + Resource + 'static,
    {
        let waited = tokio::time::timeout(LIMIT, await_condition(api.clone(), name, holds)).await;
        if !waited.is_ok_and(|met| met.is_ok()) {
            let calls: Vec<String> = self
                .sim
                .calls()
                .iter()
                .map(|c| format!("{} {} {}", c.action, c.resource, c.status))
                .collect();
            let ended = self.operator.as_ref().is_none_or(RunningOperator::has_ended);
            panic!(
                "waited {} s for {what} of {name}: {:?}\ncalls: {calls:#?}\nthe operator {}",
                LIMIT.as_secs(),
                api.get_opt(name).await.unwrap(),
                if ended { "does not run" } else { "runs" },
            );
        }
    }

    /// Waits until Ready of the issuer `default` has that reason for the current generation.
    pub async fn issuer_is(&self, reason: &str) {
        self.issuer_named_is("default", reason).await;
    }

    /// The same of an issuer of that name.
    pub async fn issuer_named_is(&self, name: &str, reason: &str) {
        let holds = |issuer: Option<&OidcIssuer>| {
            issuer.is_some_and(|i| {
                i.status.as_ref().is_some_and(|s| {
                    s.observed_generation == i.metadata.generation && ready_has(&s.conditions, reason)
                })
            })
        };
        self.until(&self.issuers(), name, reason, holds).await;
    }

    /// Waits until Ready of a binding has that reason for the current generation.
    pub async fn binding_is(&self, name: &str, reason: &str) {
        let holds = |binding: Option<&PodIdentityBinding>| {
            binding.is_some_and(|b| {
                b.status.as_ref().is_some_and(|s| {
                    s.observed_generation == b.metadata.generation && ready_has(&s.conditions, reason)
                })
            })
        };
        self.until(&self.bindings(), name, reason, holds).await;
    }

    /// A condition of a binding: status, reason, message.
    pub async fn condition(&self, binding: &str, type_: ConditionType) -> (String, String, String) {
        let binding = self.binding(binding).await;
        texts(&binding.status.unwrap_or_default().conditions, type_)
    }

    /// A condition of the issuer `default`: status, reason, message.
    pub async fn issuer_condition(&self, type_: ConditionType) -> (String, String, String) {
        self.issuer_named_condition("default", type_).await
    }

    /// The same of an issuer of that name.
    pub async fn issuer_named_condition(&self, name: &str, type_: ConditionType) -> (String, String, String) {
        let issuer = self.issuers().get(name).await.unwrap();
        texts(&issuer.status.unwrap_or_default().conditions, type_)
    }

    /// Writes a `ConfigMap` into the operator's namespace.
    pub async fn config_map(&self, name: &str, data: &[(&str, &str)]) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.system);
        let data: BTreeMap<&str, &str> = data.iter().copied().collect();
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data,
        });
        maps.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
    }

    /// The annotations of a `ServiceAccount`.
    pub async fn annotations(&self, service_account: &str) -> BTreeMap<String, String> {
        self.accounts().get(service_account).await.unwrap().metadata.annotations.unwrap_or_default()
    }

    /// Notes of all events with that reason on objects of that name, cluster-scoped or in the test's namespace.
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
}

/// Server-side apply, as `kubectl` and `GitOps` tools do it.
pub async fn apply<K>(api: &Api<K>, name: &str, spec: Value) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec,
    });
    api.patch(name, &PatchParams::apply("gitops").force(), &Patch::Apply(object)).await
}

/// Whether the object has our finalizer.
pub fn has_finalizer<K: Resource>(object: &K) -> bool {
    object.meta().finalizers.iter().flatten().any(|f| f == FINALIZER)
}

/// Whether Ready has that reason.
fn ready_has(conditions: &[Condition], reason: &str) -> bool {
    find(conditions, ConditionType::Ready).is_some_and(|c| c.reason.as_str() == reason)
}

/// Status, reason and message of a condition.
fn texts(conditions: &[Condition], type_: ConditionType) -> (String, String, String) {
    let found = find(conditions, type_);
    let found = found.unwrap_or_else(|| panic!("no condition {}: {conditions:#?}", type_.as_str()));
    (found.status.as_str().to_owned(), found.reason.as_str().to_owned(), found.message.to_string())
}
