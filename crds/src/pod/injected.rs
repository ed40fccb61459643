//! PURE: whether a pod that exists has the identity that it should have. The webhook adds it when a pod is created, and only then.

use super::problem::{ExpectedIdentity, PodProblem, problems};
use super::skipped::skipped_containers;
use super::{Container, Pod};

/// Why a container of a pod does not use the pod's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WithoutIdentity {
    /// It has nothing of it: the pod was created before the identity existed, or without the webhook.
    NotInjected,
    /// The pod says something that prevents it.
    Prevented(PodProblem),
}

/// Whether a container of a pod certainly does not use the pod's identity, and why; `None` where all of them may use it. Containers
/// that the pod's annotation excludes are not looked at.
#[must_use]
pub fn without_identity(pod: &Pod<'_>, identity: &ExpectedIdentity<'_>) -> Option<WithoutIdentity> {
    let key = format!("{}/skip-containers", identity.annotation_prefix);
    let skipped = skipped_containers(pod.annotation(&key).unwrap_or_default());
    let prevents = problems(pod, &skipped, identity).into_iter().find(PodProblem::prevents_identity);
    if let Some(problem) = prevents {
        return Some(WithoutIdentity::Prevented(problem));
    }
    // A container that sets one of the two variables is a problem of its own, unless `envFrom` may set the other.
    let has_nothing = |container: &Container<'_>| {
        let has = |variable| container.env.as_ref().is_some_and(|env| env.has(variable));
        !has(identity.first.0) && !has(identity.file_variable)
    };
    let mut containers = pod.containers().iter().chain(pod.init_containers());
    containers
        .any(|container| !skipped.contains(&*container.name) && has_nothing(container))
        .then_some(WithoutIdentity::NotInjected)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::variable::Variable;

    const ARN: &str = "arn:aws:iam::111122223333:role/app";

    fn found(annotations: &Value, containers: &Value, init: &Value) -> Option<String> {
        found_in(&json!({
            "metadata": {"annotations": annotations},
            "spec": {"containers": containers, "initContainers": init},
        }))
    }

    fn found_in(pod: &Value) -> Option<String> {
        let text = pod.to_string();
        let expected = ExpectedIdentity {
            source: "its PodIdentityBinding",
            first: (Variable::RoleArn, ARN),
            file_variable: Variable::TokenFile,
            volume: "aws-iam-token",
            file: "token",
            audience: "sts.amazonaws.com",
            annotation_prefix: "eks.amazonaws.com",
            by_annotations: false,
        };
        let found = without_identity(&serde_json::from_str(&text).unwrap(), &expected)?;
        Some(match found {
            WithoutIdentity::NotInjected => "not injected".into(),
            WithoutIdentity::Prevented(problem) => problem.reason().into(),
        })
    }

    #[test]
    fn a_pod_is_without_identity_where_one_container_is() {
        let with = |extra: Value| {
            let mut env = vec![
                json!({"name": "AWS_ROLE_ARN", "value": ARN}),
                json!({"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"}),
            ];
            env.extend(extra.as_array().unwrap().iter().cloned());
            json!({"name": "app", "env": env})
        };
        let plain = |name: &str| json!({"name": name});
        let injected = || with(json!([]));
        let key = json!([{"name": "AWS_ACCESS_KEY_ID", "value": "AKIA"}]);
        let optional = json!([{"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optional": true}}}]);
        let role = json!({"name": "app", "env": [
            {"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::111122223333:role/other"},
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"},
        ]});
        let half = json!({"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": ARN}]});
        let half_from =
            json!({"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": ARN}], "envFrom": [{}]});
        let empty = json!({"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": ""}]});
        let skips = json!({"eks.amazonaws.com/skip-containers": "log"});
        for (row, annotations, containers, init, expected) in [
            ("all injected", json!({}), json!([injected()]), json!([injected()]), None),
            ("nothing injected", json!({}), json!([plain("app")]), json!([]), Some("not injected")),
            (
                "an init container",
                json!({}),
                json!([injected()]),
                json!([plain("init")]),
                Some("not injected"),
            ),
            (
                "another container",
                json!({}),
                json!([injected(), plain("log")]),
                json!([]),
                Some("not injected"),
            ),
            ("it is excluded", skips.clone(), json!([injected(), plain("log")]), json!([]), None),
            ("all are excluded", skips, json!([plain("log")]), json!([]), None),
            ("a static key", json!({}), json!([with(key)]), json!([]), Some("static_key")),
            ("a key that may be missing", json!({}), json!([with(optional)]), json!([]), None),
            ("another role", json!({}), json!([role]), json!([]), Some("other_role")),
            ("one variable", json!({}), json!([half]), json!([]), Some("half_identity")),
            ("one, and envFrom", json!({}), json!([half_from]), json!([]), None),
            ("an empty variable", json!({}), json!([empty]), json!([]), Some("not injected")),
            ("no containers", json!({}), json!([]), json!([]), None),
        ] {
            assert_eq!(found(&annotations, &containers, &init).as_deref(), expected, "{row}");
        }
    }

    /// A pod that was created before the binding moved to another audience.
    #[test]
    fn a_pod_with_a_token_of_another_audience_is_without_the_identity() {
        let rows = [("sts.amazonaws.com", None), ("vault", Some("other_token")), ("", None)];
        for (audience, expected) in rows {
            let token = json!({"path": "token", "audience": audience});
            let pod = json!({"metadata": {}, "spec": {
                "volumes": [{"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}}],
                "containers": [{
                    "name": "app",
                    "env": [
                        {"name": "AWS_ROLE_ARN", "value": ARN},
                        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"},
                    ],
                    "volumeMounts": [{"name": "aws-iam-token", "mountPath": "/var/run"}],
                }],
            }});
            assert_eq!(found_in(&pod).as_deref(), expected, "{audience}");
        }
    }
}
