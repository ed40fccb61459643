//! Pods that run without their identity. No webhook and no node is here: pods are created as they would be while the webhook is out of
//! reach, and stay Pending.

use std::time::Duration;

use crds::condition::ConditionType;
use crds::conditions::{Status, find};
use crds::names::{self, RESTART_ANNOTATION, RESTARTED_AT_ANNOTATION, RESTARTED_FOR_ANNOTATION};
use crds::{MissingPods, PodIdentityBinding, Reason};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{ACCOUNT, CLUSTER, STORAGE, World};

impl World {
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a pod of a `ServiceAccount`. `more` is put into its container.
    async fn pod(&self, name: &str, service_account: &str, metadata: Value, more: Value) {
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {
                "serviceAccountName": service_account,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "app", "image": "app"}],
            },
        });
        pod["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        let container = pod["spec"]["containers"][0].as_object_mut().unwrap();
        container.extend(more.as_object().unwrap().clone());
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    /// Creates a pod as the webhook makes it.
    async fn injected_pod(&self, name: &str, service_account: &str) {
        let arn = names::role_arn("aws", ACCOUNT, CLUSTER, &self.namespace, service_account);
        let env = json!({"env": [
            {"name": "AWS_ROLE_ARN", "value": arn},
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"},
        ]});
        self.pod(name, service_account, json!({}), env).await;
    }

    async fn delete_pod(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// Waits until the status of a binding counts so many pods without identity, and returns it.
    pub async fn missing(&self, binding: &str, count: i64) -> Option<MissingPods> {
        let counts = |binding: Option<&PodIdentityBinding>| {
            let status = binding.and_then(|binding| binding.status.as_ref());
            status.is_some_and(|status| {
                find(&status.conditions, ConditionType::PodsInjected)
                    .is_some_and(|c| c.status != Status::Unknown)
                    && status.missing.as_ref().map_or(0, |missing| missing.count) == count
            })
        };
        self.until(&self.bindings(), binding, &format!("{count} pods without identity"), counts).await;
        self.binding(binding).await.status.unwrap().missing
    }

    pub async fn annotate_binding(&self, name: &str, value: Option<&str>) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {(RESTART_ANNOTATION): value}}}));
        self.bindings().patch_metadata(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn deployment(&self, name: &str, service_account: &str) {
        let deployment = json!({
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {
                        "serviceAccountName": service_account,
                        "containers": [{"name": "app", "image": "app"}],
                    },
                },
            },
        });
        let object = serde_json::from_value(deployment).unwrap();
        self.deployments().create(&PostParams::default(), &object).await.unwrap();
    }

    /// A pod that says that it is of a Deployment.
    pub async fn pod_of(&self, deployment: &str, name: &str, service_account: &str) {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-5d89"), "uid": "u",
            "controller": true,
        });
        let metadata = json!({"ownerReferences": [owner], "labels": {"pod-template-hash": "5d89"}});
        self.pod(name, service_account, metadata, json!({})).await;
    }
}

