//! The pod-mutating admission webhook: a pod whose `ServiceAccount` is bound to an AWS role gets the variables and the
//! token that AWS SDKs look for.
//!
//! [`protocol::server`] receives a review and passes it to [`protocol::admit`], which gets the facts from
//! [`cluster::lookup`], the decision from [`identity::decide`] and the additions to the pod from [`identity::mutate`].
//! Files whose first line says PURE use no client, no clock and no type of a file that does. The crate depends neither on
//! the operator nor on any AWS SDK.

pub mod cli;
pub mod cluster;
pub mod health;
pub mod identity;
pub mod json;
pub mod metrics;
pub mod model;
pub mod protocol;
pub mod run;
pub mod serving;
