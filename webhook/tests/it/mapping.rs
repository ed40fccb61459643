//! The ConfigMap in kOps' form, and the container-credentials file: what is read, what is reported, what stays in force.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use webhook::cluster::sources::Sources;
use webhook::identity::credentials::ContainerCredentialsList;
use webhook::identity::mapping::{Mapped, Mapping, MappingProblem};
use webhook::metrics::Metrics;

const ARN: &str = "arn:aws:iam::111122223333:role/app";

fn entry(arn: &str) -> Mapped {
    Mapped { role_arn: arn.into(), audience: None, sts_regional_endpoints: false, expiration_seconds: None }
}

#[test]
fn what_kops_writes_is_read() {
    // As nodeup renders it (kubernetes/kops, upup/models/cloudup/resources/addons/eks-pod-identity-webhook).
    let text = r#"{
        "default/myserviceaccount": {"RoleARN": "arn:aws:iam::111122223333:role/app", "Audience": "amazonaws.com", "UseRegionalSTS": true, "TokenExpiration": 0},
        "*/any": {"rolearn": "arn:aws:iam::111122223333:role/any"},
        "exact/any": {"ROLEARN": "arn:aws:iam::111122223333:role/exact", "tokenExpiration": 3600, "audience": ""}
    }"#;
    let (mapping, problems) = Mapping::read(text, &Mapping::default());
    assert_eq!((mapping.len(), problems), (3, vec![]));
    let get = |namespace, account| mapping.get(namespace, account).map(|mapped| (**mapped).clone());
    let kops = Mapped { audience: Some("amazonaws.com".into()), sts_regional_endpoints: true, ..entry(ARN) };
    assert_eq!(get("default", "myserviceaccount"), Some(kops));
    assert_eq!(get("elsewhere", "any"), Some(entry("arn:aws:iam::111122223333:role/any")));
    let exact = Mapped { expiration_seconds: Some(3600), ..entry("arn:aws:iam::111122223333:role/exact") };
    assert_eq!(get("exact", "any"), Some(exact), "the namespace's own entry wins");
    assert_eq!(get("default", "other"), None);
}

#[test]
fn a_namespace_may_be_a_pattern() {
    let arn = |name: &str| format!("arn:aws:iam::111122223333:role/{name}");
    let keys = ["team-a/app", "team-*/app", "team-*-dev/app", "*/app", "*-dev/app", "team-b/other"];
    let text: serde_json::Value =
        keys.iter().map(|key| ((*key).to_owned(), json!({"RoleARN": arn(key)}))).collect();
    let (mapping, problems) = Mapping::read(&text.to_string(), &Mapping::default());
    assert_eq!((mapping.len(), problems), (keys.len(), vec![]));
    for (namespace, account, expected) in [
        ("team-a", "app", Some("team-a/app")),
        ("team-b", "app", Some("team-*/app")),
        ("team-b-dev", "app", Some("team-*-dev/app")),
        ("x-dev", "app", Some("*-dev/app")),
        ("team", "app", Some("*/app")),
        ("team-b", "other", Some("team-b/other")),
        ("team-a", "other", None),
    ] {
        let found = mapping.get(namespace, account).map(|entry| entry.role_arn.to_string());
        assert_eq!(found, expected.map(arn), "{namespace}/{account}");
    }
}

