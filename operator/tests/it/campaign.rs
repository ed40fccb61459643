//! The issuer's fault campaign: every AWS call of every scenario, with every fault that AWS or the network can answer it with;
//! IAM's reads late; and the operator killed before and after every write to the cluster. Whatever happens, the end is that of a
//! run without faults, with as many creations and deletions.
//!
//! The plans are computed from the calls of a run without faults. `cargo test` runs a sample of them, chosen by a seed
//! (`PODIDENTITY_CAMPAIGN_SEED=7`); `PODIDENTITY_CAMPAIGN=all cargo test -p operator --test it -- campaign --nocapture` runs all,
//! and another value those whose name contains it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sim::{Call, Fault, FaultKind, State};
use crds::{DeletionPolicy, OidcIssuer, OidcIssuerSpec};
use kube::api::DeleteParams;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::crash::occurrences;
use crate::issuer::{managed, provider_arn};
use crate::world::{BUCKET, Side, World};

/// How many plans of each scenario `cargo test` runs.
const SAMPLE: usize = 12;

/// What happens to an issuer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scenario {
    /// Nothing is in AWS.
    Create,
    /// Documents, policy, block, tags, audiences and provider tags were changed by somebody else.
    Repair,
    /// `deletionPolicy: Delete`.
    Delete,
}

/// What happens in a run of a scenario.
struct Plan {
    name: String,
    trouble: Trouble,
}

#[derive(Clone)]
enum Trouble {
    /// A call of AWS is answered so.
    Fault(Fault),
    /// The operator is killed at its n-th write to the cluster.
    Kill(usize, Side),
    /// IAM shows everything as it was so many milliseconds ago.
    Lag(u64),
}

/// The faults that a call is given, and how many calls: what the SDK's own three attempts pass over is given to four.
fn faults(service: &str, action: &str) -> Vec<(&'static str, FaultKind, u32)> {
    let error = |status, code: &str, message: String| FaultKind::Error { status, code: code.into(), message };
    let message = |text: &str| text.to_owned();
    let denied = format!("User: x is not authorized to perform: {service}:{action}");
    let mut all = vec![
        ("throttled", FaultKind::throttle(), 4),
        ("5xx", FaultKind::server_error(), 4),
        ("no response", FaultKind::Silence, 1),
        ("lost response", FaultKind::LostResponse, 1),
        ("lost request", FaultKind::LostRequest, 4),
        ("denied", error(403, "AccessDenied", denied), 1),
    ];
    match service {
        "iam" => {
            all.push(("not found", error(404, "NoSuchEntity", message("not found")), 1));
            all.push(("limit", error(409, "LimitExceeded", message("Cannot exceed quota")), 1));
        }
        "s3" => all.push(("not found", error(404, "NoSuchBucket", message("not found")), 1)),
        _ => {}
    }
    match action {
        "CreateOpenIDConnectProvider" => {
            all.push(("exists", error(409, "EntityAlreadyExists", message("it exists")), 1));
        }
        "CreateBucket" => {
            all.push(("exists", error(409, "BucketAlreadyOwnedByYou", message("it exists")), 1));
            all.push(("limit", error(400, "TooManyBuckets", message("too many")), 1));
        }
        "PutObject" => {
            all.push(("exists", error(412, "PreconditionFailed", message("it was changed")), 1));
        }
        _ => {}
    }
    all
}

/// All that can happen in a run that made these calls of AWS, and these writes to the cluster.
fn plans(calls: Vec<Call>, writes: &[String]) -> Vec<Plan> {
    let of_aws = calls.into_iter().filter(|call| call.principal != "anonymous").collect();
    let mut plans = Vec::new();
    for (service, action, number) in occurrences(of_aws) {
        for (name, kind, times) in faults(&service, &action) {
            let fault = Fault::on(&service, &action, kind).after(number).times(times);
            let name = format!("call {number} of {service}:{action}: {name}");
            plans.push(Plan { name, trouble: Trouble::Fault(fault) });
        }
    }
    for lag in [50, 200, 600] {
        plans.push(Plan { name: format!("reads are {lag} ms late"), trouble: Trouble::Lag(lag) });
    }
    for (number, write) in writes.iter().enumerate() {
        for side in [Side::Before, Side::After] {
            let name = format!("killed {side:?} write {number} to the cluster, {write}");
            plans.push(Plan { name, trouble: Trouble::Kill(number, side) });
        }
    }
    plans
}

