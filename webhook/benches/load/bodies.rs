//! The reviews that are sent: as a 1.37 API server sends them, in the sizes that the EKS webhook was measured with.

use serde_json::{Value, json};

/// A size of pod.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub name: &'static str,
    pub containers: usize,
    pub variables: usize,
    /// The CPU time per request of the reference, the EKS Pod Identity Webhook, in microseconds.
    pub reference: Reference,
    /// What is aimed at, as divisors of those.
    pub aims: Aims,
    /// Requests a second for the open loop.
    pub rate: u32,
}

/// Measured on a machine of this kind on 2026-11-23 (HEAD of that day; one core for the server and one for the caller,
/// loopback, TLS 1.3, keep-alive, 10,000 `ServiceAccount`s), the same way as here.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    pub mutated: f64,
    pub mutated_http1: f64,
    pub no_identity: f64,
}

#[derive(Debug, Clone, Copy)]
pub struct Aims {
    pub mutated: f64,
    pub no_identity: f64,
}

pub const SIZES: [Size; 3] = [
    Size {
        name: "small",
        containers: 1,
        variables: 2,
        reference: Reference { mutated: 160.0, mutated_http1: 145.0, no_identity: 150.0 },
        aims: Aims { mutated: 4.0, no_identity: 5.0 },
        rate: 1000,
    },
    Size {
        name: "medium",
        containers: 3,
        variables: 15,
        reference: Reference { mutated: 425.0, mutated_http1: 410.0, no_identity: 343.0 },
        aims: Aims { mutated: 6.0, no_identity: 7.0 },
        rate: 1000,
    },
    Size {
        name: "large",
        containers: 12,
        variables: 80,
        reference: Reference { mutated: 4150.0, mutated_http1: 3970.0, no_identity: 3440.0 },
        aims: Aims { mutated: 10.0, no_identity: 12.0 },
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
                        "value": format!("a value of a usual length for container {c}, as a chart would set it for an application of ours, and that is number {n:05}"),
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
