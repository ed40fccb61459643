//! What is added to a pod, rule by rule.

use serde_json::{Value, json};
use webhook::identity::{Identity, Source};
use webhook::mutate::{MutateError, Mutation, Pod, Target, mutate};

const PATH: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
const ROLE: &str = "arn:aws:iam::111122223333:role/r";

pub fn identity() -> Identity {
    Identity {
        source: Source::Binding,
        role_arn: ROLE.into(),
        audience: "sts.amazonaws.com".into(),
        expiration_seconds: 86_400,
        region: Some("eu-central-1".into()),
        sts_regional_endpoints: true,
    }
}

pub fn target() -> Target {
    Target { annotation_prefix: "eks.amazonaws.com".into(), mount_path: PATH.into() }
}

fn of(pod: &Value, identity: &Identity) -> Result<Mutation, MutateError> {
    let pod: Pod = serde_json::from_str(&pod.to_string()).unwrap();
    mutate(&pod, identity, &target())
}

/// The pod afterwards, and the warnings.
fn after(pod: &Value, identity: &Identity) -> (Value, Vec<String>) {
    let Mutation { patch, warnings } = of(pod, identity).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    (pod, warnings)
}

fn pod(container: &Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "s", "containers": [container]}})
}

fn annotated(key: &str, value: &str) -> Value {
    let mut pod = pod(&json!({"name": "c"}));
    pod["metadata"]["annotations"] = json!({format!("eks.amazonaws.com/{key}"): value});
    pod
}

fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn all_variables() -> Vec<Value> {
    vec![
        variable("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        variable("AWS_DEFAULT_REGION", "eu-central-1"),
        variable("AWS_REGION", "eu-central-1"),
        variable("AWS_ROLE_ARN", ROLE),
        variable("AWS_WEB_IDENTITY_TOKEN_FILE", &format!("{PATH}/token")),
    ]
}

fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "readOnly": true, "mountPath": path})
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"sources": [{"serviceAccountToken": {
        "audience": "sts.amazonaws.com", "expirationSeconds": 86_400, "path": "token",
    }}]}})
}

fn names(variables: &Value) -> Vec<&str> {
    variables.as_array().into_iter().flatten().map(|v| v["name"].as_str().unwrap()).collect()
}

#[test]
fn a_bare_pod_gets_everything_in_the_reference_s_order() {
    let (pod, warnings) = after(&pod(&json!({"name": "c", "image": "i"})), &identity());
    let spec = json!({
        "serviceAccountName": "s",
        "volumes": [token_volume("aws-iam-token")],
        "containers": [{
            "name": "c", "image": "i", "env": all_variables(), "volumeMounts": [mount("aws-iam-token", PATH)],
        }],
    });
    assert_eq!((&pod["spec"], warnings), (&spec, vec![]));
}

#[test]
fn the_operations_are_additions_at_exact_places() {
    let pod = json!({"spec": {
        "containers": [
            {"name": "a", "env": [], "volumeMounts": [{"name": "d", "mountPath": "/d"}]},
            {"name": "b", "env": [variable("AWS_REGION", "x"), variable("AWS_STS_REGIONAL_ENDPOINTS", "legacy")]},
        ],
        "initContainers": [{"name": "sidecar", "restartPolicy": "Always"}],
        "ephemeralContainers": [{"name": "e"}],
        "volumes": [{"name": "d", "emptyDir": {}}],
    }});
    let patch = serde_json::to_value(of(&pod, &identity()).unwrap().patch).unwrap();
    let operations: Vec<(&str, &str)> = patch
        .as_array()
        .unwrap()
        .iter()
        .map(|o| (o["op"].as_str().unwrap(), o["path"].as_str().unwrap()))
        .collect();
    let mut expected = vec!["/spec/volumes/0"];
    expected.extend(["/spec/containers/0/env/-"; 5]);
    expected.push("/spec/containers/0/volumeMounts/-");
    expected.extend(["/spec/containers/1/env/-"; 2]);
    expected.extend([
        "/spec/containers/1/volumeMounts",
        "/spec/initContainers/0/env",
        "/spec/initContainers/0/volumeMounts",
    ]);
    assert_eq!(operations, expected.into_iter().map(|path| ("add", path)).collect::<Vec<_>>());
}

