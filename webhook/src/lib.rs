//! The pod-mutating admission webhook: a pod whose `ServiceAccount` is bound to an AWS role gets the variables and the
//! token that AWS SDKs look for.
//!
//! [`identity`] and [`mutate`] decide and are pure; [`admit`] speaks the admission protocol; [`lookup`] knows the
//! cluster; [`tls`], [`server`] and [`run`] carry them. It knows neither the operator nor any AWS SDK.

pub mod admit;
pub mod cli;
pub mod health;
pub mod identity;
pub mod lookup;
pub mod metrics;
pub mod mirror;
pub mod mutate;
pub mod run;
pub mod server;
pub mod tls;
