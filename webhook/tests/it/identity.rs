//! Which identity a `ServiceAccount` has: a binding before annotations, annotations before the ConfigMap.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crds::{OidcIssuer, PodIdentityBinding};
use serde_json::{Value, json};
use webhook::identity::decide::decide;
use webhook::identity::facts::{Annotations, BindingFacts, IssuerFacts};
use webhook::identity::issuers::Issuers;
use webhook::identity::mapping::Mapped;
use webhook::identity::model::{CredentialMethod, Decision, Identity, IdentitySource, ServiceAccountFacts};
use webhook::identity::settings::{RoleNames, Settings};

const COMPUTED: &str = "arn:aws:iam::111122223333:role/podidentity/homelab/homelab.vault.vault-bno5n7ilbuky";
const ELSEWHERE: &str = "arn:aws:iam::444455556666:role/elsewhere";
const ANNOTATED: &str = "arn:aws:iam::111122223333:role/annotated";

/// Flags that differ from every other source.
pub fn settings() -> Settings {
    Settings {
        audience: "flag.example".into(),
        expiration_seconds: 7200,
        region: Some("us-east-1".into()),
        ..Settings::new("eks.amazonaws.com")
    }
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(settings);

pub fn issuer() -> Value {
    json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": {"name": "default"},
        "spec": {
            "clusterName": "homelab", "audiences": ["sts.amazonaws.com", "second"],
            "s3": {"bucket": "oidc", "region": "eu-central-1"},
        },
        "status": {"accountID": "111122223333", "partition": "aws"},
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

fn facts(bindings: &[Value], issuer: Option<&Value>, annotations: &[(&str, &str)]) -> ServiceAccountFacts {
    let binding = |b: &Value| serde_json::from_value::<PodIdentityBinding>(b.clone()).unwrap();
    let issuer = issuer.map(|issuer| serde_json::from_value::<OidcIssuer>(issuer.clone()).unwrap());
    let annotations: BTreeMap<String, String> =
        annotations.iter().map(|(k, v)| (format!("eks.amazonaws.com/{k}"), (*v).to_owned())).collect();
    ServiceAccountFacts {
        annotations: Annotations::read(&annotations, "eks.amazonaws.com").map(Arc::new),
        bindings: bindings.iter().map(|b| Arc::new(BindingFacts::from(binding(b)))).collect(),
        issuers: Arc::new(Issuers::all(issuer.map(|issuer| Arc::new(IssuerFacts::from(issuer))))),
        ..ServiceAccountFacts::default()
    }
}

/// What is decided for `vault/vault`. The facts live as long as the test.
fn of_facts(facts: ServiceAccountFacts) -> Decision<'static> {
    decide("vault", "vault", Box::leak(Box::new(facts)), &SETTINGS)
}

fn of(bindings: &[Value], issuer: Option<&Value>, annotations: &[(&str, &str)]) -> Decision<'static> {
    of_facts(facts(bindings, issuer, annotations))
}

fn arn<'a>(decision: &'a Decision<'_>) -> Option<&'a str> {
    match &decision.identity.as_ref()?.method {
        CredentialMethod::Role(arn) => Some(arn),
        CredentialMethod::ContainerCredentials => None,
    }
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
                source: IdentitySource::Binding,
                method: CredentialMethod::Role(COMPUTED.into()),
                audience: "sts.amazonaws.com",
                expiration_seconds: 86_400,
                region: Some("eu-central-1"),
                sts_regional_endpoints: true,
            }),
            ..Decision::default()
        }
    );
}

/// A role was handed over to the younger one, whose status does not name it yet.
#[test]
fn a_binding_that_the_operator_acts_on_comes_before_an_older_one() {
    let elsewhere = binding("a", 0, &json!({"roleARN": ELSEWHERE}), &json!({}));
    let of_younger = |finalizers: &[&str]| {
        let younger = role("b", 1, &json!({"metadata": {"finalizers": finalizers}}));
        arn(&of(&[elsewhere.clone(), younger], Some(&issuer()), &[])).map(str::to_owned)
    };
    assert_eq!(of_younger(&[]).as_deref(), Some(ELSEWHERE));
    assert_eq!(of_younger(&["podidentity.dev/finalizer"]).as_deref(), Some(COMPUTED));
}

