//! Problems that keep a pod's containers from using their identity. Each is a warning and is counted; where an identity is
//! required, some are a refusal. The cases are taken from public bug reports.

use serde_json::{Value, json};
use webhook::model::{Outcome, WebhookEntry};
use webhook::protocol::admit::Admission;

use crate::fake::BINDINGS;
use crate::reviews::{ask_through, cluster, deleting, review, synced};

const DIRECTORY: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
const ROLE: &str = "arn:aws:iam::111122223333:role/podidentity/homelab/homelab.vault.vault-bno5n7ilbuky";
const OTHER: &str = "arn:aws:iam::444455556666:role/podidentity/old/old.vault.vault-aaaaaaaaaaaa";

fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn token(name: &str, audience: Option<&str>) -> Value {
    let mut source = json!({"expirationSeconds": 3600, "path": "token"});
    if let Some(audience) = audience {
        source["audience"] = json!(audience);
    }
    json!({"name": name, "projected": {"sources": [{"serviceAccountToken": source}]}})
}

fn mount(path: &str, more: &Value) -> Value {
    let mut mount = json!({"name": "aws-iam-token", "mountPath": path});
    json_patch::merge(&mut mount, more);
    mount
}

/// A pod of `vault/vault` with these variables and mounts in its container, and these volumes.
fn pod(env: &Value, mounts: &Value, volumes: &Value) -> Value {
    let mut review = review("vault", "vault");
    let spec = &mut review["request"]["object"]["spec"];
    spec["containers"] = json!([{"name": "app", "env": env, "volumeMounts": mounts}]);
    spec["volumes"] = volumes.clone();
    review
}

