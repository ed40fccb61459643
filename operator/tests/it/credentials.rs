//! The operator's own credentials: refused ones are not kept, and lost ones cause no storm of exchanges.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sim::{Fault, FaultKind, Sim};
use crds::OidcIssuerSpec;
use crds::condition::ConditionType as C;
use crds::names::{self, OPERATOR_SERVICE_ACCOUNT};
use kube::Client;
use serde_json::json;

use crate::world::{ACCOUNT, CLUSTER, World, token, try_exchange_token};

/// Exchanges the operator's token for credentials whenever it is asked, as the SDK's provider in the operator's pod does.
#[derive(Clone)]
pub struct OwnToken {
    client: Client,
    sim: Sim,
    namespace: String,
    exchanges: Arc<AtomicUsize>,
}

impl OwnToken {
    pub fn new(world: &World) -> Self {
        let (client, sim, namespace) = (world.client.clone(), world.sim.clone(), world.system.clone());
        Self { client, sim, namespace, exchanges: Arc::default() }
    }

    fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for OwnToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnToken")
    }
}

impl ProvideCredentials for OwnToken {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.exchanges.fetch_add(1, Ordering::Relaxed);
            let role = names::operator_role_arn("aws", ACCOUNT, CLUSTER);
            let account = (self.namespace.as_str(), OPERATOR_SERVICE_ACCOUNT);
            let token = token(&self.client, account).await.map_err(CredentialsError::provider_error)?;
            try_exchange_token(&self.sim, token, &role).await.map_err(CredentialsError::provider_error)
        })
    }
}

#[tokio::test]
async fn one_exchange_serves_all_calls() {
    let mut world = World::bootstrapped().await;
    world.apply_issuer(&world.spec()).await;
    let token = OwnToken::new(&world);
    world.start_as(token.clone()).await;
    world.issuer_is("Ready").await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(token.exchanges(), 1);
    world.unbind("app").await;
    world.stop().await;
}

/// The chart projects a token for `aws.audience`, and the issuer has other audiences.
#[tokio::test]
async fn a_token_of_another_audience_is_named_with_the_chart_value() {
    let mut world = World::new().await;
    let spec = OidcIssuerSpec { audiences: vec!["vault".into()], ..world.spec() };
    world.bootstrap(&spec).await.unwrap();
    world.apply_issuer(&spec).await;
    world.start_as(OwnToken::new(&world)).await;
    world.issuer_is("OperatorLockedOut").await;
    let (_, _, message) = world.issuer_condition(C::Ready).await;
    assert!(
        message.contains("Incorrect token audience") && message.contains("chart value aws.audience"),
        "{message}"
    );
    assert_eq!(world.writes(), [""; 0]);
    world.stop().await;
}

/// STS answers with credentials of the role that exists now; those of the role before it are refused for ever.
#[tokio::test]
async fn credentials_of_a_role_that_was_made_again_are_replaced_within_seconds() {
    let mut world = World::bootstrapped().await;
    world.apply_issuer(&world.spec()).await;
    let token = OwnToken::new(&world);
    world.start_as(token.clone()).await;
    world.issuer_is("Ready").await;
    // At once, so that no call meets a moment without a role.
    world.sim.change(|s| s.roles.get_mut(&names::operator_role_name(CLUSTER)).unwrap().id = "AROANEW".into());
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(token.exchanges(), 2);
    world.unbind("app").await;
    assert_eq!(token.exchanges(), 2);

    // The remedy of the documentation, for a role that somebody deleted.
    world.sim.change(|s| {
        s.roles.remove(&names::operator_role_name(CLUSTER));
    });
    world.bind("late", &[]).await;
    world.binding_is("late", "CredentialsUnavailable").await;
    world.bootstrap(&world.spec()).await.unwrap();
    world.binding_is("late", "Ready").await;
    assert!((3..=8).contains(&token.exchanges()), "{}", token.exchanges());
    world.unbind("late").await;
    world.stop().await;
}

#[tokio::test]
async fn lost_credentials_cause_a_few_exchanges_for_all_bindings() {
    const BINDINGS: usize = 50;
    let mut world = World::bootstrapped().await;
    world.apply_issuer(&world.spec()).await;
    let denied = FaultKind::Error {
        status: 403,
        code: "AccessDenied".into(),
        message: "Not authorized to perform sts:AssumeRoleWithWebIdentity".into(),
    };
    world.sim.inject(Fault::on("sts", "AssumeRoleWithWebIdentity", denied));
    for number in 0..BINDINGS {
        let spec = json!({"serviceAccountName": format!("app-{number}"), "role": {}});
        world.apply_binding(&format!("app-{number}"), spec).await;
    }
    let token = OwnToken::new(&world);
    world.start_as(token.clone()).await;
    let started = Instant::now();
    for number in 0..BINDINGS {
        world.binding_is(&format!("app-{number}"), "CredentialsUnavailable").await;
    }
    let check = || async {
        anyhow::ensure!(token.exchanges() >= 3, "{} exchanges", token.exchanges());
        Ok(())
    };
    cluster::until("the third attempt", Duration::from_secs(15), check).await.unwrap();
    // The attempts are made after 0, 1, 3 and 7 s. Passes are repeated every 200 ms.
    let most = if started.elapsed() < Duration::from_secs(7) { 3 } else { 5 };
    assert!(token.exchanges() <= most, "{} in {:?}", token.exchanges(), started.elapsed());
    let (_, _, message) = world.condition("app-0", C::Ready).await;
    assert!(message.contains("AccessDenied"), "{message}");
    let calls: Vec<String> = world.operators().into_iter().map(|call| call.action).collect();
    assert_eq!(calls, [""; 0], "no call is sent without credentials");

    world.sim.clear_faults();
    for number in 0..BINDINGS {
        world.binding_is(&format!("app-{number}"), "Ready").await;
    }
    assert!(token.exchanges() <= most + 1);
    for number in 0..BINDINGS {
        world.unbind(&format!("app-{number}")).await;
    }
    world.stop().await;
}
