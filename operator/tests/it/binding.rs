//! `PodIdentityBinding`: the role from its first call to its last, its drift, and what keeps it from being made.

use std::time::Duration;

use aws_sim::world::Role;
use crds::condition::ConditionType as C;
use crds::{PodIdentityBinding, Reason};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{ACCOUNT, CLUSTER, QUEUE, STORAGE, World, apply, counts, has_finalizer};

const HOST: &str = "oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com";
const ROLE_ARN: &str = "eks.amazonaws.com/role-arn";

fn trust(namespace: &str, effect: &str) -> serde_json::Value {
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": effect,
        "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{HOST}/homelab")},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {
            (format!("{HOST}/homelab:sub")): format!("system:serviceaccount:{namespace}:app"),
            (format!("{HOST}/homelab:aud")): "sts.amazonaws.com",
        }},
    }]})
}

fn actions(world: &World) -> Vec<String> {
    world.role_calls().into_iter().map(|c| c.action).collect()
}

#[tokio::test]
async fn a_role_from_its_first_call_to_its_last() {
    let mut world = World::ready().await;
    world.sim.clear_calls();
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;

    // Two writes and one look at what they made.
    let calls = actions(&world);
    assert_eq!(calls[..2], ["CreateRole", "AttachRolePolicy"]);
    assert_eq!(
        world.counts(),
        counts(&[
            ("iam:CreateRole", 1),
            ("iam:AttachRolePolicy", 1),
            ("iam:ListAttachedRolePolicies", 1),
            ("iam:ListRolePolicies", 1),
        ]),
        "CreateRole's answer is the read-back of the role itself"
    );
    let role = world.role().unwrap();
    let name = world.role_name("app");
    assert_eq!(role.arn, format!("arn:aws:iam::{ACCOUNT}:role/podidentity/{CLUSTER}/{name}"));
    assert_eq!(role.trust, trust(&world.namespace, "Allow"));
    assert_eq!(
        role.boundary.as_deref(),
        Some(format!("arn:aws:iam::{ACCOUNT}:policy/podidentity/{CLUSTER}/{CLUSTER}.boundary").as_str())
    );
    assert_eq!(role.attached, [STORAGE]);
    let tags: Vec<(&str, &str)> = role.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        tags,
        [
            ("podidentity.dev/cluster", CLUSTER),
            ("podidentity.dev/issuer", format!("https://{HOST}/homelab").as_str()),
            ("podidentity.dev/kind", "PodIdentityBinding"),
            ("podidentity.dev/name", "app"),
            ("podidentity.dev/namespace", world.namespace.as_str()),
        ]
    );
    let binding = world.binding("app").await;
    let status = binding.status.clone().unwrap();
    assert_eq!(
        (status.role_arn.as_deref(), status.role_name.as_deref()),
        (Some(role.arn.as_str()), Some(name.as_str()))
    );
    for type_ in [C::Granted, C::RoleReady, C::ServiceAccountAnnotated] {
        assert_eq!(world.condition("app", type_).await.0, "True", "{}", type_.as_str());
    }
    let annotations = world.annotations("app").await;
    assert_eq!(annotations.get(ROLE_ARN), Some(&role.arn));

    // A real token of exactly this ServiceAccount may assume the role, and no other.
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    world.service_account(&world.namespace, "unbound").await;
    assert_eq!(world.exchange(&world.namespace, "unbound", &role.arn).await.unwrap_err(), "AccessDenied");
    assert_eq!(
        world.exchange(&world.system, "podidentity-operator", &role.arn).await.unwrap_err(),
        "AccessDenied"
    );

    world.sim.clear_calls();
    world.unbind("app").await;
    let calls = actions(&world);
    let writes: Vec<&String> =
        calls.iter().filter(|c| !c.starts_with("Get") && !c.starts_with("List")).collect();
    assert_eq!(
        writes,
        ["UpdateAssumeRolePolicy", "DetachRolePolicy", "DeleteRole"],
        "trust is revoked first"
    );
    assert_eq!(
        world.counts(),
        counts(&[
            ("iam:DeleteRole", 1),
            ("iam:DetachRolePolicy", 1),
            ("iam:GetRole", 1),
            ("iam:ListAttachedRolePolicies", 1),
            ("iam:ListRolePolicies", 1),
            ("iam:UpdateAssumeRolePolicy", 1),
        ])
    );
    assert!(world.role().is_none());
    assert_eq!(world.annotations("app").await, [].into());
    world.stop().await;
}

