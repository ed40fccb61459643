//! How many passes run at once, and which one is next: the namespaces with waiting objects take turns, so that a thousand bindings of one
//! tenant do not delay the one binding of another. Within a namespace three of four turns are for objects that go on with something: of a
//! thousand bindings the first ones are Ready before the last ones are begun.
//!
//! A reconcile without a turn ends at once, and its object is woken when its turn comes. If the reconcile waited instead, kube's controller
//! would poll it whenever any other one continues, and its CPU time would grow with the number of waiting objects.
//!
//! Not a crate: tokio's semaphore gives permits in the order of the callers, whoever they are for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An object: namespace (empty for cluster-scoped ones) and name.
pub type Key = (String, String);

/// Gives turns.
pub struct Turns {
    state: Mutex<State>,
    /// Makes the controller reconcile an object.
    wake: Box<dyn Fn(&Key) + Send + Sync>,
}

#[derive(Debug)]
struct State {
    /// None while any object waits.
    free: usize,
    /// Objects that are woken, and whose reconcile has not begun.
    given: HashSet<Key>,
    waiting: HashMap<String, Waiting>,
    /// Namespaces with waiting objects; the first one is next.
    order: VecDeque<String>,
}

/// The waiting objects of a namespace.
#[derive(Debug, Default)]
struct Waiting {
    names: HashSet<String>,
    /// Oldest first.
    begun: VecDeque<String>,
    others: VecDeque<String>,
    /// How many turns in a row were those of `begun`.
    in_a_row: u8,
}

impl Waiting {
    /// The next one. At most three turns in a row are of `begun`: an object that every pass changes must not delay the others for ever.
    fn next(&mut self) -> Option<String> {
        const MOST_IN_A_ROW: u8 = 3;
        let of_begun = if self.in_a_row < MOST_IN_A_ROW { self.begun.pop_front() } else { None };
        self.in_a_row = if of_begun.is_some() { self.in_a_row + 1 } else { 0 };
        let next = of_begun.or_else(|| self.others.pop_front()).or_else(|| self.begun.pop_front())?;
        self.names.remove(&next);
        Some(next)
    }
}

/// The permit to run; it ends when it is dropped.
#[derive(Debug)]
pub struct Turn(Arc<Turns>);

impl Turns {
    /// So many at once.
    #[must_use]
    pub fn new(at_once: usize, wake: impl Fn(&Key) + Send + Sync + 'static) -> Self {
        let state =
            State { free: at_once, given: HashSet::new(), waiting: HashMap::new(), order: VecDeque::new() };
        Self { state: Mutex::new(state), wake: Box::new(wake) }
    }

    /// The object's turn; `None` where others are before it: then it is woken when it is next. `begun`: an earlier pass over it has changed
    /// something and was not the last one.
    pub fn take(self: &Arc<Self>, object: &Key, begun: bool) -> Option<Turn> {
        let mut state = self.state();
        if state.given.remove(object) {
            return Some(Turn(Arc::clone(self)));
        }
        if state.free > 0 {
            state.free -= 1;
            return Some(Turn(Arc::clone(self)));
        }
        let (namespace, name) = object;
        let state = &mut *state;
        let waiting = state.waiting.entry(namespace.clone()).or_insert_with(|| {
            state.order.push_back(namespace.clone());
            Waiting::default()
        });
        if waiting.names.insert(name.clone()) {
            if begun { &mut waiting.begun } else { &mut waiting.others }.push_back(name.clone());
        }
        None
    }

    /// No object of that name exists, so no reconcile of it begins. If it has been given a turn, the next object gets that turn.
    pub fn forget(&self, object: &Key) {
        let was_given = self.state().given.remove(object);
        if was_given {
            self.pass_on();
        }
    }

    /// Gives a turn that has ended to the object that is next.
    fn pass_on(&self) {
        if let Some(next) = self.state().next() {
            (self.wake)(&next);
        }
    }

    /// Every change is complete before anything can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<Key> {
        while let Some(namespace) = self.order.pop_front() {
            let Some(waiting) = self.waiting.get_mut(&namespace) else { continue };
            let next = waiting.next();
            if waiting.names.is_empty() {
                self.waiting.remove(&namespace);
            } else {
                self.order.push_back(namespace.clone());
            }
            if let Some(name) = next {
                let next = (namespace, name);
                self.given.insert(next.clone());
                return Some(next);
            }
        }
        self.free += 1;
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}

impl Debug for Turns {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Turns").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn turns() -> (Arc<Turns>, Receiver<Key>) {
        let (woken, next) = channel();
        (Arc::new(Turns::new(1, move |key| woken.send(key.clone()).unwrap())), next)
    }

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    #[test]
    fn namespaces_take_turns_and_each_object_waits_once() {
        let (turns, woken) = turns();
        let mut current = turns.take(&key("a", "first"), false);
        assert!(current.is_some());
        let others =
            [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1"), ("b", "2")].map(|object| (object, false));
        let begun = [("c", "2"), ("a", "3"), ("a", "4")].map(|object| (object, true));
        // The third round: an object that is woken while it waits keeps its place.
        for ((namespace, name), begun) in others.iter().chain(&begun).chain(&others) {
            assert!(turns.take(&key(namespace, name), *begun).is_none());
        }
        let mut order = Vec::new();
        while let Some(turn) = current.take() {
            drop(turn);
            let Ok(next) = woken.try_recv() else { break };
            assert!(woken.try_recv().is_err(), "one at a time");
            current = turns.take(&next, false);
            order.push(next);
        }
        let expected =
            [("a", "3"), ("b", "1"), ("c", "2"), ("a", "4"), ("b", "2"), ("c", "1"), ("a", "1"), ("a", "2")];
        assert_eq!(order, expected.map(|(namespace, name)| key(namespace, name)));
        let state = turns.state();
        assert_eq!((state.free, state.given.len(), state.waiting.len(), state.order.len()), (1, 0, 0, 0));
    }

    #[test]
    fn what_is_never_finished_does_not_stop_the_others() {
        let (turns, woken) = turns();
        let mut current = turns.take(&key("a", "0"), false);
        turns.take(&key("a", "other"), false);
        for name in 1..9 {
            turns.take(&key("a", &name.to_string()), true);
        }
        let mut before_other = 0;
        loop {
            drop(current.take());
            let next = woken.try_recv().unwrap();
            if next.1 == "other" {
                break;
            }
            before_other += 1;
            current = turns.take(&next, true);
        }
        assert_eq!(before_other, 3);
    }

    #[test]
    fn the_turn_of_an_object_that_does_not_exist_any_more_goes_on() {
        let (turns, woken) = turns();
        let current = turns.take(&key("a", "0"), false);
        for name in ["ended", "next", "last"] {
            assert!(turns.take(&key("a", name), false).is_none());
        }
        drop(current);
        assert_eq!(woken.try_recv(), Ok(key("a", "ended")));
        // It is given to another object: one that comes now waits.
        assert!(turns.take(&key("a", "new"), false).is_none());
        turns.forget(&key("a", "last")); // it waits: its turn comes
        turns.forget(&key("a", "ended"));
        assert_eq!(woken.try_recv(), Ok(key("a", "next")));
        turns.forget(&key("a", "next"));
        assert_eq!(woken.try_recv(), Ok(key("a", "last")));
        drop(turns.take(&key("a", "last"), false));
        assert_eq!(woken.try_recv(), Ok(key("a", "new")));
        drop(turns.take(&key("a", "new"), false));
        assert_eq!(turns.state().free, 1);
    }
}
