//! Which identity a `ServiceAccount` has: binding first, annotations second.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{OidcIssuer, PodIdentityBinding};
use serde_json::{Value, json};
use webhook::identity::{Decision, Defaults, Identity, Source, decide};

const COMPUTED: &str = "arn:aws:iam::111122223333:role/podidentity/homelab/homelab.vault.vault-bno5n7ilbuky";
const ELSEWHERE: &str = "arn:aws:iam::444455556666:role/elsewhere";
const ANNOTATED: &str = "arn:aws:iam::111122223333:role/annotated";

pub fn defaults() -> Defaults {
    Defaults {
        annotation_prefix: "eks.amazonaws.com".into(),
        audience: "flag.example".into(),
        expiration_seconds: 7200,
        region: Some("us-east-1".into()),
        sts_regional_endpoints: false,
    }
}

pub fn issuer() -> Value {
    json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": {"name": "default"},
        "spec": {
            "clusterName": "homelab", "audiences": ["sts.amazonaws.com", "second"],
            "s3": {"bucket": "oidc", "region": "eu-central-1"},
        },
        "status": {"accountId": "111122223333", "partition": "aws"},
    })
}

/// A binding of `vault/vault`, made at second `age` of a minute, with `spec` and the rest put over it.
pub fn binding(name: &str, second: u8, spec: &Value, rest: &Value) -> Value {
    let mut binding = json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding",
        "metadata": {
            "name": name, "namespace": "vault", "creationTimestamp": format!("2026-11-24T10:00:{second:02}Z"),
        },
        "spec": {"serviceAccountName": "vault"},
    });
    json_patch::merge(&mut binding["spec"], spec);
    json_patch::merge(&mut binding, rest);
    binding
}

fn role(name: &str, second: u8, rest: &Value) -> Value {
    binding(name, second, &json!({"role": {}}), rest)
}

fn of(bindings: &[Value], issuer: Option<&Value>, annotations: &[(&str, &str)]) -> Decision {
    let bindings: Vec<Arc<PodIdentityBinding>> =
        bindings.iter().map(|b| Arc::new(serde_json::from_value(b.clone()).unwrap())).collect();
    let issuer: Option<OidcIssuer> = issuer.map(|issuer| serde_json::from_value(issuer.clone()).unwrap());
    let annotations: BTreeMap<String, String> =
        annotations.iter().map(|(k, v)| (format!("eks.amazonaws.com/{k}"), (*v).to_owned())).collect();
    decide("vault", "vault", &annotations, &bindings, issuer.as_ref(), &defaults())
}

fn arn(decision: &Decision) -> Option<&str> {
    decision.identity.as_ref().map(|identity| identity.role_arn.as_str())
}

fn stalled(status: &Value) -> Value {
    let mut rest = json!({"status": {"conditions": [{
        "type": "Stalled", "status": "True", "reason": "NotGranted", "message": "",
        "lastTransitionTime": "2026-11-24T10:00:00Z",
    }]}});
    json_patch::merge(&mut rest["status"], status);
    rest
}

#[test]
fn a_binding_gives_a_role_that_does_not_exist_yet() {
    let decision = of(&[role("b", 0, &json!({}))], Some(&issuer()), &[("role-arn", ANNOTATED)]);
    assert_eq!(
        decision,
        Decision {
            identity: Some(Identity {
                source: Source::Binding,
                role_arn: COMPUTED.into(),
                audience: "sts.amazonaws.com".into(),
                expiration_seconds: 86_400,
                region: Some("eu-central-1".into()),
                sts_regional_endpoints: true,
            }),
            warnings: vec![],
        }
    );
}