#[tokio::test]
async fn every_drifted_attribute_is_put_back_and_named() {
    type Edit = fn(&mut Role);
    let table: [(&str, Edit, &[&str]); 8] = [
        (
            "trust policy",
            |r| r.trust["Statement"][0]["Condition"]["StringEquals"] = json!({}),
            &["UpdateAssumeRolePolicy"],
        ),
        ("attached policies", |r| r.attached.clear(), &["AttachRolePolicy"]),
        (
            "attached policies (surplus)",
            |r| r.attached.push("arn:aws:iam::111122223333:policy/queue".into()),
            &["DetachRolePolicy"],
        ),
        (
            "inline policies",
            |r| {
                r.inline.insert("backdoor".into(), json!({}));
            },
            &["DeleteRolePolicy"],
        ),
        ("permissions boundary", |r| r.boundary = None, &["PutRolePermissionsBoundary"]),
        ("maximum session duration", |r| r.max_session_duration = 43_200, &["UpdateRole"]),
        ("description", |r| r.description = "mine".into(), &["UpdateRole"]),
        (
            "trust policy",
            |r| {
                r.boundary = None;
                r.trust = json!({"Version": "2012-10-17", "Statement": []});
            },
            &["PutRolePermissionsBoundary", "UpdateAssumeRolePolicy"],
        ),
    ];
    let world = World::ready_with(|t| t.role_resync = Duration::from_millis(100)).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let good = json!(world.role());
    for (attribute, edit, repair) in table {
        world.sim.clear_calls();
        let name = world.role_name("app");
        world.sim.change(|s| edit(s.roles.get_mut(&name).unwrap()));
        let as_before = |s: &aws_sim::State| json!(s.role(&name)) == good;
        world.until_aws(&format!("{attribute} to be put back"), as_before).await;
        assert_eq!(world.writes(), repair, "{attribute}");
        let noted = || async {
            let notes = world.events("app", Reason::DriftCorrected).await.join("\n");
            anyhow::ensure!(notes.contains(attribute), "no event names {attribute}: {notes}");
            Ok(())
        };
        cluster::until("the event", Duration::from_secs(20), noted).await.unwrap();
    }
    // A role that was deleted is made anew.
    world.sim.clear_calls();
    world.sim.change(|s| s.roles.remove(&world.role_name("app")));
    world
        .until_aws("the role to be made anew", |s| {
            s.role(&world.role_name("app")).is_some_and(|r| !r.attached.is_empty())
        })
        .await;
    assert_eq!(world.writes(), ["CreateRole", "AttachRolePolicy"]);
    // An annotation that was removed comes back without waiting for a period.
    let nothing = json!({"metadata": {"annotations": {ROLE_ARN: null}}});
    world.accounts().patch("app", &PatchParams::default(), &Patch::Merge(nothing)).await.unwrap();
    let annotated = |a: Option<&ServiceAccount>| a.is_some_and(|a| a.annotations().contains_key(ROLE_ARN));
    world.until(&world.accounts(), "app", "its annotation", annotated).await;
    world.binding_is("app", "Ready").await;
    world.unbind("app").await;
}

#[tokio::test]
async fn session_limit_and_description_are_set_in_place_up_to_the_grants_ceiling() {
    let world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let made = world.role().unwrap();
    assert_eq!(made.max_session_duration, 3600);
    assert_eq!(made.description, format!("ServiceAccount {}/app of cluster {CLUSTER}", world.namespace));

    // The grant says nothing of sessions, so an hour is the most.
    world.sim.clear_calls();
    let role =
        json!({"policyARNs": [STORAGE], "maxSessionDuration": "4h", "description": "Für die Datenbank"});
    let spec = json!({"serviceAccountName": "app", "role": role});
    world.apply_binding("app", spec.clone()).await;
    world.binding_is("app", "NotGranted").await;
    let (_, _, message) = world.condition("app", C::Granted).await;
    assert!(message.contains("the closest, tests, does not allow sessions of 14400 s"), "{message}");
    assert_eq!(world.writes(), [""; 0]);

    let mut issuer = world.spec();
    issuer.grants[0].max_session_duration = Some(Duration::from_hours(12).into());
    world.apply_issuer(&issuer).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), ["UpdateRole"]);
    let role = world.role().unwrap();
    assert_eq!((role.max_session_duration, role.description.as_str()), (14_400, "Für die Datenbank"));
    assert_eq!(role.id, made.id, "changed in place");
    world.unbind("app").await;

    // A new role has them from its first call.
    world.sim.clear_calls();
    world.apply_binding("app", spec).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), ["CreateRole", "AttachRolePolicy"]);
    assert_eq!(world.role().unwrap().max_session_duration, 14_400);
    world.unbind("app").await;
}

