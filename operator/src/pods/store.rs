//! Which pods of which `ServiceAccount`s run without their identity. Of a `ServiceAccount` with a binding, what its pods should have is
//! kept; of its pods, only those that do not have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::Metrics;

use super::model::{Expected, Found, Key, Missing, NAMED, PodsState};

/// The pods. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    /// All pods that run without their identity.
    total: usize,
    /// In boxes: a map has up to twice as many places as it needs.
    accounts: HashMap<Key, Box<Account>>,
    /// How many lists the watch has begun.
    lists: u64,
    /// Whether the watch has shown all pods once.
    synced: bool,
    /// Why the watch has failed since its last list.
    failure: Option<String>,
}

#[derive(Debug)]
struct Account {
    expected: Expected,
    missing: BTreeMap<String, Missing>,
    progress: Progress,
    /// How many lists the watch had begun when this was expected first.
    since: u64,
}

/// Whether all pods of a `ServiceAccount` were compared with what is expected of them now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// The first list of the watch shows them.
    ByWatch,
    /// They are being listed; those that have ended or got their identity meanwhile.
    Listing(BTreeSet<String>),
    /// They were.
    Done,
}

/// What has to be done before the pods of a `ServiceAccount` are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Answer(PodsState),
    /// They have to be listed.
    List,
}

