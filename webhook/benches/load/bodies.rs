//! The reviews that are sent: as a 1.37 API server sends them, in the sizes of the reference's own figures.

use serde_json::{Value, json};

/// A size of pod.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub name: &'static str,
    containers: usize,
    variables: usize,
    /// The reference's CPU per request in microseconds: mutated, and without an identity (webhook-contract, HTTP/2).
    pub reference: [f64; 2],
    /// What is aimed at, as divisors of those.
    pub aims: [f64; 2],
    /// Requests a second for the open loop.
    pub rate: u32,
}

pub const SIZES: [Size; 3] = [
    Size {
        name: "small",
        containers: 1,
        variables: 6,
        reference: [160.0, 150.0],
        aims: [4.0, 5.0],
        rate: 1000,
    },
    Size {
        name: "medium",
        containers: 3,
        variables: 15,
        reference: [425.0, 343.0],
        aims: [6.0, 7.0],
        rate: 1000,
    },
    Size {
        name: "large",
        containers: 12,
        variables: 80,
        reference: [4150.0, 3440.0],
        aims: [10.0, 12.0],
        rate: 100,
    },
];

impl Size {
    /// A review of a pod of this size.
    pub fn review(&self, namespace: &str, account: &str) -> Vec<u8> {
        let variables = |c: usize| -> Vec<Value> {
            (0..self.variables)
                .map(|n| {
                    json!({
                        "name": format!("VARIABLE_{n:03}"),
                        "value": format!("a value of a usual length for container {c}, as a chart would set it, {n:05}"),
                    })
                })
                .collect()
        };
        let containers: Vec<Value> = (0..self.containers)
            .map(|c| {
                json!({
                    "name": format!("container-{c}"),
                    "image": "registry.example.com/team/application:1.2.3",
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "env": variables(c),
                    "resources": {
                        "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"},
                    },
                    "volumeMounts": [{
                        "name": "kube-api-access-x2x9k", "readOnly": true,
                        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    }],
                    "livenessProbe": {
                        "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                    },
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "imagePullPolicy": "IfNotPresent",
                    "securityContext": {
                        "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
                    },
                })
            })
            .collect();
        let mut review = envelope();
        let request = &mut review["request"];
        request["namespace"] = json!(namespace);
        request["object"]["metadata"]["namespace"] = json!(namespace);
        let spec = &mut request["object"]["spec"];
        spec["containers"] = json!(containers);
        spec["serviceAccountName"] = json!(account);
        spec["serviceAccount"] = json!(account);
        review.to_string().into_bytes()
    }
}

/// A review that a real API server sent for a Deployment's pod.
fn envelope() -> Value {
    serde_json::from_str(include_str!("../../tests/reviews/deployment-pod-1.37.json")).expect("a review")
}