#[test]
fn a_binding_s_fields_are_used() {
    let spec = json!({
        "roleArn": ELSEWHERE, "audience": "second", "tokenExpirationSeconds": 600,
        "stsRegionalEndpoints": false, "region": "ap-south-1",
    });
    let expected = Identity {
        source: Source::Binding,
        role_arn: ELSEWHERE.into(),
        audience: "second".into(),
        expiration_seconds: 600,
        region: Some("ap-south-1".into()),
        sts_regional_endpoints: false,
    };
    for issuer in [Some(issuer()), None] {
        let decision = of(&[binding("b", 0, &spec, &json!({}))], issuer.as_ref(), &[]);
        assert_eq!(decision, Decision { identity: Some(expected.clone()), warnings: vec![] });
    }
}

#[test]
fn without_an_issuer_the_flags_fill_in() {
    let decision = of(&[binding("b", 0, &json!({"roleArn": ELSEWHERE}), &json!({}))], None, &[]);
    let identity = decision.identity.unwrap();
    assert_eq!((identity.audience.as_str(), identity.region.as_deref()), ("flag.example", Some("us-east-1")));
}

#[test]
fn the_partition_is_the_issuer_s() {
    let mut issuer = issuer();
    issuer["status"]["partition"] = json!("aws-cn");
    let decision = of(&[role("b", 0, &json!({}))], Some(&issuer), &[]);
    assert!(arn(&decision).unwrap().starts_with("arn:aws-cn:iam::"), "{decision:?}");
    issuer["status"]["partition"] = Value::Null;
    issuer["spec"]["s3"]["region"] = json!("us-gov-west-1");
    let decision = of(&[role("b", 0, &json!({}))], Some(&issuer), &[]);
    assert!(arn(&decision).unwrap().starts_with("arn:aws-us-gov:iam::"), "{decision:?}");
}

#[test]
fn the_oldest_binding_holds_the_service_account() {
    let other = |name: &str, second| binding(name, second, &json!({"roleArn": ELSEWHERE}), &json!({}));
    for (what, bindings, expected) in [
        ("older first", vec![role("b", 1, &json!({})), other("a", 2)], COMPUTED),
        ("older last", vec![other("a", 2), role("b", 1, &json!({}))], COMPUTED),
        ("one second: by name", vec![role("b", 1, &json!({})), other("a", 1)], ELSEWHERE),
        (
            "another ServiceAccount's does not count",
            vec![
                binding("a", 0, &json!({"serviceAccountName": "other", "roleArn": ELSEWHERE}), &json!({})),
                role("b", 1, &json!({})),
            ],
            COMPUTED,
        ),
        (
            "another namespace's does not count",
            vec![
                binding("a", 0, &json!({"roleArn": ELSEWHERE}), &json!({"metadata": {"namespace": "other"}})),
                role("b", 1, &json!({})),
            ],
            COMPUTED,
        ),
    ] {
        assert_eq!(arn(&of(&bindings, Some(&issuer()), &[])), Some(expected), "{what}");
    }
}

#[test]
fn an_unusable_binding_says_so_and_leaves_it_to_the_annotations() {
    let mut young_issuer = issuer();
    young_issuer["status"] = json!({});
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-11-24T11:00:00Z"}});
    let second = binding("c", 9, &json!({"roleArn": ELSEWHERE}), &json!({}));
    for (bindings, issuer, reason) in [
        (vec![role("b", 0, &deleting)], Some(issuer()), "being deleted"),
        (vec![role("b", 0, &deleting), second], Some(issuer()), "being deleted"),
        (vec![role("b", 0, &stalled(&json!({})))], Some(issuer()), "Stalled"),
        (vec![role("b", 0, &json!({}))], None, "does not exist"),
        (vec![role("b", 0, &json!({}))], Some(young_issuer), "not known yet"),
    ] {
        for (annotations, expected) in [(vec![], None), (vec![("role-arn", ANNOTATED)], Some(ANNOTATED))] {
            let decision = of(&bindings, issuer.as_ref(), &annotations);
            assert_eq!(arn(&decision), expected, "{reason}");
            let [warning] = decision.warnings.as_slice() else { panic!("{decision:?}") };
            assert!(
                warning.starts_with("PodIdentityBinding b gives no identity: ") && warning.contains(reason),
                "{warning}"
            );
        }
    }
}

