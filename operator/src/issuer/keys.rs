//! PURE: the life of an issuer's signing keys.
//!
//! ```text
//!             only a ConfigMap has it           an API server shows it
//!   (unknown) ----------------------> Pending -------------------------> Active <---.
//!       |                                |                                  |       |
//!       | an API server shows it         | the ConfigMap                    | no API server shows it any more
//!       '------------------------> Active| does not have it                 v       |
//!                                        | any more                      Retired ---' an API server shows it again
//!                                        v                                  |
//!                 never in use: (removed); in use before: Retired           | after the retention, or revoked
//!                                                                           v
//!                                                                       (removed)
//! ```
//!
//! A retention begins and ends, and a revoked key goes, only in a poll in which every API server has answered, or all but those
//! that have been out of reach for a while: a failed poll never makes the published set smaller. What was published without
//! being recorded (by somebody else) is removed at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crds::{Finding, KeyState, PublishedKey, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::oidc::Keys;
use crate::oidc::jwk::{Jwk, algorithm, thumbprint};

/// What the keys are decided from.
#[derive(Debug, Clone)]
pub struct Sources<'a> {
    /// The keys that API servers show.
    pub seen: &'a Keys,
    /// Whether a key that is not among `seen` is certainly a key of no API server.
    pub complete: bool,
    /// The keys of `spec.keys.additional`.
    pub additional: &'a Keys,
    /// Whether all these `ConfigMap`s could be read.
    pub additional_complete: bool,
    /// What is known of published keys, from memory or from the status; empty where nothing is.
    pub recorded: &'a [PublishedKey],
    /// Where the bytes of keys are that no API server shows: what this process published, and what is in the bucket.
    pub published: [&'a Keys; 2],
    /// The retention clocks that are stored with the published JWKS. They count only where nothing is recorded.
    pub stored_clocks: &'a str,
    /// Now.
    pub now: Timestamp,
    /// How long a retired key stays published.
    pub retention: Duration,
    /// Ids of keys that do not: `spec.keys.revoked`.
    pub revoked: &'a [String],
}

/// The keys to be published, what the status says of them, and what is worth an event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Life {
    /// The keys.
    pub keys: Keys,
    /// Their states, by key id.
    pub records: Vec<PublishedKey>,
    /// What a person should know of keys, for messages: those that are not published because STS reads no more of their type,
    /// and revoked ones that are in use.
    pub notes: Vec<String>,
    /// What happened to a key in this pass.
    pub events: Vec<Finding>,
}

/// The state of all keys now.
#[must_use]
pub fn life(sources: &Sources<'_>) -> Life {
    let (found, restored) = if sources.recorded.is_empty() { found(sources) } else { Default::default() };
    let recorded = if sources.recorded.is_empty() { &found } else { sources.recorded };
    let sources = &Sources { recorded, ..sources.clone() };
    let mut life = Life { events: restored, ..Life::default() };
    for (kid, jwk) in sources.seen.iter() {
        life.put(kid, jwk, KeyState::Active, None);
    }
    let revoked_in_use = sources.revoked.iter().filter(|kid| sources.seen.get(kid).is_some());
    life.notes.extend(revoked_in_use.map(|kid| {
        format!("key {kid} of spec.keys.revoked is published, since an API server still shows it: remove it there first")
    }));
    for (kid, jwk) in sources.additional.iter().filter(|(kid, _)| !sources.is_revoked(kid)) {
        let before = sources.record(kid).filter(|record| is_of(jwk, record));
        let last_used = before.and_then(|record| sources.last_used(record));
        // A key that was in use stays so until it is certain that no API server shows it.
        let in_use = before.filter(|record| record.state == KeyState::Active && last_used.is_none());
        life.put(kid, jwk, in_use.map_or(KeyState::Pending, |record| record.state), last_used);
    }
    // The longest to live first: where STS reads no more keys, the others are left out.
    let mut recorded: Vec<&PublishedKey> = sources.recorded.iter().collect();
    recorded.sort_by_key(|record| Reverse(record.retired_at.as_ref().map(|at| at.0)));
    recorded.sort_by_key(|record| record.retired_at.is_some());
    for record in recorded {
        life.keep(record, sources);
    }
    life.records.sort_by(|one, other| one.kid.cmp(&other.kid));
    life
}

