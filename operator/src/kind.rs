//! What distinguishes the two kinds in a pass; `driver.rs` does what they share.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use crds::condition::Wanted;
use crds::conditions::{Condition, Conditions};
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::aws::accounts::Account;
use crate::aws::error::AwsError;
use crate::aws::model::Written;
use crate::change::Change;
use crate::clock::Clock;
use crate::context::Context;
use crate::metrics::Metrics;
use crate::model::{Next, ObjectState, Plan};
use crate::timings::Timings;

/// The plan of a kind.
pub type PlanOf<K> = Plan<<K as Kind>::Own, <K as Kind>::Facts, <K as Kind>::Note>;

/// A kind of object that is reconciled.
pub trait Kind: Sized + Send + Sync + 'static {
    /// The kind's name, for metrics, logs and status writes.
    const NAME: &'static str;
    /// The object.
    type Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static;
    /// The object's status.
    type Status: Clone + Default + PartialEq + Serialize + Send + Sync;
    /// The object and what it refers to.
    type View: Send + Sync;
    /// What was seen.
    type Observed: Send + Sync;
    /// What is remembered between passes.
    type Memory: Default + Send + Sync;
    /// A step that only this kind has.
    type Own: Clone + PartialEq + Send + Sync;
    /// What such a step shows.
    type Shown: Send;
    /// What of the status is no condition.
    type Facts: Send + Sync;
    /// What a plan leaves for the next pass.
    type Note: Send + Sync;

    /// The API of the object's namespace.
    fn api(client: &Client, object: &Self::Object) -> Api<Self::Object>;
    /// All objects of the kind.
    fn store(context: &Context) -> &Store<Self::Object>;
    /// The object's status.
    fn status(object: &Self::Object) -> Option<&Self::Status>;
    /// The generation the status speaks of, and its conditions.
    fn observed(status: &Self::Status) -> (Option<i64>, &[Condition]);
    /// The next status.
    fn next_status(
        prior: &Self::Status,
        facts: Self::Facts,
        conditions: Conditions,
        generation: i64,
    ) -> Self::Status;

    /// Whether the specification has the same effect as the one that the last pass was made for, if another field of it was
    /// edited. Not known without a last pass.
    fn has_same_effect(_object: &Self::Object, _memory: &Self::Memory) -> bool {
        false
    }

    /// Finds what the object refers to and computes its target, once a pass.
    fn resolve(
        object: &Arc<Self::Object>,
        state: &ObjectState,
        context: &Context,
    ) -> impl Future<Output = (Self::View, Option<Account>)> + Send;
    /// Makes the reads that are due, and takes the rest from memory.
    fn observe(
        resolved: &Resolved<Self>,
        memory: &mut Self::Memory,
        clock: &Clock,
        context: &Context,
    ) -> impl Future<Output = Result<Self::Observed, kube::Error>> + Send;
    /// The plan. PURE in both kinds.
    fn decide(
        view: &Self::View,
        observed: &Self::Observed,
        memory: &Self::Memory,
        clock: &Clock,
        timings: &Timings,
    ) -> PlanOf<Self>;
    /// Whether a plan changes something in AWS by a read of an earlier pass that is too old for that. AWS is then read again in the same pass.
    fn read_again(
        _plan: &PlanOf<Self>,
        _memory: &mut Self::Memory,
        _clock: &Clock,
        _timings: &Timings,
    ) -> bool {
        false
    }
    /// The metric label of a read that failed, if one did.
    fn failed_read(observed: &Self::Observed) -> Option<&'static str>;
    /// Whether the API server has what the plan rests on, beside the object, as the pass has seen it. It is asked before the first step of a
    /// plan that changes something in AWS, or ends the object. No answer is older than `asked`.
    fn rests_on_newest(
        _plan: &PlanOf<Self>,
        _resolved: &Resolved<Self>,
        _asked: Instant,
        _context: &Context,
    ) -> impl Future<Output = Result<bool, kube::Error>> + Send {
        async { Ok(true) }
    }
    /// Whether a plan is right for a newer version of the object, too.
    fn still_holds(
        _plan: &PlanOf<Self>,
        _view: &Self::View,
        _newest: &Self::Object,
        _context: &Context,
    ) -> bool {
        false
    }
    /// Carries out a step that only this kind has.
    fn act(
        step: &Self::Own,
        resolved: &Resolved<Self>,
        context: &Context,
    ) -> impl Future<Output = Result<Self::Shown, StepError>> + Send;

    /// Remembers what a plan was made for, before its steps are taken.
    fn planned(memory: &mut Self::Memory, view: &Self::View, plan: &PlanOf<Self>);
    /// Remembers what a change in AWS makes of earlier reads.
    fn changed(memory: &mut Self::Memory, change: &Change, written: Written, clock: &Clock);
    /// Remembers that a pass was ended at its time limit: AWS may have made a change whose answer did not arrive, and what was read is in
    /// doubt.
    fn timed_out(memory: &mut Self::Memory);
    /// Remembers what a step of the kind's own showed.
    fn shown(memory: &mut Self::Memory, shown: Self::Shown, clock: &Clock);
    /// What is still true of a plan's facts where not all of its steps were taken: one failed, or AWS is read again first. What the
    /// plan left in the memory and rests on the same reads is forgotten.
    fn unfinished(_memory: &mut Self::Memory, facts: Self::Facts) -> Self::Facts {
        facts
    }
    /// What a failed step means for the status, and when it is tried again. `failure.repeated`: the last pass took the same
    /// steps.
    fn step_failed(
        failure: &Failure<'_, Self>,
        memory: &mut Self::Memory,
        timings: &Timings,
    ) -> (Vec<Wanted>, Next);
    /// Sets the metrics that show a status.
    fn measure(_name: &str, _status: &Self::Status, _metrics: &Metrics) {}
    /// Forgets what is kept elsewhere of an object that is gone.
    fn gone(_state: &ObjectState, _context: &Context) {}
}

/// An object after `resolve`.
pub struct Resolved<K: Kind> {
    /// The object.
    pub object: Arc<K::Object>,
    /// Its metadata, and what its status said.
    pub state: ObjectState,
    /// What decisions look at.
    pub view: K::View,
    /// The clients of its AWS account; `None` where it names no issuer that exists.
    pub account: Option<Account>,
}

/// A step that failed.
pub struct Failure<'a, K: Kind> {
    /// The plan it belongs to.
    pub plan: &'a PlanOf<K>,
    /// The object.
    pub view: &'a K::View,
    /// Why.
    pub error: &'a AwsError,
    /// Whether the last pass took the same steps.
    pub repeated: bool,
    /// When.
    pub clock: &'a Clock,
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum StepError {
    /// AWS.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The API server.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}