#[tokio::test]
async fn a_role_of_somebody_else_is_never_touched() {
    let world = World::ready().await;
    let name = world.role_name("app");
    let foreign_trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": "999999999999"}, "Action": "sts:AssumeRole",
    }]});
    world.sim.put_role("/podidentity/homelab/", &name, foreign_trust, &[]);
    let before = json!(world.role());
    world.sim.clear_calls();
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "NotOwned").await;
    let stalled = |b: Option<&PodIdentityBinding>| {
        let conditions = b.and_then(|b| b.status.as_ref()).map(|s| &s.conditions[..]);
        conditions.is_some_and(|c| crds::conditions::is_true(c, C::Stalled))
    };
    world.until(&world.bindings(), "app", "Stalled", stalled).await;
    let (_, _, message) = world.condition("app", C::Stalled).await;
    assert!(message.contains(&format!("role {name} exists and does not carry")), "{message}");

    // Of another binding of another cluster: it is named.
    world.sim.change(|s| {
        let tags = &mut s.roles.get_mut(&name).unwrap().tags;
        for (key, value) in [
            ("cluster", "other"),
            ("kind", "PodIdentityBinding"),
            ("namespace", "shop"),
            ("name", "cart"),
            ("issuer", "https://x.example.com"),
        ] {
            tags.insert(format!("podidentity.dev/{key}"), value.into());
        }
    });
    let before_named = json!(world.role());
    assert_ne!(before, before_named);
    world.bind("app", &[]).await; // an edit makes it look again
    let named = |b: Option<&PodIdentityBinding>| {
        let conditions = b.and_then(|b| b.status.as_ref()).map(|s| &s.conditions[..]);
        let stalled = conditions.and_then(|c| crds::conditions::find(c, C::Stalled));
        stalled.is_some_and(|c| c.message.contains("PodIdentityBinding shop/cart of cluster other"))
    };
    world.until(&world.bindings(), "app", "the owner's name", named).await;
    world.unbind("app").await;
    assert_eq!(json!(world.role()), before_named);
    let writes = world.writes();
    assert_eq!(writes, ["CreateRole"], "which IAM refused: it is how a new role is asked for");
}

#[tokio::test]
async fn nothing_is_made_without_a_grant_and_a_grant_that_comes_later_is_enough() {
    let mut world = World::bootstrapped().await;
    world.timings.grant_grace = Duration::from_secs(6);
    let mut spec = world.spec();
    let grants = std::mem::take(&mut spec.grants);
    world.apply_issuer(&spec).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "WaitingForGrant").await;
    assert_eq!(world.condition("app", C::Reconciling).await.0, "True");
    world.binding_is("app", "NotGranted").await;
    let (_, _, message) = world.condition("app", C::Stalled).await;
    assert!(message.contains(&format!("covers namespace {}", world.namespace)), "{message}");
    assert!(!has_finalizer(&world.binding("app").await), "nothing was made, so nothing holds it");
    assert_eq!(world.role_calls(), []);

    spec.grants = grants;
    world.apply_issuer(&spec).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), ["CreateRole", "AttachRolePolicy"]);

    // A bad edit breaks nothing: the role stays as it was.
    let before = json!(world.role());
    world.sim.clear_calls();
    let other = "arn:aws:iam::111122223333:policy/not-granted".to_owned();
    world.bind("app", &[STORAGE, &other]).await;
    world.binding_is("app", "NotGranted").await;
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(json!(world.role()), before);
    let status = world.binding("app").await.status.unwrap();
    assert_eq!(status.role_name, Some(world.role_name("app")), "the status keeps the role's name");

    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), [""; 0]);
    world.unbind("app").await;
}

