//! The same issuer in a second AWS account: a second `OidcIssuer` with the same URL and `operatorRoleARN`. The operator assumes
//! that role with its own token, through the provider there.

use aws_sim::{Fault, FaultKind, Sim};
use crds::condition::ConditionType as C;
use crds::names::{ABANDON_ANNOTATION, operator_role_arn, operator_role_name, role_name};
use crds::{OidcIssuerSpec, PodIdentityBinding, Reason};
use kube::api::{DeleteParams, Patch, PatchParams};
use operator::bootstrap::register_only;
use operator::issuer_file;
use serde_json::json;

use crate::issuer::{managed, provider_arn};
use crate::world::{ACCOUNT, CLUSTER, Flags, STORAGE, World, apply, issuer, read_only_policy};

pub const OTHER: &str = "999999999999";
const POLICY: &str = "arn:aws:iam::999999999999:policy/storage";

/// The URL of the issuer `default`, registered in the other account. Its documents are published already.
pub fn second(world: &World) -> OidcIssuerSpec {
    serde_json::from_value(json!({
        "clusterName": CLUSTER,
        "issuerURL": world.spec().issuer_url(),
        "operatorRoleARN": operator_role_arn("aws", OTHER, CLUSTER),
        "grants": [{"name": "tests", "namespaces": {"names": [world.namespace]}, "policyARNs": [POLICY]}],
    }))
    .unwrap()
}

impl World {
    /// `bootstrap` of the second issuer as the administrator of the other account.
    async fn bootstrap_second(&self, other: &Sim) -> anyhow::Result<String> {
        let administrator = self.administrator_of(other).await;
        let issuers = [issuer("second", &second(self))];
        self.bootstrap_as(&administrator, &issuers, Flags::default(), &self.client).await
    }
}

#[tokio::test]
async fn an_issuer_is_registered_in_a_second_account_and_roles_are_made_there() {
    let world = World::ready().await;
    let other = world.sim.account(OTHER);
    let document = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"},
    ]});
    other.put_managed_policy("storage", document);
    let first = managed(&world.sim.state());
    // With the session of the wrong account nothing is made.
    let issuers = [issuer("second", &second(&world))];
    let refused =
        world.bootstrap_all(&issuers, Flags::default(), &world.client).await.unwrap_err().to_string();
    assert!(
        refused.contains("spec.operatorRoleARN is of account 999999999999, but the credentials are"),
        "{refused}"
    );
    assert!(other.state().roles.is_empty());

    world.bootstrap_second(&other).await.unwrap();
    let state = other.state();
    assert_eq!(state.providers.keys().collect::<Vec<_>>(), [&provider_arn().replacen(ACCOUNT, OTHER, 1)]);
    assert_eq!(
        state.roles.keys().collect::<Vec<_>>(),
        [&operator_role_name(CLUSTER)],
        "no canary: no bucket"
    );
    let rights = state.roles[&operator_role_name(CLUSTER)].inline["podidentity-operator"].to_string();
    assert!(!rights.contains("s3:"), "the first account's bucket is none of its business: {rights}");
    assert_eq!(managed(&world.sim.state()), first);

    world.sim.clear_calls();
    apply(&world.issuers(), "second", json!(second(&world))).await.unwrap();
    world.issuer_named_is("second", "Ready").await;
    let status = world.issuers().get("second").await.unwrap().status.unwrap();
    assert_eq!(status.account_id.as_deref(), Some(OTHER));
    world
        .apply_binding(
            "app",
            json!({"serviceAccountName": "app", "issuerRef": {"name": "second"}, "role": {"policyARNs": [POLICY]}}),
        )
        .await;
    world.binding_is("app", "Ready").await;
    let name = role_name(CLUSTER, &world.namespace, "app");
    let role = other.state().role(&name).cloned().unwrap();
    assert_eq!((role.attached.as_slice(), world.role().is_none()), (&[POLICY.to_owned()][..], true));
    assert_eq!(
        role.boundary.as_deref(),
        Some("arn:aws:iam::999999999999:policy/podidentity/homelab/homelab.boundary")
    );
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    // The annotation names the role there, and every change was made by the operator's role there.
    let annotations = world.annotations("app").await;
    assert_eq!(annotations["eks.amazonaws.com/role-arn"], role.arn);
    let writers: Vec<String> =
        world.operators().into_iter().filter(|call| call.write).map(|call| call.principal).collect();
    assert!(!writers.is_empty() && writers.iter().all(|principal| principal.contains(OTHER)), "{writers:?}");
    world.issuer_is("Ready").await;

    // A role does not move to another account: the edit is refused, and nothing changes in either.
    let roles_of_both = || (json!(world.sim.state().roles), json!(other.state().roles));
    let before = roles_of_both();
    let bound = |issuer: &str| json!({"serviceAccountName": "app", "issuerRef": {"name": issuer}, "role": {"policyARNs": [POLICY]}});
    world.apply_binding("app", bound("default")).await;
    world.binding_is("app", "InvalidSpec").await;
    let message = world.condition("app", C::Ready).await.2;
    assert!(message.contains("OidcIssuer default, which spec.issuerRef names"), "{message}");
    assert_eq!((roles_of_both(), world.annotations("app").await), (before, annotations));
    world.apply_binding("app", bound("second")).await;
    world.binding_is("app", "Ready").await;

    // The documents are not removed while the other account's provider trusts them.
    let refused = world.teardown(&world.spec(), false).await.unwrap_err().to_string();
    assert!(refused.contains("OidcIssuer second has the same issuer URL"), "{refused}");

    world.unbind("app").await;
    assert!(other.state().role(&name).is_none());
    world.issuers().delete("second", &DeleteParams::default()).await.unwrap();
    world.until(&world.issuers(), "second", "its end", |i: Option<&crds::OidcIssuer>| i.is_none()).await;
    assert_eq!(managed(&world.sim.state()), first);
}

