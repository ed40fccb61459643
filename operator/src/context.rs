//! What every reconcile is handed: clients, caches, clocks' periods, and the memory of earlier looks.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crds::{OidcIssuer, PodIdentityBinding};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::aws::Aws;
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::timings::Timings;
use crate::{binding, issuer};

/// Shared by both controllers of a process.
pub struct Context {
    /// The API server.
    pub client: kube::Client,
    /// AWS.
    pub aws: Aws,
    /// Waits and periods.
    pub timings: Timings,
    /// What is counted.
    pub metrics: std::sync::Arc<Metrics>,
    /// Events.
    pub recorder: Recorder,
    /// The operator's own namespace.
    pub namespace: String,
    /// All issuers, for bindings: written before a change of an issuer wakes them.
    pub issuers: Store<OidcIssuer>,
    /// Cancelled once `issuers` holds what the API server has: before, an empty cache would be taken for an answer.
    /// (`Store::wait_until_ready` wakes only the last of several who wait.)
    pub issuers_synced: CancellationToken,
    /// All bindings; a binding's reconcile begins only once it is filled.
    pub bindings: Store<PodIdentityBinding>,
    /// Failures in a row.
    pub backoff: Backoff,
    /// When this process began to look.
    pub started: Instant,
    /// What is remembered of issuers.
    pub issuer_memory: Remembered<issuer::observe::Memory>,
    /// What is remembered of bindings.
    pub binding_memory: Remembered<binding::observe::Memory>,
}

/// Memory by object uid. Taken out for a reconcile and put back after it; kube never runs two reconciles of one object
/// at once, so nobody misses it meanwhile, and a reconcile that is cut off forgets, which is safe.
#[derive(Debug)]
pub struct Remembered<M>(Mutex<HashMap<String, M>>);

impl<M> Default for Remembered<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M: Default> Remembered<M> {
    /// Takes an object's memory out.
    pub fn take(&self, uid: &str) -> M {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid).unwrap_or_default()
    }

    /// Forgets what is gone, once there is much of it: an object without our finalizer goes without a word.
    pub fn tidy<K>(&self, living: &Store<K>)
    where
        K: Resource + Clone + 'static,
        K::DynamicType: Eq + std::hash::Hash + Clone,
    {
        const SLACK: usize = 64;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > 2 * living.len() + SLACK {
            let lives: HashSet<String> = living.state().iter().filter_map(|object| object.uid()).collect();
            all.retain(|uid, _| lives.contains(uid));
        }
    }

    /// Puts an object's memory back.
    pub fn put(&self, uid: &str, memory: M) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), memory);
    }
}
