//! Room for a limited crowd: connections, or bytes of reviews that are still arriving. When it is full, a newcomer does not
//! wait: whoever has been of least use goes, the oldest of them first, and who is being served only when nobody else is
//! left. So nobody can keep others out by sitting there, and the API server's connections, which bring reviews all the
//! time, outlive any number that bring none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The room.
#[derive(Debug)]
pub struct Crowd {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// Counts arrivals and uses: which of two was later.
    clock: u64,
    seats: HashMap<u64, Seat>,
    evicted: u64,
}

#[derive(Debug)]
struct Seat {
    weight: usize,
    /// When it was last of use; 0 for never.
    useful: u64,
    /// How much of what it brought is being worked on.
    working: u32,
    gone: CancellationToken,
}

/// One of the crowd; leaves when dropped.
#[derive(Debug)]
pub struct Guest {
    crowd: Arc<Crowd>,
    seat: u64,
    gone: CancellationToken,
}

impl Crowd {
    /// Room for guests of so much weight together.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, state: Mutex::default() })
    }

    /// Lets somebody in; others may have to go.
    #[must_use]
    pub fn enter(self: &Arc<Self>, weight: usize) -> Guest {
        let gone = CancellationToken::new();
        let mut state = self.state();
        state.clock += 1;
        let seat = state.clock;
        state.seats.insert(seat, Seat { weight: 0, useful: 0, working: 0, gone: gone.clone() });
        state.grow(self.capacity, seat, weight);
        drop(state);
        Guest { crowd: Arc::clone(self), seat, gone }
    }

    /// How many there are, and how many were sent away so far.
    #[must_use]
    pub fn count(&self) -> (usize, u64) {
        let state = self.state();
        (state.seats.len(), state.evicted)
    }

    /// The weight of all who are in.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.state().taken
    }

    /// Nothing is half-done where this could panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn grow(&mut self, capacity: usize, seat: u64, weight: usize) -> bool {
        let Some(grown) = self.seats.get_mut(&seat) else { return false };
        grown.weight += weight;
        self.taken += weight;
        while self.taken > capacity {
            let others = self.seats.iter().filter(|(other, _)| **other != seat);
            let Some(least) =
                others.min_by_key(|(other, s)| (s.working > 0, s.useful, **other)).map(|(other, _)| *other)
            else {
                self.send_away(seat);
                return false;
            };
            self.send_away(least);
        }
        true
    }

    fn send_away(&mut self, seat: u64) {
        if let Some(seat) = self.seats.remove(&seat) {
            self.taken -= seat.weight;
            self.evicted += 1;
            seat.gone.cancel();
        }
    }
}

impl Guest {
    /// Takes more room; `false` where it had to go, or does not fit even alone.
    #[must_use]
    pub fn grow(&self, weight: usize) -> bool {
        self.crowd.state().grow(self.crowd.capacity, self.seat, weight)
    }

    /// Notes that it was of use just now.
    pub fn useful(&self) {
        let mut state = self.crowd.state();
        state.clock += 1;
        let now = state.clock;
        if let Some(seat) = state.seats.get_mut(&self.seat) {
            seat.useful = now;
        }
    }

    /// It is being served until what is returned is dropped.
    #[must_use]
    pub fn work(self: &Arc<Self>) -> Work {
        self.working(1);
        Work(Arc::clone(self))
    }

    fn working(&self, more: i32) {
        if let Some(seat) = self.crowd.state().seats.get_mut(&self.seat) {
            seat.working = seat.working.saturating_add_signed(more);
        }
    }

    /// Cancelled once it has to go.
    #[must_use]
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }
}

/// Something that is done for a guest.
#[derive(Debug)]
pub struct Work(Arc<Guest>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.working(-1);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        if let Some(seat) = state.seats.remove(&self.seat) {
            state.taken -= seat.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away(guest: &Guest) -> bool {
        guest.gone().is_cancelled()
    }

    #[test]
    fn who_was_never_of_use_goes_first_and_the_oldest_of_them() {
        let crowd = Crowd::new(3);
        let [proven, first, second] = [(); 3].map(|()| crowd.enter(1));
        proven.useful();
        let third = crowd.enter(1);
        assert_eq!([&proven, &first, &second, &third].map(away), [false, true, false, false]);
        let fourth = crowd.enter(1);
        assert_eq!([&proven, &second, &third, &fourth].map(away), [false, true, false, false]);
        assert_eq!(crowd.count(), (3, 2));
        // Of those that were of use, the one whose use is longest ago.
        third.useful();
        fourth.useful();
        proven.useful();
        let fifth = crowd.enter(1);
        assert_eq!([&proven, &third, &fourth, &fifth].map(away), [false, true, false, false]);
    }

    #[test]
    fn who_is_being_served_goes_last() {
        let crowd = Crowd::new(2);
        let (served, proven) = (Arc::new(crowd.enter(1)), crowd.enter(1));
        let work = served.work();
        proven.useful();
        let third = crowd.enter(1);
        assert_eq!([&served, &proven, &third].map(away), [false, true, false]);
        drop(work);
        let fourth = crowd.enter(1);
        assert_eq!([&served, &third, &fourth].map(away), [true, false, false]);
    }

    #[test]
    fn who_leaves_makes_room() {
        let crowd = Crowd::new(2);
        let (one, two) = (crowd.enter(1), crowd.enter(1));
        drop(one);
        let three = crowd.enter(1);
        assert_eq!([&two, &three].map(away), [false, false]);
        drop((two, three));
        assert_eq!(crowd.count(), (0, 0));
    }

    #[test]
    fn weight_counts_and_nobody_outgrows_the_room() {
        let crowd = Crowd::new(10);
        let (slow, large) = (crowd.enter(4), crowd.enter(0));
        assert!(large.grow(6) && !away(&slow));
        assert!(large.grow(1) && away(&slow), "the other goes");
        assert!(!slow.grow(1), "who is gone gets nothing");
        assert!(!large.grow(4) && away(&large), "it does not fit alone");
        assert!(!away(&crowd.enter(10)));
    }
}
