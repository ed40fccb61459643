//! What is added to a pod, rule by rule.

use std::sync::LazyLock;

use crds::pod::Pod;
use crds::pod::problem::PodProblem;
use json_patch::Patch;
use serde_json::{Value, json};
use webhook::identity::model::{CredentialMethod, Identity, IdentitySource};
use webhook::identity::mutate::{MutateError, mutate};
use webhook::identity::settings::Settings;

const PATH: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
const ROLE: &str = "arn:aws:iam::111122223333:role/r";

pub fn identity() -> Identity<'static> {
    Identity {
        source: IdentitySource::Binding,
        method: CredentialMethod::Role(ROLE.into()),
        audience: "sts.amazonaws.com",
        expiration_seconds: 86_400,
        region: Some("eu-central-1"),
        sts_regional_endpoints: true,
    }
}

pub static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings::new("eks.amazonaws.com"));

/// The patch as it is sent, the containers without identity, and the warnings.
pub struct Additions {
    pub patch: Patch,
    pub left_out: Vec<String>,
    pub warnings: Vec<String>,
}

pub fn of(pod: &Value, identity: &Identity<'_>, settings: &Settings) -> Result<Additions, MutateError> {
    let text = pod.to_string();
    let pod: Pod<'_> = serde_json::from_str(&text).unwrap();
    let mutation = mutate(&pod, identity, settings, "705ab4f5-6393-11e8-b7cc-42010a800002")?;
    let patch = serde_json::from_str(&serde_json::to_string(&mutation.patch).unwrap()).unwrap();
    let problems = mutation.problems.iter().map(PodProblem::to_string);
    let warnings = mutation.warnings.into_iter().chain(problems).collect();
    Ok(Additions { patch, left_out: mutation.left_out, warnings })
}

/// The pod afterwards, and the warnings.
pub fn after(pod: &Value, identity: &Identity<'_>) -> (Value, Vec<String>) {
    after_with(pod, identity, &SETTINGS)
}

fn after_with(pod: &Value, identity: &Identity<'_>, settings: &Settings) -> (Value, Vec<String>) {
    let Additions { patch, warnings, .. } = of(pod, identity, settings).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    (pod, warnings)
}

pub fn pod(container: &Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "s", "containers": [container]}})
}

fn annotated(key: &str, value: &str) -> Value {
    let mut pod = pod(&json!({"name": "c"}));
    pod["metadata"]["annotations"] = json!({format!("eks.amazonaws.com/{key}"): value});
    pod
}

