//! A binding moves to another issuer or audience: tokens of the former one are exchanged for as long as they may be valid.

use std::time::Duration;

use cluster::{ControlPlane, Options, Tokens};
use crds::OidcIssuerSpec;
use crds::names::tag;
use serde_json::{Value, json};

use crate::world::{Flags, STORAGE, World, exchange_token, issuer, token, token_for, with_crds};

fn bound(fields: &Value) -> Value {
    let mut spec = json!({"serviceAccountName": "app", "role": {"policyARNs": [STORAGE]}});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

impl World {
    /// Two issuers under two URLs; the API server issues tokens under the first.
    async fn with_two_issuers(mut world: Self) -> (Self, OidcIssuerSpec) {
        let mut next = world.spec();
        next.s3.as_mut().unwrap().bucket = "next-111122223333-eu-central-1-an".into();
        let issuers = [issuer("default", &world.spec()), issuer("next", &next)];
        world.bootstrap_all(&issuers, Flags::default(), &world.client).await.unwrap();
        world.timings.role_resync = Duration::from_millis(300);
        world.timings.api_server_poll = Duration::from_millis(100);
        world.apply_issuer(&world.spec()).await;
        world.apply_issuer_as("next", &next).await;
        world.start().await;
        world.issuer_is("Ready").await;
        world.issuer_named_is("next", "IssuerMismatch").await;
        (world, next)
    }

    /// The time of the end of the former trust is over.
    fn end_retention(&self) {
        let name = self.role_name("app").to_lowercase();
        self.sim.change(|state| {
            let until = state.roles.get_mut(&name).unwrap().tags.get_mut(tag::FORMER_UNTIL).unwrap();
            "1".clone_into(until);
        });
    }
}

fn statements(world: &World) -> usize {
    world.role().unwrap().trust["Statement"].as_array().unwrap().len()
}

/// The binding moves first, then the API server: no token is refused.
#[tokio::test]
async fn after_a_move_to_another_issuer_both_are_trusted_while_they_are_in_use_and_for_the_retention() {
    let cluster = with_crds(ControlPlane::start(&Options::default()).await.unwrap());
    let (mut world, next) = World::with_two_issuers(World::on(&cluster).await).await;
    world.apply_binding("app", bound(&json!({}))).await;
    world.binding_is("app", "Ready").await;
    let before = world.role().unwrap();
    let old_token = token(&world.client, (&world.namespace, "app")).await.unwrap();
    world.sim.clear_calls();
    world.apply_binding("app", bound(&json!({"issuerRef": {"name": "next"}}))).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), ["TagRole", "UpdateAssumeRolePolicy"]);
    let moved = world.role().unwrap();
    assert_eq!((&moved.id, statements(&world)), (&before.id, 2));
    assert_eq!(moved.tags[tag::ISSUER], next.issuer_url());
    exchange_token(&world.sim, old_token.clone(), &moved.arn).await.unwrap();
    // A way back that is refused changes nothing, although the former one is trusted still.
    let mut spec = world.spec();
    spec.grants.clear();
    world.apply_issuer(&spec).await;
    world.apply_binding("app", bound(&json!({}))).await;
    world.binding_is("app", "NotGranted").await;
    let status = world.binding("app").await.status.unwrap();
    assert_eq!((status.issuer.as_deref(), status.revoke_at), (Some("next"), None));
    world.apply_issuer(&world.spec()).await;
    world.apply_binding("app", bound(&json!({"issuerRef": {"name": "next"}}))).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(json!(world.role().unwrap()), json!(moved));
    // It stays so, over a restart of the operator, too.
    world.stop().await;
    world.start().await;
    world.until_called("GetRole", 3).await;
    assert_eq!((world.writes(), statements(&world)), (Vec::new(), 2));
    // As long as the API server issues tokens under the former one, its end is moved on.
    world.end_retention();
    let name = world.role_name("app");
    let until = |s: &aws_sim::State| s.role(&name).unwrap().tags.get(tag::FORMER_UNTIL).cloned();
    world.until_aws("a later end", |s| until(s).is_some_and(|until| until.len() > 1)).await;
    assert_eq!((world.writes(), statements(&world)), (vec!["TagRole".to_owned()], 2));

    let tokens = Tokens {
        issuers: [&next, &world.spec()].map(OidcIssuerSpec::issuer_url).into(),
        api_audiences: vec!["https://kubernetes.default.svc".into()],
        ..Tokens::default()
    };
    cluster.restart_api_server(0, &tokens).await.unwrap();
    world.issuer_named_is("next", "Ready").await;
    let new_token = token(&world.client, (&world.namespace, "app")).await.unwrap();
    for token in [&old_token, &new_token] {
        exchange_token(&world.sim, token.clone(), &moved.arn).await.unwrap();
    }
    world.sim.clear_calls();
    // The operator moves the end on until its own watch shows that no API server uses the former one.
    let ended = || async {
        if until(&world.sim.state()).is_some_and(|until| until.len() > 1) {
            world.end_retention();
        }
        anyhow::ensure!(until(&world.sim.state()).is_none(), "{:?}", world.writes());
        Ok(())
    };
    cluster::until("the end of the former trust", Duration::from_secs(15), ended).await.unwrap();
    assert_eq!(statements(&world), 1);
    let writes = world.writes().into_iter().filter(|action| action != "TagRole");
    assert_eq!(writes.collect::<Vec<_>>(), ["UpdateAssumeRolePolicy", "UntagRole"]);
    exchange_token(&world.sim, new_token, &moved.arn).await.unwrap();
    let refused = exchange_token(&world.sim, old_token, &moved.arn).await;
    assert_eq!(refused.unwrap_err(), "AccessDenied");
    assert_eq!(
        world.events("app", crds::Reason::DriftCorrected).await,
        [""; 0],
        "an end by its time is no drift"
    );
    world.unbind("app").await;
    world.stop().await;
}