#[test]
fn the_operator_s_own_annotation_does_not_outlive_its_binding() {
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-11-24T11:00:00Z"}});
    let elsewhere = binding("b", 0, &json!({"roleArn": ELSEWHERE}), &deleting);
    for (binding, annotation) in [(role("b", 0, &deleting), COMPUTED), (elsewhere, ELSEWHERE)] {
        let decision = of(&[binding], Some(&issuer()), &[("role-arn", annotation)]);
        assert_eq!(decision.identity, None);
        assert!(decision.warnings[0].contains("being deleted"));
    }
}

#[test]
fn a_stalled_binding_that_had_a_role_keeps_it() {
    let decision = of(&[role("b", 0, &stalled(&json!({"roleArn": COMPUTED})))], Some(&issuer()), &[]);
    assert_eq!((arn(&decision), decision.warnings.len()), (Some(COMPUTED), 0));
}

#[test]
fn annotations_follow_the_reference() {
    let base = Identity {
        source: Source::Annotations,
        role_arn: ANNOTATED.into(),
        audience: "flag.example".into(),
        expiration_seconds: 7200,
        region: Some("us-east-1".into()),
        sts_regional_endpoints: false,
    };
    let with = |change: fn(&mut Identity)| {
        let mut identity = base.clone();
        change(&mut identity);
        Some(identity)
    };
    let role = ("role-arn", ANNOTATED);
    for (annotations, expected, warnings) in [
        (vec![], None, 0),
        (vec![("audience", "a")], None, 0),
        (vec![("role-arn", "")], None, 0),
        (vec![role], with(|_| {}), 0),
        (vec![("role-arn", "notanarn")], with(|i| i.role_arn = "notanarn".into()), 1),
        (vec![role, ("audience", "a,b")], with(|i| i.audience = "a,b".into()), 0),
        (vec![role, ("audience", "")], with(|_| {}), 0),
        (vec![role, ("sts-regional-endpoints", "T")], with(|i| i.sts_regional_endpoints = true), 0),
        (vec![role, ("sts-regional-endpoints", "false")], with(|_| {}), 0),
        (vec![role, ("sts-regional-endpoints", "yes")], with(|_| {}), 1),
        (vec![role, ("token-expiration", "3600")], with(|i| i.expiration_seconds = 3600), 0),
        (vec![role, ("token-expiration", "+700")], with(|i| i.expiration_seconds = 700), 0),
        (vec![role, ("token-expiration", "-5")], with(|i| i.expiration_seconds = 600), 1),
        (vec![role, ("token-expiration", "99999999999")], with(|i| i.expiration_seconds = 1 << 32), 1),
        (vec![role, ("token-expiration", " 3600")], with(|_| {}), 1),
        (vec![role, ("token-expiration", "1e4")], with(|_| {}), 1),
    ] {
        let decision = of(&[], None, &annotations);
        assert_eq!(decision.identity, expected, "{annotations:?}");
        assert_eq!(decision.warnings.len(), warnings, "{annotations:?}: {decision:?}");
    }
    let decision = of(&[], Some(&issuer()), &[role]);
    assert_eq!(decision.identity, with(|i| i.region = Some("eu-central-1".into())), "the issuer's region");
}

#[test]
fn what_is_an_iam_role_arn() {
    for (arn, fine) in [
        (ANNOTATED, true),
        ("arn:aws-cn:iam::111122223333:role/a/b/c", true),
        ("arn:aws:iam::111122223333:user/a", false),
        ("arn:aws:iam::1111:role/a", false),
        ("arn:aws:iam:eu-central-1:111122223333:role/a", false),
        ("arn:aws:iam::111122223333:role/", false),
        ("arn:aws:iam::111122223333", false),
    ] {
        assert_eq!(of(&[], None, &[("role-arn", arn)]).warnings.is_empty(), fine, "{arn}");
    }
}
