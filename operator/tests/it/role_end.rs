//! What a binding leaves behind, what is only reported, and inline policies: with the role as it is in AWS.

use crds::condition::ConditionType as C;
use crds::names::{REVOKED_POLICY, tag};
use serde_json::{Value, json};

use crate::world::{QUEUE, STORAGE, World, counts};

fn with(fields: &Value) -> Value {
    let mut spec = json!({"serviceAccountName": "app", "role": {"policyARNs": [STORAGE]}});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

fn allows(action: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]})
}

#[tokio::test]
async fn a_retained_role_is_revoked_no_orphan_and_used_again() {
    let mut world = World::ready_with(|t| t.role_sweep = std::time::Duration::from_millis(200)).await;
    world.data();
    world.apply_binding("app", with(&json!({"deletionPolicy": "Retain"}))).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap();
    let session = world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    world.unbind("app").await;
    let kept = world.role().unwrap();
    assert_eq!((&kept.id, &kept.attached), (&role.id, &role.attached));
    assert!(kept.inline.contains_key(REVOKED_POLICY) && kept.tags.contains_key(tag::RETAINED));
    assert_eq!(world.reads(session).await, Err("AccessDenied".into()));
    assert_eq!(world.annotations("app").await, [].into());
    // Sweeps do not name it.
    world.sim.clear_calls();
    world.until_called("ListRoles", 3).await;
    assert!(world.metrics.text().contains("podidentity_operator_orphaned_roles 0\n"));
    assert_eq!(world.writes(), [""; 0]);

    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(json!(world.role().unwrap()), json!(role), "the same role, as it was");
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    world.unbind("app").await;
    assert!(world.role().is_none());
    world.stop().await;
}

#[tokio::test]
async fn a_released_role_stays_as_it_is_for_another_tool() {
    let mut world = World::ready().await;
    world.data();
    world.apply_binding("app", with(&json!({"deletionPolicy": "Release"}))).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap();
    world.sim.clear_calls();
    world.unbind("app").await;
    assert_eq!(world.writes(), ["UntagRole"]);
    let mut released = world.role().unwrap();
    assert_eq!(released.tags, [].into());
    released.tags.clone_from(&role.tags);
    assert_eq!(json!(released), json!(role));
    let session = world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    assert_eq!(world.reads(session).await, Ok(()));
    // It is nobody's of this cluster now.
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "NotOwned").await;
    world.stop().await;
}

/// IAM has answered that a document is stored: it is not read once more.
#[tokio::test]
async fn a_new_binding_costs_three_calls_and_one_for_each_policy() {
    let mut world = World::ready().await;
    world.allow_inline_policies().await;
    let inline = |data: &str| {
        let policies = [("data", data), ("queue", "sqs:SendMessage")];
        let policies = policies.map(|(name, action)| json!({"name": name, "document": allows(action)}));
        with(&json!({"role": {"policyARNs": [STORAGE, QUEUE], "inlinePolicies": policies}}))
    };
    world.sim.clear_calls();
    world.apply_binding("app", inline("s3:ListBucket")).await;
    world.binding_is("app", "Ready").await;
    let lists = [("iam:ListAttachedRolePolicies", 1), ("iam:ListRolePolicies", 1)];
    let made = [("iam:CreateRole", 1), ("iam:AttachRolePolicy", 2), ("iam:PutRolePolicy", 2)];
    assert_eq!(world.counts(), counts(&[made.as_slice(), &lists].concat()));

    // An edit reads everything first, and of what it has put nothing afterwards.
    world.sim.clear_calls();
    world.apply_binding("app", inline("s3:GetObject")).await;
    world.binding_is("app", "Ready").await;
    let edit = [
        ("iam:GetRole", 1),
        ("iam:ListAttachedRolePolicies", 2),
        ("iam:ListRolePolicies", 2),
        ("iam:GetRolePolicy", 3),
        ("iam:PutRolePolicy", 1),
    ];
    assert_eq!(world.counts(), counts(&edit));
    assert_eq!(world.role().unwrap().inline["data"], allows("s3:GetObject"));
    world.unbind("app").await;
    assert!(world.role().is_none());
    world.stop().await;
}

