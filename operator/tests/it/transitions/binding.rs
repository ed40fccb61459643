//! Edits of a `PodIdentityBinding`.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sim::world::Role;
use crds::binding::DEFAULT_SESSION;
use crds::names::DEFAULT_AUDIENCE;
use crds::{PodIdentityBinding, PodIdentityBindingSpec};
use kube::Api;
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::edits::{of_examples, of_schema};
use super::{Outcome, Subject, Tally, schema};
use crate::world::{QUEUE, STORAGE, World};

const UNGRANTED: &str = "arn:aws:iam::111122223333:policy/not-granted";
const MISSING: &str = "arn:aws:iam::111122223333:policy/missing";
const PARTNER: &str = "arn:aws:iam::999999999999:role/partner";

/// Statements that allow, which IAM accepts.
fn document(action: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]})
}

/// What the rules are about that the schema does not tell, and what only the controller can refuse.
fn examples(own_role: &str) -> Vec<(&'static str, Value)> {
    let inline = |document: Value| json!([{"name": "own", "document": document}]);
    let large = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "x".repeat(10_000)},
    ]});
    let mut all = vec![
        ("/serviceAccountName", json!("other")),
        ("/issuerRef", json!({"name": "default"})),
        ("/issuerRef", json!({"name": "nowhere"})),
        ("/role/inlinePolicies", inline(document("s3:GetObject"))),
        ("/role/inlinePolicies", inline(json!({"Statement": "none"}))),
        ("/role/inlinePolicies", inline(large)),
        ("/role/inlinePolicies", json!([{"name": "podidentity-revoked", "document": document("*")}])),
        (
            "/role/inlinePolicies",
            json!([
                {"name": "a", "document": document("s3:GetObject")}, {"name": "z", "document": {"Statement": 1}},
            ]),
        ),
        ("/role/inlinePolicies/0/document", document("dynamodb:GetItem")),
        ("/role/inlinePolicies/0/document/Statement", json!([])),
        ("/role/inlinePolicies/0/name", json!("renamed")),
        ("/role/description", json!("another description")),
        ("/role/description", json!("日本")),
        ("/roleARN", json!("arn:aws:iam::1:role/x")),
        ("/audience", json!("vault")),
        ("/audience", json!("unknown")),
        ("/region", json!("eu-west-1")),
        ("/region", json!("None")),
        ("/tokenExpirationSeconds", json!(3600)),
    ];
    for arns in [
        &[QUEUE][..],
        &[STORAGE, QUEUE],
        &[UNGRANTED],
        &[MISSING],
        &[QUEUE, MISSING],
        &[QUEUE, UNGRANTED],
        &[STORAGE, STORAGE],
    ] {
        all.push(("/role/policyARNs", json!(arns)));
    }
    for length in ["1h", "2h", "120m", "2h1s", "12h", "59m", "12h1s", "1.5h", "-2h", "soon"] {
        all.push(("/role/maxSessionDuration", json!(length)));
    }
    for arn in [PARTNER, own_role] {
        all.push(("/roleARN", json!(arn)));
        for policy in ["Delete", "Retain", "Release"] {
            all.push(("", json!({"role": null, "roleARN": arn, "deletionPolicy": policy})));
        }
    }
    // Both, none, and one after the other.
    all.push(("", json!({"role": null, "roleARN": null})));
    all.push(("/role", json!({"policyARNs": [STORAGE, MISSING]})));
    all.push(("/role", json!({"inlinePolicies": [{"name": "z", "document": {"Statement": 1}}]})));
    all.push(("", json!({"role": {"policyARNs": [QUEUE]}, "roleARN": null, "deletionPolicy": null})));
    all.push(("", json!({"role": {"policyARNs": [UNGRANTED]}, "roleARN": null})));
    all.push(("", json!({"role": null, "roleARN": PARTNER, "issuerRef": {"name": "nowhere"}})));
    all
}

