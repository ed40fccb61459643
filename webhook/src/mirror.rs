//! A copy of one kind of object, kept by a watch, found by namespace and name.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::facts::Bound;

/// An object on its way into a copy.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    /// Empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// The object's name.
    pub name: Box<str>,
    /// What is kept of it.
    pub value: T,
}

/// What a watch tells.
#[derive(Debug, Clone)]
pub enum Change<T> {
    /// A list begins.
    Begin,
    /// The list has this object.
    Listed(Entry<T>),
    /// The list has ended.
    End,
    /// The object was made or changed.
    Put(Entry<T>),
    /// The object of this namespace and name is gone.
    Remove(Box<str>, Box<str>),
}

/// A copy. It is complete after its first list; after that a lost watch leaves it as it was, and a new list is taken in
/// beside what stands: nothing goes missing meanwhile, and nothing is held twice.
#[derive(Debug)]
pub struct Mirror<T> {
    state: RwLock<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    objects: HashMap<Box<str>, HashMap<Box<str>, Kept<T>>>,
    count: usize,
    /// Of which list an object was last seen; what an ended list has not shown is gone.
    list: bool,
    synced: bool,
}

#[derive(Debug)]
struct Kept<T> {
    value: T,
    list: bool,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        let state = State { objects: HashMap::new(), count: 0, list: false, synced: false };
        Self { state: RwLock::new(state) }
    }
}

impl<T: Clone> Mirror<T> {
    /// Takes in one change. Returns whether the copy is complete, and its size.
    pub fn apply(&self, change: Change<T>) -> (bool, usize) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            // A list that was cut short is begun again: what it showed counts as seen in neither.
            Change::Begin => state.begin(),
            Change::Listed(entry) | Change::Put(entry) => state.insert(entry),
            Change::End => state.end(),
            Change::Remove(namespace, name) => state.remove(&namespace, &name),
        }
        (state.synced, state.count)
    }

    /// Whether the copy has been complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        read(&self.state).synced
    }

    /// The object of that name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<T> {
        read(&self.state).objects.get(namespace)?.get(name).map(|kept| kept.value.clone())
    }
}

impl<T> State<T> {
    fn begin(&mut self) {
        for kept in self.objects.values_mut().flat_map(HashMap::values_mut) {
            kept.list = self.list;
        }
        self.list = !self.list;
    }

    fn end(&mut self) {
        let list = self.list;
        self.objects.retain(|_, names| {
            names.retain(|_, kept| kept.list == list);
            !names.is_empty()
        });
        self.count = self.objects.values().map(HashMap::len).sum();
        self.synced = true;
    }

    fn insert(&mut self, Entry { namespace, name, value }: Entry<T>) {
        let kept = Kept { value, list: self.list };
        if self.objects.entry(namespace).or_default().insert(name, kept).is_none() {
            self.count += 1;
        }
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.objects.get_mut(namespace) else { return };
        self.count -= usize::from(names.remove(name).is_some());
        if names.is_empty() {
            self.objects.remove(namespace);
        }
    }
}

/// A copy of all bindings, found by the `ServiceAccount` they name.
#[derive(Debug, Default)]
pub struct Bindings {
    state: RwLock<BindingsState>,
}

#[derive(Debug, Default)]
struct BindingsState {
    objects: ByAccount,
    /// What a list has brought so far; it takes the place of `objects` when the list is complete.
    listing: ByAccount,
    synced: bool,
}

type OfAccounts = HashMap<Box<str>, Vec<Arc<Bound>>>;

#[derive(Debug, Default)]
struct ByAccount {
    /// `ServiceAccount`s by namespace and binding.
    accounts: HashMap<Box<str>, HashMap<Box<str>, Box<str>>>,
    /// Bindings by namespace and `ServiceAccount`.
    bindings: HashMap<Box<str>, OfAccounts>,
    count: usize,
}

impl Bindings {
    /// Takes in one change. Returns whether the copy is complete, and its size.
    pub fn apply(&self, change: Change<Arc<Bound>>) -> (bool, usize) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Begin => state.listing = ByAccount::default(),
            Change::Listed(entry) => state.listing.insert(entry),
            Change::End => {
                state.objects = std::mem::take(&mut state.listing);
                state.synced = true;
            }
            Change::Put(entry) => state.objects.insert(entry),
            Change::Remove(namespace, name) => state.objects.remove(&namespace, &name),
        }
        (state.synced, state.objects.count)
    }

    /// Whether the copy has been complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        read(&self.state).synced
    }

    /// The bindings that name a `ServiceAccount`.
    #[must_use]
    pub fn of(&self, namespace: &str, account: &str) -> Vec<Arc<Bound>> {
        let state = read(&self.state);
        state.objects.bindings.get(namespace).and_then(|b| b.get(account)).cloned().unwrap_or_default()
    }
}