#[tokio::test]
async fn inline_policies_are_kept_as_specified() {
    let mut world = World::ready_with(|t| t.role_resync = std::time::Duration::from_millis(300)).await;
    let mut issuer = world.spec();
    let inline = |policies: Value| with(&json!({"role": {"inlinePolicies": policies}}));
    world.apply_binding("app", inline(json!([{"name": "data", "document": allows("s3:ListBucket")}]))).await;
    world.binding_is("app", "WaitingForGrant").await;
    let message = world.condition("app", C::Granted).await.2;
    assert!(message.contains("does not allow inline policies"), "{message}");
    issuer.grants[0].inline_policies = Some(crds::InlinePolicies::Allow);
    world.apply_issuer(&issuer).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), ["CreateRole", "PutRolePolicy"]);
    let found = || world.role().unwrap().inline;
    assert_eq!(found()["data"], allows("s3:ListBucket"));

    // An edit, one more, and one that is refused: what works stays. IAM gives documents percent-encoded.
    let mut encoded = allows("s3:GetObject");
    encoded["Statement"][0]["Resource"] = json!("arn:aws:s3:::data/a%20b+c \u{e9}\"/*");
    let two = json!([
        {"name": "data", "document": encoded}, {"name": "queue", "document": allows("sqs:SendMessage")},
    ]);
    world.apply_binding("app", inline(two.clone())).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(found().keys().collect::<Vec<_>>(), ["data", "queue"]);
    assert_eq!(found()["data"], encoded);
    let before = found();
    // Equal in meaning: nothing is written at the next reads.
    world.sim.clear_calls();
    world.until_called("GetRolePolicy", 4).await;
    assert_eq!(world.writes(), [""; 0]);
    let bad = json!([{"name": "data", "document": {"Version": "2012-10-17", "Statement": [{"Effect": "Perhaps"}]}}]);
    world.apply_binding("app", inline(bad)).await;
    world.binding_is("app", "InvalidSpec").await;
    assert_eq!(found(), before);

    // Somebody else's changes are put back; what only denies stays.
    world.apply_binding("app", inline(two)).await;
    world.binding_is("app", "Ready").await;
    world.sim.clear_calls();
    let name = world.role_name("app").to_lowercase();
    world.sim.change(|state| {
        let role = state.roles.get_mut(&name).unwrap();
        role.inline.insert("data".into(), allows("*"));
        role.inline.insert("added".into(), allows("*"));
    });
    world.until_aws("the specified policies", |s| s.roles[&name].inline == before).await;
    assert_eq!(world.writes(), ["PutRolePolicy", "DeleteRolePolicy"]);
    world.unbind("app").await;
    assert!(world.role().is_none());
    world.stop().await;
}

#[tokio::test]
async fn drift_is_only_reported_where_the_binding_says_so() {
    let mut world = World::ready_with(|t| t.role_resync = std::time::Duration::from_millis(300)).await;
    world.apply_binding("app", with(&json!({"driftPolicy": "ReportOnly"}))).await;
    world.binding_is("app", "Ready").await;
    world.sim.clear_calls();
    let name = world.role_name("app").to_lowercase();
    world.sim.change(|state| state.roles.get_mut(&name).unwrap().attached.push(QUEUE.into()));
    world.binding_is("app", "DriftDetected").await;
    let message = world.condition("app", C::RoleReady).await.2;
    assert!(message.contains(&format!("attached policies (surplus): remove {QUEUE}")), "{message}");
    assert_eq!(world.writes(), [""; 0]);
    // Another process reports the same.
    world.stop().await;
    world.start().await;
    world.until_reconciled().await;
    world.binding_is("app", "DriftDetected").await;
    // A deletion would end what somebody added.
    world.bindings().delete("app", &kube::api::DeleteParams::default()).await.unwrap();
    world.binding_is("app", "DeletionBlocked").await;
    assert_eq!(world.writes(), ["UpdateAssumeRolePolicy"], "nothing uses it any more");
    world.sim.change(|state| state.roles.get_mut(&name).unwrap().attached.pop());
    let gone = |b: Option<&crds::PodIdentityBinding>| b.is_none();
    world.until(&world.bindings(), "app", "its end", gone).await;
    assert!(world.role().is_none());
    world.stop().await;
}