/// The plans that run: all, or a sample in an order that the seed gives.
fn chosen(scenario: Scenario, mut plans: Vec<Plan>) -> Vec<Plan> {
    if let Ok(value) = std::env::var("PODIDENTITY_CAMPAIGN") {
        plans.retain(|plan| value == "all" || plan.name.contains(&value));
        return plans;
    }
    let seed = std::env::var("PODIDENTITY_CAMPAIGN_SEED").unwrap_or_default();
    plans.sort_by_key(|plan| Sha256::digest(format!("{seed} {scenario:?} {}", plan.name)).to_vec());
    plans.truncate(SAMPLE);
    plans
}

/// The end of a run: what is in AWS, and the effects of calls.
#[derive(Debug, PartialEq)]
struct End {
    state: Value,
    effects: BTreeMap<String, usize>,
}

struct Campaign {
    world: World,
    spec: OidcIssuerSpec,
    bootstrapped: State,
    own: Credentials,
    administrator: Credentials,
}

impl Campaign {
    async fn new() -> Self {
        let mut world = World::new().await;
        // A response that never comes ends with the pass.
        world.timings.reconcile_timeout = Duration::from_secs(1);
        let spec = OidcIssuerSpec {
            deletion_policy: DeletionPolicy::Delete,
            tags: BTreeMap::from([("team".into(), "platform".into())]),
            ..world.spec()
        };
        world.bootstrap(&spec).await.unwrap();
        let role = crds::names::operator_role_arn("aws", crate::world::ACCOUNT, crate::world::CLUSTER);
        let own = world.exchange(&world.system, "podidentity-operator", &role).await.unwrap();
        let keys = world.sim.administrator();
        let administrator =
            Credentials::new(keys.access_key_id, keys.secret_access_key, None, None, "administrator");
        let bootstrapped = world.sim.state();
        Self { world, spec, bootstrapped, own, administrator }
    }

    /// AWS and cluster at the beginning of a scenario, with the operator running.
    async fn prepare(&mut self, scenario: Scenario) {
        let world = &mut self.world;
        world.sim.change(|state| {
            state.buckets.clone_from(&self.bootstrapped.buckets);
            state.providers.clone_from(&self.bootstrapped.providers);
        });
        match scenario {
            Scenario::Create => world.sim.change(|state| {
                state.buckets.remove(BUCKET);
                state.providers.clear();
            }),
            Scenario::Repair => world.sim.change(tamper),
            Scenario::Delete => {}
        }
        world.apply_issuer(&self.spec).await;
        if scenario == Scenario::Delete {
            // With its own credentials the operator refuses.
            world.start_as(self.administrator.clone()).await;
            world.issuer_is("Ready").await;
        }
    }

