//! Signing keys of several API servers, and keys that are published in advance.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sim::Sim;
use cluster::{ControlPlane, KeyType, Options, Tokens};
use crds::condition::ConditionType as C;
use crds::conditions::{Status, find};
use crds::{KeyState, OidcIssuer, OidcIssuerSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use operator::oidc::ReadKeys;
use serde_json::{Value, json};

use crate::world::{BUCKET, World, exchange_token, kubeconfig, token, with_crds};

const JWKS: &str = "homelab/openid/v1/jwks";

/// The key ids in the bucket.
fn published(sim: &Sim) -> Vec<String> {
    let body = sim.state().buckets[BUCKET].objects[JWKS].body.clone();
    let jwks: Value = serde_json::from_slice(&body).unwrap();
    let ids = jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
    ids.collect()
}

/// The keys of the status: state by key id.
fn states(issuer: &OidcIssuer) -> BTreeMap<String, KeyState> {
    let keys = issuer.status.iter().flat_map(|status| &status.keys);
    keys.map(|key| (key.kid.clone(), key.state)).collect()
}

impl World {
    /// Waits until the status shows exactly these keys.
    async fn until_keys(&self, expected: &[(&str, KeyState)]) {
        let expected: BTreeMap<String, KeyState> =
            expected.iter().map(|(kid, state)| ((*kid).to_owned(), *state)).collect();
        let shown = |issuer: Option<&OidcIssuer>| issuer.is_some_and(|issuer| states(issuer) == expected);
        self.until(&self.issuers(), "default", &format!("keys {expected:?}"), shown).await;
    }
}

/// The issuer with these `ConfigMap`s.
fn with_additional(spec: OidcIssuerSpec, names: &[&str]) -> OidcIssuerSpec {
    let additional: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    let keys = serde_json::from_value(json!({"additional": additional})).unwrap();
    OidcIssuerSpec { keys: Some(keys), ..spec }
}

/// A public key in PEM, and the key id that Kubernetes gives it.
fn public_key(folder: &Path, name: &str) -> (String, String) {
    let pem = std::fs::read_to_string(folder.join(format!("pki/{name}.pub"))).unwrap();
    let kid = ReadKeys::from_text(&pem).unwrap().keys.ids().next().unwrap().to_owned();
    (pem, kid)
}

fn folder(cluster: &ControlPlane) -> &Path {
    cluster.kubeconfig().parent().unwrap()
}

async fn client_of(cluster: &ControlPlane, index: usize) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_of(index)).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Exchanges new tokens of one API server after another until it is stopped.
struct Exchanges {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Exchanges {
    fn start(world: &World, clients: Vec<Client>, role: String) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (sim, namespace) = (world.sim.clone(), world.namespace.clone());
        let (until, counter) = (stop.clone(), done.clone());
        let task = tokio::spawn(async move {
            let mut refused = Vec::new();
            while !until.load(Ordering::Relaxed) {
                for client in &clients {
                    // An API server that restarts gives no token.
                    let Ok(token) = token(client, (&namespace, "app")).await else { continue };
                    match exchange_token(&sim, token, &role).await {
                        Ok(_) => drop(counter.fetch_add(1, Ordering::Relaxed)),
                        Err(code) => refused.push(code),
                    }
                }
                tokio::task::yield_now().await;
            }
            refused
        });
        Self { stop, done, task }
    }

    /// Waits for some more exchanges of every API server.
    async fn some_more(&self) {
        let before = self.done.load(Ordering::Relaxed);
        let more = || async {
            anyhow::ensure!(self.done.load(Ordering::Relaxed) >= before + 10, "there were fewer");
            Ok(())
        };
        cluster::until("ten more exchanges", Duration::from_secs(20), more).await.unwrap();
    }

    /// Error codes of refused exchanges, and the number of those that were not.
    async fn end(self) -> (Vec<String>, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let refused = self.task.await.unwrap();
        (refused, self.done.load(Ordering::Relaxed))
    }
}