/// IAM refuses what an edit adds: what it takes away in the same edit stays, of whatever sort.
#[tokio::test]
async fn an_edit_whose_addition_is_refused_removes_nothing() {
    let mut world = World::bootstrapped().await;
    let mut issuer = world.spec();
    issuer.grants[0].policy_arns.push(MISSING.into());
    issuer.grants[0].inline_policies = Some(crds::InlinePolicies::Allow);
    world.apply_issuer(&issuer).await;
    world.start().await;
    let bound = |role: Value| json!({"serviceAccountName": "app", "role": role});
    let own = json!([{"name": "own", "document": document("s3:GetObject")}]);
    let good = bound(json!({"policyARNs": [STORAGE], "inlinePolicies": own}));
    world.apply_binding("app", good.clone()).await;
    world.binding_is("app", "Ready").await;
    let role = json!(world.role().unwrap());
    for bad in [
        json!({"policyARNs": [MISSING]}),
        json!({"inlinePolicies": [{"name": "z", "document": {"Statement": 1}}]}),
    ] {
        world.sim.clear_calls();
        world.apply_binding("app", bound(bad.clone())).await;
        world.binding_is("app", "InvalidSpec").await;
        let writes = world.operators().into_iter().filter(|call| call.write && call.status == 200);
        assert_eq!((writes.count(), json!(world.role().unwrap())), (0, role.clone()), "{bad}");
        world.apply_binding("app", good.clone()).await;
        world.binding_is("app", "Ready").await;
    }
    world.unbind("app").await;
    world.stop().await;
}

/// A role that is at IAM's quotas, ten managed policies and 10,240 characters of inline ones, gets ten others, and other documents of
/// that size: nothing can be added before something is removed.
#[tokio::test]
async fn at_the_quotas_of_iam_everything_can_be_replaced() {
    let mut world = World::bootstrapped().await;
    let [first, second] = ["first", "second"].map(|set| {
        let nothing = || json!({"Version": "2012-10-17", "Statement": []});
        let arns: Vec<String> =
            (0..10).map(|n| world.sim.put_managed_policy(&format!("many-{set}-{n}"), nothing())).collect();
        let of_size = |length: usize| {
            json!({"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{}/*", "x".repeat(length))},
            ]})
        };
        let (a, b) = if set == "first" { (1_000, 8_000) } else { (8_000, 1_000) };
        let inline = json!([
            {"name": "a", "document": of_size(a)}, {"name": "b", "document": of_size(b)},
            {"name": set, "document": of_size(300)},
        ]);
        json!({"serviceAccountName": "app", "role": {"policyARNs": arns, "inlinePolicies": inline}})
    });
    let mut issuer = world.spec();
    issuer.grants[0].policy_arns.push("arn:aws:iam::111122223333:policy/many-*".into());
    issuer.grants[0].inline_policies = Some(crds::InlinePolicies::Allow);
    world.apply_issuer(&issuer).await;
    world.start().await;
    let mut id = None;
    for spec in [&first, &second, &first] {
        world.apply_binding("app", spec.clone()).await;
        world.binding_is("app", "Ready").await;
        let role = world.role().unwrap();
        let attached: Vec<Value> = role.attached.iter().map(|arn| json!(arn)).collect();
        assert_eq!(&json!(attached), &spec["role"]["policyARNs"]);
        assert_eq!(role.inline.len(), 3);
        for policy in spec["role"]["inlinePolicies"].as_array().unwrap() {
            assert_eq!(role.inline[policy["name"].as_str().unwrap()], policy["document"]);
        }
        assert_eq!(id.get_or_insert_with(|| role.id.clone()), &role.id);
    }
    let refused: Vec<_> =
        world.operators().into_iter().filter(|call| call.write && call.status != 200).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    world.unbind("app").await;
    world.stop().await;
}

