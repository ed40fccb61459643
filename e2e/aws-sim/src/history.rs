//! What roles, policies and providers were before their last changes: the source of reads under a lag.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use aws_sim_api::{Policy, Provider, Role, State};

/// The former values of IAM's entities.
#[derive(Debug, Default)]
pub(crate) struct History {
    roles: Former<Role>,
    policies: Former<Policy>,
    providers: Former<Provider>,
    /// Of public access, by bucket.
    blocks: Former<Block>,
}

/// A bucket's block of public access.
type Block = [bool; 4];

impl History {
    pub(crate) fn is_empty(&self) -> bool {
        let entities = self.roles.0.is_empty() && self.policies.0.is_empty() && self.providers.0.is_empty();
        entities && self.blocks.0.is_empty()
    }

    /// Exchanges the former values of IAM's entities.
    pub(crate) fn swap_entities(&mut self, other: &mut Self) {
        std::mem::swap(self, other);
        std::mem::swap(&mut self.blocks, &mut other.blocks);
    }

    /// Forgets the former values of IAM's entities.
    pub(crate) fn forget_entities(&mut self) {
        *self = Self { blocks: std::mem::take(&mut self.blocks), ..Self::default() };
    }

    /// Keeps the block of public access that another one replaced.
    pub(crate) fn block_replaced(&mut self, bucket: &str, former: Block, settling: Duration) {
        self.blocks.drop_older(settling);
        self.blocks.push(bucket, Some(former));
    }

    /// The block of public access that is in force.
    pub(crate) fn block_in_force(&self, bucket: &str, present: Block, settling: Duration) -> Block {
        self.blocks.one(bucket, Some(&present), settling).copied().unwrap_or(present)
    }

    /// Forgets a bucket's former blocks.
    pub(crate) fn forget_blocks(&mut self, bucket: &str) {
        self.blocks.0.remove(bucket);
    }

    /// Keeps what a write replaced, and drops what no read needs any more.
    pub(crate) fn replaced(&mut self, before: &State, after: &State, lag: Duration) {
        self.roles.replaced(&before.roles, &after.roles, lag);
        self.policies.replaced(&before.policies, &after.policies, lag);
        self.providers.replaced(&before.providers, &after.providers, lag);
    }

    /// Forgets the former values of everything that differs: reads see its present value at once.
    pub(crate) fn settle(&mut self, before: &State, after: &State) {
        self.roles.0.retain(|key, _| before.roles.get(key) == after.roles.get(key));
        self.policies.0.retain(|key, _| before.policies.get(key) == after.policies.get(key));
        self.providers.0.retain(|key, _| before.providers.get(key) == after.providers.get(key));
        let block =
            |state: &State, key: &String| state.buckets.get(key).map(|bucket| bucket.public_access_block);
        self.blocks.0.retain(|key, _| block(before, key) == block(after, key));
    }
}

/// What a reader sees: every entity as it was `lag` ago. Without a lag, the present.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub present: &'a State,
    pub history: &'a History,
    pub lag: Duration,
}

impl<'a> Seen<'a> {
    pub(crate) fn role(self, name: &str) -> Option<&'a Role> {
        let key = name.to_lowercase();
        self.history.roles.one(&key, self.present.roles.get(&key), self.lag)
    }

    /// In the order of their names, without regard to case.
    pub(crate) fn roles(self) -> impl Iterator<Item = &'a Role> {
        self.history.roles.all(&self.present.roles, self.lag).into_iter().map(|(_, role)| role)
    }

    pub(crate) fn policy(self, arn: &str) -> Option<&'a Policy> {
        self.history.policies.one(arn, self.present.policies.get(arn), self.lag)
    }

    pub(crate) fn provider(self, arn: &str) -> Option<&'a Provider> {
        self.history.providers.one(arn, self.present.providers.get(arn), self.lag)
    }

    /// By ARN.
    pub(crate) fn providers(self) -> Vec<(&'a String, &'a Provider)> {
        self.history.providers.all(&self.present.providers, self.lag)
    }
}

/// Former values by key, oldest first; `None` where the entity did not exist. With each, when it was replaced.
#[derive(Debug)]
struct Former<T>(BTreeMap<String, Vec<(Instant, Option<T>)>>);

impl<T> Default for Former<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone + PartialEq> Former<T> {
    /// One entity as it was `lag` ago.
    fn one<'a>(&'a self, key: &str, present: Option<&'a T>, lag: Duration) -> Option<&'a T> {
        let former = self.0.get(key).and_then(|former| former.iter().find(|(at, _)| at.elapsed() < lag));
        former.map_or(present, |(_, value)| value.as_ref())
    }

    /// All entities, each as it was `lag` ago.
    fn all<'a>(&'a self, present: &'a BTreeMap<String, T>, lag: Duration) -> Vec<(&'a String, &'a T)> {
        let keys: BTreeSet<&String> = present.keys().chain(self.0.keys()).collect();
        keys.into_iter().filter_map(|key| Some((key, self.one(key, present.get(key), lag)?))).collect()
    }

    fn replaced(&mut self, before: &BTreeMap<String, T>, after: &BTreeMap<String, T>, lag: Duration) {
        self.drop_older(lag);
        let gone_or_changed = before.iter().filter(|(key, value)| after.get(*key) != Some(value));
        let new = after.keys().filter(|key| !before.contains_key(*key));
        let changed = gone_or_changed.map(|(key, value)| (key, Some(value.clone())));
        for (key, value) in changed.chain(new.map(|key| (key, None))) {
            self.push(key, value);
        }
    }

    fn push(&mut self, key: &str, value: Option<T>) {
        self.0.entry(key.to_owned()).or_default().push((Instant::now(), value));
    }

    /// Drops what no reader sees any more.
    fn drop_older(&mut self, lag: Duration) {
        self.0.retain(|_, former| {
            former.retain(|(replaced, _)| replaced.elapsed() < lag);
            !former.is_empty()
        });
    }
}
