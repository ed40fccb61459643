//! A capacity limiter that evicts: for connections, or for the bytes of request bodies that are still arriving. At capacity
//! a new permit does not wait: the permit of the lowest priority is evicted. So no client can exclude others by holding
//! capacity, and the API server's connections, which bring reviews all the time, outlive any number that bring none. Its
//! new connections do, too: an address is remembered for the requests that were answered on earlier connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The most addresses remembered that had an answered request and hold no permit now; API servers are few.
const REMEMBERED_ADDRESSES: usize = 64;

/// Limits the total size of all permits.
#[derive(Debug)]
pub struct CapacityLimiter {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// Counts acquisitions and answered requests: orders them in time.
    sequence: u64,
    addresses: HashMap<IpAddr, Address>,
    evictions: u64,
}

/// What is known about one permit.
#[derive(Debug)]
struct Record {
    size: usize,
    /// Whether any data was received on it.
    received_data: bool,
    /// When a request on it was last answered; 0 for never.
    last_answer: u64,
    /// How many of its requests are being processed.
    active_requests: u32,
    evicted: CancellationToken,
}

/// All permits of one address.
#[derive(Debug, Default)]
struct Address {
    permits: HashMap<u64, Record>,
    size: usize,
    /// When a request of any of them was last answered; 0 for never.
    last_answer: u64,
}

/// The eviction order: the least is evicted first. The fields are compared in this order: an address beyond its share of the
/// capacity comes first; then a permit without active requests; of an address that never had an answered request; whose own
/// last answer is missing or oldest; that received no data yet; and of equals the oldest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::struct_excessive_bools, reason = "each is a criterion of its own, compared in this order")]
struct EvictionPriority {
    address_within_share: bool,
    has_active_requests: bool,
    address_had_answer: bool,
    last_answer: u64,
    received_data: bool,
    id: u64,
}

/// A share of the capacity; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<CapacityLimiter>,
    peer: IpAddr,
    id: u64,
    evicted: CancellationToken,
}

impl CapacityLimiter {
    /// A limiter for permits of this total size.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, state: Mutex::default() })
    }

    /// A permit for a client at this address. At capacity it evicts others.
    #[must_use]
    pub fn acquire(self: &Arc<Self>, size: usize, peer: IpAddr) -> Permit {
        let evicted = CancellationToken::new();
        let mut state = self.state();
        let id = state.next_sequence();
        let record = Record {
            size: 0,
            received_data: false,
            last_answer: 0,
            active_requests: 0,
            evicted: evicted.clone(),
        };
        state.addresses.entry(peer).or_default().permits.insert(id, record);
        state.grow(self.capacity, peer, id, size);
        drop(state);
        Permit { limiter: Arc::clone(self), peer, id, evicted }
    }

    /// The number of permits held, and of permits evicted so far.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        let state = self.state();
        (state.addresses.values().map(|address| address.permits.len()).sum(), state.evictions)
    }

    /// The total size of all permits held.
    #[must_use]
    pub fn used(&self) -> usize {
        self.state().used
    }

    /// A panic leaves no change incomplete, so a poisoned lock is usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn record(&mut self, peer: IpAddr, id: u64) -> Option<&mut Record> {
        self.addresses.get_mut(&peer)?.permits.get_mut(&id)
    }

    fn grow(&mut self, capacity: usize, peer: IpAddr, id: u64, size: usize) -> bool {
        let Some(address) = self.addresses.get_mut(&peer) else { return false };
        let Some(record) = address.permits.get_mut(&id) else { return false };
        record.size += size;
        address.size += size;
        self.used += size;
        while self.used > capacity {
            let Some((other_peer, other)) = self.next_to_evict(capacity, id) else {
                self.evict(peer, id);
                return false;
            };
            self.evict(other_peer, other);
        }
        true
    }

    /// The permit to evict in favour of permit `id`; `None` where there is no other.
    fn next_to_evict(&self, capacity: usize, id: u64) -> Option<(IpAddr, u64)> {
        let holders = self.addresses.values().filter(|address| !address.permits.is_empty()).count();
        let share = (capacity / holders.max(1)).max(1);
        let least_of_address = |(peer, address): (&IpAddr, &Address)| {
            let (address_within_share, address_had_answer) = (address.size <= share, address.last_answer > 0);
            let priority = |(&id, record): (&u64, &Record)| EvictionPriority {
                address_within_share,
                has_active_requests: record.active_requests > 0,
                address_had_answer,
                last_answer: record.last_answer,
                received_data: record.received_data,
                id,
            };
            let others = address.permits.iter().filter(|(other, _)| **other != id);
            others.map(priority).min().map(|least| (least, *peer))
        };
        self.addresses.iter().filter_map(least_of_address).min().map(|(least, peer)| (peer, least.id))
    }

    fn evict(&mut self, peer: IpAddr, id: u64) {
        if let Some(record) = self.release(peer, id) {
            self.evictions += 1;
            record.evicted.cancel();
        }
    }

    fn release(&mut self, peer: IpAddr, id: u64) -> Option<Record> {
        let address = self.addresses.get_mut(&peer)?;
        let record = address.permits.remove(&id)?;
        address.size -= record.size;
        self.used -= record.size;
        if address.permits.is_empty() {
            if address.last_answer == 0 {
                self.addresses.remove(&peer);
            } else {
                self.forget_oldest_address();
            }
        }
        Some(record)
    }

    /// Of too many addresses without a permit, removes the one whose last answer is oldest.
    fn forget_oldest_address(&mut self) {
        let without_permit = || self.addresses.iter().filter(|(_, address)| address.permits.is_empty());
        if without_permit().count() > REMEMBERED_ADDRESSES
            && let Some(oldest) =
                without_permit().min_by_key(|(_, address)| address.last_answer).map(|(peer, _)| *peer)
        {
            self.addresses.remove(&oldest);
        }
    }
}