impl Store {
    /// Knows no pods yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { state: Arc::default(), metrics }
    }

    /// Says what is expected of the pods of a `ServiceAccount` before the watch begins: its first list is compared with that.
    pub fn expect(&self, key: Key, expected: Expected) {
        let mut state = self.state();
        let since = state.lists;
        let account = Account { expected, missing: BTreeMap::new(), progress: Progress::ByWatch, since };
        state.accounts.entry(key).or_insert_with(|| Box::new(account));
    }

    /// The pods that run without what is expected. Where that has changed, or was not known before, they have to be listed: the caller does
    /// so and gives them to [`Self::listed`].
    pub fn ask(&self, key: &Key, expected: &Expected) -> Asked {
        let mut state = self.state();
        let synced = state.synced;
        if let Some(account) = state.accounts.get(key).filter(|account| account.expected == *expected) {
            match account.progress {
                Progress::Done => return Asked::Answer(PodsState::Known(found(&account.missing))),
                Progress::ByWatch if !synced => {
                    let answer = state.failure.clone().map_or(PodsState::NotKnown, PodsState::Unreadable);
                    return Asked::Answer(answer);
                }
                // The pass that listed them did not come to its end.
                Progress::ByWatch | Progress::Listing(_) => {}
            }
        }
        let progress = Progress::Listing(BTreeSet::new());
        let since = state.lists;
        let account = Account { expected: expected.clone(), missing: BTreeMap::new(), progress, since };
        let former = state.accounts.insert(key.clone(), Box::new(account));
        self.change(&mut state, former.map_or(0, |former| former.missing.len()), 0);
        Asked::List
    }

    /// Takes in a list of pods, made after [`Self::ask`]: a pod that the watch has shown since then is newer than the list.
    pub fn listed(&self, key: &Key, expected: &Expected, pods: Vec<(String, Missing)>) -> PodsState {
        let mut state = self.state();
        let Some(account) = state.accounts.get_mut(key).filter(|account| account.expected == *expected)
        else {
            return PodsState::NotKnown;
        };
        let before = account.missing.len();
        if let Progress::Listing(ended) = &account.progress {
            for (name, missing) in pods {
                if !ended.contains(&name) {
                    account.missing.insert(name, missing);
                }
            }
            account.progress = Progress::Done;
        }
        let (after, found) = (account.missing.len(), found(&account.missing));
        self.change(&mut state, before, after);
        PodsState::Known(found)
    }

    /// What is expected of the pods of a `ServiceAccount`; `None` where nothing is.
    pub fn expected(&self, key: &Key) -> Option<Expected> {
        self.state().accounts.get(key).map(|account| account.expected.clone())
    }

    /// Takes in a pod that the watch has shown and that was compared with `expected`: `Some` where it runs without that. Returns how many
    /// did so before and do so now, where anything has changed. A pod that was compared with something else meanwhile is left out: what is
    /// expected now is listed.
    pub fn put(
        &self,
        key: &Key,
        expected: &Expected,
        name: &str,
        missing: Option<Missing>,
    ) -> Option<(usize, usize)> {
        let mut state = self.state();
        let account = state.accounts.get_mut(key).filter(|account| account.expected == *expected)?;
        let before = account.missing.len();
        let changed = if let Some(missing) = missing {
            account.missing.insert(name.to_owned(), missing.clone()) != Some(missing)
        } else {
            if let Progress::Listing(ended) = &mut account.progress {
                ended.insert(name.to_owned());
            }
            account.missing.remove(name).is_some()
        };
        let after = account.missing.len();
        self.change(&mut state, before, after);
        changed.then_some((before, after))
    }

    /// The watch begins a list. What is expected from now on is not compared with all of it.
    pub fn begin(&self) {
        self.state().lists += 1;
    }

    /// Takes out every pod that a whole list of the watch has not shown. Returns the `ServiceAccount`s with pods without identity, before
    /// or now, and those that have to be listed again: it is not known whether the watch has shown their pods.
    pub fn replace(&self, shown: &BTreeSet<(Key, String)>) -> Vec<Key> {
        let mut state = self.state();
        (state.synced, state.failure) = (true, None);
        let (mut concerned, mut total) = (Vec::new(), 0);
        let lists = state.lists;
        for (key, account) in &mut state.accounts {
            if account.since >= lists {
                account.progress = Progress::Listing(BTreeSet::new());
                concerned.push(key.clone());
            } else {
                if !account.missing.is_empty() {
                    concerned.push(key.clone());
                }
                account.missing.retain(|name, _| shown.contains(&(key.clone(), name.clone())));
                if account.progress == Progress::ByWatch {
                    account.progress = Progress::Done;
                }
            }
            total += account.missing.len();
        }
        let before = state.total;
        self.change(&mut state, before, total);
        concerned
    }

    /// Remembers why the watch fails, until its next list. Returns whether that is new.
    pub fn fail(&self, why: String) -> bool {
        let mut state = self.state();
        let is_new = state.failure.as_ref() != Some(&why);
        state.failure = Some(why);
        is_new
    }

    /// Forgets a `ServiceAccount` that no binding is on.
    pub fn forget(&self, key: &Key) {
        let mut state = self.state();
        let former = state.accounts.remove(key);
        self.change(&mut state, former.map_or(0, |former| former.missing.len()), 0);
    }

    /// Counts that of `before` pods `after` are left.
    fn change(&self, state: &mut State, before: usize, after: usize) {
        state.total = state.total + after - before;
        self.metrics.missing_pods(state.total);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn found(missing: &BTreeMap<String, Missing>) -> Found {
    let named = missing.iter().take(NAMED).map(|(name, missing)| (name.clone(), missing.prevented.clone()));
    let restartable = missing.values().filter(|missing| missing.restart_helps);
    let workloads: BTreeSet<_> = restartable.filter_map(|missing| missing.workload.as_ref()).collect();
    Found {
        count: missing.len(),
        named: named.collect(),
        workloads: workloads.into_iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Missing {
        Missing { prevented: None, restart_helps: true, workload: None }
    }

    fn count(asked: Asked) -> Option<usize> {
        match asked {
            Asked::Answer(PodsState::Known(found)) => Some(found.count),
            Asked::Answer(_) | Asked::List => None,
        }
    }

    #[test]
    fn what_is_expected_while_the_watch_lists_is_listed_again() {
        let (store, key) = (Store::new(Arc::default()), ("n".to_owned(), "app".to_owned()));
        let expected = Expected { role_arn: "arn".into(), audience: "sts".into() };
        store.begin();
        // The watch has passed over the pod: nothing was expected of it.
        assert_eq!(store.ask(&key, &expected), Asked::List);
        let listed = store.listed(&key, &expected, vec![("web-1".into(), missing())]);
        assert_eq!(count(Asked::Answer(listed)), Some(1));
        assert_eq!(store.replace(&BTreeSet::new()), std::slice::from_ref(&key));
        assert_eq!(store.ask(&key, &expected), Asked::List);
        store.listed(&key, &expected, vec![("web-1".into(), missing())]);
        // The next list has all pods.
        store.begin();
        let shown = BTreeSet::from([(key.clone(), "web-1".to_owned())]);
        assert_eq!(store.replace(&shown), std::slice::from_ref(&key));
        assert_eq!(count(store.ask(&key, &expected)), Some(1));
        store.begin();
        store.replace(&BTreeSet::new());
        assert_eq!(count(store.ask(&key, &expected)), Some(0));
    }

    #[test]
    fn a_pod_that_ends_or_is_compared_with_something_else_while_its_account_is_listed_is_left_out() {
        let metrics = Arc::<Metrics>::default();
        let (store, key) = (Store::new(metrics.clone()), ("n".to_owned(), "app".to_owned()));
        let expected = |role: &str| Expected { role_arn: role.into(), audience: "sts".into() };
        store.ask(&key, &expected("a"));
        assert_eq!(store.put(&key, &expected("a"), "old", None), None, "it has ended");
        let listed = ["old", "new"].map(|name| (name.to_owned(), missing()));
        let found = store.listed(&key, &expected("a"), listed.into());
        assert_eq!(count(Asked::Answer(found)), Some(1));
        assert!(metrics.text().contains("pods_without_identity 1"));
        assert_eq!(store.ask(&key, &expected("b")), Asked::List, "something else is expected");
        assert_eq!(store.put(&key, &expected("a"), "late", Some(missing())), None);
        assert_eq!(store.put(&key, &expected("b"), "web", Some(missing())), Some((0, 1)));
        store.listed(&key, &expected("b"), Vec::new());
        assert_eq!(count(store.ask(&key, &expected("b"))), Some(1));
        store.forget(&key);
        assert!(metrics.text().contains("pods_without_identity 0"));
    }
}