/// Helm installs pods before custom resources.
#[tokio::test]
async fn pods_that_were_created_before_the_binding_are_named_until_they_are_restarted() {
    let world = World::ready().await;
    world.service_account(&world.namespace, "other").await;
    for name in ["web-1", "web-2"] {
        world.pod(name, "app", json!({}), json!({})).await;
    }
    world.pod("other", "other", json!({}), json!({})).await;
    world.injected_pod("injected", "app").await;
    world
        .pod("opted-out", "app", json!({"labels": {"podidentity.dev/injection": "disabled"}}), json!({}))
        .await;
    let key = json!({"env": [{"name": "AWS_ACCESS_KEY_ID", "value": "AKIA"}]});
    world.pod("static", "app", json!({}), key).await;
    world.hold.arm(None);
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let missing = world.missing("app", 3).await.unwrap();
    assert_eq!(missing.names, ["static", "web-1", "web-2"]);
    let (status, reason, message) = world.condition("app", ConditionType::PodsInjected).await;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "PodsWithoutIdentity"));
    assert!(message.contains("static: container app sets AWS_ACCESS_KEY_ID"), "{message}");
    assert_eq!(world.events("app", Reason::PodsWithoutIdentity).await.len(), 1);
    let lists = world.hold.pod_lists();
    let of_account = lists.iter().filter(|list| list.contains("serviceAccountName")).count();
    assert_eq!(of_account, 1, "{lists:?}");

    // Replaced by pods of the webhook.
    for name in ["web-1", "web-2", "static"] {
        world.delete_pod(name).await;
    }
    assert_eq!(world.missing("app", 0).await, None);
    let (status, reason, _) = world.condition("app", ConditionType::PodsInjected).await;
    assert_eq!((status.as_str(), reason.as_str()), ("True", "PodsInjected"));
    let of_status = |write: &String| write.ends_with("/status");
    let writes = world.hold.writes().into_iter().filter(of_status).count();
    assert!(writes <= 4, "progress, Ready, pods found, none: {:?}", world.hold.writes());
    assert!(world.metrics.text().contains("podidentity_operator_pods_without_identity 0"));
    world.unbind("app").await;
}

#[tokio::test]
async fn a_pod_that_the_webhook_missed_is_named_at_once_and_found_again_after_a_restart_of_the_operator() {
    let mut world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.missing("app", 0).await;
    world.pod("web-1", "app", json!({}), json!({})).await;
    assert_eq!(world.missing("app", 1).await.unwrap().names, ["web-1"]);

    // Another process finds the same by the first list of its watch, and writes nothing.
    world.stop().await;
    world.hold.arm(None);
    world.start().await;
    world.until_reconciled().await;
    let text = || async {
        anyhow::ensure!(world.metrics.text().contains("podidentity_operator_pods_without_identity 1"));
        Ok(())
    };
    cluster::until("the pod's being counted", std::time::Duration::from_secs(15), text).await.unwrap();
    assert_eq!((world.hold.writes(), world.writes()), (vec![], vec![]));
    let lists = world.hold.pod_lists();
    assert!(!lists.iter().any(|list| list.contains("serviceAccountName")), "{lists:?}");

    // What ended while no operator ran is found, too.
    world.stop().await;
    world.delete_pod("web-1").await;
    world.start().await;
    assert_eq!(world.missing("app", 0).await, None);
    // An edit of what is expected makes pods with the former identity known.
    world.injected_pod("web-2", "app").await;
    world.until_reconciled().await;
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/other");
    world.apply_binding("app", json!({"serviceAccountName": "app", "roleARN": arn})).await;
    assert_eq!(world.missing("app", 1).await.unwrap().names, ["web-2"]);
    let message = world.condition("app", ConditionType::PodsInjected).await.2;
    assert!(message.contains("AWS_ROLE_ARN"), "{message}");
    world.unbind("app").await;
}

#[tokio::test]
async fn the_annotation_restarts_each_workload_once_and_none_of_another_service_account() {
    let world = World::ready().await;
    world.service_account(&world.namespace, "other").await;
    world.deployment("web", "app").await;
    world.deployment("foreign", "other").await;
    world.pod_of("web", "web-1", "app").await;
    world.pod_of("web", "web-2", "app").await;
    world.pod_of("foreign", "liar", "app").await;
    world.bind("app", &[STORAGE]).await;
    world.missing("app", 3).await;
    let message = world.condition("app", ConditionType::PodsInjected).await.2;
    let command = format!("kubectl -n {} rollout restart deployment/web", world.namespace);
    assert!(message.contains(&command), "{message}");
    let generation = async |name: &str| world.deployments().get(name).await.unwrap().metadata.generation;
    assert_eq!((generation("web").await, generation("foreign").await), (Some(1), Some(1)));

    world.annotate_binding("app", Some("true")).await;
    let restarted = |deployment: Option<&Deployment>| {
        deployment.is_some_and(|deployment| deployment.metadata.generation == Some(2))
    };
    world.until(&world.deployments(), "web", "its restart", restarted).await;
    let template = world.deployments().get("web").await.unwrap().spec.unwrap().template;
    let annotations = template.metadata.unwrap().annotations.unwrap();
    assert!(annotations.contains_key(RESTARTED_AT_ANNOTATION));
    assert_eq!(Some(&annotations[RESTARTED_FOR_ANNOTATION]), world.binding("app").await.uid().as_ref());
    // Its pods are still there: nothing replaces them here. It is not restarted again, whatever wakes the binding.
    for value in [None, Some("true")] {
        world.annotate_binding("app", value).await;
        world.bind("app", &[]).await;
        world.binding_is("app", "Ready").await;
        world.bind("app", &[STORAGE]).await;
        world.binding_is("app", "Ready").await;
    }
    assert_eq!((generation("web").await, generation("foreign").await), (Some(2), Some(1)));
    world.unbind("app").await;
}

