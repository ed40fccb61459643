//! PURE: what the passes of both kinds have in common: the object's state, the plan, its steps, and what comes after.

use std::time::Duration;

use crds::Finding;
use crds::condition::{ConditionType, Wanted};
use crds::conditions::{Condition, is_true};
use crds::names::{ABANDON_ANNOTATION, CONFIRM_ANNOTATION, FINALIZER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use crate::change::Change;

/// What every pass looks at of its object's metadata and status.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts of one object")]
pub struct ObjectState {
    /// `metadata.namespace`; empty for cluster-scoped kinds.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// Whether deletion was requested.
    pub deleting: bool,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// Whether the status says Ready for this generation. Failures that pass do not take that back.
    pub was_ready: bool,
}

impl ObjectState {
    /// Reads it from an object's metadata and the two fields of its status. `same_effect`: the last pass was made for a
    /// specification with the same effect, so what it showed counts for this generation, too.
    #[must_use]
    pub fn new(
        metadata: &ObjectMeta,
        observed_generation: Option<i64>,
        conditions: &[Condition],
        same_effect: bool,
    ) -> Self {
        let generation = metadata.generation.unwrap_or_default();
        let deleting = metadata.deletion_timestamp.is_some();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            generation,
            created: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting,
            finalizer: metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER),
            was_ready: !deleting
                && (same_effect || observed_generation == Some(generation))
                && is_true(conditions, ConditionType::Ready),
        }
    }
}

/// What changes with every edit of an object's specification, and when it is deleted or made again. The status is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    uid: Option<String>,
    generation: Option<i64>,
    deleting: bool,
    annotations: [Option<String>; 2],
}

impl Version {
    /// The annotations that an administrator decides by. A copy of an object that is kept has them, too.
    pub const ANNOTATIONS: [&str; 2] = [ABANDON_ANNOTATION, CONFIRM_ANNOTATION];

    /// That of an object.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        let annotation = |name| metadata.annotations.as_ref()?.get(name).cloned();
        Self {
            uid: metadata.uid.clone(),
            generation: metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            annotations: Self::ANNOTATIONS.map(annotation),
        }
    }
}

/// When the object is looked at next, if nothing wakes it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: something was changed, and is read back.
    LookAgain,
    /// After a wait that grows with every failure in a row.
    BackOff,
    /// After this time, spread a little.
    At(Duration),
}

impl Next {
    /// A pass that did something is followed by one that reads it back.
    #[must_use]
    pub fn read_back<S>(steps: &[Step<S>], otherwise: Self) -> Self {
        let changed = steps.iter().any(|step| !matches!(step, Step::AddFinalizer));
        if changed { Self::LookAgain } else { otherwise }
    }

    /// The same, but after `wait` at the latest.
    #[must_use]
    pub fn no_later_than(self, wait: Option<Duration>) -> Self {
        match (self, wait) {
            (Self::At(period), Some(wait)) => Self::At(period.min(wait)),
            (next, _) => next,
        }
    }
}

/// What one pass does and reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<S, F, N> {
    /// In order; the first failure ends them.
    pub steps: Vec<Step<S>>,
    /// The status's conditions if the steps succeed: all of the kind's, always.
    pub conditions: Vec<Wanted>,
    /// The status's facts, as far as they are known.
    pub facts: F,
    /// What is remembered for the next pass.
    pub note: N,
    /// Whether somebody else made the changes necessary that are put back.
    pub drift: bool,
    /// When to look again.
    pub next: Next,
    /// What is worth an event, once.
    pub events: Vec<Finding>,
}

/// One thing to do: one remote call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a plan has a handful of steps and lives for one pass")]
pub enum Step<S> {
    /// Put our finalizer on the object.
    AddFinalizer,
    /// Take our finalizer off the object.
    RemoveFinalizer,
    /// Change something in AWS.
    Change(Change),
    /// What only this kind does.
    Own(S),
}

impl<S> Step<S> {
    /// The change in AWS, if it is one.
    #[must_use]
    pub const fn change(&self) -> Option<&Change> {
        match self {
            Self::Change(change) => Some(change),
            _ => None,
        }
    }
}
