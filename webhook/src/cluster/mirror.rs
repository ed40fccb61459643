//! Copies of objects, updated by watches: of any kind by namespace and name ([`Mirror`]), of bindings by `ServiceAccount`
//! ([`BindingMirror`]), and of the few issuers ([`IssuerMirror`]).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::identity::facts::{BindingFacts, IssuerFacts};
use crate::identity::issuers::Issuers;

/// An object to be stored in a copy.
#[derive(Debug, Clone)]
pub struct MirrorObject<T> {
    /// Empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// The object's name.
    pub name: Box<str>,
    /// What is stored of it.
    pub value: T,
}

/// An event of a watch.
#[derive(Debug, Clone)]
pub enum Change<T> {
    /// A list begins.
    ListBegin,
    /// The list contains this object.
    Listed(MirrorObject<T>),
    /// The list is complete.
    ListEnd,
    /// The object was created or changed.
    Put(MirrorObject<T>),
    /// The object of this namespace and name was deleted.
    Remove(Box<str>, Box<str>),
}

/// The state of a copy after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorState {
    /// Whether the copy has been complete.
    pub synced: bool,
    /// How many objects it has.
    pub objects: usize,
}

/// A copy. It is complete after its first list. When the watch breaks, the copy stays as it is, and a new list updates it
/// object by object: during the list no object is missing, and none is stored twice.
#[derive(Debug)]
pub struct Mirror<T> {
    state: RwLock<Contents<T>>,
}

#[derive(Debug)]
struct Contents<T> {
    objects: HashMap<Box<str>, HashMap<Box<str>, Stored<T>>>,
    count: usize,
    /// Alternates with every list; an object that the last complete list did not contain has the other value, and is removed.
    list: bool,
    synced: bool,
}

#[derive(Debug)]
struct Stored<T> {
    value: T,
    list: bool,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        let state = Contents { objects: HashMap::new(), count: 0, list: false, synced: false };
        Self { state: RwLock::new(state) }
    }
}

impl<T: Clone> Mirror<T> {
    /// Applies a change.
    pub fn apply(&self, change: Change<T>) -> MirrorState {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            // A list that broke off begins again: the objects it contained count as not listed.
            Change::ListBegin => state.begin(),
            Change::Listed(object) | Change::Put(object) => state.insert(object),
            Change::ListEnd => state.end(),
            Change::Remove(namespace, name) => state.remove(&namespace, &name),
        }
        MirrorState { synced: state.synced, objects: state.count }
    }

    /// Whether the copy has been complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        read(&self.state).synced
    }

    /// The object of that namespace and name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<T> {
        read(&self.state).objects.get(namespace)?.get(name).map(|stored| stored.value.clone())
    }
}

impl<T> Contents<T> {
    fn begin(&mut self) {
        for stored in self.objects.values_mut().flat_map(HashMap::values_mut) {
            stored.list = self.list;
        }
        self.list = !self.list;
    }

    fn end(&mut self) {
        let list = self.list;
        self.objects.retain(|_, names| {
            names.retain(|_, stored| stored.list == list);
            !names.is_empty()
        });
        self.count = self.objects.values().map(HashMap::len).sum();
        self.synced = true;
    }