/// The retention clocks of some keys, as they are stored with the published JWKS: `thumbprint=seconds since 1970`, the latest
/// first, as many as S3 stores in the metadata of an object.
#[must_use]
pub fn stored_clocks(records: &[PublishedKey]) -> String {
    /// S3 user guide, "Working with object metadata": 2 KB for all names and values.
    const LIMIT: usize = 1800;
    let mut clocks: Vec<(Timestamp, &str)> = records
        .iter()
        .filter_map(|record| Some((record.retired_at.as_ref()?.0, record.thumbprint.as_str())))
        .collect();
    clocks.sort_unstable_by(|one, other| other.cmp(one));
    let mut text = String::new();
    for (at, thumbprint) in clocks {
        let clock = format!("{thumbprint}={}", at.as_second());
        if text.len() + 1 + clock.len() > LIMIT {
            break;
        }
        text.extend((!text.is_empty()).then_some(' '));
        text.push_str(&clock);
    }
    text
}

/// The keys of [`stored_clocks`]'s text; what cannot be read is left out.
fn clocks(stored_clocks: &str) -> BTreeMap<&str, Timestamp> {
    let clock = |part| {
        let (thumbprint, seconds): (&str, &str) = str::split_once(part, '=')?;
        Some((thumbprint, Timestamp::from_second(seconds.parse().ok()?).ok()?))
    };
    stored_clocks.split(' ').filter_map(clock).collect()
}

/// The records of what is in the bucket, where nothing is recorded: `bootstrap` has published it, or the status was lost. A
/// retention begins again unless its clock is stored with the JWKS: it is never shorter than specified.
fn found(sources: &Sources<'_>) -> (Vec<PublishedKey>, Vec<Finding>) {
    let stored_clocks = clocks(sources.stored_clocks);
    let [_, published] = sources.published;
    let record = |(kid, jwk): (&str, &Jwk)| {
        let thumbprint = thumbprint(jwk)?;
        let clock = stored_clocks.get(thumbprint.as_str()).map(|at| Time((*at).min(sources.second())));
        let (kid, alg, state) = (kid.to_owned(), algorithm(jwk)?.to_owned(), KeyState::Active);
        Some(PublishedKey { kid, alg, thumbprint, state, retired_at: clock })
    };
    let records: Vec<PublishedKey> = published.iter().filter_map(record).collect();
    let unseen =
        |record: &&PublishedKey| record.retired_at.is_some() && sources.seen.get(&record.kid).is_none();
    let restored = |record: &PublishedKey| {
        let message = format!(
            "the status has no record of key {}, which no API server shows: its retention is taken from the time that is stored \
             with the published JWKS",
            record.kid
        );
        Finding::new(Reason::KeyHistoryMissing, message)
    };
    let events = records.iter().filter(unseen).map(restored).collect();
    (records, events)
}

impl Sources<'_> {
    fn record(&self, kid: &str) -> Option<&PublishedKey> {
        self.recorded.iter().find(|record| record.kid == kid)
    }

    /// When a key that no API server shows now was last in use; `None` where it never was, or where this is not certain yet.
    fn last_used(&self, record: &PublishedKey) -> Option<Timestamp> {
        let retired_at = record.retired_at.as_ref().map(|at| at.0);
        let was_used = record.state != KeyState::Pending;
        let not_after_now = retired_at.map(|at| at.min(self.second()));
        not_after_now.or_else(|| (was_used && self.complete).then(|| self.second()))
    }

    fn is_revoked(&self, kid: &str) -> bool {
        self.revoked.iter().any(|revoked| revoked == kid)
    }

    /// Now, in whole seconds, as the status and the object's metadata store it.
    fn second(&self) -> Timestamp {
        Timestamp::from_second(self.now.as_second()).unwrap_or(self.now)
    }

    fn bytes(&self, record: &PublishedKey) -> Option<&Jwk> {
        self.published.iter().find_map(|keys| keys.get(&record.kid).filter(|jwk| is_of(jwk, record)))
    }

    fn is_over(&self, retired_at: Timestamp) -> bool {
        let age = Duration::try_from(self.now.duration_since(retired_at)).unwrap_or_default();
        self.complete && age >= self.retention
    }
}

