//! Pods that were admitted without an identity a moment ago. If their `ServiceAccount` gets one now, they were too early:
//! each is counted and named in the log, so that no pod goes without an identity unseen.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a pod is remembered. Later it is simply older than its identity.
const REMEMBERED: Duration = Duration::from_mins(1);
/// The most that are remembered: at a thousand pods a second, those of the last seconds.
const MOST: usize = 4096;

/// A pod that has no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Early {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its `ServiceAccount`.
    pub account: Box<str>,
    /// Its name, or what its name begins with.
    pub pod: Box<str>,
    /// When it was admitted.
    pub at: Instant,
}

/// The pods, oldest first.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Early>>);

impl Recent {
    /// Remembers a pod.
    pub fn note(&self, early: Early) {
        let mut pods = self.pods();
        while pods.len() >= MOST || pods.front().is_some_and(|oldest| early.at - oldest.at > REMEMBERED) {
            pods.pop_front();
        }
        pods.push_back(early);
    }

    /// Takes out the pods of a `ServiceAccount` that has an identity now.
    #[must_use]
    pub fn of(&self, namespace: &str, account: &str, now: Instant) -> Vec<Early> {
        let theirs = |early: &Early| *early.namespace == *namespace && *early.account == *account;
        let mut pods = self.pods();
        if !pods.iter().any(theirs) {
            return Vec::new();
        }
        let (found, others) = pods.drain(..).partition(theirs);
        *pods = others;
        let found: VecDeque<Early> = found;
        found.into_iter().filter(|early| now.saturating_duration_since(early.at) <= REMEMBERED).collect()
    }

    /// Whose pods are remembered: namespaces and `ServiceAccount`s.
    #[must_use]
    pub fn accounts(&self) -> BTreeSet<(Box<str>, Box<str>)> {
        self.pods().iter().map(|early| (early.namespace.clone(), early.account.clone())).collect()
    }

    fn pods(&self) -> MutexGuard<'_, VecDeque<Early>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn early(account: &str, pod: &str, at: Instant) -> Early {
        Early { namespace: "a".into(), account: account.into(), pod: pod.into(), at }
    }

    #[test]
    fn a_pod_is_found_once_by_its_account_and_not_for_ever() {
        let (recent, begin) = (Recent::default(), Instant::now());
        recent.note(early("s", "old", begin));
        let later = begin + REMEMBERED + Duration::from_secs(1);
        recent.note(early("s", "one", later));
        recent.note(early("t", "other", later));
        recent.note(early("s", "two", later));
        let names = |account| -> Vec<String> {
            recent.of("a", account, later).iter().map(|early| early.pod.to_string()).collect()
        };
        let whose = [("a".into(), "s".into()), ("a".into(), "t".into())];
        assert_eq!(recent.accounts(), whose.into());
        assert_eq!(names("s"), ["one", "two"]);
        assert!(names("s").is_empty());
        assert_eq!(names("t"), ["other"]);
        recent.note(early("s", "long ago", begin));
        assert!(names("s").is_empty());
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let (recent, now) = (Recent::default(), Instant::now());
        for number in 0..=MOST {
            recent.note(early("s", &number.to_string(), now));
        }
        let found = recent.of("a", "s", now);
        assert_eq!((found.len(), &*found[0].pod), (MOST, "1"));
    }
}
