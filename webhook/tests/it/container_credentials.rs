//! What is added to a pod in container-credentials mode.

use serde_json::json;

use crate::mutate::{SETTINGS, after, agent, mount, of, pod, variable};

#[test]
fn container_credentials_are_a_label_a_token_and_two_variables() {
    const AGENT: &str = "http://169.254.170.23/v1/credentials";
    const DIRECTORY: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount";
    const FILE: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";
    let before = pod(&json!({"name": "c", "env": [variable("AWS_ROLE_ARN", "own")]}));
    let patch = serde_json::to_value(of(&before, &agent(), &SETTINGS).unwrap().patch).unwrap();
    assert_eq!(patch[0]["path"], "/metadata/labels", "the label comes first");
    let (pod, warnings) = after(&before, &agent());
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(pod["metadata"]["labels"], json!({"eks.amazonaws.com/pod-identity": "enabled"}));
    let container = &pod["spec"]["containers"][0];
    // The variables of the other method neither count nor are removed.
    let expected = [
        variable("AWS_ROLE_ARN", "own"),
        variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", AGENT),
        variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", FILE),
    ];
    assert_eq!(container["env"], json!(expected));
    assert_eq!(container["volumeMounts"], json!([mount("eks-pod-identity-token", DIRECTORY)]));
    let volume = &pod["spec"]["volumes"][0];
    let token = &volume["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(
        (&volume["name"], &token["path"]),
        (&json!("eks-pod-identity-token"), &json!("eks-pod-identity-token"))
    );
    assert_eq!(token["audience"], "pods.eks.amazonaws.com");
    let seconds = token["expirationSeconds"].as_i64().unwrap();
    assert!((79_200..86_400).contains(&seconds), "{seconds} is not spread");
    assert!(of(&pod, &agent(), &SETTINGS).unwrap().patch.is_empty(), "a second pass");

    let own = json!({"name": "c", "env": [variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", "own")]});
    let (_, warnings) = after(&self::pod(&own), &agent());
    assert_eq!(
        warnings,
        [
            format!("container c: AWS_CONTAINER_CREDENTIALS_FULL_URI is own, the container-credentials mode says {AGENT}"),
            "container c sets AWS_CONTAINER_CREDENTIALS_FULL_URI itself, so AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not injected"
                .to_owned(),
        ]
    );
}

#[test]
fn an_existing_label_is_not_overwritten() {
    for (labels, expected, warnings) in [
        (json!({"a": "b"}), json!({"a": "b", "eks.amazonaws.com/pod-identity": "enabled"}), 0),
        (json!({"eks.amazonaws.com/pod-identity": "no"}), json!({"eks.amazonaws.com/pod-identity": "no"}), 1),
    ] {
        let mut pod = pod(&json!({"name": "c"}));
        pod["metadata"]["labels"] = labels;
        let (pod, warnings_given) = after(&pod, &agent());
        assert_eq!((&pod["metadata"]["labels"], warnings_given.len()), (&expected, warnings));
    }
    let (bare, _) = after(&json!({"spec": {"containers": []}}), &agent());
    assert_eq!(bare["metadata"]["labels"]["eks.amazonaws.com/pod-identity"], "enabled");
}
