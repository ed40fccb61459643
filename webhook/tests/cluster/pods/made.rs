//! Pods of many forms that an API server accepts: lists absent, empty or full, the injected variables and volumes set by the
//! user, sidecars, fields newer than the API version this program is built with.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// Where the token is mounted.
const PATH: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";

/// A pod of the `ServiceAccount` `app`. Half of them are made to pass Pod Security's `restricted`.
pub fn pod() -> impl Strategy<Value = Value> {
    let volumes = option::of(vec(volume(), 0..4));
    let containers = (vec(container(), 1..4), option::of(vec(container(), 0..3)));
    (any::<bool>(), volumes, containers, extras()).prop_map(|(restricted, volumes, (main, init), extras)| {
        let volumes = volumes.map(|volumes| named(volumes, "name"));
        let finish = |containers: Vec<Value>, prefix: char, sidecars: bool| -> Vec<Value> {
            let containers = containers.into_iter().enumerate();
            containers
                .map(|(number, mut container)| {
                    container["name"] = json!(format!("{prefix}{number}"));
                    finished(container, volumes.as_deref(), restricted, sidecars)
                })
                .collect()
        };
        let mut pod = json!({
            "metadata": {"generateName": "pod-"},
            "spec": {"serviceAccountName": "app", "containers": finish(main, 'c', false)},
        });
        if let Some(init) = init {
            pod["spec"]["initContainers"] = json!(finish(init, 'i', true));
        }
        if restricted {
            pod["spec"]["securityContext"] =
                json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        }
        if let Some(volumes) = volumes {
            pod["spec"]["volumes"] = json!(volumes);
        }
        for (place, key, value) in extras {
            pod[place][key] = value;
        }
        pod
    })
}

/// Of several with one name only the first.
fn named(items: Vec<Value>, key: &str) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if kept.iter().all(|other| other[key] != item[key]) {
            kept.push(item);
        }
    }
    kept
}

/// Completes a container with what depends on its pod.
fn finished(mut container: Value, volumes: Option<&[Value]>, restricted: bool, sidecars: bool) -> Value {
    if let Some(mounts) = container.get_mut("volumeMounts") {
        let volumes = volumes.unwrap_or_default();
        let some = mounts.as_array().unwrap().iter().enumerate().filter_map(|(number, mount)| {
            let name = &volumes.get(number)?["name"];
            Some(json!({"name": name, "mountPath": mount}))
        });
        *mounts = json!(named(some.collect(), "mountPath"));
    }
    let scratch = volumes.unwrap_or_default().iter().find(|volume| !volume["emptyDir"].is_null());
    for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        match (variable.pointer_mut("/valueFrom/fileKeyRef"), scratch) {
            (Some(file), Some(volume)) => file["volumeName"] = volume["name"].clone(),
            (Some(_), None) => drop(variable.as_object_mut().unwrap().remove("valueFrom")),
            _ => {}
        }
    }
    if restricted {
        container["securityContext"] =
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    }
    let sidecar = container.as_object_mut().unwrap().remove("sidecar") == Some(json!(true));
    if sidecars && sidecar {
        container["restartPolicy"] = json!("Always");
    } else if sidecars {
        // Only containers that keep running may have probes and a life cycle.
        for field in ["livenessProbe", "startupProbe", "lifecycle"] {
            container.as_object_mut().unwrap().remove(field);
        }
    } else if sidecar {
        // New in 1.34.
        container["restartPolicy"] = json!("Never");
        container["restartPolicyRules"] =
            json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    }
    container
}

fn volume() -> impl Strategy<Value = Value> {
    let token = json!({"projected": {"sources": [
        {"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}},
    ]}});
    let other = json!({"projected": {"sources": [
        {"serviceAccountToken": {"audience": "vault", "expirationSeconds": 3600, "path": "token"}},
    ]}});
    let elsewhere = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "elsewhere"}}]}});
    let source = select(vec![
        token,
        other,
        elsewhere,
        json!({"emptyDir": {}}),
        json!({"configMap": {"name": "map", "optional": true}}),
        json!({"secret": {"secretName": "secret", "defaultMode": 256}}),
        json!({"image": {"reference": "model", "pullPolicy": "Never"}}),
    ]);
    let name = select(vec!["aws-iam-token", "aws-iam-token-podidentity", "data", "more", "third"]);
    (name, source).prop_map(|(name, mut volume)| {
        volume["name"] = json!(name);
        volume
    })
}

