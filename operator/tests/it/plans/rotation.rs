//! Rotations of signing keys, simulated minute by minute over days.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crds::PublishedKey;
use issuer::keys::{Life, Sources, life, stored_clocks};
use k8s_openapi::jiff::SignedDuration;
use operator::oidc::jwk::Jwk;
use proptest::prelude::*;

use super::keys::{RETENTION, rsa, start};
use super::*;

/// An API server: its signing key is one of the keys that it shows.
#[derive(Debug, Clone)]
struct Server {
    signs: u8,
    shows: BTreeSet<u8>,
    answers: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Yes,
    /// It refuses: the poll is not complete.
    Refuses,
    /// It cannot be reached.
    OutOfReach,
}

/// API servers, operator, bucket and STS, minute by minute.
struct Simulation {
    minute: i64,
    servers: Vec<Server>,
    additional: BTreeSet<u8>,
    /// The operator's memory; lost with its process.
    memory: Option<Life>,
    status: Vec<PublishedKey>,
    bucket: Keys,
    clocks: String,
    /// Until which minute tokens are valid, by the key that signed them.
    tokens: BTreeMap<u8, i64>,
    /// How often the bucket's key set was changed.
    writes: usize,
    /// Since when an API server is out of reach.
    outside_since: Option<i64>,
}

