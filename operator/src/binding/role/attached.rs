//! PURE: the managed policies attached to a role: exactly the specified set.

use std::collections::BTreeSet;

use crate::aws::model::{IamWrite, Write};
use crate::change::Change;

/// Managed policies a role may have unless the account's quota was raised (IAM quotas).
const QUOTA: usize = 10;

/// The specified policies, each once.
#[must_use]
pub fn wanted(policy_arns: &[String]) -> BTreeSet<String> {
    policy_arns.iter().cloned().collect()
}

/// What makes the attached policies equal to `wanted`. A policy that cannot be attached ends the steps before anything
/// that works is taken away, except where the quota leaves no other order.
#[must_use]
pub fn diff(role: &str, found: &[String], wanted: &BTreeSet<String>) -> Vec<Change> {
    let missing: Vec<Change> =
        wanted.iter().filter(|arn| !found.contains(arn)).map(|arn| attach(role, arn)).collect();
    let surplus: Vec<Change> =
        found.iter().filter(|arn| !wanted.contains(*arn)).map(|arn| detach(role, arn)).collect();
    if found.len() + missing.len() <= QUOTA {
        [missing, surplus].concat()
    } else {
        [surplus, missing].concat()
    }
}

fn attach(role: &str, policy: &str) -> Change {
    Change {
        attribute: "attached policies",
        old: None,
        new: Some(policy.to_owned()),
        write: Write::Iam(IamWrite::AttachPolicy { role: role.to_owned(), policy: policy.to_owned() }),
    }
}

fn detach(role: &str, policy: &str) -> Change {
    Change {
        attribute: "attached policies (surplus)",
        old: Some(policy.to_owned()),
        new: None,
        write: Write::Iam(IamWrite::DetachPolicy { role: role.to_owned(), policy: policy.to_owned() }),
    }
}
