//! What is remembered between passes. Lost with the process, and then read again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kube::ResourceExt;
use kube::runtime::reflector::Store;

use crate::kind::Kind;
use crate::model::Step;

/// What is remembered of one object.
pub struct Memory<K: Kind> {
    /// What the kind remembers.
    pub kind: K::Memory,
    /// The steps of the last pass.
    pub steps: Vec<Step<K::Own>>,
    /// Failures in a row.
    pub failures: u32,
    /// When the object is looked at again, where that is later than the controller's own timer is used for.
    pub due: Option<Instant>,
    /// Whether our finalizer was removed: the cached object may outlive it by a moment, and nothing is left to be done for it.
    pub gone: bool,
}

/// The memories of all objects of a kind, by uid: an object that was deleted and made again inherits nothing. In boxes: a map has up to
/// twice as many places as it needs.
pub struct Memories<K: Kind>(Mutex<HashMap<String, Box<Memory<K>>>>);

impl<K: Kind> Default for Memories<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Kind> Memories<K> {
    /// Takes an object's memory out for a pass; an empty one for an object that is new.
    pub fn take(&self, uid: &str) -> Box<Memory<K>> {
        let new = || {
            Box::new(Memory {
                kind: K::Memory::default(),
                steps: Vec::new(),
                failures: 0,
                due: None,
                gone: false,
            })
        };
        self.lock().remove(uid).unwrap_or_else(new)
    }

    /// Whether the last pass took steps, and none of them failed.
    pub fn is_in_progress(&self, uid: &str) -> bool {
        self.lock().get(uid).is_some_and(|memory| memory.failures == 0 && !memory.steps.is_empty())
    }

    /// When an object is looked at again, if its last pass has said so. That it is due `now` is said once.
    pub fn due(&self, uid: &str, now: Instant) -> Option<Instant> {
        let mut all = self.lock();
        let memory = all.get_mut(uid)?;
        let due = memory.due;
        memory.due = due.filter(|due| *due > now);
        due
    }

    /// Puts it back after the pass. Memories of objects that are gone are dropped once there are many: an object without
    /// our finalizer ends without a pass.
    pub fn put(&self, uid: String, memory: Box<Memory<K>>, existing: &Store<K::Object>) {
        const SLACK: usize = 64;
        let mut all = self.lock();
        all.insert(uid, memory);
        if all.len() > 2 * existing.len() + SLACK {
            let uids: HashSet<String> = existing.state().iter().filter_map(|object| object.uid()).collect();
            all.retain(|uid, _| uids.contains(uid));
        }
    }

    /// Every change is one insertion or removal: a panic leaves nothing half-done.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Box<Memory<K>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use kube::runtime::reflector::store::Writer;

    use super::*;
    use crate::binding::Binding;

    #[test]
    fn that_an_object_is_due_is_said_once() {
        let (memories, objects) = (Memories::<Binding>::default(), Writer::default().as_reader());
        let now = Instant::now();
        let soon = now + Duration::from_secs(1);
        assert_eq!(memories.due("a", now), None);
        let mut memory = memories.take("a");
        memory.due = Some(soon);
        memories.put("a".into(), memory, &objects);
        assert_eq!(memories.due("a", now), Some(soon));
        assert_eq!(memories.due("a", soon), Some(soon));
        assert_eq!(memories.due("a", soon), None);
    }
}
