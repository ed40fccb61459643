//! How many passes run at once, and which one is next: the namespaces with waiting passes take turns, so that a thousand bindings of one
//! tenant do not delay the one binding of another. Within a namespace three of four turns are for passes that go on with something: of a
//! thousand bindings the first ones are Ready before the last ones are begun. Controllers are not limited themselves: a pass that waits
//! here has not begun, and takes a few hundred bytes.
//!
//! Not a crate: tokio's semaphore gives permits in the order of the callers, whoever they are for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Gives turns. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: HashMap<String, Waiting>,
    /// Namespaces with waiting passes; the first one is next.
    order: VecDeque<String>,
}

/// The waiting passes of a namespace, oldest first.
#[derive(Debug, Default)]
struct Waiting {
    begun: VecDeque<oneshot::Sender<Turn>>,
    others: VecDeque<oneshot::Sender<Turn>>,
    /// How many turns in a row were those of `begun`.
    in_a_row: u8,
}

impl Waiting {
    /// The next one that still waits. Those that wait no more do not count as a turn of their namespace. At most three
    /// turns in a row are of `begun`: an object that every pass changes must not delay the others for ever.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        const MOST_IN_A_ROW: u8 = 3;
        let oldest = |queue: &mut VecDeque<oneshot::Sender<Turn>>| {
            std::iter::from_fn(|| queue.pop_front()).find(|sender| !sender.is_closed())
        };
        let of_begun = if self.in_a_row < MOST_IN_A_ROW { oldest(&mut self.begun) } else { None };
        if of_begun.is_some() {
            self.in_a_row += 1;
            return of_begun;
        }
        self.in_a_row = 0;
        oldest(&mut self.others).or_else(|| oldest(&mut self.begun))
    }
}

/// The permit to run; it ends when it is dropped.
#[derive(Debug)]
pub struct Turn(Option<Turns>);

impl Turns {
    /// So many at once.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        let state = State { free: at_once, waiting: HashMap::new(), order: VecDeque::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Waits for a turn of a namespace. `begun`: an earlier pass over the same object has changed something and was not the last one.
    pub async fn turn(&self, namespace: &str, begun: bool) -> Turn {
        let next = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Turn(Some(self.clone()));
            }
            let (sender, next) = oneshot::channel();
            let waiting = state.waiting.entry(namespace.to_owned()).or_default();
            let is_first = waiting.begun.is_empty() && waiting.others.is_empty();
            if begun { &mut waiting.begun } else { &mut waiting.others }.push_back(sender);
            if is_first {
                state.order.push_back(namespace.to_owned());
            }
            next
        };
        // Turns are given as long as somebody has one, and whoever waits keeps this alive.
        next.await.unwrap_or(Turn(None))
    }

    /// Gives a turn that has ended to the namespace that is next.
    fn pass_on(&self) {
        loop {
            let mut state = self.state();
            let Some(namespace) = state.order.pop_front() else {
                state.free += 1;
                return;
            };
            let Some(waiting) = state.waiting.get_mut(&namespace) else { continue };
            let next = waiting.next();
            if waiting.begun.is_empty() && waiting.others.is_empty() {
                state.waiting.remove(&namespace);
            } else {
                state.order.push_back(namespace);
            }
            drop(state);
            // One that does not wait any more gives it back; not by being dropped, which would come here again.
            match next.map(|next| next.send(Turn(Some(self.clone())))) {
                Some(Ok(())) => return,
                Some(Err(mut turn)) => turn.0 = None,
                None => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn namespaces_take_turns_and_one_that_waits_no_more_loses_none() {
        let turns = Turns::new(1);
        let mut current = turns.turn("a", false).now_or_never();
        let begun = [("c", true), ("a", true), ("a", true)];
        let mut waiting: Vec<_> = ["a", "a", "a", "b", "c", "b"]
            .map(|namespace| (namespace, false))
            .into_iter()
            .chain(begun)
            .map(|(namespace, begun)| ((namespace, begun), Box::pin(turns.turn(namespace, begun))))
            .collect();
        for (_, turn) in &mut waiting {
            assert!(turn.as_mut().now_or_never().is_none());
        }
        // The second of `a` is dropped while it waits.
        drop(waiting.remove(1));
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(current.take());
            let ready = waiting.iter_mut().position(|(_, turn)| {
                current = turn.as_mut().now_or_never();
                current.is_some()
            });
            order.push(waiting.remove(ready.unwrap()).0);
        }
        let [a, b, c] = ["a", "b", "c"].map(|namespace| (namespace, false));
        assert_eq!(order, [begun[1], b, begun[0], begun[2], b, c, a, a]);
        drop(current);
        assert_eq!(turns.state().free, 1);
        assert!(turns.state().waiting.is_empty());
    }

    #[test]
    fn what_is_never_finished_does_not_stop_the_others() {
        let turns = Turns::new(1);
        let mut current = turns.turn("a", false).now_or_never();
        let mut other = Box::pin(turns.turn("a", false));
        assert!(other.as_mut().now_or_never().is_none());
        let mut begun: Vec<_> = (0..9).map(|_| Box::pin(turns.turn("a", true))).collect();
        assert!(begun.iter_mut().all(|turn| turn.as_mut().now_or_never().is_none()));
        for turn in &mut begun[..3] {
            drop(current.take());
            current = turn.as_mut().now_or_never();
            assert!(current.is_some());
        }
        drop(current.take());
        assert!(other.as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_turn_that_was_given_and_not_taken_goes_on() {
        let turns = Turns::new(1);
        let current = turns.turn("a", false).now_or_never();
        let mut given = Box::pin(turns.turn("a", false));
        assert!(given.as_mut().now_or_never().is_none());
        let mut next = Box::pin(turns.turn("b", false));
        assert!(next.as_mut().now_or_never().is_none());
        drop(current);
        drop(given);
        assert!(next.as_mut().now_or_never().is_some());
    }
}
