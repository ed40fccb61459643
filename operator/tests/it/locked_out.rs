//! The signing key is replaced while the operator does not run: its own token is refused, so it cannot publish the new key.

use std::time::Duration;

use cluster::{ControlPlane, KeyType, Options, Tokens};
use crds::condition::ConditionType as C;
use crds::{KeyState, OidcIssuer};

use crate::credentials::OwnToken;
use crate::world::{Flags, World, exchange_token, token, with_crds};

#[tokio::test]
async fn one_bootstrap_lets_the_operator_in_again() {
    let cluster = with_crds(ControlPlane::start(&Options::default()).await.unwrap());
    cluster.signing_key("new", KeyType::Rsa).unwrap();
    let mut world = World::on(&cluster).await;
    world.timings.api_server_poll = Duration::from_millis(100);
    (world.timings.verify_retry, world.timings.credentials_retry) =
        (Duration::from_secs(1), Duration::from_millis(200));
    world.bootstrap(&world.spec()).await.unwrap();
    world.apply_issuer(&world.spec()).await;
    world.start_as(OwnToken::new(&world)).await;
    world.issuer_is("Ready").await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap().arn;
    let of_a_running_pod = token(&world.client, (&world.namespace, "app")).await.unwrap();
    world.stop().await;

    let tokens = Tokens { signing_key: "new".into(), ..Tokens::default() };
    cluster.restart_api_server(0, &tokens).await.unwrap();
    world.sim.clear_calls();
    world.start_as(OwnToken::new(&world)).await;
    world.issuer_is("OperatorLockedOut").await;
    let (_, _, message) = world.issuer_condition(C::Ready).await;
    assert!(message.contains("run `operator bootstrap` again"), "{message}");
    assert_eq!(world.writes(), [""; 0]);

    // One run, without a flag: the status knows the published key.
    let printed = world.bootstrap_with(&world.spec(), Flags::default(), &world.client).await.unwrap();
    assert!(printed.contains("JWKS"), "{printed}");
    world.issuer_is("Ready").await;
    world.binding_is("app", "Ready").await;
    let both = |issuer: Option<&OidcIssuer>| {
        let keys = issuer.and_then(|issuer| issuer.status.as_ref()).map(|status| &status.keys[..]);
        let mut states: Vec<KeyState> = keys.unwrap_or_default().iter().map(|key| key.state).collect();
        states.sort_unstable();
        states == [KeyState::Active, KeyState::Retired]
    };
    world.until(&world.issuers(), "default", "both keys", both).await;
    let of_a_new_pod = token(&world.client, (&world.namespace, "app")).await.unwrap();
    for token in [of_a_running_pod, of_a_new_pod] {
        exchange_token(&world.sim, token, &role).await.unwrap();
    }
    world.unbind("app").await;
}