/// More than one pass looks at: those that are restarted, and whose pods stay, do not keep the others from their turn.
#[tokio::test]
async fn the_annotation_restarts_every_one_of_many_workloads() {
    const MANY: usize = 18;
    let world = World::ready().await;
    let names: Vec<String> = (0..MANY).map(|n| format!("web-{n:02}")).collect();
    for name in &names {
        world.deployment(name, "app").await;
        world.pod_of(name, &format!("{name}-x"), "app").await;
    }
    world.bind("app", &[STORAGE]).await;
    world.missing("app", i64::try_from(MANY).unwrap()).await;
    let message = world.condition("app", ConditionType::PodsInjected).await.2;
    assert!(message.contains("deployment/web-02; and 15 more. The annotation"), "{message}");
    world.annotate_binding("app", Some("true")).await;
    let generations = async || {
        let all = world.deployments().list(&ListParams::default()).await.unwrap();
        all.items.into_iter().map(|deployment| deployment.metadata.generation.unwrap()).collect::<Vec<_>>()
    };
    let all_restarted = || async {
        // Every event of the binding is a pass.
        world.annotate_binding("app", None).await;
        world.annotate_binding("app", Some("true")).await;
        let generations = generations().await;
        anyhow::ensure!(generations.iter().all(|generation| *generation > 1), "{generations:?}");
        Ok(())
    };
    cluster::until("their restarts", Duration::from_secs(15), all_restarted).await.unwrap();
    assert_eq!(generations().await, [2; MANY]);
    world.unbind("app").await;
}

#[tokio::test]
async fn the_annotation_restarts_stateful_sets_and_daemon_sets_too() {
    let world = World::ready().await;
    let workloads: Vec<Api<DynamicObject>> =
        [ApiResource::erase::<StatefulSet>(&()), ApiResource::erase::<DaemonSet>(&())]
            .map(|kind| Api::namespaced_with(world.client.clone(), &world.namespace, &kind))
            .into();
    let names = ["StatefulSet", "DaemonSet"];
    for (api, kind) in workloads.iter().zip(names) {
        let object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "db"},
            "spec": {
                "selector": {"matchLabels": {"app": "db"}},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "app"}]},
                },
            },
        });
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        let owner =
            json!({"apiVersion": "apps/v1", "kind": kind, "name": "db", "uid": "u", "controller": true});
        let pod = format!("{}-0", kind.to_lowercase());
        world.pod(&pod, "app", json!({"ownerReferences": [owner]}), json!({})).await;
    }
    world.bind("app", &[STORAGE]).await;
    world.missing("app", 2).await;
    world.annotate_binding("app", Some("true")).await;
    for api in &workloads {
        let restarted = |workload: Option<&DynamicObject>| {
            workload.is_some_and(|workload| workload.metadata.generation == Some(2))
        };
        world.until(api, "db", "its restart", restarted).await;
    }
    world.unbind("app").await;
}

