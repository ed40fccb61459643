//! The reconcile of an `OidcIssuer`: resolve → observe → decide → act → report.

pub mod abandoned;
pub mod decide;
pub mod duplicates;
pub mod fence;
pub mod key_set;
pub mod keys;
pub mod model;
pub mod observe;
pub mod publication;
pub mod removal;
pub mod verdict;
pub mod verify;
pub mod watch;

use std::sync::Arc;

use crds::condition::Wanted;
use crds::conditions::{Condition, Conditions, Status, find};
use crds::{ConditionType, KeyState, OidcIssuer, OidcIssuerStatus, PublishedKey};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::Store;
use kube::{Api, Client};

use self::model::without_grants;
use self::model::{Evidence, Facts, Memory, Note, Observed, Plan, Verification, Verify, View};
use self::publication::target::Target;
use crate::aws::accounts::Account;
use crate::aws::model::{Identity, Written};
use crate::change::Change;
use crate::clock::Clock;
use crate::context::Context;
use crate::kind::{Failure, Kind, Resolved, StepError};
use crate::metrics::Metrics;
use crate::model::{Next, ObjectState};
use crate::timings::Timings;

/// The kind `OidcIssuer`.
pub struct Issuer;

impl Kind for Issuer {
    const NAME: &'static str = "OidcIssuer";
    type Object = OidcIssuer;
    type Status = OidcIssuerStatus;
    type View = View;
    type Observed = Observed;
    type Memory = Memory;
    type Own = Verify;
    type Shown = Verification;
    type Facts = Facts;
    type Note = Note;

    fn api(client: &Client, _: &OidcIssuer) -> Api<OidcIssuer> {
        Api::all(client.clone())
    }

    fn store(context: &Context) -> &Store<OidcIssuer> {
        &context.cluster.issuers
    }

    fn status(object: &OidcIssuer) -> Option<&OidcIssuerStatus> {
        object.status.as_ref()
    }

    fn observed(status: &OidcIssuerStatus) -> (Option<i64>, &[Condition]) {
        (status.observed_generation, &status.conditions)
    }

    fn next_status(
        prior: &OidcIssuerStatus,
        facts: Facts,
        conditions: Conditions,
        generation: i64,
    ) -> OidcIssuerStatus {
        let Facts { issuer_url, jwks_uri, partition, account, provider_arn, digest, keys, keys_complete } =
            facts;
        let keys = keys.map(|keys| if keys_complete { keys } else { with_earlier(keys, &prior.keys) });
        OidcIssuerStatus {
            observed_generation: Some(generation),
            conditions,
            issuer_url: Some(issuer_url),
            jwks_uri: Some(jwks_uri),
            partition: partition.or_else(|| prior.partition.clone()),
            // An hour without AWS takes no fact away: the webhook computes role ARNs from these.
            account_id: account.or_else(|| prior.account_id.clone()),
            provider_arn: provider_arn.or_else(|| prior.provider_arn.clone()),
            // Read back after a restart: an hour without the API servers or the bucket takes no clock away.
            keys: keys.unwrap_or_else(|| prior.keys.clone()),
            published_digest: digest.or_else(|| prior.published_digest.clone()),
        }
    }

    fn has_same_effect(object: &OidcIssuer, memory: &Memory) -> bool {
        memory.is_for(&object.spec)
    }

    async fn resolve(
        object: &Arc<OidcIssuer>,
        state: &ObjectState,
        context: &Context,
    ) -> (View, Option<Account>) {
        let account = context.accounts.of(&object.spec);
        let abandoned = abandoned::abandoned(object);
        let identity = match abandoned.as_ref().and_then(|_| abandoned::account(object)) {
            Some(account) => Ok(Identity::of_account(account)), // AWS is not asked
            None => context.accounts.identity(&object.spec).await,
        };
        let target = identity.map(|identity| Target::new(&state.name, &object.spec, &identity));
        context.cluster.issuers_synced().await;
        let all = context.cluster.issuers.state();
        let duplicate = || duplicates::duplicate(object, all.iter().map(|issuer| &**issuer));
        let untouched = abandoned.or_else(duplicate);
        (View { object: state.clone(), issuer: Arc::clone(object), target, untouched }, Some(account))
    }

    async fn observe(
        resolved: &Resolved<Self>,
        memory: &mut Memory,
        clock: &Clock,
        context: &Context,
    ) -> Result<Observed, kube::Error> {
        let account = context.accounts.of(&resolved.object.spec);
        observe::observe(context, &account, &resolved.view, memory, clock).await
    }

