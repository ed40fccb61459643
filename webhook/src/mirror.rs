//! A copy of one kind of object, kept by a watch, found by namespace and name.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use kube::runtime::watcher::Event;

type Objects<T> = HashMap<String, HashMap<String, Arc<T>>>;

/// The copy. It answers only once it has been complete; after that a lost watch leaves it as it was.
#[derive(Debug)]
pub struct Mirror<T> {
    state: RwLock<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    objects: Objects<T>,
    /// What a (re)list has brought so far; it takes the place of `objects` when the list is complete.
    listing: Objects<T>,
    synced: bool,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        let state = State { objects: HashMap::new(), listing: HashMap::new(), synced: false };
        Self { state: RwLock::new(state) }
    }
}

/// An object on its way into a [`Mirror`].
#[derive(Debug, Clone)]
pub struct Entry<T> {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// What is kept of it.
    pub value: Arc<T>,
}

impl<T> Mirror<T> {
    /// Takes in one event of the watch. Returns whether the copy is complete, and its size.
    pub fn apply(&self, event: Event<Entry<T>>) -> (bool, usize) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => state.listing = HashMap::new(),
            Event::InitApply(entry) => insert(&mut state.listing, entry),
            Event::InitDone => {
                state.objects = std::mem::take(&mut state.listing);
                state.synced = true;
            }
            Event::Apply(entry) => insert(&mut state.objects, entry),
            Event::Delete(entry) => {
                if let Some(objects) = state.objects.get_mut(&entry.namespace) {
                    objects.remove(&entry.name);
                    if objects.is_empty() {
                        state.objects.remove(&entry.namespace);
                    }
                }
            }
        }
        (state.synced, state.objects.values().map(HashMap::len).sum())
    }

    /// Whether the copy has been complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.read().synced
    }

    /// The object of that name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.read().objects.get(namespace)?.get(name).cloned()
    }

    /// The objects of a namespace for which `wanted` holds.
    #[must_use]
    pub fn select(&self, namespace: &str, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let state = self.read();
        let objects = state.objects.get(namespace).into_iter().flat_map(HashMap::values);
        objects.filter(|value| wanted(value)).cloned().collect()
    }

    /// A panic while the lock is held cannot leave a half-made state behind: every change is one call to a map.
    fn read(&self) -> RwLockReadGuard<'_, State<T>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert<T>(objects: &mut Objects<T>, Entry { namespace, name, value }: Entry<T>) {
    objects.entry(namespace).or_default().insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, value: u8) -> Entry<u8> {
        Entry { namespace: "a".into(), name: name.into(), value: Arc::new(value) }
    }

    #[test]
    fn a_relist_replaces_the_copy_only_when_complete() {
        let mirror = Mirror::default();
        assert_eq!(mirror.apply(Event::Init), (false, 0));
        mirror.apply(Event::InitApply(entry("x", 1)));
        assert_eq!(mirror.get("a", "x"), None, "not before the list is complete");
        assert!(!mirror.is_synced());
        assert_eq!(mirror.apply(Event::InitDone), (true, 1));
        mirror.apply(Event::Apply(entry("y", 2)));
        mirror.apply(Event::Delete(entry("z", 0)));

        mirror.apply(Event::Init);
        mirror.apply(Event::InitApply(entry("y", 3)));
        assert_eq!(mirror.get("a", "x").as_deref(), Some(&1), "the old copy answers during a relist");
        assert!(mirror.is_synced());
        assert_eq!(mirror.apply(Event::InitDone), (true, 1));
        assert_eq!(mirror.get("a", "x"), None);
        assert_eq!(mirror.get("a", "y").as_deref(), Some(&3));
        assert_eq!(mirror.select("a", |value| *value > 3), Vec::<Arc<u8>>::new());

        assert_eq!(mirror.apply(Event::Delete(entry("y", 0))), (true, 0));
        assert_eq!(mirror.get("a", "y"), None);
    }
}
