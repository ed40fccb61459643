//! The accounts: the state that tests see, and what only the simulator needs beside it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sim_api::{Behaviour, State};
use jsonwebtoken::jwk::JwkSet;
use serde_json::{Value, json};

use crate::history::{History, Seen};
use crate::rate::Permits;

/// The account that a call concerns, and what all accounts share. All services answer from it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub state: State,
    /// What IAM's entities were before their last changes.
    pub history: History,
    /// IAM of the other accounts, by account id. Buckets are shared: their names are.
    others: BTreeMap<String, (State, History)>,
    /// How AWS answers where it can go either way.
    pub behaviour: Behaviour,
    /// Sessions that STS issued, by access key.
    pub sessions: BTreeMap<String, Session>,
    /// When STS gave a session of a role last, in seconds since 1970, by the role's id.
    pub last_used: BTreeMap<String, i64>,
    /// Issuers' keys that STS keeps, by issuer, and when it read them.
    pub keys: BTreeMap<String, (Instant, JwkSet)>,
    /// How far AWS's clock is ahead, in seconds.
    pub clock: i64,
    /// The calls that IAM answers at present.
    pub permits: Permits,
    counter: u64,
}

/// A session that STS issued. Its keys sign later calls.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The account of its role.
    pub account: String,
    pub role: String,
    pub role_arn: String,
    pub role_id: String,
    pub name: String,
    pub secret: String,
    pub token: String,
    /// Seconds since 1970.
    pub issued: i64,
    /// Seconds since 1970.
    pub expires: i64,
    /// ARN of the provider that the web identity token belongs to.
    pub provider: Option<String>,
    pub policy: Option<Value>,
}

impl Account {
    /// Runs something in an account. `own` is the one that the state is of otherwise.
    pub(crate) fn within<T>(&mut self, id: &str, own: &str, run: impl FnOnce(&mut Self) -> T) -> T {
        if id == own {
            return run(self);
        }
        let mut other = self.others.remove(id).unwrap_or_default();
        self.swap(&mut other);
        let result = run(self);
        self.swap(&mut other);
        self.others.insert(id.to_owned(), other);
        result
    }

    fn swap(&mut self, (state, history): &mut (State, History)) {
        std::mem::swap(&mut self.state, state);
        std::mem::swap(&mut self.state.buckets, &mut state.buckets);
        self.history.swap_entities(history);
    }

    /// The document of a managed policy's default version; of AWS's own policies, too.
    pub(crate) fn policy_document(&self, arn: &str) -> Option<Value> {
        self.state.policies.get(arn).map(|policy| policy.document().clone()).or_else(|| aws_managed(arn))
    }

    /// What IAM's reads and STS see: under a lag, each entity as it was that long ago.
    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen { present: &self.state, history: &self.history, lag: self.behaviour.lag() }
    }

    /// What writes see.
    pub(crate) fn present(&self) -> Seen<'_> {
        Seen { lag: Duration::ZERO, ..self.seen() }
    }

    /// Runs a write of IAM, and records what it replaced while there is a lag.
    pub(crate) fn record<T>(&mut self, write: impl FnOnce(&mut Self) -> T) -> T {
        let lag = self.behaviour.lag();
        if lag.is_zero() {
            self.history.forget_entities();
            return write(self);
        }
        let before = self.state.clone();
        let result = write(self);
        self.history.replaced(&before, &self.state, lag);
        result
    }

    /// Runs a direct change. What it changes is settled at once.
    pub(crate) fn settled<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> T {
        if self.history.is_empty() {
            return change(&mut self.state);
        }
        let before = self.state.clone();
        let result = change(&mut self.state);
        self.history.settle(&before, &self.state);
        result
    }

    /// Seconds since 1970 by AWS's clock.
    pub(crate) fn now(&self) -> i64 {
        jiff::Timestamp::now().as_second() + self.clock
    }

    /// A version id that was not returned before.
    pub(crate) fn version_id(&mut self) -> String {
        format!("SIM{:029}", self.next())
    }

    /// A number that was not returned before.
    pub(crate) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

/// The two of AWS's own policies that are known here (AWS managed policy reference).
fn aws_managed(arn: &str) -> Option<Value> {
    let actions = match arn.strip_prefix("arn:aws:iam::aws:policy/")? {
        "AmazonS3ReadOnlyAccess" => json!(["s3:Get*", "s3:List*", "s3:Describe*"]),
        "AmazonS3FullAccess" => json!("s3:*"),
        _ => return None,
    };
    Some(json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}],
    }))
}
