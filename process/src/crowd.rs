//! Room for a limited crowd: connections, or bytes of reviews that are still arriving. When it is full, a newcomer does not
//! wait: whoever matters least goes. So nobody can keep others out by sitting there, and the API server's
//! connections, which bring reviews all the time, outlive any number that bring none; a new one of them, too, since its
//! address is known for what it brought before.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Addresses that were of use and have nobody here now; an API server's are few.
const REMEMBERED: usize = 64;

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
    peers: HashMap<IpAddr, Peer>,
    evicted: u64,
}

#[derive(Debug)]
struct Seat {
    weight: usize,
    /// Whether it has said anything yet.
    spoke: bool,
    /// When it was last of use; 0 for never.
    useful: u64,
    /// How much of what it brought is being worked on.
    working: u32,
    gone: CancellationToken,
}

/// All guests of one address.
#[derive(Debug, Default)]
struct Peer {
    seats: HashMap<u64, Seat>,
    weight: usize,
    /// When one of them was last of use; 0 for never.
    useful: u64,
}

/// Who goes first: the least. An address that takes more than its share; then who is not being served; whose address never
/// was of use; who never was, or whose use is longest ago; who has not even said anything; and of equals the oldest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::struct_excessive_bools, reason = "each is a rule of its own, compared in this order")]
struct Standing {
    modest: bool,
    served: bool,
    known: bool,
    useful: u64,
    spoke: bool,
    seat: u64,
}

/// One of the crowd; leaves when dropped.
#[derive(Debug)]
pub struct Guest {
    crowd: Arc<Crowd>,
    peer: IpAddr,
    seat: u64,
    gone: CancellationToken,
}

impl Crowd {
    /// Room for guests of so much weight together.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, state: Mutex::default() })
    }

    /// Lets somebody in who comes from that address; others may have to go.
    #[must_use]
    pub fn enter(self: &Arc<Self>, weight: usize, peer: IpAddr) -> Guest {
        let gone = CancellationToken::new();
        let mut state = self.state();
        let seat = state.tick();
        let seated = Seat { weight: 0, spoke: false, useful: 0, working: 0, gone: gone.clone() };
        state.peers.entry(peer).or_default().seats.insert(seat, seated);
        state.grow(self.capacity, peer, seat, weight);
        drop(state);
        Guest { crowd: Arc::clone(self), peer, seat, gone }
    }

    /// How many there are, and how many were sent away so far.
    #[must_use]
    pub fn count(&self) -> (usize, u64) {
        let state = self.state();
        (state.peers.values().map(|peer| peer.seats.len()).sum(), state.evicted)
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
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn seat(&mut self, peer: IpAddr, seat: u64) -> Option<&mut Seat> {
        self.peers.get_mut(&peer)?.seats.get_mut(&seat)
    }

    fn grow(&mut self, capacity: usize, peer: IpAddr, seat: u64, weight: usize) -> bool {
        let Some(all) = self.peers.get_mut(&peer) else { return false };
        let Some(grown) = all.seats.get_mut(&seat) else { return false };
        grown.weight += weight;
        all.weight += weight;
        self.taken += weight;
        while self.taken > capacity {
            let Some((peer, least)) = self.least(capacity, seat) else {
                self.send_away(peer, seat);
                return false;
            };
            self.send_away(peer, least);
        }
        true
    }

    /// Who goes for `newcomer`; `None` where there is nobody else.
    fn least(&self, capacity: usize, newcomer: u64) -> Option<(IpAddr, u64)> {
        let present = self.peers.values().filter(|peer| !peer.seats.is_empty()).count();
        let share = (capacity / present.max(1)).max(1);
        let of_peer = |(address, peer): (&IpAddr, &Peer)| {
            let (modest, known) = (peer.weight <= share, peer.useful > 0);
            let standing = |(&seat, s): (&u64, &Seat)| Standing {
                modest,
                served: s.working > 0,
                known,
                useful: s.useful,
                spoke: s.spoke,
                seat,
            };
            let others = peer.seats.iter().filter(|(seat, _)| **seat != newcomer);
            others.map(standing).min().map(|least| (least, *address))
        };
        self.peers.iter().filter_map(of_peer).min().map(|(least, address)| (address, least.seat))
    }

    fn send_away(&mut self, peer: IpAddr, seat: u64) {
        if let Some(seat) = self.leave(peer, seat) {
            self.evicted += 1;
            seat.gone.cancel();
        }
    }

    fn leave(&mut self, address: IpAddr, seat: u64) -> Option<Seat> {
        let peer = self.peers.get_mut(&address)?;
        let seat = peer.seats.remove(&seat)?;
        peer.weight -= seat.weight;
        self.taken -= seat.weight;
        if peer.seats.is_empty() {
            if peer.useful == 0 {
                self.peers.remove(&address);
            } else {
                self.forget();
            }
        }
        Some(seat)
    }

    /// Of addresses that have nobody here, the one whose use is longest ago is forgotten where they are too many.
    fn forget(&mut self) {
        let absent = || self.peers.iter().filter(|(_, peer)| peer.seats.is_empty());
        if absent().count() > REMEMBERED
            && let Some(oldest) = absent().min_by_key(|(_, peer)| peer.useful).map(|(address, _)| *address)
        {
            self.peers.remove(&oldest);
        }
    }
}

impl Guest {
    /// Where it comes from.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Takes more room; `false` where it had to go, or does not fit even alone.
    #[must_use]
    pub fn grow(&self, weight: usize) -> bool {
        self.crowd.state().grow(self.crowd.capacity, self.peer, self.seat, weight)
    }

    /// Notes that it has said something.
    pub fn spoke(&self) {
        if let Some(seat) = self.crowd.state().seat(self.peer, self.seat) {
            seat.spoke = true;
        }
    }