impl Permit {
    /// The address that holds it.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Increases its size; `false` where it was evicted, or does not even fit alone.
    #[must_use]
    pub fn grow(&self, size: usize) -> bool {
        self.limiter.state().grow(self.limiter.capacity, self.peer, self.id, size)
    }

    /// Notes that data was received.
    pub fn note_data(&self) {
        if let Some(record) = self.limiter.state().record(self.peer, self.id) {
            record.received_data = true;
        }
    }

    /// Notes that a request was answered.
    pub fn note_answer(&self) {
        let mut state = self.limiter.state();
        let now = state.next_sequence();
        let Some(address) = state.addresses.get_mut(&self.peer) else { return };
        if let Some(record) = address.permits.get_mut(&self.id) {
            (record.last_answer, address.last_answer) = (now, now);
        }
    }

    /// Notes that a request is being processed, until the guard is dropped.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        self.change_active_requests(1);
        ActiveRequest(Arc::clone(self))
    }

    fn change_active_requests(&self, change: i32) {
        if let Some(record) = self.limiter.state().record(self.peer, self.id) {
            record.active_requests = record.active_requests.saturating_add_signed(change);
        }
    }

    /// Cancelled once the permit is evicted.
    #[must_use]
    pub fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }
}

/// A request that is being processed under a permit.
#[derive(Debug)]
pub struct ActiveRequest(Arc<Permit>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.change_active_requests(-1);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.state().release(self.peer, self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn other_address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0A00_0000 + number).into()
    }

    fn is_evicted(permit: &Permit) -> bool {
        permit.evicted().is_cancelled()
    }

    #[test]
    fn permits_without_an_answer_are_evicted_first_and_the_oldest_of_them() {
        let limiter = CapacityLimiter::new(3);
        let [answered, first, second] = [(); 3].map(|()| limiter.acquire(1, LOCAL));
        answered.note_answer();
        let third = limiter.acquire(1, LOCAL);
        assert_eq!([&answered, &first, &second, &third].map(is_evicted), [false, true, false, false]);
        let fourth = limiter.acquire(1, LOCAL);
        assert_eq!([&answered, &second, &third, &fourth].map(is_evicted), [false, true, false, false]);
        assert_eq!(limiter.counts(), (3, 2));
        // Where all have an answer, the one whose last answer is oldest.
        third.note_answer();
        fourth.note_answer();
        answered.note_answer();
        let fifth = limiter.acquire(1, LOCAL);
        assert_eq!([&answered, &third, &fourth, &fifth].map(is_evicted), [false, true, false, false]);
    }

    #[test]
    fn a_permit_with_an_active_request_is_evicted_last() {
        let limiter = CapacityLimiter::new(2);
        let (active, answered) = (Arc::new(limiter.acquire(1, LOCAL)), limiter.acquire(1, LOCAL));
        let request = active.begin_request();
        answered.note_answer();
        let third = limiter.acquire(1, LOCAL);
        assert_eq!([&active, &answered, &third].map(is_evicted), [false, true, false]);
        drop(request);
        let fourth = limiter.acquire(1, LOCAL);
        assert_eq!([&active, &third, &fourth].map(is_evicted), [true, false, false]);
    }

    #[test]
    fn a_dropped_permit_gives_its_capacity_back() {
        let limiter = CapacityLimiter::new(2);
        let (one, two) = (limiter.acquire(1, LOCAL), limiter.acquire(1, LOCAL));
        drop(one);
        let three = limiter.acquire(1, LOCAL);
        assert_eq!([&two, &three].map(is_evicted), [false, false]);
        drop((two, three));
        assert_eq!(limiter.counts(), (0, 0));
    }

    #[test]
    fn size_counts_and_no_permit_exceeds_the_capacity() {
        let limiter = CapacityLimiter::new(10);
        let (small, large) = (limiter.acquire(4, LOCAL), limiter.acquire(0, LOCAL));
        assert!(large.grow(6) && !is_evicted(&small));
        assert!(large.grow(1) && is_evicted(&small), "the other is evicted");
        assert!(!small.grow(1), "an evicted permit does not grow");
        assert!(!large.grow(4) && is_evicted(&large), "it does not fit alone");
        assert!(!is_evicted(&limiter.acquire(10, LOCAL)));
    }

    #[test]
    fn of_two_new_permits_the_one_that_received_data_is_kept() {
        let limiter = CapacityLimiter::new(3);
        let with_data = limiter.acquire(1, LOCAL);
        with_data.note_data();
        let idle: Vec<Permit> = (0..5).map(|_| limiter.acquire(1, LOCAL)).collect();
        assert!(!is_evicted(&with_data));
        assert_eq!(idle.iter().map(is_evicted).collect::<Vec<_>>(), [true, true, true, false, false]);
    }

    #[test]
    fn a_new_permit_of_an_address_that_had_an_answer_outlives_those_of_unknown_addresses() {
        let limiter = CapacityLimiter::new(8);
        let first = limiter.acquire(1, LOCAL);
        first.note_answer();
        drop(first);
        let new = limiter.acquire(1, LOCAL);
        // Each from an address of its own, and all of them send data.
        let unknown: Vec<Permit> = (0..20).map(|number| limiter.acquire(1, other_address(number))).collect();
        unknown.iter().for_each(Permit::note_data);
        let more = limiter.acquire(1, other_address(99));
        assert_eq!([&new, &more, &unknown[13], &unknown[14]].map(is_evicted), [false, false, true, false]);
    }

    #[test]
    fn an_address_beyond_its_share_is_evicted_first() {
        let limiter = CapacityLimiter::new(8);
        let answered = |number: usize| -> Vec<Permit> {
            let one = || {
                let permit = limiter.acquire(1, other_address(1));
                permit.note_answer();
                permit
            };
            (0..number).map(|_| one()).collect()
        };
        let greedy = answered(8);
        let new: Vec<Permit> = (0..4).map(|_| limiter.acquire(1, LOCAL)).collect();
        let more = answered(4);
        assert!(new.iter().all(|permit| !is_evicted(permit)), "half of the capacity is their share");
        assert!(greedy.iter().all(is_evicted));
        // Beyond its half, an address evicts its own new permits.
        let fifth = limiter.acquire(1, LOCAL);
        assert_eq!([&new[0], &fifth, &more[0]].map(is_evicted), [true, false, false]);
    }

    #[test]
    fn the_number_of_remembered_addresses_is_bounded() {
        let limiter = CapacityLimiter::new(8);
        for number in 0..1000 {
            let permit = limiter.acquire(1, other_address(number));
            if number % 2 == 0 {
                permit.note_answer();
            }
        }
        let state = limiter.state();
        assert_eq!(state.addresses.len(), REMEMBERED_ADDRESSES);
        assert!(
            state.addresses.contains_key(&other_address(998))
                && !state.addresses.contains_key(&other_address(0))
        );
    }
}