fn container() -> impl Strategy<Value = Value> {
    let path = select(vec![
        "/data".to_owned(),
        "/more".to_owned(),
        PATH.to_owned(),
        format!("{PATH}/"),
        format!("{PATH}-podidentity"),
    ]);
    let lists = (option::of(vec(variable(), 0..5)), option::of(vec(path, 0..4)));
    (lists, any::<bool>(), vec(container_extra(), 0..4)).prop_map(|((env, mounts), sidecar, extras)| {
        let mut container = json!({"image": "image", "sidecar": sidecar});
        if let Some(env) = env {
            container["env"] = json!(env);
        }
        if let Some(mounts) = mounts {
            container["volumeMounts"] = json!(mounts);
        }
        for (key, value) in extras {
            container[key] = value;
        }
        container
    })
}

fn variable() -> impl Strategy<Value = Value> {
    let name = select(vec![
        "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_STS_REGIONAL_ENDPOINTS",
        "FIRST",
        "SECOND",
        "THIRD",
    ]);
    let value = select(vec![
        json!({}),
        json!({"value": ""}),
        json!({"value": "$(FIRST) of \"two\""}),
        json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!({"valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": false}}}),
        json!({"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}),
        // New in 1.34.
        json!({"valueFrom": {"fileKeyRef": {"path": "env", "key": "K"}}}),
    ]);
    (name, value).prop_map(|(name, mut variable)| {
        variable["name"] = json!(name);
        variable
    })
}

fn container_extra() -> impl Strategy<Value = (&'static str, Value)> {
    select(vec![
        ("command", json!(["sh", "-c", "exec \"$0\" \\ é \u{1F600}"])),
        ("envFrom", json!([{"prefix": "P_", "configMapRef": {"name": "map", "optional": true}}])),
        ("lifecycle", json!({"preStop": {"sleep": {"seconds": 3}}})),
        ("livenessProbe", json!({"grpc": {"port": 1}, "periodSeconds": 3})),
        ("startupProbe", json!({"exec": {"command": ["true"]}, "failureThreshold": 30})),
        ("ports", json!([{"containerPort": 80, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}])),
        ("resizePolicy", json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}])),
        ("resources", json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}})),
        ("stdin", json!(true)),
        ("workingDir", json!("/data")),
    ])
}

/// Parts of the pod other than its containers: where, which field, and its value.
fn extras() -> impl Strategy<Value = Vec<(&'static str, &'static str, Value)>> {
    let extra = select(vec![
        ("metadata", "labels", json!({"app": "app", "a.b/c-d": ""})),
        ("metadata", "annotations", json!({"eks.amazonaws.com/skip-containers": "c1, i0"})),
        ("metadata", "annotations", json!({"eks.amazonaws.com/skip-containers": "c0,c1,c2,i0,i1"})),
        ("metadata", "annotations", json!({"eks.amazonaws.com/token-expiration": "1", "other": "x"})),
        ("metadata", "annotations", json!({"eks.amazonaws.com/token-expiration": "99999999999"})),
        (
            "spec",
            "affinity",
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}),
        ),
        ("spec", "automountServiceAccountToken", json!(false)),
        ("spec", "dnsConfig", json!({"options": [{"name": "ndots", "value": "2"}]})),
        ("spec", "hostUsers", json!(false)),
        ("spec", "nodeSelector", json!({"kubernetes.io/os": "windows"})),
        ("spec", "readinessGates", json!([{"conditionType": "example.com/ready"}])),
        ("spec", "schedulingGates", json!([{"name": "example.com/wait"}])),
        ("spec", "tolerations", json!([{"operator": "Exists"}])),
        ("spec", "resources", json!({"requests": {"memory": "8Gi"}, "limits": {"memory": "8Gi"}})),
        ("spec", "topologySpreadConstraints", json!([])),
        // New in 1.34.
        ("spec", "hostnameOverride", json!("name.example.com")),
    ]);
    vec(extra, 0..4)
}