#[test]
fn a_binding_s_fields_are_used() {
    let spec = json!({
        "roleARN": ELSEWHERE, "audience": "second", "tokenExpirationSeconds": 600,
        "stsRegionalEndpoints": false, "region": "ap-south-1",
    });
    let mut no_region = spec.clone();
    no_region["region"] = json!("None");
    let expected = Identity {
        source: IdentitySource::Binding,
        method: CredentialMethod::Role(ELSEWHERE.into()),
        audience: "second",
        expiration_seconds: 600,
        region: Some("ap-south-1"),
        sts_regional_endpoints: false,
    };
    for issuer in [Some(issuer()), None] {
        let decision = of(&[binding("b", 0, &spec, &json!({}))], issuer.as_ref(), &[]);
        assert_eq!(decision, Decision { identity: Some(expected.clone()), ..Decision::default() });
        let decision = of(&[binding("b", 0, &no_region, &json!({}))], issuer.as_ref(), &[]);
        assert_eq!(decision.identity, Some(Identity { region: None, ..expected.clone() }));
    }
}

#[test]
fn without_an_issuer_the_flags_count() {
    let decision = of(&[binding("b", 0, &json!({"roleARN": ELSEWHERE}), &json!({}))], None, &[]);
    let identity = decision.identity.unwrap();
    assert_eq!((identity.audience, identity.region), ("flag.example", Some("us-east-1")));
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
    let other = |name: &str, second| binding(name, second, &json!({"roleARN": ELSEWHERE}), &json!({}));
    for (what, bindings, expected) in [
        ("older first", vec![role("b", 1, &json!({})), other("a", 2)], COMPUTED),
        ("older last", vec![other("a", 2), role("b", 1, &json!({}))], COMPUTED),
        ("one second: by name", vec![role("b", 1, &json!({})), other("a", 1)], ELSEWHERE),
    ] {
        assert_eq!(arn(&of(&bindings, Some(&issuer()), &[])), Some(expected), "{what}");
    }
}

/// A binding that is renamed in Git: the old one is being deleted, and the role is handed over to the new one.
#[test]
fn a_role_that_is_handed_over_leaves_no_pod_without_identity() {
    let made = json!({"status": {"roleName": "r", "roleARN": COMPUTED}});
    let mut leaving = made.clone();
    json_patch::merge(&mut leaving, &json!({"metadata": {"deletionTimestamp": "2026-11-24T11:00:00Z"}}));
    let plain = json!({});
    let mut waiting = stalled(&plain);
    waiting["status"]["conditions"][0]["reason"] = json!("ServiceAccountAlreadyBound");
    let elsewhere = |second| binding("new", second, &json!({"roleARN": ELSEWHERE}), &plain);
    for (what, bindings, expected) in [
        ("the old one has the role", vec![role("old", 0, &made), role("new", 1, &plain)], Some(COMPUTED)),
        (
            "it goes, the new one follows",
            vec![role("old", 0, &leaving), role("new", 1, &plain)],
            Some(COMPUTED),
        ),
        ("whatever its age", vec![role("old", 5, &leaving), role("new", 1, &plain)], Some(COMPUTED)),
        (
            "the new one waits for the old one with another specification",
            vec![role("old", 0, &leaving), role("new", 1, &waiting)],
            Some(COMPUTED),
        ),
        ("which is gone a moment later", vec![role("new", 1, &waiting)], Some(COMPUTED)),
        ("the new one is refused", vec![role("old", 0, &leaving), role("new", 1, &stalled(&plain))], None),
        ("the new one has another role", vec![role("old", 0, &leaving), elsewhere(1)], None),
        ("both go", vec![role("old", 0, &leaving), role("new", 1, &leaving)], None),
    ] {
        let decision = of(&bindings, Some(&issuer()), &[]);
        assert_eq!(arn(&decision), expected, "{what}");
        assert_eq!(decision.warnings.is_empty(), expected.is_some(), "{what}: {decision:?}");
    }
}

#[test]
fn the_binding_that_has_the_role_holds_the_service_account() {
    let made = json!({"status": {"roleName": "r", "roleARN": COMPUTED}});
    let other = binding("a", 1, &json!({"roleARN": ELSEWHERE}), &json!({}));
    let decision = of(&[other, role("b", 2, &made)], Some(&issuer()), &[]);
    assert_eq!(arn(&decision), Some(COMPUTED), "although the other one is older");
}