#[tokio::test]
async fn no_edit_of_a_binding_breaks_it_and_every_valid_one_is_reached_soon() {
    let mut world = World::bootstrapped().await;
    world.data();
    let mut issuer = world.spec();
    issuer.audiences.push("vault".into());
    issuer.grants[0].policy_arns.push(MISSING.into());
    issuer.grants[0].inline_policies = Some(crds::InlinePolicies::Allow);
    issuer.grants[0].max_session_duration = Some(Duration::from_hours(2).into());
    world.apply_issuer(&issuer).await;
    world.start().await;
    world.issuer_is("Ready").await;
    let good = json!({
        "serviceAccountName": "app",
        "role": {
            "policyARNs": [STORAGE], "maxSessionDuration": "90m", "description": "as it works",
            "inlinePolicies": [{"name": "own", "document": document("s3:GetObject")}],
        },
        // As the CRD's defaults fill them in.
        "deletionPolicy": "Delete", "driftPolicy": "Correct",
    });
    world.apply_binding("app", good.clone()).await;
    world.binding_is("app", "Ready").await;
    let schema = schema(&world, "podidentitybindings.podidentity.dev").await;
    let role = world.role().unwrap();
    let (edits, examples) = (of_schema(&schema), of_examples(examples(&role.arn)));
    let path =
        format!("/apis/podidentity.dev/v1alpha1/namespaces/{}/podidentitybindings/app", world.namespace);
    let mut subject = Subject {
        kind: "PodIdentityBinding",
        name: "app",
        api: Api::namespaced_with(
            world.client.clone(),
            &world.namespace,
            &ApiResource::erase::<PodIdentityBinding>(&()),
        ),
        path,
        good,
        tally: Tally::default(),
        history: Vec::new(),
        role: Some(role),
        audience: DEFAULT_AUDIENCE.to_owned(),
        world,
    };
    subject.run(&edits, &examples, follow).await;
    subject.stays().await;
}

/// The role that the specification leaves: none, where another one is used.
async fn follow(subject: &mut Subject, outcome: Outcome) {
    if matches!(outcome, Outcome::Refused | Outcome::Same) {
        return;
    }
    let spec = subject.get().await["spec"].clone();
    let role = subject.world.role();
    if spec["role"].is_null() {
        subject.role = None;
        // Released for another tool: a person removes it before the binding can make one of that name.
        if let Some(role) = role.filter(|role| !role.tags.contains_key("podidentity.dev/name")) {
            let name = role.name.to_lowercase();
            subject.world.sim.change(|state| state.roles.remove(&name));
        }
    } else if outcome == Outcome::Applied {
        is_as_specified(&spec, role.as_ref().unwrap(), &subject.history);
        if let (Some(before), Some(after)) = (&subject.role, &role) {
            assert_eq!(before.id, after.id, "the role was made again: {:#?}", subject.history);
        } else {
            spec["audience"].as_str().unwrap_or(DEFAULT_AUDIENCE).clone_into(&mut subject.audience);
        }
        subject.role = role;
    }
}

/// The role has what the specification asks for, and nothing else.
fn is_as_specified(spec: &Value, role: &Role, history: &[String]) {
    let spec: PodIdentityBindingSpec = serde_json::from_value(spec.clone()).unwrap();
    let wanted = spec.role.unwrap();
    let seconds = wanted.max_session_duration.map_or(DEFAULT_SESSION, Duration::from).as_secs();
    let arns: BTreeSet<&String> = wanted.policy_arns.iter().collect();
    assert_eq!(role.attached.iter().collect::<BTreeSet<_>>(), arns, "{history:#?}");
    let names: BTreeSet<&String> = wanted.inline_policies.iter().map(|policy| &policy.name).collect();
    assert_eq!(role.inline.keys().collect::<BTreeSet<_>>(), names, "{history:#?}");
    for policy in &wanted.inline_policies {
        assert_eq!(role.inline[&policy.name], json!(policy.document), "{history:#?}");
    }
    assert_eq!(u64::try_from(role.max_session_duration), Ok(seconds), "{history:#?}");
    assert!(wanted.description.is_none_or(|wanted| wanted == role.description), "{history:#?}");
}