/// Whether a key is one of those that are recorded.
#[must_use]
pub fn any_is_recorded(keys: &Keys, recorded: &[PublishedKey]) -> bool {
    recorded.iter().any(|record| keys.get(&record.kid).is_some_and(|jwk| is_of(jwk, record)))
}

fn is_of(jwk: &Jwk, record: &PublishedKey) -> bool {
    thumbprint(jwk).as_deref() == Some(record.thumbprint.as_str())
}

impl Life {
    fn put(&mut self, kid: &str, jwk: &Jwk, state: KeyState, retired_at: Option<Timestamp>) {
        let (Some(thumbprint), Some(alg)) = (thumbprint(jwk), algorithm(jwk)) else { return };
        if self.keys.get(kid).is_some() {
            return;
        }
        if self.keys.is_full_for(jwk) {
            self.notes.push(format!("key {kid} is not published: AWS STS reads at most 100 keys of a type"));
            return;
        }
        self.keys.insert(kid, jwk.clone());
        let (kid, alg, retired_at) = (kid.to_owned(), alg.to_owned(), retired_at.map(Time));
        self.records.push(PublishedKey { kid, alg, thumbprint, state, retired_at });
    }

    /// Decides on a key that was published, and that neither an API server nor a `ConfigMap` shows now.
    fn keep(&mut self, record: &PublishedKey, sources: &Sources<'_>) {
        if self.keys.get(&record.kid).is_some() {
            return;
        }
        let kid = &record.kid;
        if sources.complete && sources.is_revoked(kid) {
            let why = "spec.keys.revoked has it, and no API server shows it";
            return self
                .event(Reason::KeyRemoved, format!("key {kid} is being removed from the JWKS: {why}"));
        }
        let Some(jwk) = sources.bytes(record) else {
            return self.event(Reason::KeyRemoved, format!(
                "key {kid} is not published any more: it was removed from the bucket, and no API server shows it. Tokens that it \
                 signed are refused by AWS STS"
            ));
        };
        let last_used = sources.last_used(record);
        let never_used = record.state == KeyState::Pending && last_used.is_none();
        match last_used {
            Some(at)
                if sources.is_over(at)
                    && (record.state != KeyState::Pending || sources.additional_complete) =>
            {
                let why = "no API server has shown it for the whole of spec.keys.retention";
                self.event(Reason::KeyRemoved, format!("key {kid} is being removed from the JWKS: {why}"));
            }
            None if never_used && sources.complete && sources.additional_complete => {
                let why = "its ConfigMap does not have it any more, and no API server has used it";
                self.event(Reason::KeyRemoved, format!("key {kid} is being removed from the JWKS: {why}"));
            }
            Some(at) => {
                if record.retired_at.is_none() {
                    self.event(Reason::KeyRetired, format!(
                        "no API server shows key {kid} any more: it stays in the JWKS for spec.keys.retention, since tokens \
                         that it signed are still in use"
                    ));
                }
                self.put(kid, jwk, KeyState::Retired, Some(at));
            }
            // Not every API server has answered: nothing is concluded.
            None => self.put(kid, jwk, record.state, None),
        }
    }

    fn event(&mut self, reason: Reason, message: String) {
        self.events.push(Finding::new(reason, message));
    }
}