/// One edit names a role made elsewhere and an issuer of another account, and the role that the binding had cannot be read at once.
#[tokio::test]
async fn an_earlier_role_in_another_account_ends_although_a_call_fails_after_the_edit() {
    let world = World::ready().await;
    let other = world.sim.account(OTHER);
    world.bootstrap_second(&other).await.unwrap();
    apply(&world.issuers(), "second", json!(second(&world))).await.unwrap();
    world.issuer_named_is("second", "Ready").await;
    let elsewhere = "arn:aws:iam::999999999999:role/terraform/app";
    let edit = json!({"serviceAccountName": "app", "issuerRef": {"name": "second"}, "roleARN": elsewhere});
    for action in ["GetRole", "UpdateAssumeRolePolicy", "DetachRolePolicy", "DeleteRole"] {
        world.bind("app", &[STORAGE]).await;
        world.binding_is("app", "Ready").await;
        world.sim.clear_calls();
        // More than the SDK's own attempts.
        world.sim.inject(Fault::on("iam", action, FaultKind::throttle()).times(4));
        world.apply_binding("app", edit.clone()).await;
        let name = world.role_name("app").to_lowercase();
        world.until_aws("the end of the role", |state| state.role(&name).is_none()).await;
        world.binding_is("app", "Ready").await;
        let ended = |binding: Option<&crds::PodIdentityBinding>| {
            let status = binding.and_then(|binding| binding.status.as_ref());
            status.is_some_and(|status| {
                status.role_name.is_none() && status.role_arn.as_deref() == Some(elsewhere)
            })
        };
        world.until(&world.bindings(), "app", "the name of the other role", ended).await;
        let counts = world.counts();
        assert_eq!((counts["iam:DeleteRole"] >= 1, counts.get("iam:CreateRole")), (true, None), "{action}");
        world.unbind("app").await;
    }
}

/// The binding uses a role made elsewhere, and its earlier role is in an account that is lost: neither keeps the other from its end.
#[tokio::test]
async fn an_earlier_role_in_a_lost_account_keeps_neither_binding_nor_issuer() {
    let world = World::ready().await;
    let other = world.sim.account(OTHER);
    world.bootstrap_second(&other).await.unwrap();
    apply(&world.issuers(), "second", json!(second(&world))).await.unwrap();
    world.issuer_named_is("second", "Ready").await;
    let made = json!({"serviceAccountName": "app", "issuerRef": {"name": "second"}, "role": {"policyARNs": [POLICY]}});
    other.put_managed_policy("storage", read_only_policy());
    world.apply_binding("app", made).await;
    world.binding_is("app", "Ready").await;
    let name = role_name(CLUSTER, &world.namespace, "app");
    world.sim.inject(Fault::on("iam", "GetRole", FaultKind::server_error()));
    let elsewhere = "arn:aws:iam::111122223333:role/terraform/app";
    world.apply_binding("app", json!({"serviceAccountName": "app", "roleARN": elsewhere})).await;
    let uses = |b: Option<&PodIdentityBinding>| {
        b.and_then(|b| b.status.as_ref()).is_some_and(|status| status.observed_generation == Some(2))
    };
    world.until(&world.bindings(), "app", "the edit", uses).await;
    assert_eq!(
        world.binding("app").await.status.unwrap().role_name.as_deref(),
        Some(&*name),
        "it is still there"
    );

    world.issuers().delete("second", &DeleteParams::default()).await.unwrap();
    world.issuer_named_is("second", "DeletionBlocked").await;
    let abandon = Patch::Merge(json!({"metadata": {"annotations": {(ABANDON_ANNOTATION): "true"}}}));
    world.issuers().patch_metadata("second", &PatchParams::default(), &abandon).await.unwrap();
    world.unbind("app").await;
    world.until(&world.issuers(), "second", "its end", |i: Option<&crds::OidcIssuer>| i.is_none()).await;
    assert!(other.state().role(&name).is_some(), "AWS is not asked");
    assert_eq!(world.events("app", Reason::Abandoned).await.len(), 1);
}