    fn decide(view: &View, observed: &Observed, memory: &Memory, clock: &Clock, timings: &Timings) -> Plan {
        decide::decide(view, observed, memory, clock, timings)
    }

    fn failed_read(observed: &Observed) -> Option<&'static str> {
        observed.failed_read()
    }

    async fn act(
        step: &Verify,
        resolved: &Resolved<Self>,
        context: &Context,
    ) -> Result<Verification, StepError> {
        let Resolved { view, object, .. } = resolved;
        let account = context.accounts.of(&object.spec);
        let Verify { expected, exchange } = step;
        let (spec, client, namespace) = (view.spec(), &context.client, &context.namespace);
        let public = verify::read_public(spec, expected, &context.accounts.public).await;
        let api_audiences = verify::api_audiences(client, namespace).await;
        let (exchange, fence) = match &view.target {
            Ok(target) if *exchange => verify::exchange(spec, target, &account, client, namespace).await,
            _ => (None, None),
        };
        if exchange == Some(Evidence::Good) {
            context.metrics.verified(&view.object.name, Timestamp::now().as_second());
        }
        let at = context.clock().instant;
        Ok(Verification { at, digest: expected.digest(), public, exchange, fence, api_audiences })
    }

    fn planned(memory: &mut Memory, view: &View, plan: &Plan) {
        memory.publishes &= memory.is_for(view.spec());
        memory.spec = Some(without_grants(view.spec()));
        memory.bad_since = plan.note.bad_since;
        memory.out_of_reach_since = plan.note.out_of_reach_since;
        memory.missing = plan.note.missing;
        memory.invalid.clone_from(&plan.note.invalid);
        if let Some(keys) = &plan.note.keys {
            memory.keys = Some(keys.clone());
        }
    }

    fn changed(memory: &mut Memory, change: &Change, _: Written, clock: &Clock) {
        memory.last_write = Some(clock.instant);
        memory.provider_deleted = change.write.deleted_provider().is_some()
            || (memory.provider_deleted && !change.write.creates_provider());
        memory.bucket_deleted = change.write.deletes_bucket();
        // What was verified before the change is verified anew.
        (memory.aws, memory.verification) = (None, None);
    }

    fn timed_out(memory: &mut Memory) {
        (memory.keys, memory.aws) = (None, None);
    }

    fn shown(memory: &mut Memory, verification: Verification, _: &Clock) {
        memory.publishes |= verification.public == Evidence::Good;
        memory.verification = Some(verification);
    }

    fn step_failed(
        failure: &Failure<'_, Self>,
        memory: &mut Memory,
        timings: &Timings,
    ) -> (Vec<Wanted>, Next) {
        let Failure { plan, view, error, clock, .. } = failure;
        memory.aws = None; // what was known is in doubt
        let window_open = memory.last_write.is_some_and(|at| clock.since(at) < timings.not_yet_window);
        decide::after_failure(plan, view, error, window_open, timings)
    }

    /// Where the bucket or the JWKS was not shown, the plan left out keys that are published there. Those that it has may be published
    /// already. And what was read of AWS is older by the wait when the plan is made again.
    fn unfinished(memory: &mut Memory, facts: Facts) -> Facts {
        (memory.keys, memory.aws) = (None, None);
        Facts { keys_complete: false, ..facts }
    }

    fn measure(name: &str, status: &OidcIssuerStatus, metrics: &Metrics) {
        // What is not known now takes an alert neither back nor on.
        let fenced = find(&status.conditions, ConditionType::BucketFenced);
        if let Some(fenced) = fenced.filter(|condition| condition.status != Status::Unknown) {
            metrics.fence(name, fenced.status == Status::False);
        }
        for state in [KeyState::Active, KeyState::Pending, KeyState::Retired] {
            metrics.signing_keys(name, state, status.keys.iter().filter(|key| key.state == state).count());
        }
    }

    fn gone(state: &ObjectState, context: &Context) {
        context.metrics.forget(&state.name);
    }
}

/// The records, and those of before of which nothing new is known.
fn with_earlier(mut records: Vec<PublishedKey>, before: &[PublishedKey]) -> Vec<PublishedKey> {
    for record in before {
        if !records.iter().any(|known| known.kid == record.kid) {
            records.push(record.clone());
        }
    }
    records
}
