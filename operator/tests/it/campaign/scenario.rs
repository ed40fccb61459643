//! What happens to an issuer: how each scenario begins, what is done, and how it ends.

use std::collections::BTreeMap;

use aws_sim::{Sim, State};
use crds::condition::ConditionType as C;
use crds::conditions::is_true;
use crds::names::{ABANDON_ANNOTATION, role_path, tag};
use crds::{DeletionPolicy, KeyState, OidcIssuer, OidcIssuerSpec, PublishedKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams};
use operator::adopt::{self, BindingRole, Resource};
use operator::oidc::Keys;
use operator::oidc::jwk::thumbprint;
use operator::terminal::Terminal;
use serde_json::{Value, json};

use super::binding::{self, Change};
use crate::accounts::{OTHER, second};
use crate::issuer::provider_arn;
use crate::world::{ACCOUNT, BUCKET, CLUSTER, Flags, STORAGE, World, issuer};

/// What happens to an issuer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scenario {
    /// The operator finds nothing in AWS but its role.
    Create,
    /// Documents, policy, block, tags, audiences and provider tags were changed by somebody else.
    Repair,
    /// Audiences, tags and additional keys of the specification were changed.
    Edit,
    /// The API servers sign with another key than the one that is published.
    Rotate,
    /// The retention of a key that no API server shows is over.
    Retire,
    /// A second issuer, under another URL, is made beside the one that is in use.
    Switch,
    /// The issuer of a second account is repaired there, with the operator's role there.
    SecondAccount,
    /// `deletionPolicy: Delete`.
    Delete,
    /// The same with the annotation of a lost account: nothing in AWS is touched.
    Abandon,
    /// `operator bootstrap` where there is nothing.
    Bootstrap,
    /// `operator bootstrap` of an issuer whose provider, keys and policies are not what they should be, as after a lock-out.
    Recover,
    /// `operator teardown`.
    Teardown,
    /// `operator adopt bucket`.
    AdoptBucket,
    /// `operator adopt provider`.
    AdoptProvider,
    /// `operator adopt role`.
    AdoptRole,
    /// `operator orphans --delete`.
    DeleteOrphan,
    /// A change of a binding while its issuer is Ready.
    Binding(Change),
}

const OF_ISSUERS: [Scenario; 16] = [
    Scenario::Create,
    Scenario::Repair,
    Scenario::Edit,
    Scenario::Rotate,
    Scenario::Retire,
    Scenario::Switch,
    Scenario::SecondAccount,
    Scenario::Delete,
    Scenario::Abandon,
    Scenario::Bootstrap,
    Scenario::Recover,
    Scenario::Teardown,
    Scenario::AdoptBucket,
    Scenario::AdoptProvider,
    Scenario::AdoptRole,
    Scenario::DeleteOrphan,
];

/// All scenarios.
pub fn all() -> impl Iterator<Item = Scenario> {
    OF_ISSUERS.into_iter().chain(binding::ALL.map(Scenario::Binding))
}

impl Scenario {
    /// Whether an administrator's command does it, and not the running operator.
    pub fn is_command(self) -> bool {
        matches!(
            self,
            Self::Bootstrap
                | Self::Recover
                | Self::Teardown
                | Self::AdoptBucket
                | Self::AdoptProvider
                | Self::AdoptRole
                | Self::DeleteOrphan
        )
    }

    /// Whether the issuer is deleted.
    pub fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::Abandon)
    }

    /// Whether it is about many bindings that are equal.
    pub fn is_of_many(self) -> bool {
        self == Self::Binding(Change::Confirm)
    }

    /// The issuer that the operator works on.
    pub fn issuer(self) -> &'static str {
        match self {
            Self::Switch => "next",
            Self::SecondAccount => "second",
            _ => "default",
        }
    }

    /// The reason of its Ready in the end.
    pub fn reason(self) -> &'static str {
        // Its API server issues tokens under the other one.
        if self == Self::Switch { "IssuerMismatch" } else { "Ready" }
    }
}

/// Both accounts as `bootstrap` leaves them.
#[derive(Clone)]
pub struct Accounts {
    pub own: State,
    pub other: State,
}

impl Accounts {
    /// Puts both back.
    pub fn restore(&self, world: &World) {
        world.sim.change(|state| state.clone_from(&self.own));
        world.sim.account(OTHER).change(|state| {
            state.roles.clone_from(&self.other.roles);
            state.policies.clone_from(&self.other.policies);
            state.providers.clone_from(&self.other.providers);
        });
    }
}

/// The specifications.
pub struct Specs {
    pub default: OidcIssuerSpec,
    pub next: OidcIssuerSpec,
    pub second: OidcIssuerSpec,
}