    fn insert(&mut self, MirrorObject { namespace, name, value }: MirrorObject<T>) {
        let stored = Stored { value, list: self.list };
        if self.objects.entry(namespace).or_default().insert(name, stored).is_none() {
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

/// A copy of all bindings, by the `ServiceAccount` they name.
#[derive(Debug, Default)]
pub struct BindingMirror {
    state: RwLock<BindingState>,
}

#[derive(Debug, Default)]
struct BindingState {
    objects: BindingIndex,
    /// What the current list has contained so far; it replaces `objects` when the list is complete.
    listing: BindingIndex,
    synced: bool,
}

type ByServiceAccount = HashMap<Box<str>, Vec<Arc<BindingFacts>>>;

#[derive(Debug, Default)]
struct BindingIndex {
    /// `ServiceAccount`s by namespace and binding.
    service_accounts: HashMap<Box<str>, HashMap<Box<str>, Box<str>>>,
    /// Bindings by namespace and `ServiceAccount`.
    bindings: HashMap<Box<str>, ByServiceAccount>,
    count: usize,
}

impl BindingMirror {
    /// Applies a change.
    pub fn apply(&self, change: Change<Arc<BindingFacts>>) -> MirrorState {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::ListBegin => state.listing = BindingIndex::default(),
            Change::Listed(object) => state.listing.insert(object),
            Change::ListEnd => {
                state.objects = std::mem::take(&mut state.listing);
                state.synced = true;
            }
            Change::Put(object) => state.objects.insert(object),
            Change::Remove(namespace, name) => state.objects.remove(&namespace, &name),
        }
        MirrorState { synced: state.synced, objects: state.objects.count }
    }

    /// Whether the copy has been complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        read(&self.state).synced
    }

    /// The bindings that name a `ServiceAccount`.
    #[must_use]
    pub fn of(&self, namespace: &str, service_account: &str) -> Vec<Arc<BindingFacts>> {
        let state = read(&self.state);
        let of_namespace = state.objects.bindings.get(namespace);
        of_namespace.and_then(|bindings| bindings.get(service_account)).cloned().unwrap_or_default()
    }
}

impl BindingIndex {
    fn insert(&mut self, MirrorObject { namespace, name, value }: MirrorObject<Arc<BindingFacts>>) {
        self.remove(&namespace, &name);
        let service_account = value.service_account.clone();
        let of_namespace = self.bindings.entry(namespace.clone()).or_default();
        of_namespace.entry(service_account.clone()).or_default().push(value);
        self.service_accounts.entry(namespace).or_default().insert(name, service_account);
        self.count += 1;
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.service_accounts.get_mut(namespace) else { return };
        let Some(service_account) = names.remove(name) else { return };
        self.count -= 1;
        if names.is_empty() {
            self.service_accounts.remove(namespace);
        }
        let Some(of_namespace) = self.bindings.get_mut(namespace) else { return };
        if let Some(bindings) = of_namespace.get_mut(&service_account) {
            bindings.retain(|binding| *binding.name != *name);
            if bindings.is_empty() {
                of_namespace.remove(&service_account);
            }
        }
        if of_namespace.is_empty() {
            self.bindings.remove(namespace);
        }
    }
}

/// A copy of all issuers. They are few and change rarely, so every change makes a new set.
#[derive(Debug, Default)]
pub struct IssuerMirror {
    state: RwLock<IssuerState>,
}

#[derive(Debug, Default)]
struct IssuerState {
    issuers: Arc<Issuers>,
    /// What the current list has contained so far; it replaces `issuers` when the list is complete.
    listing: Vec<Arc<IssuerFacts>>,
    synced: bool,
}

impl IssuerMirror {
    /// Applies a change.
    pub fn apply(&self, change: Change<Arc<IssuerFacts>>) -> MirrorState {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::ListBegin => state.listing.clear(),
            Change::Listed(object) => state.listing.push(object.value),
            Change::ListEnd => {
                state.issuers = Arc::new(Issuers::all(std::mem::take(&mut state.listing)));
                state.synced = true;
            }
            Change::Put(object) => state.issuers = Arc::new(state.issuers.with(object.value)),
            Change::Remove(_, name) => state.issuers = Arc::new(state.issuers.without(&name)),
        }
        MirrorState { synced: state.synced, objects: state.issuers.len() }
    }

    /// All issuers, once the copy has been complete: before that the default issuer is not known.
    #[must_use]
    pub fn complete(&self) -> Option<Arc<Issuers>> {
        let state = read(&self.state);
        state.synced.then(|| Arc::clone(&state.issuers))
    }
}