#[tokio::test]
async fn a_policy_that_does_not_exist_is_named_and_the_attached_ones_stay() {
    let world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap().arn;
    // Granted, but not there: somebody deletes the policy before it is attached.
    world.sim.change(|s| s.policies.remove(QUEUE));
    world.bind("app", &[QUEUE]).await;
    world.binding_is("app", "InvalidSpec").await;
    let (_, _, message) = world.condition("app", C::Stalled).await;
    assert!(message.contains(&format!("spec.role.policyARNs: policy {QUEUE} does not exist")), "{message}");
    assert_eq!(world.role().unwrap().attached, [STORAGE]);
    world.exchange(&world.namespace, "app", &role).await.unwrap();
    // It appears: no edit is needed.
    world.sim.put_managed_policy("queue", json!({"Version": "2012-10-17", "Statement": []}));
    world.binding_is("app", "Ready").await;
    assert_eq!(world.role().unwrap().attached, [QUEUE]);
    world.unbind("app").await;
}

#[tokio::test]
async fn the_oldest_binding_holds_the_service_account_and_the_next_gets_it_then() {
    let world = World::ready_with(|t| t.conflict_grace = Duration::from_secs(2)).await;
    world.bind("a-first", &[STORAGE]).await;
    world.binding_is("a-first", "Ready").await;
    let id = world.role().unwrap().id;
    let role = json!(world.role());
    world.sim.clear_calls();
    world.bind("b-second", &[QUEUE]).await;
    world.binding_is("b-second", "ServiceAccountAlreadyBound").await;
    let stalled = |b: Option<&PodIdentityBinding>| {
        let conditions = b.and_then(|b| b.status.as_ref()).map(|s| &s.conditions[..]);
        conditions.is_some_and(|c| crds::conditions::is_true(c, C::Stalled))
    };
    world.until(&world.bindings(), "b-second", "Stalled", stalled).await;
    let (_, _, message) = world.condition("b-second", C::Ready).await;
    assert!(message.contains("bound by PodIdentityBinding a-first, which has its role"), "{message}");
    assert_eq!(world.role_calls(), []);
    assert_eq!(json!(world.role()), role);

    world.unbind("a-first").await;
    world.binding_is("b-second", "Ready").await;
    let role = world.role().unwrap();
    assert_eq!(role.attached, [QUEUE]);
    assert_eq!(role.tags["podidentity.dev/name"], "b-second");
    assert_eq!(world.annotations("app").await.get(ROLE_ARN), Some(&role.arn));
    assert_eq!(role.id, id, "handed over");
    let counts = world.counts();
    assert_eq!((counts.get("iam:DeleteRole"), counts["iam:TagRole"]), (None, 1));
    world.unbind("b-second").await;
}

#[tokio::test]
async fn the_end_of_a_binding_that_never_had_a_role_wakes_the_next() {
    let world = World::ready_with(|t| t.conflict_grace = Duration::from_hours(1)).await;
    world.bind("a-first", &["arn:aws:iam::111122223333:policy/nobody-granted"]).await;
    world.binding_is("a-first", "WaitingForGrant").await;
    assert_eq!(world.binding("a-first").await.finalizers(), [""; 0]);
    world.bind("b-second", &[QUEUE]).await;
    world.binding_is("b-second", "ServiceAccountAlreadyBound").await;

    world.unbind("a-first").await;
    world.binding_is("b-second", "Ready").await;
    assert_eq!(world.counts()["iam:CreateRole"], 1);
    world.unbind("b-second").await;
}

#[tokio::test]
async fn a_service_account_may_come_later_and_somebody_elses_annotation_stays() {
    let world = World::ready().await;
    let spec = json!({"serviceAccountName": "later", "role": {"policyARNs": []}});
    world.apply_binding("later", spec).await;
    world.binding_is("later", "Ready").await;
    let (status, reason, _) = world.condition("later", C::ServiceAccountAnnotated).await;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ServiceAccountNotFound"));
    assert!(world.accounts().get_opt("later").await.unwrap().is_none(), "it is never created");
    world.service_account(&world.namespace, "later").await;
    let annotated = |a: Option<&ServiceAccount>| a.is_some_and(|a| a.annotations().contains_key(ROLE_ARN));
    world.until(&world.accounts(), "later", "its annotation", annotated).await;
    world.unbind("later").await;
    assert!(world.accounts().get_opt("later").await.unwrap().is_some(), "it is never deleted");

    // helm or Argo CD owns the annotation, with another role.
    let other = format!("arn:aws:iam::{ACCOUNT}:role/other");
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "annotations": {ROLE_ARN: other}}});
    world.accounts().patch("app", &PatchParams::apply("argocd"), &Patch::Apply(object)).await.unwrap();
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let conflict = |b: Option<&PodIdentityBinding>| {
        let conditions = b.and_then(|b| b.status.as_ref()).map(|s| &s.conditions[..]);
        let found = conditions.and_then(|c| crds::conditions::find(c, C::ServiceAccountAnnotated));
        found.is_some_and(|c| c.reason == Reason::AnnotationOwnedByOther && c.message.contains("argocd"))
    };
    world.until(&world.bindings(), "app", "the conflict", conflict).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.annotations("app").await.get(ROLE_ARN), Some(&other));
    world.unbind("app").await;
    assert_eq!(world.annotations("app").await.get(ROLE_ARN), Some(&other), "not ours to remove");
}

