//! PURE: the managed policies attached to a role: exactly the specified set, and those that only deny.

use std::collections::{BTreeMap, BTreeSet};

use super::difference::Difference;
use crate::aws::model::{IamWrite, Write};
use crate::change::Change;
use crate::policy::only_denies;

/// Managed policies a role may have unless the account's quota was raised (IAM quotas).
const QUOTA: isize = 10;

/// The specified policies, each once.
#[must_use]
pub fn wanted(policy_arns: &[String]) -> BTreeSet<String> {
    policy_arns.iter().cloned().collect()
}

/// Attached policies by ARN, with the documents of those that were read.
type Found = BTreeMap<String, Option<String>>;

/// What makes the attached policies equal to `wanted`. A policy that only denies is never detached.
#[must_use]
pub fn diff(role: &str, found: &Found, wanted: &BTreeSet<String>) -> Difference {
    let missing = wanted.iter().filter(|arn| !found.contains_key(*arn));
    let denies: BTreeSet<&String> = foreign_denies(found, wanted).collect();
    let surplus = found.keys().filter(|arn| !wanted.contains(*arn) && !denies.contains(arn));
    Difference {
        additions: missing.map(|arn| (attach(role, arn), 1)).collect(),
        removals: surplus.map(|arn| (detach(role, arn), 1)).collect(),
        room: QUOTA - found.len().cast_signed(),
    }
}

/// Policies that are not specified and only deny: they are never detached while the role stays.
pub fn foreign_denies<'a>(found: &'a Found, wanted: &BTreeSet<String>) -> impl Iterator<Item = &'a String> {
    let denies = |document: &Option<String>| document.as_deref().is_some_and(only_denies);
    found.iter().filter(move |(arn, document)| !wanted.contains(*arn) && denies(document)).map(|(arn, _)| arn)
}

/// What detaches everything, once the role can be assumed no more. What only denies goes last: it may hold back a session
/// that is still live.
#[must_use]
pub fn removal(role: &str, found: &Found) -> [Vec<Change>; 2] {
    let denies: BTreeSet<&String> = foreign_denies(found, &BTreeSet::new()).collect();
    let [first, last]: [Vec<&String>; 2] =
        [false, true].map(|only| found.keys().filter(|arn| denies.contains(arn) == only).collect());
    [first, last].map(|arns| arns.into_iter().map(|arn| detach(role, arn)).collect())
}

fn attach(role: &str, policy: &str) -> Change {
    Change {
        attribute: "attached policies",
        old: None,
        new: Some(policy.to_owned()),
        write: Write::Iam(IamWrite::AttachPolicy { role: role.to_owned(), policy: policy.to_owned() }),
    }
}

/// What detaches one policy.
#[must_use]
pub fn detach(role: &str, policy: &str) -> Change {
    Change {
        attribute: "attached policies (surplus)",
        old: Some(policy.to_owned()),
        new: None,
        write: Write::Iam(IamWrite::DetachPolicy { role: role.to_owned(), policy: policy.to_owned() }),
    }
}