impl Specs {
    pub fn new(world: &World) -> Self {
        let default = OidcIssuerSpec {
            deletion_policy: DeletionPolicy::Delete,
            tags: BTreeMap::from([("team".into(), "platform".into())]),
            ..world.spec()
        };
        let mut next = default.clone();
        next.s3.as_mut().unwrap().bucket = NEXT.into();
        let second = OidcIssuerSpec { tags: default.tags.clone(), ..second(world) };
        Self { default, next, second }
    }
}

const NEXT: &str = "next-111122223333-eu-central-1-an";
const JWKS: &str = "homelab/openid/v1/jwks";
/// A key of no API server.
const FORMER: &str = r#"{"keys": [{"kty": "RSA", "kid": "former", "alg": "RS256", "use": "sig", "n": "bW9kdWx1cw", "e": "AQAB"}]}"#;

/// AWS, cluster and specification at the beginning.
pub async fn prepare(scenario: Scenario, world: &World, specs: &Specs, accounts: &Accounts) {
    accounts.restore(world);
    if scenario != Scenario::Switch {
        world.sim.change(|state| {
            state.buckets.remove(NEXT);
            state.providers.retain(|arn, _| !arn.contains("next-"));
        });
    }
    let default = &specs.default;
    match scenario {
        Scenario::Create => world.sim.change(|state| {
            state.buckets.remove(BUCKET);
            state.providers.clear();
        }),
        Scenario::Repair | Scenario::Recover => world.sim.change(tamper),
        Scenario::Rotate => publish_former(&world.sim),
        Scenario::Retire => world.sim.change(|state| {
            let object = state.buckets.get_mut(BUCKET).unwrap().objects.get_mut(JWKS).unwrap();
            let mut jwks: Value = serde_json::from_slice(&object.body).unwrap();
            let former: Value = serde_json::from_str(FORMER).unwrap();
            jwks["keys"].as_array_mut().unwrap().push(former["keys"][0].clone());
            object.body = jwks.to_string().into();
        }),
        Scenario::Switch => world.sim.change(|state| {
            state.buckets.remove(NEXT);
            state.providers.retain(|arn, _| !arn.contains("next-"));
        }),
        Scenario::SecondAccount => world.sim.account(OTHER).change(|state| {
            let provider = state.providers.values_mut().next().unwrap();
            provider.client_ids.push("other".into());
            provider.tags.remove("team");
        }),
        Scenario::Bootstrap => world.sim.change(|state| {
            *state = State { policies: state.policies.clone(), ..State::default() };
            state.policies.retain(|_, policy| policy.path == "/");
        }),
        Scenario::AdoptBucket => world.sim.change(|state| {
            state.buckets.get_mut(BUCKET).unwrap().tags = BTreeMap::from([("team".into(), "storage".into())]);
        }),
        Scenario::AdoptProvider => world.sim.change(|state| {
            state.providers.get_mut(&provider_arn()).unwrap().tags = BTreeMap::new();
        }),
        Scenario::AdoptRole => {
            let role = world.role_name("app");
            world.sim.put_role(&role_path(CLUSTER), &role, json!({}), &[]);
            world.apply_issuer(default).await;
            world.bind("app", &[]).await;
        }
        Scenario::DeleteOrphan => {
            put_orphan(world, default);
            world.apply_issuer(default).await;
        }
        Scenario::Edit | Scenario::Delete | Scenario::Abandon | Scenario::Teardown | Scenario::Binding(_) => {
        }
    }
    if scenario.is_command() {
        return;
    }
    let mut spec = default.clone();
    if scenario == Scenario::Edit {
        spec.audiences.push("second".into());
        spec.tags.insert("team".into(), "other".into());
        spec.keys = serde_json::from_value(json!({"additional": [{"name": "former"}]})).unwrap();
        world.config_map("former", &[("jwks", FORMER)]).await;
    }
    world.apply_issuer(&spec).await;
    match scenario {
        Scenario::Switch => world.apply_issuer_as("next", &specs.next).await,
        Scenario::SecondAccount => world.apply_issuer_as("second", &specs.second).await,
        Scenario::Rotate => record_keys(world, accounts, KeyState::Active, None).await,
        Scenario::Retire => record_keys(world, accounts, KeyState::Retired, Some(26)).await,
        Scenario::Abandon => {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {(ABANDON_ANNOTATION): "true"}}}));
            world.issuers().patch_metadata("default", &PatchParams::default(), &patch).await.unwrap();
        }
        _ => {}
    }
}