#[test]
fn what_a_container_sets_itself_stays() {
    const STS: &str = "AWS_STS_REGIONAL_ENDPOINTS";
    const DEFAULT: &str = "AWS_DEFAULT_REGION";
    const REGION: &str = "AWS_REGION";
    const ARN: &str = "AWS_ROLE_ARN";
    const FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
    for (set, added, mounted, warnings) in [
        (vec![], vec![STS, DEFAULT, REGION, ARN, FILE], true, 0),
        (vec!["OTHER"], vec![STS, DEFAULT, REGION, ARN, FILE], true, 0),
        (vec![REGION], vec![STS, ARN, FILE], true, 0),
        (vec![DEFAULT], vec![STS, ARN, FILE], true, 0),
        (vec![STS], vec![DEFAULT, REGION, ARN, FILE], true, 0),
        (vec![ARN, FILE], vec![STS, DEFAULT, REGION], true, 0),
        (vec![ARN], vec![STS, DEFAULT, REGION], true, 1),
        (vec![FILE], vec![STS, DEFAULT, REGION], true, 1),
        (vec![STS, REGION], vec![ARN, FILE], true, 0),
        (vec![STS, DEFAULT, ARN], vec![], false, 0),
        (vec![STS, REGION, ARN, FILE], vec![], false, 0),
    ] {
        for value_from in [false, true] {
            let env: Vec<Value> = set
                .iter()
                .map(|name| {
                    let own_name = json!({"fieldRef": {"fieldPath": "metadata.name"}});
                    if value_from {
                        json!({"name": name, "valueFrom": own_name})
                    } else {
                        variable(name, "own")
                    }
                })
                .collect();
            let (pod, said) = after(&pod(&json!({"name": "c", "env": env})), &identity());
            let container = &pod["spec"]["containers"][0];
            let expected: Vec<&str> = set.iter().chain(&added).copied().collect();
            assert_eq!(names(&container["env"]), expected, "{set:?}");
            assert_eq!(container.get("volumeMounts").is_some(), mounted, "{set:?}");
            assert_eq!(said.len(), warnings, "{set:?}: {said:?}");
            assert_eq!(pod["spec"]["volumes"], json!([token_volume("aws-iam-token")]), "always");
        }
    }
}

#[test]
fn what_is_not_wanted_or_not_known_is_not_injected() {
    let identity = Identity { region: None, sts_regional_endpoints: false, ..identity() };
    let (pod, _) = after(&pod(&json!({"name": "c"})), &identity);
    assert_eq!(names(&pod["spec"]["containers"][0]["env"]), ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"]);
}

#[test]
fn skipped_containers_are_left_alone() {
    for (annotation, touched, warnings) in [
        ("a", vec!["b", "i"], 0),
        ("a,i", vec!["b"], 0),
        (r#""a", b"#, vec!["i"], 0),
        ("a\nb", vec!["b", "i"], 0),
        ("", vec!["a", "b", "i"], 0),
        ("x,a", vec!["b", "i"], 1),
    ] {
        let pod = json!({
            "metadata": {"annotations": {"eks.amazonaws.com/skip-containers": annotation}},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
        });
        let (pod, said) = after(&pod, &identity());
        let containers =
            ["containers", "initContainers"].into_iter().flat_map(|l| pod["spec"][l].as_array().unwrap());
        let got: Vec<_> =
            containers.filter(|c| c.get("env").is_some()).map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(got, touched, "{annotation}");
        assert_eq!(said.len(), warnings, "{annotation}: {said:?}");
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1, "{annotation}");
    }
}

#[test]
fn the_pod_s_own_token_life_wins() {
    for (annotation, seconds, warnings) in [
        ("3600", 3600, 0),
        ("60", 600, 1),
        ("99999999999", 1i64 << 32, 1),
        ("soon", 86_400, 1),
        ("", 86_400, 1),
    ] {
        let (pod, said) = after(&annotated("token-expiration", annotation), &identity());
        let token = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(token["expirationSeconds"], seconds, "{annotation}");
        assert_eq!(said.len(), warnings, "{annotation}: {said:?}");
    }
}

#[test]
fn an_existing_token_volume_is_used_and_a_foreign_one_is_not() {
    let foreign = |name: &str| json!({"name": name, "hostPath": {"path": "/etc"}});
    let (first, second) = ("aws-iam-token", "aws-iam-token-podidentity");
    for (volumes, expected, used, warnings) in [
        (json!([]), vec![first], first, 0),
        (json!([{"name": "d"}]), vec![first, "d"], first, 0),
        (json!([token_volume(first)]), vec![first], first, 0),
        (json!([foreign(first)]), vec![second, first], second, 1),
        (json!([foreign(first), token_volume(second)]), vec![first, second], second, 1),
    ] {
        let mut pod = pod(&json!({"name": "c"}));
        pod["spec"]["volumes"] = volumes.clone();
        let (pod, said) = after(&pod, &identity());
        assert_eq!(names(&pod["spec"]["volumes"]), expected, "{volumes}");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], json!([mount(used, PATH)]), "{volumes}");
        assert_eq!(said.len(), warnings, "{volumes}: {said:?}");
    }
    let mut pod = pod(&json!({"name": "c"}));
    pod["spec"]["volumes"] = json!([foreign(first), foreign(second)]);
    assert_eq!(of(&pod, &identity()), Err(MutateError::VolumeNamesTaken));
}