/// Two API servers. First each has a key of its own, then both get a new one as kubeadm does it: one control-plane node after
/// the other shows the new key, signs with it, and drops the old ones.
#[tokio::test]
async fn a_rotation_of_one_api_server_after_the_other_refuses_no_token() {
    let cluster =
        with_crds(ControlPlane::start(&Options { servers: 2, ..Options::default() }).await.unwrap());
    for (name, key_type) in [("other", KeyType::EcP256), ("new", KeyType::Rsa)] {
        cluster.signing_key(name, key_type).unwrap();
    }
    let tokens = |signing: &str, accepted: &[&str]| Tokens {
        signing_key: signing.into(),
        accepted_keys: accepted.iter().map(|name| (*name).to_owned()).collect(),
        ..Tokens::default()
    };
    let [sa, other, new] = ["sa", "other", "new"].map(|name| public_key(folder(&cluster), name).1);
    cluster.restart_api_server(1, &tokens("other", &[])).await.unwrap();

    let mut world = World::on(&cluster).await;
    world.timings.api_server_poll = Duration::from_millis(100);
    world.bootstrap(&world.spec()).await.unwrap();
    assert_eq!(sorted(published(&world.sim)), sorted(vec![sa.clone(), other.clone()]), "bootstrap asks both");
    world.apply_issuer(&world.spec()).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.until_keys(&[(&sa, KeyState::Active), (&other, KeyState::Active)]).await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap().arn;
    let clients = vec![client_of(&cluster, 0).await, client_of(&cluster, 1).await];
    let exchanges = Exchanges::start(&world, clients, role);

    world.sim.clear_calls();
    for (step, all) in [
        // Each shows the new key.
        ([("sa", &["new"][..]), ("other", &["new"])], vec![&sa, &other, &new]),
        // Each signs with it.
        ([("new", &["sa"]), ("new", &["other"])], vec![&sa, &other, &new]),
    ] {
        for (index, (signing, accepted)) in step.into_iter().enumerate() {
            cluster.restart_api_server(index, &tokens(signing, accepted)).await.unwrap();
            exchanges.some_more().await;
        }
        let active: Vec<(&str, KeyState)> = all.iter().map(|kid| (kid.as_str(), KeyState::Active)).collect();
        world.until_keys(&active).await;
    }
    // One is out of reach: that is said, and nothing else changes.
    cluster.stop_api_server(1).await.unwrap();
    let address = cluster.address_of(1).to_string();
    let named = |issuer: Option<&OidcIssuer>| {
        let conditions = issuer.and_then(|issuer| issuer.status.as_ref()).map(|status| &status.conditions);
        let found = conditions.and_then(|conditions| find(conditions, C::IssuerMatches));
        found.is_some_and(|found| found.status == Status::True && found.message.contains(&address))
    };
    world.until(&world.issuers(), "default", "the API server without an answer", named).await;
    world.issuer_is("Ready").await;
    cluster.start_api_server(1, &tokens("new", &[])).await.unwrap();
    world.until_keys(&[(&sa, KeyState::Active), (&other, KeyState::Retired), (&new, KeyState::Active)]).await;
    cluster.restart_api_server(0, &tokens("new", &[])).await.unwrap();
    exchanges.some_more().await;
    world
        .until_keys(&[(&sa, KeyState::Retired), (&other, KeyState::Retired), (&new, KeyState::Active)])
        .await;
    world.issuer_is("Ready").await;
    let (refused, done) = exchanges.end().await;
    assert_eq!(refused, [""; 0], "of {done}");
    assert_eq!(sorted(published(&world.sim)), sorted(vec![sa.clone(), other.clone(), new.clone()]));
    // The new key, and the clock of each old one.
    assert_eq!(world.writes(), ["PutObject"; 3]);

    // The retention of one of them is over: only that one goes. The status is what a new process reads.
    world.stop().await;
    world.age_key(&other, 25 * 60).await;
    world.age_key(&sa, 25 * 60 - 2).await;
    world.start().await;
    world.until_keys(&[(&sa, KeyState::Retired), (&new, KeyState::Active)]).await;
    assert_eq!(sorted(published(&world.sim)), sorted(vec![sa, new]));
    world.unbind("app").await;
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

impl World {
    /// As if a key had retired that many minutes ago.
    async fn age_key(&self, kid: &str, minutes: i64) {
        let mut issuer = self.issuers().get("default").await.unwrap();
        let keys = &mut issuer.status.as_mut().unwrap().keys;
        let key = keys.iter_mut().find(|key| key.kid == kid).unwrap();
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        key.retired_at = Some(Time(now - SignedDuration::from_mins(minutes)));
        let patch = json!({"status": {"keys": keys}});
        let api = self.issuers();
        api.patch_status("default", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

#[tokio::test]
async fn keys_of_a_config_map_are_published_in_advance_and_an_invalid_one_is_named() {
    let mut world = World::bootstrapped().await;
    world.timings.api_server_poll = Duration::from_millis(100);
    let own = published(&world.sim)[0].clone();
    // The API server's own key: the JWK that is made of the file is the API server's, member by member.
    let (pem, kid) = public_key(kubeconfig().parent().unwrap(), "sa");
    let request = http::Request::get("/openid/v1/jwks").body(Vec::new()).unwrap();
    let shown = world.client.request_text(request).await.unwrap();
    assert_eq!(ReadKeys::from_text(&pem).unwrap(), ReadKeys::from_text(&shown).unwrap());
    assert_eq!(kid, own);
    // A new key, one in the other form, and things that are none.
    let pem_of_next = rcgen::KeyPair::generate().unwrap().public_key_pem();
    let kid_of_next = ReadKeys::from_text(&pem_of_next).unwrap().keys.ids().next().unwrap().to_owned();
    let next = (pem_of_next, kid_of_next);
    let jwks = r#"{"keys": [{"kty": "RSA", "kid": "jwks", "alg": "RS256", "n": "AQAB", "e": "AQAB"}]}"#;
    world.config_map("next", &[("sa.pub", &next.0), ("jwks.json", jwks)]).await;
    world.config_map("same", &[("sa.pub", &pem)]).await;
    world
        .config_map(
            "poisoned",
            &[
                ("private", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                ("html", "<html>"),
            ],
        )
        .await;
    world.apply_issuer(&with_additional(world.spec(), &["next", "same", "poisoned", "absent"])).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world
        .until_keys(&[(&own, KeyState::Active), (&next.1, KeyState::Pending), ("jwks", KeyState::Pending)])
        .await;
    assert_eq!(sorted(published(&world.sim)), sorted(vec![own.clone(), next.1.clone(), "jwks".into()]));
    let (status, _, message) = world.issuer_condition(C::Published).await;
    assert_eq!(status, "True");
    for says in [
        "poisoned, data private: it is not a list of public keys in PEM: it has a block BEGIN PRIVATE KEY",
        "poisoned, data html: its JWKS is not valid",
        "absent does not exist",
    ] {
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(world.events("default", crds::Reason::AdditionalKeysInvalid).await.len(), 3);
    // With a key of another algorithm the discovery document changes, too.
    assert_eq!(world.writes(), ["PutObject"; 2]);

    // A key that was never used goes with its ConfigMap.
    world.config_map("next", &[("jwks.json", jwks)]).await;
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.system);
    maps.delete("poisoned", &DeleteParams::default()).await.unwrap();
    world.until_keys(&[(&own, KeyState::Active), ("jwks", KeyState::Pending)]).await;
    world.apply_issuer(&world.spec()).await;
    world.until_keys(&[(&own, KeyState::Active)]).await;
    world.issuer_is("Ready").await;
    assert_eq!(published(&world.sim), [own]);
    assert_eq!(world.writes(), ["PutObject"; 5]);
}