/// The right is given by a value of the chart, which is not set by default.
#[tokio::test]
async fn a_restart_without_the_right_says_which_value_gives_it_and_fails_nothing_else() {
    let mut world = World::ready().await;
    world.stop().await;
    let all = json!(["*"]);
    let groups = json!([
        "",
        "podidentity.dev",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "admissionregistration.k8s.io",
    ]);
    let role = json!({
        "metadata": {"name": world.namespace},
        "rules": [
            {"apiGroups": groups, "resources": all, "verbs": all},
            {"nonResourceURLs": all, "verbs": ["get"]},
        ],
    });
    let roles: Api<ClusterRole> = Api::all(world.client.clone());
    roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    let binding = json!({
        "metadata": {"name": world.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": world.namespace},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": world.namespace}],
    });
    let bindings: Api<ClusterRoleBinding> = Api::all(world.client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    world.config.auth_info.impersonate = Some(world.namespace.clone());
    world.start().await;

    world.deployment("web", "app").await;
    world.pod_of("web", "web-1", "app").await;
    world.bind("app", &[STORAGE]).await;
    world.missing("app", 1).await;
    world.annotate_binding("app", Some("true")).await;
    let says = |binding: Option<&PodIdentityBinding>| {
        let status = binding.and_then(|binding| binding.status.as_ref());
        let pods = status.and_then(|status| find(&status.conditions, ConditionType::PodsInjected));
        pods.is_some_and(|pods| pods.message.contains("the chart's value operator.restartMissing"))
    };
    world.until(&world.bindings(), "app", "the missing right", says).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.deployments().get("web").await.unwrap().metadata.generation, Some(1));
    world.unbind("app").await;
}

/// The operator starts, and the namespaces are listed later than bindings and pods.
#[tokio::test]
async fn pods_of_a_namespace_that_is_left_out_are_not_named_while_its_labels_are_not_known() {
    let mut world = World::ready().await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let labels = json!({"metadata": {"labels": {(names::label::INJECTION): "disabled"}}});
    namespaces
        .patch_metadata(&world.namespace, &PatchParams::default(), &Patch::Merge(labels))
        .await
        .unwrap();
    world.pod("web-1", "app", json!({}), json!({})).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let left_out = |binding: Option<&PodIdentityBinding>| {
        let status = binding.and_then(|binding| binding.status.as_ref());
        let pods = status.and_then(|status| find(&status.conditions, ConditionType::PodsInjected));
        pods.is_some_and(|pods| pods.message.contains("injection=disabled"))
    };
    world.until(&world.bindings(), "app", "the reason why no pod gets it", left_out).await;
    world.stop().await;
    let listed = CancellationToken::new();
    world.hold.arm(None);
    world.hold.hold_namespaces(listed.clone());
    world.start().await;
    let others = || async {
        let is_reconciled = world.metrics.text().contains("{kind=\"OidcIssuer\",outcome=\"ok\"}");
        anyhow::ensure!(is_reconciled && !world.hold.pod_lists().is_empty());
        Ok(())
    };
    cluster::until("all but the namespaces", std::time::Duration::from_secs(15), others).await.unwrap();
    listed.cancel();
    world.until_reconciled().await;
    assert_eq!((world.hold.writes(), world.writes()), (vec![], vec![]));
    let lists = world.hold.pod_lists();
    assert!(!lists.iter().any(|list| list.contains("serviceAccountName")), "{lists:?}");
    world.unbind("app").await;
}

#[tokio::test]
async fn without_the_watch_no_pod_is_read_and_the_condition_says_so() {
    let mut world = World::ready().await;
    world.stop().await;
    world.pods.watch = false;
    world.hold.arm(None);
    world.start().await;
    world.pod("web-1", "app", json!({}), json!({})).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let (status, reason, message) = world.condition("app", ConditionType::PodsInjected).await;
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "PodsNotWatched"));
    assert!(message.contains("operator.podWatch"), "{message}");
    assert_eq!(world.hold.pod_lists(), [""; 0]);
    world.unbind("app").await;
}