/// Keys of the simulation; each is parsed once.
fn keys_of(ids: impl IntoIterator<Item = u8>) -> Keys {
    static ALL: LazyLock<Vec<(String, Jwk)>> = LazyLock::new(|| {
        let ids: Vec<String> = (0..99).map(|id: u8| id.to_string()).collect();
        let all = rsa(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        ids.into_iter().map(|id| (id.clone(), all.get(&id).unwrap().clone())).collect()
    });
    let mut keys = Keys::default();
    for id in ids {
        let (kid, jwk) = &ALL[usize::from(id)];
        keys.insert(kid, jwk.clone());
    }
    keys
}

impl Simulation {
    fn new(servers: usize) -> Self {
        let server = Server { signs: 1, shows: BTreeSet::from([1]), answers: Answer::Yes };
        let mut simulation = Self {
            minute: 0,
            servers: vec![server; servers],
            additional: BTreeSet::new(),
            memory: None,
            status: Vec::new(),
            bucket: Keys::default(),
            clocks: String::new(),
            tokens: BTreeMap::new(),
            writes: 0,
            outside_since: None,
        };
        simulation.poll();
        simulation
    }

    /// One pass of the operator; without an answer it changes nothing.
    fn poll(&mut self) {
        let answering = || self.servers.iter().filter(|server| server.answers == Answer::Yes);
        if answering().next().is_none() {
            return;
        }
        let outside = self.servers.iter().any(|server| server.answers == Answer::OutOfReach);
        self.outside_since = outside.then(|| self.outside_since.unwrap_or(self.minute));
        let seen = keys_of(answering().flat_map(|server| server.shows.iter().copied()));
        let empty = Keys::default();
        let own = self.memory.as_ref().map_or(&empty, |life| &life.keys);
        let life = life(&Sources {
            seen: &seen,
            complete: self.servers.iter().all(|server| server.answers != Answer::Refuses)
                && self.outside_since.is_none_or(|since| self.minute - since >= 10),
            additional: &keys_of(self.additional.iter().copied()),
            additional_complete: true,
            recorded: self.memory.as_ref().map_or(&self.status, |life| &life.records),
            published: [own, &self.bucket],
            stored_clocks: &self.clocks,
            now: start() + SignedDuration::from_mins(self.minute),
            retention: RETENTION,
            revoked: &[],
        });
        self.writes += usize::from(self.bucket != life.keys);
        (self.bucket, self.clocks) = (life.keys.clone(), stored_clocks(&life.records));
        self.status.clone_from(&life.records);
        self.memory = Some(life);
    }

    /// A minute passes: every API server issues a token of 24 h, then the operator polls. Returns keys of valid tokens that
    /// STS does not find.
    fn tick(&mut self) -> Vec<u8> {
        self.minute += 1;
        for server in &self.servers {
            self.tokens.insert(server.signs, self.minute + 24 * 60);
        }
        let minute = self.minute;
        self.tokens.retain(|_, until| *until >= minute);
        let missing = |key: &&u8| self.bucket.get(&key.to_string()).is_none();
        let refused: Vec<u8> = self.tokens.keys().filter(missing).copied().collect();
        self.poll();
        refused
    }

    fn run_until(&mut self, minute: i64) {
        while self.minute < minute {
            assert_eq!(self.tick(), [0; 0], "minute {}", self.minute);
        }
    }
}

/// kubeadm, one control-plane node after the other: each shows the new key, then each signs with it, then each drops the old.
#[test]
fn over_72_hours_a_rotation_of_three_api_servers_refuses_no_token() {
    let mut simulation = Simulation::new(3);
    for (hour, step) in [(1, 0), (2, 1), (3, 2)] {
        for index in 0..3 {
            simulation.run_until(60 * hour + 20 * i64::try_from(index).unwrap());
            let server = &mut simulation.servers[index];
            match step {
                0 => server.shows = BTreeSet::from([1, 2]),
                1 => server.signs = 2,
                _ => server.shows = BTreeSet::from([2]),
            }
        }
    }
    // The last API server dropped the old key at 3:40; the poll in the same minute saw it.
    let retired = 3 * 60 + 40 + 1;
    simulation.run_until(retired + 25 * 60 - 1);
    assert_eq!(simulation.bucket, keys_of([1, 2]), "not before its retention is over");
    simulation.run_until(retired + 25 * 60);
    assert_eq!(simulation.bucket, keys_of([2]), "and not later");
    simulation.run_until(72 * 60);
    assert_eq!(simulation.bucket, keys_of([2]));
    assert_eq!(simulation.writes, 3, "one key, both keys, the new key");
}

#[derive(Debug, Clone)]
enum Event {
    /// A ConfigMap publishes a new key, and an hour later an API server signs with it and shows no other.
    PublishThenSign(usize),
    /// An API server shows a new key beside its own, and an hour later signs with it.
    ShowThenSign(usize),
    /// An API server shows its signing key only.
    DropOthers(usize),
    Answers(usize, bool, u16),
    OperatorRestarts,
    StatusIsLost,
    BucketIsEmptied,
    Nothing(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let server = 0..3_usize;
    prop_oneof![
        server.clone().prop_map(Event::PublishThenSign),
        server.clone().prop_map(Event::ShowThenSign),
        server.clone().prop_map(Event::DropOthers),
        (server, any::<bool>(), 1..180_u16)
            .prop_map(|(s, refuses, minutes)| Event::Answers(s, refuses, minutes)),
        Just(Event::OperatorRestarts),
        Just(Event::StatusIsLost),
        Just(Event::BucketIsEmptied),
        (1..1600_u16).prop_map(Event::Nothing),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is rotated, restarted and lost: a token whose key was published before it signed is never refused, and
    /// nothing that was not published by us ever is.
    #[test]
    fn no_valid_token_is_refused_and_no_key_stays_for_ever(events in proptest::collection::vec(event(), 1..40)) {
        let mut simulation = Simulation::new(3);
        let mut next = 2_u8;
        for event in events {
            let minutes = match event {
                Event::PublishThenSign(server) => {
                    simulation.additional.insert(next);
                    simulation.run_until(simulation.minute + 60);
                    simulation.servers[server].signs = next;
                    simulation.servers[server].shows = BTreeSet::from([next]);
                    // The API server is reachable again after its restart, and then the ConfigMap may go.
                    simulation.servers[server].answers = Answer::Yes;
                    next += 1;
                    2
                }
                Event::ShowThenSign(server) => {
                    simulation.servers[server].answers = Answer::Yes;
                    simulation.servers[server].shows.insert(next);
                    simulation.run_until(simulation.minute + 60);
                    simulation.servers[server].signs = next;
                    next += 1;
                    1
                }
                Event::DropOthers(server) => {
                    simulation.servers[server].shows = BTreeSet::from([simulation.servers[server].signs]);
                    1
                }
                Event::Answers(server, refuses, minutes) => {
                    simulation.servers[server].answers =
                        if refuses { Answer::Refuses } else { Answer::OutOfReach };
                    simulation.run_until(simulation.minute + i64::from(minutes));
                    simulation.servers[server].answers = Answer::Yes;
                    1
                }
                Event::OperatorRestarts => {
                    simulation.memory = None;
                    1
                }
                Event::StatusIsLost => {
                    (simulation.status, simulation.memory) = (Vec::new(), None);
                    1
                }
                Event::BucketIsEmptied => {
                    // Repaired by the same pass, from what this process published.
                    (simulation.bucket, simulation.clocks) = (Keys::default(), String::new());
                    simulation.poll();
                    0
                }
                Event::Nothing(minutes) => i64::from(minutes),
            };
            simulation.run_until(simulation.minute + minutes);
        }
        simulation.additional.clear();
        simulation.run_until(simulation.minute + 26 * 60);
        let in_use = simulation.servers.iter().flat_map(|server| server.shows.iter().copied());
        prop_assert_eq!(&simulation.bucket, &keys_of(in_use.collect::<BTreeSet<u8>>()));
    }
}
