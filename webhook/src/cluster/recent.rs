//! Pods that were admitted without an identity a moment ago. When their `ServiceAccount` gets one, each of them is counted
//! and logged, so that no pod lacks its identity without notice.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a pod is remembered. An identity that comes later is simply newer than the pod.
const REMEMBERED: Duration = Duration::from_mins(1);
/// The most pods remembered: at a thousand pods a second, those of the last seconds.
const MAX_PODS: usize = 4096;

/// A pod that was admitted without an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodWithoutIdentity {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its `ServiceAccount`.
    pub service_account: Box<str>,
    /// Its name, or the prefix of it.
    pub pod: Box<str>,
    /// When it was admitted.
    pub admitted: Instant,
}

/// The pods, oldest first.
#[derive(Debug, Default)]
pub struct RecentPods(Mutex<VecDeque<PodWithoutIdentity>>);

impl RecentPods {
    /// Remembers a pod.
    pub fn remember(&self, pod: PodWithoutIdentity) {
        let mut pods = self.pods();
        while pods.len() >= MAX_PODS
            || pods.front().is_some_and(|oldest| pod.admitted - oldest.admitted > REMEMBERED)
        {
            pods.pop_front();
        }
        pods.push_back(pod);
    }

    /// Removes and returns the pods of a `ServiceAccount`.
    #[must_use]
    pub fn take(&self, namespace: &str, service_account: &str, now: Instant) -> Vec<PodWithoutIdentity> {
        let matches = |pod: &PodWithoutIdentity| {
            *pod.namespace == *namespace && *pod.service_account == *service_account
        };
        let mut pods = self.pods();
        if !pods.iter().any(matches) {
            return Vec::new();
        }
        let (found, others) = pods.drain(..).partition(matches);
        *pods = others;
        let found: VecDeque<PodWithoutIdentity> = found;
        found.into_iter().filter(|pod| now.saturating_duration_since(pod.admitted) <= REMEMBERED).collect()
    }

    /// The `ServiceAccount`s of all remembered pods, with their namespaces.
    #[must_use]
    pub fn service_accounts(&self) -> BTreeSet<(Box<str>, Box<str>)> {
        self.pods().iter().map(|pod| (pod.namespace.clone(), pod.service_account.clone())).collect()
    }

    fn pods(&self) -> MutexGuard<'_, VecDeque<PodWithoutIdentity>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(service_account: &str, pod: &str, admitted: Instant) -> PodWithoutIdentity {
        PodWithoutIdentity {
            namespace: "a".into(),
            service_account: service_account.into(),
            pod: pod.into(),
            admitted,
        }
    }

    #[test]
    fn a_pod_is_taken_once_by_its_service_account_and_only_for_a_while() {
        let (recent, begin) = (RecentPods::default(), Instant::now());
        recent.remember(pod("s", "old", begin));
        let later = begin + REMEMBERED + Duration::from_secs(1);
        recent.remember(pod("s", "one", later));
        recent.remember(pod("t", "other", later));
        recent.remember(pod("s", "two", later));
        let names = |service_account| -> Vec<String> {
            recent.take("a", service_account, later).iter().map(|pod| pod.pod.to_string()).collect()
        };
        let expected = [("a".into(), "s".into()), ("a".into(), "t".into())];
        assert_eq!(recent.service_accounts(), expected.into());
        assert_eq!(names("s"), ["one", "two"]);
        assert!(names("s").is_empty());
        assert_eq!(names("t"), ["other"]);
        recent.remember(pod("s", "long ago", begin));
        assert!(names("s").is_empty());
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let (recent, now) = (RecentPods::default(), Instant::now());
        for number in 0..=MAX_PODS {
            recent.remember(pod("s", &number.to_string(), now));
        }
        let found = recent.take("a", "s", now);
        assert_eq!((found.len(), &*found[0].pod), (MAX_PODS, "1"));
    }
}