/// A role of a binding that does not exist.
fn put_orphan(world: &World, issuer: &OidcIssuerSpec) {
    let name = world.role_name("app");
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": ACCOUNT}},
    ]});
    world.sim.put_role(&role_path(CLUSTER), &name, trust, &[STORAGE]);
    let tags = [
        (tag::CLUSTER, CLUSTER.to_owned()),
        (tag::KIND, "PodIdentityBinding".to_owned()),
        (tag::NAMESPACE, world.namespace.clone()),
        (tag::NAME, "app".to_owned()),
        (tag::ISSUER, issuer.issuer_url()),
    ];
    world.sim.change(|state| {
        let role = state.roles.get_mut(&name.to_lowercase()).unwrap();
        role.tags = tags.map(|(key, value)| (key.to_owned(), value)).into();
        for (policy, effect) in [("read", "Allow"), ("quarantine", "Deny")] {
            let statement = json!({"Effect": effect, "Action": "s3:GetObject", "Resource": "*"});
            role.inline.insert(policy.into(), json!({"Version": "2012-10-17", "Statement": [statement]}));
        }
    });
}

fn publish_former(sim: &Sim) {
    sim.change(|state| {
        let bucket = state.buckets.get_mut(BUCKET).unwrap();
        bucket.objects.get_mut(JWKS).unwrap().body = FORMER.into();
    });
}

/// The status of an operator that has published the former key and that of the API server.
async fn record_keys(world: &World, accounts: &Accounts, former: KeyState, hours_ago: Option<i64>) {
    let present = Keys::parse(&accounts.own.buckets[BUCKET].objects[JWKS].body).unwrap();
    let all = [(Keys::parse(FORMER.as_bytes()).unwrap(), former), (present, KeyState::Active)];
    let record = |kid: &str, jwk, state| PublishedKey {
        kid: kid.into(),
        alg: "RS256".into(),
        thumbprint: thumbprint(jwk).unwrap(),
        state,
        retired_at: hours_ago
            .filter(|_| state == KeyState::Retired)
            .map(|hours| Time(Timestamp::now() - SignedDuration::from_hours(hours))),
    };
    let records: Vec<PublishedKey> =
        all.iter().flat_map(|(keys, state)| keys.iter().map(|(kid, jwk)| record(kid, jwk, *state))).collect();
    let patch = Patch::Merge(json!({"status": {"keys": records}}));
    world.issuers().patch_status("default", &PatchParams::default(), &patch).await.unwrap();
}

/// Everything that somebody can change.
fn tamper(state: &mut State) {
    let bucket = state.buckets.get_mut(BUCKET).unwrap();
    bucket.public_access_block = [false; 4];
    bucket.ownership = "ObjectWriter".into();
    (bucket.policy, bucket.policy_text) = (None, String::new());
    bucket.tags.remove("team");
    bucket.objects.remove(JWKS);
    let provider = state.providers.get_mut(&provider_arn()).unwrap();
    provider.client_ids = vec!["other".into()];
    provider.tags.remove("team");
}

/// The command of a scenario, run to its end.
pub async fn command(scenario: Scenario, world: &World, spec: &OidcIssuerSpec) -> anyhow::Result<()> {
    let default = issuer("default", spec);
    let role;
    let resource = match scenario {
        Scenario::Teardown => return world.teardown(spec, false).await.map(drop),
        Scenario::AdoptBucket => Resource::Bucket(&default),
        Scenario::AdoptProvider => Resource::Provider(&default),
        Scenario::AdoptRole => {
            role = BindingRole::read(&world.client, &world.namespace, "app").await?;
            Resource::Role(&role)
        }
        // Once it is removed, it is not named again.
        Scenario::DeleteOrphan if world.role().is_none() => return Ok(()),
        Scenario::DeleteOrphan => return world.orphans(&[&world.role_name("app")]).await.map(drop),
        _ => return world.bootstrap_with(spec, Flags::default(), &world.client).await.map(drop),
    };
    let accounts = world.administrator().await;
    let mut terminal = Terminal::to(Box::new(std::io::sink()));
    adopt::adopt(resource, accounts.own(), None, &mut terminal).await.map(drop)
}

/// Deletes the issuer.
pub async fn delete(world: &World) {
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
}

/// Waits for the end of what the operator does.
pub async fn until_done(scenario: Scenario, world: &World) {
    if let Scenario::Binding(change) = scenario {
        return change.until_done(world).await;
    }
    if scenario.deletes() {
        let gone = |issuer: Option<&OidcIssuer>| issuer.is_none();
        return world.until(&world.issuers(), "default", "its end", gone).await;
    }
    world.issuer_named_is(scenario.issuer(), scenario.reason()).await;
    // That its API server has another issuer is said at once.
    let is_done = |issuer: Option<&OidcIssuer>| {
        let status = issuer.and_then(|issuer| issuer.status.as_ref());
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        [C::Published, C::ProviderRegistered].into_iter().all(|condition| is_true(conditions, condition))
    };
    world.until(&world.issuers(), scenario.issuer(), "publication and registration", is_done).await;
}