impl ByAccount {
    fn insert(&mut self, Entry { namespace, name, value }: Entry<Arc<Bound>>) {
        self.remove(&namespace, &name);
        let account = value.service_account.clone();
        self.bindings.entry(namespace.clone()).or_default().entry(account.clone()).or_default().push(value);
        self.accounts.entry(namespace).or_default().insert(name, account);
        self.count += 1;
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.accounts.get_mut(namespace) else { return };
        let Some(account) = names.remove(name) else { return };
        self.count -= 1;
        if names.is_empty() {
            self.accounts.remove(namespace);
        }
        let Some(accounts) = self.bindings.get_mut(namespace) else { return };
        if let Some(bindings) = accounts.get_mut(&account) {
            bindings.retain(|binding| *binding.name != *name);
            if bindings.is_empty() {
                accounts.remove(&account);
            }
        }
        if accounts.is_empty() {
            self.bindings.remove(namespace);
        }
    }
}

/// A panic while the lock is held cannot leave a half-made state behind that matters: whatever is missing comes again with
/// the next list.
fn read<T>(state: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, value: u8) -> Entry<u8> {
        Entry { namespace: "a".into(), name: name.into(), value }
    }

    #[test]
    fn a_list_is_taken_in_beside_what_stands() {
        let mirror = Mirror::default();
        assert_eq!(mirror.apply(Change::Begin), (false, 0));
        mirror.apply(Change::Listed(entry("x", 1)));
        assert!(!mirror.is_synced());
        assert_eq!(mirror.apply(Change::End), (true, 1));
        mirror.apply(Change::Put(entry("y", 2)));
        mirror.apply(Change::Remove("a".into(), "z".into()));

        mirror.apply(Change::Begin);
        mirror.apply(Change::Listed(entry("y", 3)));
        assert_eq!(mirror.get("a", "x"), Some(1), "what stands answers during a list");
        assert!(mirror.is_synced());
        // The list breaks off and is begun again: what only the first showed is gone in the end.
        mirror.apply(Change::Listed(entry("w", 4)));
        mirror.apply(Change::Begin);
        mirror.apply(Change::Listed(entry("y", 5)));
        assert_eq!(mirror.apply(Change::End), (true, 1));
        assert_eq!(["w", "x", "y"].map(|name| mirror.get("a", name)), [None, None, Some(5)]);

        assert_eq!(mirror.apply(Change::Remove("a".into(), "y".into())), (true, 0));
        assert_eq!(mirror.get("a", "y"), None);
    }

    fn bound(name: &str, account: &str) -> Entry<Arc<Bound>> {
        let value =
            Arc::new(Bound { name: name.into(), service_account: account.into(), ..Bound::default() });
        Entry { namespace: "a".into(), name: name.into(), value }
    }

    #[test]
    fn bindings_are_found_by_their_account_and_replaced_only_by_a_complete_list() {
        let bindings = Bindings::default();
        let names = |account: &str| -> Vec<String> {
            let mut names: Vec<_> = bindings.of("a", account).iter().map(|b| b.name.to_string()).collect();
            names.sort();
            names
        };
        bindings.apply(Change::Begin);
        bindings.apply(Change::Listed(bound("x", "s")));
        assert!(!bindings.is_synced() && names("s").is_empty());
        assert_eq!(bindings.apply(Change::End), (true, 1));
        bindings.apply(Change::Put(bound("y", "s")));
        assert_eq!(names("s"), ["x", "y"]);
        // Deleted and made again for another account, while the watch saw only the end of it.
        assert_eq!(bindings.apply(Change::Put(bound("x", "t"))), (true, 2));
        assert_eq!((names("s"), names("t")), (vec!["y".to_owned()], vec!["x".to_owned()]));

        bindings.apply(Change::Begin);
        bindings.apply(Change::Listed(bound("y", "s")));
        assert_eq!(names("t"), ["x"], "what stands answers during a list");
        assert_eq!(bindings.apply(Change::End), (true, 1));
        assert!(names("t").is_empty());
        assert_eq!(bindings.apply(Change::Remove("a".into(), "y".into())), (true, 0));
        assert!(names("s").is_empty());
    }
}
