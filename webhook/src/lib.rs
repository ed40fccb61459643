//! The pod-mutating admission webhook: a pod whose `ServiceAccount` is bound to an AWS role gets the variables and the
//! token that AWS SDKs look for.
//!
//! A review comes in through [`server`] to [`admit`], which asks [`lookup`] for what is known, lets [`identity`] decide and
//! [`mutate`] work out what the pod lacks. Pure are [`settings`], [`facts`], [`mapping`], [`credentials`], [`identity`],
//! [`pod`], [`mutate`], [`patch`], [`review`] and [`text`]. It knows neither the operator nor any AWS SDK.

pub mod account;
pub mod admit;
pub mod callers;
pub mod cli;
pub mod credentials;
pub mod facts;
pub mod files;
pub mod health;
pub mod identity;
pub mod lookup;
pub mod mapping;
pub mod metrics;
pub mod mirror;
pub mod mutate;
pub mod patch;
pub mod pod;
pub mod recent;
pub mod review;
pub mod run;
pub mod server;
pub mod settings;
pub mod sources;
pub mod text;
pub mod tls;
pub mod trust;