#[tokio::test]
async fn after_another_audience_tokens_of_both_are_exchanged() {
    let (mut world, _) = World::with_two_issuers(World::new().await).await;
    let mut spec = world.spec();
    spec.audiences.push("vault".into());
    world.apply_issuer(&spec).await;
    world.issuer_is("Ready").await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.apply_binding("app", bound(&json!({"audience": "vault"}))).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap().arn;
    let account = (world.namespace.as_str(), "app");
    let tokens = async |audience: &str| token_for(&world.client, account, &[audience]).await.unwrap();
    for audience in ["sts.amazonaws.com", "vault"] {
        exchange_token(&world.sim, tokens(audience).await, &role).await.unwrap();
    }
    world.end_retention();
    world
        .until_aws("one statement", |s| {
            s.role(&world.role_name("app")).unwrap().trust["Statement"].as_array().unwrap().len() == 1
        })
        .await;
    exchange_token(&world.sim, tokens("vault").await, &role).await.unwrap();
    let refused = exchange_token(&world.sim, tokens("sts.amazonaws.com").await, &role).await;
    assert_eq!(refused.unwrap_err(), "AccessDenied");
    // The webhook gives the recorded one to new pods while an edit is refused.
    world.apply_binding("app", bound(&json!({"audience": "unknown"}))).await;
    world.binding_is("app", "InvalidSpec").await;
    let status = world.binding("app").await.status.unwrap();
    assert_eq!(status.audience.as_deref(), Some("vault"));
    exchange_token(&world.sim, tokens("vault").await, &role).await.unwrap();
    world.unbind("app").await;
    world.stop().await;
}

/// What looks like a move and is none: a statement that somebody adds to the trust of a Ready binding.
#[tokio::test]
async fn a_statement_that_is_added_is_drift_and_an_issuer_of_another_cluster_name_is_refused() {
    let (mut world, mut next) = World::with_two_issuers(World::new().await).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap();
    let (name, trust) = (world.role_name("app").to_lowercase(), role.trust.to_string());
    let added = trust.replace(&world.spec().issuer_url()[8..], &next.issuer_url()[8..]);
    let both = json!({"Version": "2012-10-17", "Statement": [
        role.trust["Statement"][0], serde_json::from_str::<Value>(&added).unwrap()["Statement"][0],
    ]});
    world.sim.clear_calls();
    world.sim.change(|state| state.roles.get_mut(&name).unwrap().trust = both);
    world.until_aws("the specified trust", |s| s.roles[&name].trust == role.trust).await;
    assert_eq!(world.writes(), ["UpdateAssumeRolePolicy"]);

    let mut two = next.clone();
    next.cluster_name = "office".into();
    next.s3.as_mut().unwrap().bucket = "office-111122223333-eu-central-1-an".into();
    world.apply_issuer_as("office", &next).await;
    world.sim.clear_calls();
    world.apply_binding("app", bound(&json!({"issuerRef": {"name": "office"}}))).await;
    world.binding_is("app", "InvalidSpec").await;
    let message = world.condition("app", crds::ConditionType::Ready).await.2;
    assert!(
        message.contains("is of another AWS account or clusterName: put the former one back"),
        "{message}"
    );
    assert_eq!(json!(world.role().unwrap()), json!(role));
    // One that does not exist hides nothing from the grants of the former one, whatever a third one grants.
    world.apply_binding("app", bound(&json!({"issuerRef": {"name": "nowhere"}}))).await;
    world.binding_is("app", "InvalidSpec").await;
    let mut spec = world.spec();
    spec.grants.clear();
    world.apply_issuer(&spec).await;
    world.binding_is("app", "GrantLost").await;
    world.apply_issuer(&world.spec()).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    // Nor does one that could have the role, and grants it, under an edit that is refused.
    world.apply_binding("app", bound(&json!({"issuerRef": {"name": "next"}, "audience": "unknown"}))).await;
    world.binding_is("app", "InvalidSpec").await;
    world.apply_issuer(&spec).await;
    world.binding_is("app", "GrantLost").await;
    world.apply_issuer(&world.spec()).await;
    world.binding_is("app", "InvalidSpec").await;
    // One that does not grant it takes nothing away.
    two.grants.clear();
    world.apply_issuer_as("next", &two).await;
    world.apply_binding("app", bound(&json!({"issuerRef": {"name": "next"}}))).await;
    world.binding_is("app", "NotGranted").await;
    let status = world.binding("app").await.status.unwrap();
    assert_eq!((status.issuer.as_deref(), status.revoke_at), (Some("default"), None));
    assert_eq!(json!(world.role().unwrap()), json!(role));
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.unbind("app").await;
    world.stop().await;
    // The operator has no rights for issuer `office`, which was never bootstrapped.
    world.sim.clear_calls();
}