/// A panic while the lock is held leaves no incomplete change that matters: the next list contains what is missing.
fn read<T>(state: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(synced: bool, objects: usize) -> MirrorState {
        MirrorState { synced, objects }
    }

    fn object(name: &str, value: u8) -> MirrorObject<u8> {
        MirrorObject { namespace: "a".into(), name: name.into(), value }
    }

    #[test]
    fn a_list_updates_a_copy_object_by_object() {
        let mirror = Mirror::default();
        assert_eq!(mirror.apply(Change::ListBegin), state(false, 0));
        mirror.apply(Change::Listed(object("x", 1)));
        assert!(!mirror.is_synced());
        assert_eq!(mirror.apply(Change::ListEnd), state(true, 1));
        mirror.apply(Change::Put(object("y", 2)));
        mirror.apply(Change::Remove("a".into(), "z".into()));

        mirror.apply(Change::ListBegin);
        mirror.apply(Change::Listed(object("y", 3)));
        assert_eq!(mirror.get("a", "x"), Some(1), "the former objects are there during a list");
        assert!(mirror.is_synced());
        // The list breaks off and begins again: what only the first contained is removed in the end.
        mirror.apply(Change::Listed(object("w", 4)));
        mirror.apply(Change::ListBegin);
        mirror.apply(Change::Listed(object("y", 5)));
        assert_eq!(mirror.apply(Change::ListEnd), state(true, 1));
        assert_eq!(["w", "x", "y"].map(|name| mirror.get("a", name)), [None, None, Some(5)]);

        assert_eq!(mirror.apply(Change::Remove("a".into(), "y".into())), state(true, 0));
        assert_eq!(mirror.get("a", "y"), None);
    }

    fn binding(name: &str, service_account: &str) -> MirrorObject<Arc<BindingFacts>> {
        let value = Arc::new(BindingFacts {
            name: name.into(),
            service_account: service_account.into(),
            ..BindingFacts::default()
        });
        MirrorObject { namespace: "a".into(), name: name.into(), value }
    }

    #[test]
    fn bindings_are_found_by_service_account_and_replaced_only_by_a_complete_list() {
        let bindings = BindingMirror::default();
        let names = |service_account: &str| -> Vec<String> {
            let mut names: Vec<_> =
                bindings.of("a", service_account).iter().map(|b| b.name.to_string()).collect();
            names.sort();
            names
        };
        bindings.apply(Change::ListBegin);
        bindings.apply(Change::Listed(binding("x", "s")));
        assert!(!bindings.is_synced() && names("s").is_empty());
        assert_eq!(bindings.apply(Change::ListEnd), state(true, 1));
        bindings.apply(Change::Put(binding("y", "s")));
        assert_eq!(names("s"), ["x", "y"]);
        // Deleted and created again for another ServiceAccount, of which the watch saw only the creation.
        assert_eq!(bindings.apply(Change::Put(binding("x", "t"))), state(true, 2));
        assert_eq!((names("s"), names("t")), (vec!["y".to_owned()], vec!["x".to_owned()]));

        bindings.apply(Change::ListBegin);
        bindings.apply(Change::Listed(binding("y", "s")));
        assert_eq!(names("t"), ["x"], "the former objects are there during a list");
        assert_eq!(bindings.apply(Change::ListEnd), state(true, 1));
        assert!(names("t").is_empty());
        assert_eq!(bindings.apply(Change::Remove("a".into(), "y".into())), state(true, 0));
        assert!(names("s").is_empty());
    }

    #[test]
    fn issuers_are_known_once_all_of_them_are() {
        let issuers = IssuerMirror::default();
        let issuer = |name: &str, region: &str| {
            let value =
                IssuerFacts { name: name.into(), region: Some(region.into()), ..IssuerFacts::default() };
            MirrorObject { namespace: "".into(), name: name.into(), value: Arc::new(value) }
        };
        let region = |name: &str| -> Option<String> {
            issuers
                .complete()?
                .get(name)
                .map(|issuer| issuer.region.as_deref().unwrap_or_default().to_owned())
        };
        issuers.apply(Change::ListBegin);
        issuers.apply(Change::Listed(issuer("x", "1")));
        assert_eq!(issuers.complete(), None);
        assert_eq!(issuers.apply(Change::ListEnd), state(true, 1));
        assert_eq!(issuers.apply(Change::Put(issuer("y", "2"))), state(true, 2));
        assert_eq!(issuers.apply(Change::Put(issuer("y", "3"))), state(true, 2));
        assert_eq!((region("x").as_deref(), region("y").as_deref()), (Some("1"), Some("3")));

        issuers.apply(Change::ListBegin);
        issuers.apply(Change::Listed(issuer("x", "4")));
        assert_eq!(region("y").as_deref(), Some("3"), "the former objects are there during a list");
        assert_eq!(issuers.apply(Change::ListEnd), state(true, 1));
        assert_eq!((region("x").as_deref(), region("y")), (Some("4"), None));
        assert_eq!(issuers.apply(Change::Remove("".into(), "x".into())), state(true, 0));
    }
}
