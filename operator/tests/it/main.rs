//! The operator with a real API server, which issues the tokens, and a simulated AWS, which authorises every call by the policy
//! that `operator iam-policy` prints. All tests use one API server, one after the other: issuers are cluster-scoped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod abandon;
mod abuse;
mod accounts;
mod adopt;
mod aws_answers;
mod binding;
mod bootstrap;
mod boundary;
mod campaign;
mod certificates;
mod cluster_lifetime;
mod crash;
mod crd_rules;
mod credentials;
mod deletion;
mod documents;
mod drift;
mod escalation;
mod faults;
mod fence;
mod field_managers;
mod grants;
mod issuer;
mod issuer_deletion;
mod issuer_switch;
mod lease;
mod limits;
mod locked_out;
mod lost_answers;
mod modes;
mod moves;
mod orphans;
mod partitions;
mod plans;
mod pods;
mod policies;
mod proxy;
mod publication;
mod recipes;
mod replicas;
mod role_end;
mod role_lifetime;
mod several_issuers;
mod siblings;
mod signing_keys;
mod stale;
mod status;
mod structure;
mod terraform;
mod transitions;
mod waits;
mod world;