#[test]
fn an_invalid_entry_is_reported_and_does_not_affect_the_others() {
    let (last, _) = Mapping::read(
        &json!({"a/b": {"RoleARN": ARN}, "gone/b": {"RoleARN": ARN}}).to_string(),
        &Mapping::default(),
    );
    for (bad, expected) in [
        (json!({"ab": {"RoleARN": ARN}}), MappingProblem::Key("ab".into())),
        (json!({"a/b/c": {"RoleARN": ARN}}), MappingProblem::Key("a/b/c".into())),
        (json!({"/b": {"RoleARN": ARN}}), MappingProblem::Key("/b".into())),
        (json!({"n/*": {"RoleARN": ARN}}), MappingProblem::Key("n/*".into())),
        (json!({"n/b": null}), MappingProblem::Value("n/b".into())),
        (json!({"n/b": [ARN]}), MappingProblem::Value("n/b".into())),
        (json!({"n/b": {}}), MappingProblem::NoRole("n/b".into())),
        (json!({"n/b": {"RoleARN": ""}}), MappingProblem::NoRole("n/b".into())),
        (json!({"n/b": {"RoleARN": 1}}), MappingProblem::Field("n/b".into(), "RoleARN", "a string")),
        (
            json!({"n/b": {"RoleARN": ARN, "Audience": 1}}),
            MappingProblem::Field("n/b".into(), "Audience", "a string"),
        ),
        (
            json!({"n/b": {"RoleARN": ARN, "UseRegionalSTS": "yes"}}),
            MappingProblem::Field("n/b".into(), "UseRegionalSTS", "true or false"),
        ),
        (
            json!({"n/b": {"RoleARN": ARN, "TokenExpiration": "1h"}}),
            MappingProblem::Field("n/b".into(), "TokenExpiration", "a whole number of seconds"),
        ),
    ] {
        let mut text = bad.clone();
        text["good/b"] = json!({"RoleARN": ARN});
        let (mapping, problems) = Mapping::read(&text.to_string(), &last);
        assert_eq!(problems, [expected], "{bad}");
        assert_eq!((mapping.len(), mapping.get("good", "b").is_some()), (1, true), "{bad}");
    }
    // The last valid version of an entry that became invalid stays in force; one that was removed does not.
    let (mapping, problems) = Mapping::read(&json!({"a/b": {"RoleARN": 7}}).to_string(), &last);
    assert_eq!(
        (mapping.get("a", "b").map(|m| &*m.role_arn), mapping.get("gone", "b"), problems.len()),
        (Some(ARN), None, 1)
    );
    for text in ["", "{", "[]", "null", "\"a\""] {
        assert_eq!(Mapping::read(text, &last), (last.clone(), vec![MappingProblem::NotAnObject]), "{text}");
    }
}

#[test]
fn a_config_map_without_the_key_has_no_entries() {
    let metrics = Arc::new(Metrics::default());
    let sources = Sources::new(true, Arc::clone(&metrics));
    assert!(!sources.is_synced(), "it has not been read");
    let map = |data: serde_json::Value| -> ConfigMap {
        serde_json::from_value(json!({"metadata": {}, "data": data})).unwrap()
    };
    sources.apply(&map(json!({"config": json!({"a/b": {"RoleARN": ARN}, "bad": 1}).to_string()})));
    assert!(sources.mapped("a", "b").is_some());
    let text = metrics.text();
    for line in [
        r#"podidentity_webhook_config_map_entries{result="ok"} 1"#,
        r#"podidentity_webhook_config_map_entries{result="refused"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    sources.apply(&map(json!({"other": "x"})));
    assert!(sources.mapped("a", "b").is_none());
}

#[test]
fn an_invalid_container_credentials_file_is_refused_completely() {
    let text = br#"{"identities": [{"namespace": "a", "serviceAccount": "b"}, {"namespace": "a", "serviceAccount": "c"}], "more": 1}"#;
    let identities = ContainerCredentialsList::read(text).unwrap();
    assert_eq!(identities.len(), 2);
    assert!(identities.contains("a", "b") && identities.contains("a", "c"));
    assert!(!identities.contains("b", "a") && !identities.contains("a", "d"));
    assert!(ContainerCredentialsList::read(b"{}").unwrap().is_empty());
    for bad in
        [b"".as_slice(), b"{", b"[]", br#"{"identities": [{"namespace": "a"}]}"#, br#"{"identities": null}"#]
    {
        assert!(ContainerCredentialsList::read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
    }
}
