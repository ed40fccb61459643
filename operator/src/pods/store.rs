//! Which pods of which `ServiceAccount`s run without their identity. Of a `ServiceAccount` with a binding, what its pods should have is
//! kept; of its pods, only those that do not have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::model::{Expected, Found, Key, Missing, NAMED, PodsState, WORKLOADS};

/// The pods. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Store(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    accounts: HashMap<Key, Account>,
    /// Whether the watch has shown all pods once.
    synced: bool,
    /// Why the watch has shown none.
    failure: Option<String>,
}

#[derive(Debug)]
struct Account {
    expected: Expected,
    missing: BTreeMap<String, Missing>,
    progress: Progress,
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
    /// Says what is expected of the pods of a `ServiceAccount` before the watch begins: its first list is compared with that.
    pub fn expect(&self, key: Key, expected: Expected) {
        let account = Account { expected, missing: BTreeMap::new(), progress: Progress::ByWatch };
        self.state().accounts.entry(key).or_insert(account);
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
        let account = Account { expected: expected.clone(), missing: BTreeMap::new(), progress };
        state.accounts.insert(key.clone(), account);
        Asked::List
    }

    /// Takes in a list of pods, made after [`Self::ask`]: a pod that the watch has shown since then is newer than the list.
    pub fn listed(&self, key: &Key, expected: &Expected, pods: Vec<(String, Missing)>) -> PodsState {
        let mut state = self.state();
        let Some(account) = state.accounts.get_mut(key).filter(|account| account.expected == *expected)
        else {
            return PodsState::NotKnown;
        };
        if let Progress::Listing(ended) = &account.progress {
            for (name, missing) in pods {
                if !ended.contains(&name) {
                    account.missing.insert(name, missing);
                }
            }
            account.progress = Progress::Done;
        }
        PodsState::Known(found(&account.missing))
    }

    /// What is expected of the pods of a `ServiceAccount`; `None` where nothing is.
    pub fn expected(&self, key: &Key) -> Option<Expected> {
        self.state().accounts.get(key).map(|account| account.expected.clone())
    }

    /// Takes in a pod that the watch has shown: `Some` where it runs without its identity. Returns how many did so before and do so
    /// now, where anything has changed.
    pub fn put(&self, key: &Key, name: &str, missing: Option<Missing>) -> Option<(usize, usize)> {
        let mut state = self.state();
        let account = state.accounts.get_mut(key)?;
        let before = account.missing.len();
        let changed = if let Some(missing) = missing {
            account.missing.insert(name.to_owned(), missing.clone()) != Some(missing)
        } else {
            if let Progress::Listing(ended) = &mut account.progress {
                ended.insert(name.to_owned());
            }
            account.missing.remove(name).is_some()
        };
        changed.then_some((before, account.missing.len()))
    }

    /// Takes out every pod that a whole list of the watch has not shown. Returns the `ServiceAccount`s with pods without identity, before
    /// or now.
    pub fn replace(&self, shown: &BTreeSet<(Key, String)>) -> Vec<Key> {
        let mut state = self.state();
        (state.synced, state.failure) = (true, None);
        let mut concerned = Vec::new();
        for (key, account) in &mut state.accounts {
            if !account.missing.is_empty() {
                concerned.push(key.clone());
            }
            account.missing.retain(|name, _| shown.contains(&(key.clone(), name.clone())));
            if account.progress == Progress::ByWatch {
                account.progress = Progress::Done;
            }
        }
        concerned
    }

    /// Remembers why the watch has shown no pods. Returns whether that is new.
    pub fn fail(&self, why: String) -> bool {
        let mut state = self.state();
        let is_new = !state.synced && state.failure.as_ref() != Some(&why);
        state.failure = Some(why);
        is_new
    }

    /// Forgets a `ServiceAccount` that no binding is on.
    pub fn forget(&self, key: &Key) {
        self.state().accounts.remove(key);
    }

    /// How many pods run without their identity.
    pub fn count(&self) -> usize {
        self.state().accounts.values().map(|account| account.missing.len()).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn found(missing: &BTreeMap<String, Missing>) -> Found {
    let named = missing.iter().take(NAMED).map(|(name, missing)| (name.clone(), missing.prevented.clone()));
    let restartable = missing.values().filter(|missing| missing.restart_helps);
    let workloads: BTreeSet<_> = restartable.filter_map(|missing| missing.workload.as_ref()).collect();
    let workloads = workloads.into_iter().take(WORKLOADS).cloned().collect();
    Found { count: missing.len(), named: named.collect(), workloads }
}