#[test]
fn two_mounts_never_share_a_path() {
    let other = format!("{PATH}-podidentity");
    let own = [variable("AWS_ROLE_ARN", "own"), variable("AWS_WEB_IDENTITY_TOKEN_FILE", "own")];
    for (what, mounts, env, added, file) in [
        ("free", vec![mount("d", "/d")], vec![], Some(PATH), Some(format!("{PATH}/token"))),
        ("taken", vec![mount("d", PATH)], vec![], Some(other.as_str()), Some(format!("{other}/token"))),
        (
            "taken, slash",
            vec![mount("d", &format!("{PATH}/"))],
            vec![],
            Some(&other),
            Some(format!("{other}/token")),
        ),
        ("both taken", vec![mount("d", PATH), mount("e", &other)], vec![], None, None),
        ("made by hand", vec![mount("d", PATH)], own.to_vec(), None, Some("own".into())),
        ("mounted elsewhere", vec![mount("aws-iam-token", "/t")], vec![], None, Some("/t/token".into())),
    ] {
        let (pod, _) = after(&pod(&json!({"name": "c", "volumeMounts": mounts, "env": env})), &identity());
        let container = &pod["spec"]["containers"][0];
        let mut expected = mounts.clone();
        expected.extend(added.map(|path| mount("aws-iam-token", path)));
        assert_eq!(container["volumeMounts"], Value::Array(expected), "{what}");
        let variables = container["env"].as_array().unwrap();
        let got = variables.iter().find(|v| v["name"] == "AWS_WEB_IDENTITY_TOKEN_FILE");
        assert_eq!(got.map(|v| v["value"].as_str().unwrap()), file.as_deref(), "{what}");
    }
}

#[test]
fn windows_finds_the_token_on_its_drive() {
    for spec in [
        json!({"nodeSelector": {"kubernetes.io/os": "windows"}}),
        json!({"nodeSelector": {"beta.kubernetes.io/os": "windows"}}),
        json!({"os": {"name": "windows"}}),
    ] {
        let mut pod = pod(&json!({"name": "c"}));
        json_patch::merge(&mut pod["spec"], &spec);
        let (pod, _) = after(&pod, &identity());
        let container = &pod["spec"]["containers"][0];
        let file = r"C:\var\run\secrets\eks.amazonaws.com\serviceaccount\token";
        assert_eq!(container["env"][4], variable("AWS_WEB_IDENTITY_TOKEN_FILE", file));
        assert_eq!(container["volumeMounts"], json!([mount("aws-iam-token", PATH)]));
    }
}