    /// One run, with its calls of AWS and its writes to the cluster.
    async fn run(&mut self, scenario: Scenario, trouble: Option<Trouble>) -> (End, Vec<Call>, Vec<String>) {
        self.prepare(scenario).await;
        let world = &mut self.world;
        world.sim.clear_calls();
        world.sim.clear_faults();
        world.hold.arm(None);
        match trouble.clone() {
            Some(Trouble::Fault(fault)) => world.sim.inject(fault),
            Some(Trouble::Kill(number, side)) => world.hold.arm(Some((number, side))),
            Some(Trouble::Lag(lag)) => world.sim.behave(|behaviour| behaviour.lag_milliseconds = lag),
            None => {}
        }
        let credentials =
            if scenario == Scenario::Delete { self.administrator.clone() } else { self.own.clone() };
        if scenario == Scenario::Delete {
            world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
        } else {
            world.start_as(credentials.clone()).await;
        }
        let mut earlier = Vec::new();
        if let Some(Trouble::Kill(..)) = trouble {
            let hold = world.hold.clone();
            let is_reached = || async {
                anyhow::ensure!(hold.is_reached(), "{:?}", hold.writes());
                Ok(())
            };
            cluster::until("the write", Duration::from_secs(30), is_reached).await.unwrap();
            world.kill().await;
            world.hold.arm(None);
            earlier = world.sim.calls();
            world.start_as(credentials).await;
        }
        if scenario != Scenario::Delete {
            world.issuer_is("Ready").await;
        }
        let (calls, writes) = (world.sim.calls(), world.hold.writes());
        if scenario != Scenario::Delete {
            // A fault that comes late must not be left for the next run.
            world.sim.clear_faults();
            world.issuer_is("Ready").await;
            world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
            world.issuer_is("OperatorDependsOnIssuer").await;
            let spec = OidcIssuerSpec { deletion_policy: DeletionPolicy::Retain, ..self.spec.clone() };
            world.apply_issuer(&spec).await;
        }
        let gone = |issuer: Option<&OidcIssuer>| issuer.is_none();
        world.until(&world.issuers(), "default", "its end", gone).await;
        world.stop().await;
        world.sim.behave(|behaviour| behaviour.lag_milliseconds = 0);
        let state = world.sim.state();
        let exists = state.buckets.contains_key(BUCKET) || state.providers.contains_key(&provider_arn());
        let state = if exists { managed(&state) } else { Value::Null };
        let deletes = scenario == Scenario::Delete;
        let (calls, writes) =
            if deletes { (world.sim.calls(), world.hold.writes()) } else { (calls, writes) };
        let calls = [earlier, calls].concat();
        (End { state, effects: effects(&calls) }, calls, writes)
    }
}

/// Everything that somebody can change.
fn tamper(state: &mut State) {
    let bucket = state.buckets.get_mut(BUCKET).unwrap();
    bucket.public_access_block = [false; 4];
    bucket.ownership = "ObjectWriter".into();
    (bucket.policy, bucket.policy_text) = (None, String::new());
    bucket.tags.remove("team");
    bucket.objects.remove("homelab/openid/v1/jwks");
    let provider = state.providers.get_mut(&provider_arn()).unwrap();
    provider.client_ids = vec!["other".into()];
    provider.tags.remove("team");
}

/// Creations, and deletions of the bucket, that had an effect: a call that found it done already has none. (Deletions of a
/// provider and of objects succeed again.)
fn effects(calls: &[Call]) -> BTreeMap<String, usize> {
    let mut effects = BTreeMap::new();
    let counts = |call: &&Call| {
        (call.action.starts_with("Create") || call.action == "DeleteBucket") && call.status < 300
    };
    for call in calls.iter().filter(counts) {
        *effects.entry(call.action.clone()).or_default() += 1;
    }
    effects
}

#[tokio::test]
async fn whatever_happens_to_one_call_the_end_is_that_of_a_run_without_faults() {
    let mut campaign = Campaign::new().await;
    let (begun, mut computed, mut run) = (Instant::now(), 0, 0);
    for scenario in [Scenario::Create, Scenario::Repair, Scenario::Delete] {
        let (expected, calls, writes) = campaign.run(scenario, None).await;
        let plans = plans(calls, &writes);
        assert!(plans.len() > 50, "{scenario:?}: {}", plans.len());
        let (all, chosen) = (plans.len(), chosen(scenario, plans));
        println!("{scenario:?}: {all} plans, {} of them run", chosen.len());
        (computed, run) = (computed + all, run + chosen.len());
        for Plan { name, trouble } in chosen {
            let plan = format!("{scenario:?}: {name}");
            let (end, calls, _) = campaign.run(scenario, Some(trouble)).await;
            println!("    {plan}");
            assert_eq!(end, expected, "{plan}: {calls:#?}");
        }
    }
    println!("{run} of {computed} plans in {:.0?}", begun.elapsed());
}