pub fn variable(name: &str, value: &str) -> Value {
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

pub fn mount(name: &str, path: &str) -> Value {
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
fn a_pod_without_any_gets_all_in_the_order_of_the_eks_webhook() {
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
    let patch = serde_json::to_value(of(&pod, &identity(), &SETTINGS).unwrap().patch).unwrap();
    let operations: Vec<(&str, &str)> = patch
        .as_array()
        .unwrap()
        .iter()
        .map(|o| (o["op"].as_str().unwrap(), o["path"].as_str().unwrap()))
        .collect();
    let mut expected = vec!["/spec/volumes/-"];
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
fn what_a_container_sets_itself_is_not_changed() {
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
        (vec![STS, DEFAULT, ARN], vec![], false, 1),
        (vec![STS, REGION, ARN, FILE], vec![], false, 0),
    ] {
        for value_from in [false, true] {
            let env: Vec<Value> = set
                .iter()
                .map(|name| {
                    let own_name = json!({"fieldRef": {"fieldPath": "metadata.name"}});
                    match (value_from, *name) {
                        (true, _) => json!({"name": name, "valueFrom": own_name}),
                        (false, ARN) => variable(ARN, ROLE),
                        (false, _) => variable(name, "own"),
                    }
                })
                .collect();
            let (pod, warnings_given) = after(&pod(&json!({"name": "c", "env": env})), &identity());
            let container = &pod["spec"]["containers"][0];
            let expected: Vec<&str> = set.iter().chain(&added).copied().collect();
            assert_eq!(names(&container["env"]), expected, "{set:?}");
            assert_eq!(container.get("volumeMounts").is_some(), mounted, "{set:?}");
            assert_eq!(warnings_given.len(), warnings, "{set:?}: {warnings_given:?}");
            assert_eq!(pod["spec"]["volumes"], json!([token_volume("aws-iam-token")]), "always");
        }
    }
}

#[test]
fn a_variable_that_is_set_to_the_empty_text_gets_its_value_in_place() {
    let settings = Settings { role_session_name: true, ..SETTINGS.clone() };
    let empty = [
        json!({"name": "A", "value": "$(AWS_REGION)"}),
        json!({"name": "AWS_REGION"}),
        variable("AWS_ROLE_ARN", ""),
        json!({"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": null}),
        variable("AWS_ROLE_SESSION_NAME", ""),
        variable("AWS_STS_REGIONAL_ENDPOINTS", ""),
    ];
    let mut before = pod(&json!({"name": "c", "env": empty}));
    before["metadata"]["name"] = json!("web");
    let (pod, warnings) = after_with(&before, &identity(), &settings);
    let own_name = json!({"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}});
    let expected = json!([
        {"name": "A", "value": "$(AWS_REGION)"},
        variable("AWS_REGION", "eu-central-1"),
        variable("AWS_ROLE_ARN", ROLE),
        variable("AWS_WEB_IDENTITY_TOKEN_FILE", &format!("{PATH}/token")),
        {"name": "AWS_ROLE_SESSION_NAME", "value": "", "valueFrom": own_name},
        variable("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        variable("AWS_DEFAULT_REGION", "eu-central-1"),
    ]);
    assert_eq!((&pod["spec"]["containers"][0]["env"], warnings), (&expected, vec![]));
    assert!(of(&pod, &identity(), &settings).unwrap().patch.is_empty(), "a second pass");

    // The kubelet takes the last of several.
    for (values, last) in [(["", "us-east-1"], "us-east-1"), (["us-east-1", ""], "eu-central-1")] {
        let env: Vec<Value> = values.iter().map(|value| variable("AWS_REGION", value)).collect();
        let (pod, _) = after(&self::pod(&json!({"name": "c", "env": env})), &identity());
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        let region = env.iter().rfind(|variable| variable["name"] == "AWS_REGION").unwrap();
        assert_eq!(region["value"], last, "{values:?}");
    }
}

#[test]
fn what_is_disabled_or_not_known_is_not_injected() {
    let identity = Identity { region: None, sts_regional_endpoints: false, ..identity() };
    let (pod, _) = after(&pod(&json!({"name": "c"})), &identity);
    assert_eq!(names(&pod["spec"]["containers"][0]["env"]), ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"]);
}

#[test]
fn skipped_containers_are_not_changed() {
    for (annotation, touched, warnings) in [
        ("a", vec!["b", "i"], 0),
        ("a,i", vec!["b"], 0),
        (r#""a", b"#, vec!["i"], 0),
        // One name in CSV, which no container has.
        (r#""a,b""#, vec!["a", "b", "i"], 1),
        ("a\nb", vec!["b", "i"], 0),
        ("", vec!["a", "b", "i"], 0),
        ("x,a", vec!["b", "i"], 1),
    ] {
        let pod = json!({
            "metadata": {"annotations": {"eks.amazonaws.com/skip-containers": annotation}},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
        });
        let (pod, warnings_given) = after(&pod, &identity());
        let containers =
            ["containers", "initContainers"].into_iter().flat_map(|l| pod["spec"][l].as_array().unwrap());
        let got: Vec<_> =
            containers.filter(|c| c.get("env").is_some()).map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(got, touched, "{annotation}");
        assert_eq!(warnings_given.len(), warnings, "{annotation}: {warnings_given:?}");
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1, "{annotation}");
    }
}

#[test]
fn the_pod_s_own_token_lifetime_counts_first() {
    for (annotation, seconds, warnings) in [
        ("3600", 3600, 0),
        ("60", 600, 1),
        ("86400", 86_400, 0),
        ("86401", 86_400, 1),
        ("4294967296", 86_400, 1),
        ("soon", 86_400, 1),
        ("", 86_400, 1),
    ] {
        let (pod, warnings_given) = after(&annotated("token-expiration", annotation), &identity());
        let token = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(token["expirationSeconds"], seconds, "{annotation}");
        assert_eq!(warnings_given.len(), warnings, "{annotation}: {warnings_given:?}");
    }
}

#[test]
fn an_existing_token_volume_is_used_and_a_foreign_one_is_not() {
    let foreign = |name: &str| json!({"name": name, "hostPath": {"path": "/etc"}});
    let of_other_audience = |name: &str| {
        let mut volume = token_volume(name);
        volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!("vault");
        volume
    };
    let (first, second) = ("aws-iam-token", "aws-iam-token-podidentity");
    for (volumes, expected, used, warnings) in [
        (json!([]), vec![first], first, 0),
        (json!([{"name": "d"}]), vec!["d", first], first, 0),
        (json!([token_volume(first)]), vec![first], first, 0),
        (json!([foreign(first)]), vec![first, second], second, 1),
        (json!([of_other_audience(first)]), vec![first, second], second, 1),
        (json!([of_other_audience(first), token_volume(second)]), vec![first, second], second, 1),
        (json!([foreign(first), token_volume(second)]), vec![first, second], second, 1),
    ] {
        let mut pod = pod(&json!({"name": "c"}));
        pod["spec"]["volumes"] = volumes.clone();
        let (pod, warnings_given) = after(&pod, &identity());
        assert_eq!(names(&pod["spec"]["volumes"]), expected, "{volumes}");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], json!([mount(used, PATH)]), "{volumes}");
        assert_eq!(warnings_given.len(), warnings, "{volumes}: {warnings_given:?}");
    }
    let mut pod = pod(&json!({"name": "c"}));
    pod["spec"]["volumes"] = json!([foreign(first), foreign(second)]);
    assert_eq!(
        of(&pod, &identity(), &SETTINGS).err(),
        Some(MutateError::VolumeNamesTaken("aws-iam-token".into()))
    );
}

#[test]
fn two_mounts_never_share_a_path() {
    let other = format!("{PATH}-podidentity");
    let own = [variable("AWS_ROLE_ARN", "own"), variable("AWS_WEB_IDENTITY_TOKEN_FILE", "own")];
    let by = |field: &str, path: &str| {
        let mut mount = mount("aws-iam-token", "/t");
        mount[field] = json!(path);
        mount
    };
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
        (
            "below",
            vec![mount("d", &format!("{PATH}/d"))],
            vec![],
            Some(&other),
            Some(format!("{other}/token")),
        ),
        ("beside", vec![mount("d", &format!("{PATH}s"))], vec![], Some(PATH), Some(format!("{PATH}/token"))),
        ("by subPath", vec![by("subPath", "token")], vec![], Some(PATH), Some(format!("{PATH}/token"))),
        ("another part", vec![by("subPath", "..data")], vec![], Some(PATH), Some(format!("{PATH}/token"))),
        (
            "by subPathExpr",
            vec![by("subPathExpr", "$(A)")],
            vec![],
            Some(PATH),
            Some(format!("{PATH}/token")),
        ),
        (
            "by subPath first, and whole",
            vec![by("subPath", "token"), mount("aws-iam-token", "/whole/")],
            vec![],
            None,
            Some("/whole/token".into()),
        ),
        ("no subPath", vec![by("subPath", "")], vec![], None, Some("/t/token".into())),
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
fn on_windows_the_path_of_the_token_has_a_drive() {
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

/// As the kubelet expands `env[].value`: `$(NAME)` of a variable that is set, and `$$`.
fn expanded(value: &str) -> String {
    let (mut out, mut rest) = (String::new(), value);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((_, after)) = rest.strip_prefix('(').and_then(|name| name.split_once(')')) {
            out.push_str("hunter2");
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[test]
fn injected_values_do_not_refer_to_other_variables() {
    let hostile = "arn:aws:iam::999999999999:role/$(DB_PASSWORD)";
    for (value, injected) in [
        (hostile.to_owned(), hostile.replace("$(", "$$(")),
        // Only its "$(" doubled, this would be "$$$(DB_PASSWORD)", which the kubelet expands.
        (hostile.replace('$', "$$"), hostile.replace('$', "$$$$")),
        (hostile.replace('$', "$$$"), hostile.replace('$', "$$$$$$")),
        ("role/a$".into(), "role/a$$".into()),
        (ROLE.into(), ROLE.into()),
    ] {
        let identity = Identity { method: CredentialMethod::Role(value.clone().into()), ..identity() };
        let identity = Identity { region: Some(&value), ..identity };
        let settings = Settings { mount_path: format!("/{value}"), ..SETTINGS.clone() };
        let (pod, _) = after_with(&pod(&json!({"name": "c"})), &identity, &settings);
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        let file = |value: &str| format!("/{value}/token");
        for (index, injected, value) in [
            (1, injected.clone(), value.clone()),
            (2, injected.clone(), value.clone()),
            (3, injected.clone(), value.clone()),
            (4, file(&injected), file(&value)),
        ] {
            assert_eq!(env[index]["value"], injected, "{}", env[index]["name"]);
            assert_eq!(expanded(&injected), value, "what the container gets");
        }
        assert!(of(&pod, &identity, &settings).unwrap().patch.is_empty(), "a second pass");
    }
    let uri = "http://agent/$(DB_PASSWORD)";
    let mut settings = SETTINGS.clone();
    settings.container_credentials.full_uri = uri.into();
    let (pod, _) = after_with(&pod(&json!({"name": "c"})), &agent(), &settings);
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["value"], uri.replace('$', "$$"));
}

pub fn agent() -> Identity<'static> {
    Identity {
        source: IdentitySource::ContainerCredentials,
        method: CredentialMethod::ContainerCredentials,
        audience: "pods.eks.amazonaws.com",
        region: None,
        sts_regional_endpoints: false,
        ..identity()
    }
}

#[test]
fn jitter_applies_to_24_hours_only_and_differs_from_pod_to_pod() {
    let jittered = Settings { expiration_jitter: true, ..SETTINGS.clone() };
    let seconds = |life: i64, settings: &Settings, seed: &str| {
        let identity = Identity { expiration_seconds: life, ..identity() };
        let text = pod(&json!({"name": "c"})).to_string();
        let pod: Pod<'_> = serde_json::from_str(&text).unwrap();
        let patch = serde_json::to_value(&mutate(&pod, &identity, settings, seed).unwrap().patch).unwrap();
        patch[0]["value"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"]
            .as_i64()
            .unwrap()
    };
    assert_eq!(seconds(86_400, &SETTINGS, "a"), 86_400);
    assert_eq!(seconds(86_399, &jittered, "a"), 86_399);
    let spread: Vec<i64> = (0..1000).map(|seed| seconds(86_400, &jittered, &format!("uid-{seed}"))).collect();
    assert!(spread.iter().all(|seconds| (79_200..=86_400).contains(seconds)), "{spread:?}");
    let mean = spread.iter().sum::<i64>() / 1000;
    assert!((82_500..83_100).contains(&mean), "its mean is {mean}");
    assert_eq!(seconds(86_400, &jittered, "a"), seconds(86_400, &jittered, "a"));
}

#[test]
fn the_session_has_the_pod_s_name_where_that_is_enabled() {
    let named = Settings { role_session_name: true, ..SETTINGS.clone() };
    let reference = json!({
        "name": "AWS_ROLE_SESSION_NAME",
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
    });
    let env = |pod: &Value| pod["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    let mut plain = pod(&json!({"name": "c"}));
    plain["metadata"]["name"] = json!("web");
    let (named_pod, _) = after_with(&plain, &identity(), &named);
    assert_eq!(env(&named_pod).last(), Some(&reference));
    assert!(of(&named_pod, &identity(), &named).unwrap().patch.is_empty(), "a second pass");
    assert!(!env(&after(&plain, &identity()).0).contains(&reference), "only where it is wanted");
    let own = pod(&json!({"name": "c", "env": [variable("AWS_ROLE_SESSION_NAME", "own")]}));
    assert!(!env(&after_with(&own, &identity(), &named).0).contains(&reference));
    for (length, fits) in [(0, true), (1, false), (2, true), (64, true), (65, false)] {
        let mut other = plain.clone();
        other["metadata"]["name"] = json!("n".repeat(length));
        let (other, warnings) = after_with(&other, &identity(), &named);
        assert_eq!((env(&other).contains(&reference), warnings.is_empty()), (fits, fits), "{warnings:?}");
    }
}

#[test]
fn a_container_without_a_free_mount_path_is_named() {
    let mounts = [mount("d", PATH), mount("e", &format!("{PATH}-podidentity"))];
    let warnings_given =
        of(&pod(&json!({"name": "c", "volumeMounts": mounts})), &identity(), &SETTINGS).unwrap();
    assert_eq!(warnings_given.left_out, ["c"]);
}