/// A role that Terraform made in another account: the status says what its trust policy needs, and with that pods get credentials.
#[tokio::test]
async fn the_statement_in_the_status_lets_the_service_account_into_a_role_made_elsewhere() {
    let world = World::ready().await;
    let other = world.sim.account(OTHER);
    let url = world.spec().issuer_url();
    let (arn, bare) =
        (provider_arn().replacen(ACCOUNT, OTHER, 1), url.trim_start_matches("https://").to_owned());
    let provider =
        aws_sim::Provider { url: bare, client_ids: vec!["sts.amazonaws.com".into()], tags: [].into() };
    other.change(|state| state.providers.insert(arn, provider));
    let role = "arn:aws:iam::999999999999:role/terraform/app";
    world.apply_binding("app", json!({"serviceAccountName": "app", "roleARN": role})).await;
    world.binding_is("app", "Ready").await;
    let message = world.condition("app", C::RoleReady).await.2;
    let statement: serde_json::Value = serde_json::from_str(&message[message.find('{').unwrap()..]).unwrap();
    let trust = json!({"Version": "2012-10-17", "Statement": [statement]});
    assert_eq!(other.put_role("/terraform/", "app", trust, &[]), role);
    world.exchange(&world.namespace, "app", role).await.unwrap();
    assert_eq!(
        world.exchange(&world.system, "podidentity-operator", role).await.unwrap_err(),
        "AccessDenied"
    );
    world.unbind("app").await;
}

/// `--register-only`: the file of the first account, and the credentials of the second one.
#[tokio::test]
async fn the_file_of_the_first_account_is_registered_in_a_second_one() {
    let world = World::ready().await;
    let other = world.sim.account(OTHER);
    let administrator = world.administrator_of(&other).await;
    let identity = administrator.own().identity().await.unwrap();
    let of_file = [issuer("default", &world.spec())];
    let issuers = register_only::issuers(&of_file, &identity).unwrap();
    let first = managed(&world.sim.state());
    for made in [1, 0] {
        other.clear_calls();
        world.bootstrap_as(&administrator, &issuers, Flags::default(), &world.client).await.unwrap();
        let writes = other.calls().into_iter().filter(|call| call.action.starts_with("Create")).count();
        assert_eq!(writes, 3 * made, "provider, boundary, role; and nothing when it is run again");
    }
    // What it prints is applied.
    let printed = issuer_file::parse("printed", &register_only::manifest(&issuers)).unwrap();
    apply(&world.issuers(), &printed[0].name, json!(printed[0].spec)).await.unwrap();
    world.issuer_named_is("default-999999999999", "Ready").await;
    assert!(
        other.state().buckets.keys().all(|bucket| bucket == crate::world::BUCKET),
        "buckets are the world's"
    );
    assert_eq!(managed(&world.sim.state()), first);
    // It is removed with the same text as its file.
    world.issuers().delete("default-999999999999", &DeleteParams::default()).await.unwrap();
    world
        .until(&world.issuers(), "default-999999999999", "its end", |i: Option<&crds::OidcIssuer>| {
            i.is_none()
        })
        .await;
    world.issuer_is("Ready").await;
}

#[tokio::test]
async fn the_newer_of_two_issuers_with_one_bucket_changes_nothing() {
    let world = World::ready().await;
    let mut spec = world.spec();
    spec.s3.as_mut().unwrap().prefix = Some("other".into());
    let before = managed(&world.sim.state());
    world.sim.clear_calls();
    world.apply_issuer_as("newer", &spec).await;
    world.issuer_named_is("newer", Reason::DuplicateIssuer.as_str()).await;
    let (_, _, message) = world.issuer_named_condition("newer", C::Ready).await;
    assert!(message.contains("OidcIssuer default is older and has the same bucket"), "{message}");
    world.issuer_is("Ready").await;
    assert_eq!((managed(&world.sim.state()), world.writes()), (before, Vec::new()));
    world.issuers().delete("newer", &DeleteParams::default()).await.unwrap();
    world.until(&world.issuers(), "newer", "its end", |i: Option<&crds::OidcIssuer>| i.is_none()).await;
    assert_eq!(world.writes(), [""; 0]);
}