fn with_env_from(mut review: Value) -> Value {
    review["request"]["object"]["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "s"}}]);
    review
}

/// How often a problem was counted.
fn counted(admission: &Admission, reason: &str) -> u64 {
    let text = admission.metrics.text();
    let line = format!(r#"pod_problems_total{{reason="{reason}"}} "#);
    let (_, rest) = text.split_once(&line).unwrap_or_else(|| panic!("no series of {reason}"));
    rest.lines().next().unwrap().parse().unwrap()
}

fn warnings(body: &Value) -> Vec<&str> {
    body["response"]["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|warning| warning.as_str().unwrap())
        .collect()
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn a_problem_is_a_warning_and_a_refusal_where_it_prevents_a_required_identity() {
    let file = format!("{DIRECTORY}/token");
    let both = |role: &str, file: &str| {
        json!([variable("AWS_ROLE_ARN", role), variable("AWS_WEB_IDENTITY_TOKEN_FILE", file)])
    };
    let (ours, of_vault) =
        (json!([token("aws-iam-token", Some("sts.amazonaws.com"))]), json!([token("t", Some("vault"))]));
    let windows = DIRECTORY.replace('/', r"\");
    for (what, review, reason, required, message) in [
        (
            "restored from another cluster",
            pod(&both(OTHER, &file), &json!([mount(DIRECTORY, &json!({}))]), &ours),
            "other_role",
            true,
            format!("container app: AWS_ROLE_ARN is {OTHER}, its PodIdentityBinding says {ROLE}"),
        ),
        (
            "a token of another audience",
            pod(&both(ROLE, "/v/token"), &json!([{"name": "t", "mountPath": "/v/"}]), &of_vault),
            "other_token",
            true,
            "container app uses a token of audience vault, its PodIdentityBinding says sts.amazonaws.com".into(),
        ),
        (
            "a token of another audience, by subPath",
            pod(&both(ROLE, "/v"), &json!([{"name": "t", "mountPath": "/v", "subPath": "token"}]), &of_vault),
            "other_token",
            true,
            "container app uses a token of audience vault, its PodIdentityBinding says sts.amazonaws.com".into(),
        ),
        (
            "the API server's own audience",
            pod(&both(ROLE, "/v/token"), &json!([{"name": "t", "mountPath": "/v"}]), &json!([token("t", None)])),
            "other_token",
            false,
            "container app uses a token without an audience, its PodIdentityBinding says sts.amazonaws.com".into(),
        ),
        (
            "on Windows",
            pod(
                &both(ROLE, &format!(r"C:{windows}\token")),
                &json!([mount(DIRECTORY, &json!({}))]),
                &json!([token("aws-iam-token", Some("vault"))]),
            ),
            "other_token",
            true,
            "container app uses a token of audience vault, its PodIdentityBinding says sts.amazonaws.com".into(),
        ),
        (
            "half an identity",
            pod(&json!([variable("AWS_ROLE_ARN", ROLE)]), &json!([]), &json!([])),
            "half_identity",
            true,
            "container app sets AWS_ROLE_ARN itself, so AWS_WEB_IDENTITY_TOKEN_FILE is not injected".into(),
        ),
        (
            "a static key",
            pod(&json!([variable("AWS_ACCESS_KEY_ID", "AKIAHUNTER2")]), &json!([]), &json!([])),
            "static_key",
            true,
            "container app sets AWS_ACCESS_KEY_ID: AWS SDKs use that key, and not the role; remove it".into(),
        ),
        (
            "a static key of a Secret",
            pod(
                &json!([{"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
                &json!([]),
                &json!([]),
            ),
            "static_key",
            true,
            "container app sets AWS_ACCESS_KEY_ID: AWS SDKs use that key, and not the role; remove it".into(),
        ),
        (
            "a static key of a Secret that may be missing",
            pod(
                &json!([{"name": "AWS_ACCESS_KEY_ID", "valueFrom": {
                    "secretKeyRef": {"name": "s", "key": "k", "optional": true},
                }}]),
                &json!([]),
                &json!([]),
            ),
            "static_key",
            false,
            "container app sets AWS_ACCESS_KEY_ID: AWS SDKs use that key, and not the role; remove it".into(),
        ),
        (
            "half an identity, the other half perhaps from a Secret",
            with_env_from(pod(&json!([variable("AWS_ROLE_ARN", ROLE)]), &json!([]), &json!([]))),
            "half_identity",
            false,
            "container app sets AWS_ROLE_ARN itself, so AWS_WEB_IDENTITY_TOKEN_FILE is not injected".into(),
        ),
        (
            "a mount by subPath of a volume that is to be added",
            pod(&json!([]), &json!([mount("/t", &json!({"subPathExpr": "$(A)"}))]), &json!([])),
            "sub_path",
            false,
            "container app mounts the token by subPath at /t, where it is never renewed: mount the whole volume".into(),
        ),
        (
            "a mount by subPath beside one of the whole volume",
            pod(
                &json!([]),
                &json!([mount("/t", &json!({"subPath": "token"})), mount("/whole", &json!({}))]),
                &ours,
            ),
            "sub_path",
            false,
            "container app mounts the token by subPath at /t, where it is never renewed: mount the whole volume".into(),
        ),
        (
            "a profile",
            pod(&json!([variable("AWS_PROFILE", "default")]), &json!([]), &json!([])),
            "profile",
            false,
            "container app sets AWS_PROFILE: AWS SDKs for Go use that profile, and not the role".into(),
        ),
        (
            "a collision of names only",
            pod(&json!([]), &json!([mount(DIRECTORY, &json!({}))]), &json!([token("aws-iam-token", Some("vault"))])),
            "other_volume",
            false,
            "volume aws-iam-token has a token of audience vault, its PodIdentityBinding says sts.amazonaws.com: the token is \
             added beside it"
                .into(),
        ),
        (
            "a mount by subPath",
            pod(&json!([]), &json!([mount("/t", &json!({"subPath": "token"}))]), &ours),
            "sub_path",
            false,
            "container app mounts the token by subPath at /t, where it is never renewed: mount the whole volume".into(),
        ),
    ] {
        let admission = synced(&cluster()).await;
        let (answer, body) = ask_through(WebhookEntry::Pods, &admission, &review).await;
        assert!([Outcome::Mutated, Outcome::Complete].contains(&answer.outcome), "{what}: {body}");
        assert!(warnings(&body).contains(&message.as_str()), "{what}: {body}");
        assert_eq!(counted(&admission, reason), 1, "{what}");
        let mut dry = review.clone();
        dry["request"]["dryRun"] = json!(true);
        ask_through(WebhookEntry::Pods, &admission, &dry).await;
        assert_eq!(counted(&admission, reason), 1, "{what}: a dry run is not counted");
        for entry in [WebhookEntry::RequiredNamespaces, WebhookEntry::RequiredPods] {
            let (answer, body) = ask_through(entry, &admission, &review).await;
            assert_eq!(answer.outcome == Outcome::Required, required, "{what}: {body}");
            if required {
                let refusal = body["response"]["status"]["message"].as_str().unwrap();
                assert!(refusal.ends_with(&message), "{what}: {refusal}");
            }
        }
        assert_eq!(counted(&admission, reason), if required { 3 } else { 1 }, "{what}: refusals count");
    }
}

#[tokio::test]
async fn what_is_not_known_and_what_is_the_same_is_no_problem() {
    let admission = synced(&cluster()).await;
    let reference =
        |name: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    let file = format!("{DIRECTORY}/token");
    let ours = json!([token("aws-iam-token", Some("sts.amazonaws.com"))]);
    for (what, env, mounts) in [
        (
            "references",
            json!([reference("AWS_ROLE_ARN"), reference("AWS_WEB_IDENTITY_TOKEN_FILE")]),
            json!([]),
        ),
        (
            "references to other variables",
            json!([
                variable("ROLE", OTHER),
                variable("AWS_ROLE_ARN", "$(ROLE)"),
                variable("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"),
            ]),
            json!([]),
        ),
        (
            "the same",
            json!([variable("AWS_ROLE_ARN", ROLE), variable("AWS_WEB_IDENTITY_TOKEN_FILE", &file)]),
            json!([mount(DIRECTORY, &json!({}))]),
        ),
        (
            "empty texts",
            json!([
                variable("AWS_ACCESS_KEY_ID", ""),
                variable("AWS_PROFILE", ""),
                variable("AWS_ROLE_ARN", ""),
                {"name": "AWS_WEB_IDENTITY_TOKEN_FILE"},
            ]),
            json!([]),
        ),
    ] {
        let review = pod(&env, &mounts, &ours);
        let (answer, body) = ask_through(WebhookEntry::RequiredPods, &admission, &review).await;
        assert!([Outcome::Mutated, Outcome::Complete].contains(&answer.outcome), "{what}: {body}");
        assert_eq!(warnings(&body), Vec::<&str>::new(), "{what}");
    }
}

#[tokio::test]
async fn an_annotation_that_nothing_reads_is_named_with_the_right_key_and_place() {
    let api = cluster();
    for (name, key) in
        [("domain", "eks.amazon.com/role-arn"), ("name", "eks.amazonaws.com/roleArn"), ("bare", "role_arn")]
    {
        api.put_annotated("vault", name, &[(key, OTHER)]);
    }
    api.put_annotated("vault", "vault", &[("eks.amazonaws.com/role_arn", OTHER)]);
    let admission = synced(&api).await;
    let of_account = |key: &str| {
        format!("annotation {key} of the ServiceAccount has no effect: eks.amazonaws.com/role-arn is read")
    };
    for (account, expected) in [
        ("domain", vec![of_account("eks.amazon.com/role-arn")]),
        ("name", vec![of_account("eks.amazonaws.com/roleArn")]),
        ("bare", vec![of_account("role_arn")]),
        ("plain", vec![]),
        // The binding decides: no annotation counts.
        ("vault", vec![]),
    ] {
        let (_, body) = ask_through(WebhookEntry::Pods, &admission, &review("vault", account)).await;
        assert_eq!(warnings(&body), expected, "{account}");
    }
    assert_eq!(counted(&admission, "annotation"), 3);

    let of_pod = |key: &str, advice: &str| format!("annotation {key} of the pod has no effect: {advice}");
    for (account, key, expected) in [
        ("plain", "eks.amazonaws.com/role-arn", Some("it is read from the ServiceAccount")),
        ("plain", "ROLE_ARN", Some("eks.amazonaws.com/role-arn is read, from the ServiceAccount")),
        ("annotated", "eks.amazonaws.com/role-arn", Some("it is read from the ServiceAccount")),
        // A binding decides: also on the ServiceAccount it would have no effect.
        ("vault", "eks.amazonaws.com/role-arn", None),
        ("vault", "eks.amazonaws.com/skipContainers", Some("eks.amazonaws.com/skip-containers is read")),
    ] {
        let mut review = review("vault", account);
        review["request"]["object"]["metadata"]["annotations"] =
            json!({key: OTHER, "prometheus.io/role": "pod"});
        let (_, body) = ask_through(WebhookEntry::Pods, &admission, &review).await;
        let expected: Vec<_> = expected.map(|advice| of_pod(key, advice)).into_iter().collect();
        assert_eq!(warnings(&body), expected, "{account} {key}");
    }
    assert_eq!(counted(&admission, "annotation"), 7);

    // Where an identity is required, the refusal says it.
    let (answer, body) = ask_through(WebhookEntry::RequiredPods, &admission, &review("vault", "name")).await;
    assert_eq!(answer.outcome, Outcome::Required);
    let refusal = body["response"]["status"]["message"].as_str().unwrap();
    assert!(refusal.ends_with(&of_account("eks.amazonaws.com/roleArn")), "{refusal}");
    assert_eq!(counted(&admission, "annotation"), 8);
}

#[tokio::test]
async fn a_skipped_container_and_a_service_account_without_a_binding_may_use_what_they_like() {
    let admission = synced(&cluster()).await;
    let keys = json!([variable("AWS_ACCESS_KEY_ID", "AKIAHUNTER2")]);
    let mut skipped = pod(&keys, &json!([]), &json!([]));
    skipped["request"]["object"]["metadata"]["annotations"] =
        json!({"eks.amazonaws.com/skip-containers": "app"});
    let mut init = pod(&json!([]), &json!([]), &json!([]));
    init["request"]["object"]["spec"]["initContainers"] = json!([{"name": "init", "env": keys}]);
    let mut unbound = pod(&keys, &json!([]), &json!([]));
    unbound["request"]["object"]["spec"]["serviceAccountName"] = json!("annotated");
    let (namespaces, pods) = (WebhookEntry::RequiredNamespaces, WebhookEntry::RequiredPods);
    for (what, review, entry, refused) in [
        ("skipped", &skipped, pods, false),
        ("an init container", &init, namespaces, true),
        ("an init container", &init, pods, true),
        ("unbound, in a namespace", &unbound, namespaces, false),
        ("unbound, a pod that requires its identity", &unbound, pods, true),
    ] {
        let (answer, body) = ask_through(entry, &admission, review).await;
        assert_eq!(answer.outcome == Outcome::Required, refused, "{what}: {body}");
    }
}

/// The identity of the pod's binding is not known yet, as right after a restore of a cluster.
#[tokio::test]
async fn a_restored_pod_does_not_satisfy_what_requires_an_identity() {
    let api = cluster();
    api.put_account("vault", "leaving", None);
    api.put(BINDINGS, deleting("leaving"));
    let admission = synced(&api).await;
    let env = json!([
        variable("AWS_ROLE_ARN", OTHER),
        variable("AWS_WEB_IDENTITY_TOKEN_FILE", &format!("{DIRECTORY}/token")),
    ]);
    let volumes = json!([token("aws-iam-token", Some("sts.amazonaws.com"))]);
    let mut review = pod(&env, &json!([mount(DIRECTORY, &json!({}))]), &volumes);
    review["request"]["object"]["spec"]["serviceAccountName"] = json!("leaving");
    let [complete, refused] = [Outcome::Complete, Outcome::Required];
    for (entry, expected) in WebhookEntry::ALL.into_iter().zip([complete, refused, refused]) {
        assert_eq!(ask_through(entry, &admission, &review).await.0.outcome, expected, "{entry:?}");
    }
}

/// A review of 3 MiB may have a million items. The webhook has one thread, and little memory.
#[tokio::test]
async fn the_cost_of_a_pod_is_bounded() {
    let admission = synced(&cluster()).await;
    let with = |containers: Vec<Value>, volumes: Vec<Value>| {
        let mut review = review("vault", "vault");
        review["request"]["object"]["spec"]["containers"] = json!(containers);
        review["request"]["object"]["spec"]["volumes"] = json!(volumes);
        review
    };
    let (answer, _) = ask_through(WebhookEntry::Pods, &admission, &with(vec![json!({}); 5000], vec![])).await;
    assert_eq!(answer.outcome, Outcome::Denied, "no pod has 5,000 containers");

    let env = json!([variable("AWS_WEB_IDENTITY_TOKEN_FILE", "/"), variable("AWS_ACCESS_KEY_ID", "x")]);
    let container = json!({"env": env, "volumeMounts": [{"name": "z"}]});
    let mut volumes = vec![json!({}); 200_000];
    volumes.extend((0..20_000).map(|number| json!({"name": format!("v{number}")})));
    let review = with(vec![container; 4000], volumes);
    let (answer, body) = ask_through(WebhookEntry::RequiredPods, &admission, &review).await;
    assert_eq!(answer.outcome, Outcome::Required);
    assert!(answer.body.len() < 10_000, "{} bytes", answer.body.len());
    let message = body["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("sets AWS_ACCESS_KEY_ID"), "{message}");
}

#[tokio::test]
async fn both_arns_fit_into_a_warning() {
    let admission = synced(&cluster()).await;
    let other =
        format!("arn:aws-us-gov:iam::444455556666:role/podidentity/{}/{}", "c".repeat(24), "r".repeat(64));
    let env = json!([variable("AWS_ROLE_ARN", &other), variable("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")]);
    let mut review = pod(&env, &json!([]), &json!([]));
    review["request"]["object"]["spec"]["containers"][0]["name"] = json!("n".repeat(63));
    let (_, body) = ask_through(WebhookEntry::Pods, &admission, &review).await;
    assert!(warnings(&body)[0].ends_with(ROLE), "{body}");
}

#[tokio::test]
async fn a_lifetime_is_warned_of_only_where_it_is_used() {
    let api = cluster();
    let role = ("eks.amazonaws.com/role-arn", OTHER);
    api.put_annotated("vault", "annotated", &[role, ("eks.amazonaws.com/token-expiration", "99999")]);
    let admission = synced(&api).await;
    let of_account = "token-expiration 99999 is not between 600 and 86400; 86400 is used";
    let of_pod = "token-expiration 5 is not between 600 and 86400; 600 is used";
    for (annotation, volumes, expected) in [
        (None, json!([]), vec![of_account]),
        (Some("3600"), json!([]), vec![]),
        (Some("5"), json!([]), vec![of_pod]),
        // The pod has its token, with a lifetime of its own.
        (None, json!([token("aws-iam-token", Some("flag.example"))]), vec![]),
    ] {
        let mut review = review("vault", "annotated");
        let pod = &mut review["request"]["object"];
        pod["spec"]["volumes"] = volumes;
        if let Some(seconds) = annotation {
            pod["metadata"]["annotations"] = json!({"eks.amazonaws.com/token-expiration": seconds});
        }
        let (_, body) = ask_through(WebhookEntry::Pods, &admission, &review).await;
        let told = warnings(&body);
        assert_eq!(told.len(), expected.len(), "{annotation:?}: {told:?}");
        assert!(told.iter().zip(&expected).all(|(told, expected)| told.ends_with(expected)), "{told:?}");
    }
}