    /// Notes that it was of use just now.
    pub fn useful(&self) {
        let mut state = self.crowd.state();
        let now = state.tick();
        let Some(peer) = state.peers.get_mut(&self.peer) else { return };
        if let Some(seat) = peer.seats.get_mut(&self.seat) {
            (seat.useful, peer.useful) = (now, now);
        }
    }

    /// It is being served until what is returned is dropped.
    #[must_use]
    pub fn work(self: &Arc<Self>) -> Work {
        self.working(1);
        Work(Arc::clone(self))
    }

    fn working(&self, more: i32) {
        if let Some(seat) = self.crowd.state().seat(self.peer, self.seat) {
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
        self.crowd.state().leave(self.peer, self.seat);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn elsewhere(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0A00_0000 + number).into()
    }

    fn away(guest: &Guest) -> bool {
        guest.gone().is_cancelled()
    }

    #[test]
    fn who_was_never_of_use_goes_first_and_the_oldest_of_them() {
        let crowd = Crowd::new(3);
        let [proven, first, second] = [(); 3].map(|()| crowd.enter(1, HERE));
        proven.useful();
        let third = crowd.enter(1, HERE);
        assert_eq!([&proven, &first, &second, &third].map(away), [false, true, false, false]);
        let fourth = crowd.enter(1, HERE);
        assert_eq!([&proven, &second, &third, &fourth].map(away), [false, true, false, false]);
        assert_eq!(crowd.count(), (3, 2));
        // Of those that were of use, the one whose use is longest ago.
        third.useful();
        fourth.useful();
        proven.useful();
        let fifth = crowd.enter(1, HERE);
        assert_eq!([&proven, &third, &fourth, &fifth].map(away), [false, true, false, false]);
    }

    #[test]
    fn who_is_being_served_goes_last() {
        let crowd = Crowd::new(2);
        let (served, proven) = (Arc::new(crowd.enter(1, HERE)), crowd.enter(1, HERE));
        let work = served.work();
        proven.useful();
        let third = crowd.enter(1, HERE);
        assert_eq!([&served, &proven, &third].map(away), [false, true, false]);
        drop(work);
        let fourth = crowd.enter(1, HERE);
        assert_eq!([&served, &third, &fourth].map(away), [true, false, false]);
    }

    #[test]
    fn who_leaves_makes_room() {
        let crowd = Crowd::new(2);
        let (one, two) = (crowd.enter(1, HERE), crowd.enter(1, HERE));
        drop(one);
        let three = crowd.enter(1, HERE);
        assert_eq!([&two, &three].map(away), [false, false]);
        drop((two, three));
        assert_eq!(crowd.count(), (0, 0));
    }

    #[test]
    fn weight_counts_and_nobody_outgrows_the_room() {
        let crowd = Crowd::new(10);
        let (slow, large) = (crowd.enter(4, HERE), crowd.enter(0, HERE));
        assert!(large.grow(6) && !away(&slow));
        assert!(large.grow(1) && away(&slow), "the other goes");
        assert!(!slow.grow(1), "who is gone gets nothing");
        assert!(!large.grow(4) && away(&large), "it does not fit alone");
        assert!(!away(&crowd.enter(10, HERE)));
    }

    #[test]
    fn of_two_newcomers_the_one_that_has_spoken_stays() {
        let crowd = Crowd::new(3);
        let speaking = crowd.enter(1, HERE);
        speaking.spoke();
        let idle: Vec<Guest> = (0..5).map(|_| crowd.enter(1, HERE)).collect();
        assert!(!away(&speaking));
        assert_eq!(idle.iter().map(away).collect::<Vec<_>>(), [true, true, true, false, false]);
    }

    #[test]
    fn a_newcomer_from_an_address_that_was_of_use_outlives_strangers() {
        let crowd = Crowd::new(8);
        let first = crowd.enter(1, HERE);
        first.useful();
        drop(first);
        let newcomer = crowd.enter(1, HERE);
        // Each from an address of its own, and all of them talk.
        let strangers: Vec<Guest> = (0..20).map(|number| crowd.enter(1, elsewhere(number))).collect();
        strangers.iter().for_each(Guest::spoke);
        let more = crowd.enter(1, elsewhere(99));
        assert_eq!([&newcomer, &more, &strangers[13], &strangers[14]].map(away), [false, false, true, false]);
    }

    #[test]
    fn an_address_that_takes_more_than_its_share_gives_first() {
        let crowd = Crowd::new(8);
        let proven = |number: usize| -> Vec<Guest> {
            let one = || {
                let guest = crowd.enter(1, elsewhere(1));
                guest.useful();
                guest
            };
            (0..number).map(|_| one()).collect()
        };
        let greedy = proven(8);
        let newcomers: Vec<Guest> = (0..4).map(|_| crowd.enter(1, HERE)).collect();
        let more = proven(4);
        assert!(newcomers.iter().all(|newcomer| !away(newcomer)), "half of the room is theirs");
        assert!(greedy.iter().all(away));
        // Beyond its half, it is its own newcomers that have to find room.
        let fifth = crowd.enter(1, HERE);
        assert_eq!([&newcomers[0], &fifth, &more[0]].map(away), [true, false, false]);
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded() {
        let crowd = Crowd::new(8);
        for number in 0..1000 {
            let guest = crowd.enter(1, elsewhere(number));
            if number % 2 == 0 {
                guest.useful();
            }
        }
        let state = crowd.state();
        assert_eq!(state.peers.len(), REMEMBERED);
        assert!(state.peers.contains_key(&elsewhere(998)) && !state.peers.contains_key(&elsewhere(0)));
    }
}