#[test]
fn an_unusable_binding_gives_a_warning_and_the_annotations_count() {
    let mut young_issuer = issuer();
    young_issuer["status"] = json!({});
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-11-24T11:00:00Z"}});
    let second = binding("c", 9, &json!({"roleARN": ELSEWHERE}), &json!({}));
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
fn the_operator_s_own_annotation_does_not_count_without_its_binding() {
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-11-24T11:00:00Z"}});
    let elsewhere = binding("b", 0, &json!({"roleARN": ELSEWHERE}), &deleting);
    for (binding, annotation) in [(role("b", 0, &deleting), COMPUTED), (elsewhere, ELSEWHERE)] {
        let decision = of(&[binding], Some(&issuer()), &[("role-arn", annotation)]);
        assert_eq!(decision.identity, None);
        assert!(decision.warnings[0].contains("being deleted"));
    }
}

#[test]
fn a_stalled_binding_that_had_a_role_keeps_it() {
    let decision = of(&[role("b", 0, &stalled(&json!({"roleARN": COMPUTED})))], Some(&issuer()), &[]);
    assert_eq!((arn(&decision), decision.warnings.len()), (Some(COMPUTED), 0));
}

#[test]
fn annotations_mean_the_same_as_in_the_eks_webhook() {
    let base = Identity {
        source: IdentitySource::Annotations,
        method: CredentialMethod::Role(ANNOTATED.into()),
        audience: "flag.example",
        expiration_seconds: 7200,
        region: Some("us-east-1"),
        sts_regional_endpoints: false,
    };
    let with = |change: fn(&mut Identity<'static>)| {
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
        (vec![("role-arn", "notanarn")], with(|i| i.method = CredentialMethod::Role("notanarn".into())), 1),
        (vec![role, ("audience", "a,b")], with(|i| i.audience = "a,b"), 0),
        (vec![role, ("audience", "")], with(|_| {}), 0),
        (vec![role, ("sts-regional-endpoints", "T")], with(|i| i.sts_regional_endpoints = true), 0),
        (vec![role, ("sts-regional-endpoints", "false")], with(|_| {}), 0),
        (vec![role, ("sts-regional-endpoints", "yes")], with(|_| {}), 1),
        (vec![role, ("token-expiration", "3600")], with(|i| i.expiration_seconds = 3600), 0),
        (vec![role, ("token-expiration", "+700")], with(|i| i.expiration_seconds = 700), 0),
        (vec![role, ("token-expiration", "-5")], with(|i| i.expiration_seconds = 600), 1),
        (vec![role, ("token-expiration", "86400")], with(|i| i.expiration_seconds = 86_400), 0),
        (vec![role, ("token-expiration", "86401")], with(|i| i.expiration_seconds = 86_400), 1),
        (vec![role, ("token-expiration", "99999999999")], with(|i| i.expiration_seconds = 86_400), 1),
        (vec![role, ("token-expiration", " 3600")], with(|_| {}), 1),
        (vec![role, ("token-expiration", "1e4")], with(|_| {}), 1),
    ] {
        let decision = of(&[], None, &annotations);
        assert_eq!(decision.identity, expected, "{annotations:?}");
        let told = decision.warnings.len() + decision.lifetime_warnings.len();
        assert_eq!(told, warnings, "{annotations:?}: {decision:?}");
    }
    let facts = facts(&[], Some(&issuer()), &[role]);
    let decide =
        |settings| decide("vault", "vault", &facts, settings).identity.unwrap().region.map(str::to_owned);
    assert_eq!(decide(&SETTINGS).as_deref(), Some("us-east-1"), "the flag's region comes first");
    let silent = Settings { region: None, ..SETTINGS.clone() };
    assert_eq!(decide(&silent).as_deref(), Some("eu-central-1"), "without it the issuer's");
}

#[test]
fn what_is_not_an_iam_role_arn_gives_a_warning() {
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

fn mapped() -> Mapped {
    Mapped {
        role_arn: ELSEWHERE.into(),
        audience: Some("mapped.example".into()),
        sts_regional_endpoints: true,
        expiration_seconds: Some(3600),
    }
}

#[test]
fn a_config_map_entry_counts_last_and_alone() {
    let of = |bindings: &[Value], annotations: &[(&str, &str)], mapped: Mapped| {
        of_facts(ServiceAccountFacts {
            mapped: Some(Arc::new(mapped)),
            ..facts(bindings, Some(&issuer()), annotations)
        })
    };
    let expected = Identity {
        source: IdentitySource::ConfigMap,
        method: CredentialMethod::Role(ELSEWHERE.into()),
        audience: "mapped.example",
        expiration_seconds: 3600,
        region: Some("us-east-1"),
        sts_regional_endpoints: true,
    };
    let silent =
        Mapped { audience: None, sts_regional_endpoints: false, expiration_seconds: None, ..mapped() };
    let by_default = Identity {
        audience: "flag.example",
        expiration_seconds: 7200,
        sts_regional_endpoints: false,
        ..expected.clone()
    };
    // Annotations without a role add nothing to the entry.
    let roleless = [("audience", "a"), ("token-expiration", "900"), ("sts-regional-endpoints", "false")];
    for (annotations, entry, expected) in [
        ([].as_slice(), mapped(), expected.clone()),
        (&roleless, mapped(), expected.clone()),
        (&[], silent, by_default),
        (
            &[],
            Mapped { expiration_seconds: Some(100), ..mapped() },
            Identity { expiration_seconds: 600, ..expected.clone() },
        ),
        (
            &[],
            Mapped { expiration_seconds: Some(1 << 32), ..mapped() },
            Identity { expiration_seconds: 86_400, ..expected },
        ),
    ] {
        assert_eq!(of(&[], annotations, entry).identity, Some(expected));
    }
    for seconds in [100, 86_401] {
        let entry = Mapped { expiration_seconds: Some(seconds), ..mapped() };
        assert_eq!(of(&[], &[], entry).lifetime_warnings.len(), 1, "{seconds} is clamped");
    }
    assert_eq!(of(&[], &[], Mapped { role_arn: "notanarn".into(), ..mapped() }).warnings.len(), 1);
    let source = |decision: Decision<'_>| decision.identity.unwrap().source;
    assert_eq!(source(of(&[], &[("role-arn", ANNOTATED)], mapped())), IdentitySource::Annotations);
    assert_eq!(source(of(&[role("b", 0, &json!({}))], &[], mapped())), IdentitySource::Binding);
    // After a binding that gives none, the other sources count.
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-11-24T11:00:00Z"}});
    let decision = of(&[role("b", 0, &deleting)], &[], mapped());
    assert_eq!((decision.warnings.len(), source(decision)), (1, IdentitySource::ConfigMap));
}

#[test]
fn the_container_credentials_file_counts_first() {
    let of = |annotations: &[(&str, &str)], mapped: Option<Mapped>| {
        let facts = facts(&[role("b", 0, &json!({}))], None, annotations);
        of_facts(ServiceAccountFacts { container_credentials: true, mapped: mapped.map(Arc::new), ..facts })
    };
    let expected = Identity {
        source: IdentitySource::ContainerCredentials,
        method: CredentialMethod::ContainerCredentials,
        audience: "pods.eks.amazonaws.com",
        expiration_seconds: 86_400, // not the flag's
        region: Some("us-east-1"),
        sts_regional_endpoints: false,
    };
    let annotations = [
        ("role-arn", ANNOTATED),
        ("audience", "a"),
        ("token-expiration", "900"),
        ("sts-regional-endpoints", "true"),
    ];
    for (annotations, mapped, expected) in [
        ([].as_slice(), None, expected.clone()),
        (
            &annotations,
            Some(mapped()),
            Identity { expiration_seconds: 900, sts_regional_endpoints: true, ..expected.clone() },
        ),
        (
            &[],
            Some(mapped()),
            Identity { expiration_seconds: 3600, sts_regional_endpoints: true, ..expected },
        ),
    ] {
        assert_eq!(of(annotations, mapped).identity, Some(expected));
    }
    let clamped = of(&[], Some(Mapped { expiration_seconds: Some(90_000), ..mapped() }));
    assert_eq!(clamped.identity.unwrap().expiration_seconds, 86_400);
    assert_eq!(clamped.lifetime_warnings.len(), 1);
}

#[test]
fn a_role_name_becomes_an_arn_where_the_flag_says_so() {
    let of = |annotation: &str, account: Option<&str>, issuer: Option<&Value>| {
        let role_names = RoleNames::OfAccount { account: account.map(Into::into), partition: None };
        let settings = Settings { role_names, ..settings() };
        let facts = facts(&[], issuer, &[("role-arn", annotation)]);
        let decision = decide("vault", "vault", &facts, &settings);
        (arn(&decision).unwrap().to_owned(), decision.warnings.len())
    };
    for (annotation, account, issuer, expected, warnings) in [
        ("app", Some("444455556666"), None, "arn:aws:iam::444455556666:role/app", 0),
        ("/team/app", Some("444455556666"), None, "arn:aws:iam::444455556666:role/team/app", 0),
        ("app", None, Some(&issuer()), "arn:aws:iam::111122223333:role/app", 0),
        ("app", None, None, "app", 1),
        (ANNOTATED, Some("444455556666"), None, ANNOTATED, 0),
    ] {
        assert_eq!(of(annotation, account, issuer), (expected.to_owned(), warnings), "{annotation}");
    }
}
