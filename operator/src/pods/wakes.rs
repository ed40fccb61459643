//! PURE: when a binding learns of a change of its pods: the first one without identity, and the end of the last one, at once; all else
//! after a while; and never more often than that.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::model::Key;

/// The wakes of the last while, and those that are due.
#[derive(Debug)]
pub struct Wakes {
    /// The least time between two wakes of one `ServiceAccount`'s bindings.
    period: Duration,
    woken: HashMap<Key, Instant>,
    due: HashMap<Key, Instant>,
}

impl Wakes {
    /// None.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Self { period, woken: HashMap::new(), due: HashMap::new() }
    }

    /// Takes in a change from `before` to `after` pods. Returns whether its bindings are woken now.
    pub fn changed(&mut self, key: &Key, (before, after): (usize, usize), now: Instant) -> bool {
        let last = self.woken.get(key).filter(|at| now.duration_since(**at) < self.period);
        let is_urgent = (before == 0) != (after == 0);
        if is_urgent && last.is_none() {
            self.due.remove(key);
            self.woken.insert(key.clone(), now);
            return true;
        }
        self.due.entry(key.clone()).or_insert(*last.unwrap_or(&now) + self.period);
        false
    }

    /// When the next wake is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// The wakes that are due.
    pub fn take(&mut self, now: Instant) -> Vec<Key> {
        let taken: Vec<Key> = self.due.extract_if(|_, at| *at <= now).map(|(key, _)| key).collect();
        self.woken.retain(|_, at| now.duration_since(*at) < self.period);
        self.woken.extend(taken.iter().map(|key| (key.clone(), now)));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_end_of_the_last_are_urgent_and_no_wake_follows_another_within_the_period() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (mut wakes, key) = (Wakes::new(Duration::from_secs(30)), ("n".to_owned(), "app".to_owned()));
        assert!(wakes.changed(&key, (0, 1), at(0)), "the first");
        assert!(!wakes.changed(&key, (1, 2), at(1)));
        assert!(!wakes.changed(&key, (1, 0), at(2)), "too early");
        assert_eq!((wakes.next(), wakes.take(at(29))), (Some(at(30)), vec![]));
        assert_eq!(wakes.take(at(30)), std::slice::from_ref(&key), "one wake for both");
        assert_eq!(wakes.next(), None);
        assert!(!wakes.changed(&key, (0, 1), at(59)), "too early after that one");
        assert_eq!((wakes.next(), wakes.take(at(60))), (Some(at(60)), vec![key.clone()]));
        assert!(!wakes.changed(&key, (3, 2), at(200)), "not urgent");
        assert_eq!((wakes.take(at(229)), wakes.take(at(230))), (vec![], vec![key.clone()]));
        assert!(!wakes.changed(&key, (2, 1), at(290)), "not urgent");
        assert!(wakes.changed(&key, (1, 0), at(300)), "the end of the last");
        assert_eq!(wakes.next(), None, "that said both");
        wakes.take(at(400));
        assert!(wakes.woken.is_empty(), "what is old is forgotten");
    }
}