#[tokio::test]
async fn a_role_made_elsewhere_is_passed_on_and_never_read() {
    let world = World::ready().await;
    world.sim.clear_calls();
    let elsewhere = "arn:aws:iam::999999999999:role/terraform/app";
    let spec = json!({
        "serviceAccountName": "app", "roleARN": elsewhere, "audience": "vault", "tokenExpirationSeconds": 3600,
        "stsRegionalEndpoints": false,
    });
    world.apply_binding("app", spec).await;
    world.binding_is("app", "Ready").await;
    let annotated = |a: Option<&ServiceAccount>| a.is_some_and(|a| a.annotations().contains_key(ROLE_ARN));
    world.until(&world.accounts(), "app", "its annotation", annotated).await;
    let expected = [
        (ROLE_ARN, elsewhere),
        ("eks.amazonaws.com/audience", "vault"),
        ("eks.amazonaws.com/sts-regional-endpoints", "false"),
        ("eks.amazonaws.com/token-expiration", "3600"),
    ];
    assert_eq!(world.annotations("app").await, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(world.operators(), []);
    world.unbind("app").await;
    assert_eq!(world.operators(), []);
    assert_eq!(world.annotations("app").await, [].into());
}

#[tokio::test]
async fn a_binding_with_another_role_removes_its_own() {
    let world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.sim.clear_calls();
    let elsewhere = "arn:aws:iam::111122223333:role/terraform/app";
    world.apply_binding("app", json!({"serviceAccountName": "app", "roleARN": elsewhere})).await;
    world.until_aws("the role to go", |s| s.role(&world.role_name("app")).is_none()).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), ["UpdateAssumeRolePolicy", "DetachRolePolicy", "DeleteRole"]);
    let pointed = |a: Option<&ServiceAccount>| {
        a.is_some_and(|a| a.annotations().get(ROLE_ARN).is_some_and(|v| v == elsewhere))
    };
    world.until(&world.accounts(), "app", "the other role", pointed).await;
    world.bind("app", &[STORAGE]).await;
    world.until_aws("the role to be made", |s| s.role(&world.role_name("app")).is_some()).await;
    world.binding_is("app", "Ready").await;
    world.unbind("app").await;
    assert!(world.role().is_none());
}

#[tokio::test]
async fn a_binding_that_cannot_be_made_says_why() {
    let mut world = World::bootstrapped().await;
    world.start().await;
    world.bind("app", &[]).await;
    world.binding_is("app", "DependencyNotReady").await;
    let (_, _, message) = world.condition("app", C::Ready).await;
    assert!(message.contains("OidcIssuer default does not exist"), "{message}");
    world.apply_issuer(&world.spec()).await;
    world.binding_is("app", "Ready").await;

    let spec = json!({"serviceAccountName": "app", "role": {"policyARNs": []}, "audience": "unknown"});
    world.apply_binding("app", spec).await;
    world.binding_is("app", "InvalidSpec").await;
    let (_, _, message) = world.condition("app", C::Stalled).await;
    assert!(message.contains("spec.audience unknown is not among spec.audiences"), "{message}");
    world.unbind("app").await;
    assert!(world.role().is_none());

    // The operator's own ServiceAccount.
    let own = kube::Api::<PodIdentityBinding>::namespaced(world.client.clone(), &world.system);
    let spec = json!({"serviceAccountName": "podidentity-operator", "role": {"policyARNs": []}});
    apply(&own, "self", spec).await.unwrap();
    let refused = |b: Option<&PodIdentityBinding>| {
        let conditions = b.and_then(|b| b.status.as_ref()).map(|s| &s.conditions[..]);
        let stalled = conditions.and_then(|c| crds::conditions::find(c, C::Stalled));
        stalled.is_some_and(|c| c.reason == Reason::ReservedServiceAccount)
    };
    world.until(&own, "self", "ReservedServiceAccount", refused).await;
    own.delete("self", &DeleteParams::default()).await.unwrap();
}
