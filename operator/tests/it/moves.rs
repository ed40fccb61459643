//! A binding moves to another issuer or audience: tokens of the former one are exchanged for as long as they may be valid.

use crds::OidcIssuerSpec;
use crds::names::tag;
use serde_json::{Value, json};

use crate::world::{Flags, STORAGE, World, exchange_token, issuer, token_for};

fn bound(fields: &Value) -> Value {
    let mut spec = json!({"serviceAccountName": "app", "role": {"policyARNs": [STORAGE]}});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

impl World {
    /// Two issuers under two URLs; the API server issues tokens under the first.
    async fn with_two_issuers() -> (Self, OidcIssuerSpec) {
        let mut world = Self::new().await;
        let mut next = world.spec();
        next.s3.as_mut().unwrap().bucket = "next-111122223333-eu-central-1-an".into();
        let issuers = [issuer("default", &world.spec()), issuer("next", &next)];
        world.bootstrap_all(&issuers, Flags::default(), &world.client).await.unwrap();
        world.timings.role_resync = std::time::Duration::from_millis(300);
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

#[tokio::test]
async fn after_a_move_to_another_issuer_both_are_trusted_for_the_retention() {
    let (mut world, next) = World::with_two_issuers().await;
    world.apply_binding("app", bound(&json!({}))).await;
    world.binding_is("app", "Ready").await;
    let before = world.role().unwrap();
    world.sim.clear_calls();
    world.apply_binding("app", bound(&json!({"issuerRef": {"name": "next"}}))).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), ["TagRole", "UpdateAssumeRolePolicy"]);
    let moved = world.role().unwrap();
    assert_eq!((&moved.id, statements(&world)), (&before.id, 2));
    assert_eq!(moved.tags[tag::ISSUER], next.issuer_url());
    // A pod has its token for up to a day.
    world.exchange(&world.namespace, "app", &moved.arn).await.unwrap();
    // It stays so, over a restart of the operator, too.
    world.stop().await;
    world.start().await;
    world.until_called("GetRole", 3).await;
    assert_eq!((world.writes(), statements(&world)), (Vec::new(), 2));

    world.end_retention();
    world
        .until_aws("the end of the former trust", |s| {
            !s.role(&world.role_name("app")).unwrap().tags.contains_key(tag::FORMER_UNTIL)
        })
        .await;
    assert_eq!(statements(&world), 1);
    assert_eq!(world.writes(), ["UpdateAssumeRolePolicy", "UntagRole"]);
    let refused = world.exchange(&world.namespace, "app", &moved.arn).await;
    assert_eq!(
        refused.unwrap_err(),
        "AccessDenied",
        "the API server still issues tokens of the former issuer"
    );
    assert_eq!(
        world.events("app", crds::Reason::DriftCorrected).await,
        [""; 0],
        "an end by its time is no drift"
    );

    // And back.
    world.apply_binding("app", bound(&json!({}))).await;
    world.binding_is("app", "Ready").await;
    world.exchange(&world.namespace, "app", &moved.arn).await.unwrap();
    assert_eq!(world.role().unwrap().tags[tag::ISSUER], before.tags[tag::ISSUER]);
    world.unbind("app").await;
    world.stop().await;
}

#[tokio::test]
async fn after_another_audience_tokens_of_both_are_exchanged() {
    let (mut world, _) = World::with_two_issuers().await;
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
    world.unbind("app").await;
    world.stop().await;
}

/// What looks like a move and is none: a statement that somebody adds to the trust of a Ready binding.
#[tokio::test]
async fn a_statement_that_is_added_is_drift_and_an_issuer_of_another_cluster_name_is_refused() {
    let (mut world, mut next) = World::with_two_issuers().await;
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

    next.cluster_name = "office".into();
    next.s3.as_mut().unwrap().bucket = "office-111122223333-eu-central-1-an".into();
    world.apply_issuer_as("office", &next).await;
    world.sim.clear_calls();
    world.apply_binding("app", bound(&json!({"issuerRef": {"name": "office"}}))).await;
    world.binding_is("app", "InvalidSpec").await;
    let message = world.condition("app", crds::ConditionType::Ready).await.2;
    assert!(message.contains("of the same AWS account and clusterName only"), "{message}");
    assert_eq!(json!(world.role().unwrap()), json!(role));
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.unbind("app").await;
    world.stop().await;
    // The operator has no rights for issuer `office`, which was never bootstrapped.
    world.sim.clear_calls();
}
