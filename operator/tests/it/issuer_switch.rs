//! `--service-account-issuer` is changed on running API servers, in the order that docs/issuer-flags.md gives.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sim::JwksCache;
use cluster::{ControlPlane, KeyType, Options, Tokens};
use crds::condition::ConditionType as C;
use crds::names::{OPERATOR_SERVICE_ACCOUNT, operator_role_arn};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use crate::world::{ACCOUNT, CLUSTER, Flags, World, exchange_token, issuer, token, token_for, with_crds};

/// A client of one API server with the credentials of the administrator, or with a token instead.
async fn client(cluster: &ControlPlane, index: usize, token: Option<String>) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_of(index)).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    if let Some(token) = token {
        config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    }
    Client::try_from(config).unwrap()
}

/// `iss` of a token.
fn issuer_of(token: &str) -> String {
    use base64::Engine;
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    serde_json::from_slice::<serde_json::Value>(&claims).unwrap()["iss"].as_str().unwrap().to_owned()
}

/// Both issuers of a cluster that moves from one URL to another are registered. While two API servers are switched in two
/// steps, every API server accepts the tokens of the other, and AWS exchanges all of them.
#[tokio::test]
async fn two_api_servers_are_switched_in_two_steps_and_no_token_is_refused() {
    let cluster =
        with_crds(ControlPlane::start(&Options { servers: 2, ..Options::default() }).await.unwrap());
    let mut world = World::on(&cluster).await;
    world.timings.api_server_poll = Duration::from_millis(100);
    let old = world.spec();
    let mut new = old.clone();
    new.s3.as_mut().unwrap().bucket = "next-111122223333-eu-central-1-an".into();
    let [old_url, new_url] = [&old, &new].map(crds::OidcIssuerSpec::issuer_url);
    let issuers = [issuer("default", &old), issuer("next", &new)];
    world.bootstrap_all(&issuers, Flags::default(), &world.client).await.unwrap();
    world.apply_issuer(&old).await;
    world.apply_issuer_as("next", &new).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.issuer_named_is("next", "IssuerMismatch").await;

    // Tokens of the operator's ServiceAccount, whose role trusts both issuers, as a pod gets them: some are old.
    let role = operator_role_arn("aws", ACCOUNT, CLUSTER);
    let account = (world.system.as_str(), OPERATOR_SERVICE_ACCOUNT);
    // Each for AWS, and for the API server itself.
    let mut tokens = Vec::new();
    let mut exchanged = 0;
    let servers = [client(&cluster, 0, None).await, client(&cluster, 1, None).await];
    let mut use_tokens = async || {
        for server in &servers {
            let own = token_for(server, account, &[]).await.unwrap();
            tokens.push((token(server, account).await.unwrap(), own));
        }
        for (for_aws, own) in &tokens {
            for index in 0..2 {
                let client = client(&cluster, index, Some(own.clone())).await;
                client.apiserver_version().await.unwrap_or_else(|error| {
                    panic!("API server {index} refuses a token of {}: {error}", issuer_of(own))
                });
            }
            exchange_token(&world.sim, for_aws.clone(), &role).await.unwrap();
            exchanged += 1;
        }
        tokens.iter().map(|(for_aws, _)| issuer_of(for_aws)).collect::<BTreeSet<_>>()
    };
    let issued_by = |issuers: [&String; 2]| Tokens {
        issuers: issuers.iter().map(ToString::to_string).collect(),
        api_audiences: vec!["https://kubernetes.default.svc".into()],
        ..Tokens::default()
    };
    assert_eq!(use_tokens().await.len(), 1);
    for index in 0..2 {
        cluster.restart_api_server(index, &issued_by([&old_url, &new_url])).await.unwrap();
        assert_eq!(use_tokens().await.len(), 1, "the first step changes no token");
    }
    cluster.restart_api_server(0, &issued_by([&new_url, &old_url])).await.unwrap();
    assert_eq!(use_tokens().await.len(), 2, "one of them issues under the new URL");
    let named = format!("1 of 2 API servers use this issuer; {} still issues", cluster.address_of(1));
    let says = |i: Option<&crds::OidcIssuer>| {
        let conditions = i.and_then(|i| i.status.as_ref()).map(|s| &s.conditions[..]).unwrap_or_default();
        crds::conditions::find(conditions, C::IssuerMatches).is_some_and(|c| c.message.contains(&named))
    };
    world.until(&world.issuers(), "next", "the API server that is left", says).await;
    cluster.restart_api_server(1, &issued_by([&new_url, &old_url])).await.unwrap();
    assert_eq!(use_tokens().await.len(), 2);
    world.issuer_named_is("next", "Ready").await;
    assert!(exchanged >= 20, "{exchanged}");
    assert_eq!(world.writes(), [""; 0], "everything was published before");
}

/// STS keeps the keys of an issuer for ten minutes (here two seconds). A key that is published first, by a ConfigMap, is
/// known when the API server begins to sign with it.
#[tokio::test]
async fn a_key_that_is_published_first_is_exchanged_although_sts_caches_the_keys() {
    let cluster = with_crds(ControlPlane::start(&Options::default()).await.unwrap());
    cluster.signing_key("new", KeyType::Rsa).unwrap();
    let mut world = World::on(&cluster).await;
    world.timings.api_server_poll = Duration::from_millis(100);
    world.bootstrap(&world.spec()).await.unwrap();
    let mut spec = world.spec();
    spec.keys = serde_json::from_value(json!({"additional": [{"name": "next"}]})).unwrap();
    world.apply_issuer(&spec).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.sim.behave(|behaviour| behaviour.jwks_cache = JwksCache::Milliseconds(2000));
    let (role, account) =
        (operator_role_arn("aws", ACCOUNT, CLUSTER), (world.system.as_str(), OPERATOR_SERVICE_ACCOUNT));
    let before = token(&world.client, account).await.unwrap();
    exchange_token(&world.sim, before.clone(), &role).await.unwrap(); // the keys are cached now

    let pem = std::fs::read_to_string(cluster.kubeconfig().with_file_name("pki/new.pub")).unwrap();
    world.config_map("next", &[("sa.pub", &pem)]).await;
    let published = |state: &aws_sim::State| {
        let jwks = &state.buckets[crate::world::BUCKET].objects["homelab/openid/v1/jwks"];
        String::from_utf8_lossy(&jwks.body).matches("\"kid\"").count() == 2
    };
    world.until_aws("the new key", published).await;
    // docs/signing-keys.md: wait for as long as STS may cache. Here the next read of the keys by STS shows that it is over.
    let reads = || {
        world
            .sim
            .calls()
            .iter()
            .filter(|c| c.principal == "anonymous" && c.resource.ends_with("jwks"))
            .count()
    };
    let begun = reads();
    let read_again = || async {
        exchange_token(&world.sim, before.clone(), &role).await.unwrap();
        anyhow::ensure!(reads() > begun, "STS still uses what it has cached");
        Ok(())
    };
    cluster::until("STS to read the keys again", Duration::from_secs(20), read_again).await.unwrap();

    let tokens = Tokens { signing_key: "new".into(), accepted_keys: vec!["sa".into()], ..Tokens::default() };
    cluster.restart_api_server(0, &tokens).await.unwrap();
    let after = token(&world.client, account).await.unwrap();
    for token in [before, after] {
        exchange_token(&world.sim, token, &role).await.unwrap();
    }
    world.issuer_is("Ready").await;
}
