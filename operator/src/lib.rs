//! The operator: reconciles `OidcIssuer` and `PodIdentityBinding` against the API server and AWS.
//!
//! A reconcile reads as four sentences: observe (all reads), decide (pure), act (one remote call a step), report (status,
//! events, metrics). ARCHITECTURE.md has the map.

pub mod aws;
pub mod backoff;
pub mod binding;
pub mod bootstrap;
pub mod certificates;
pub mod cli;
pub mod context;
pub mod finalizer;
pub mod grant;
pub mod health;
pub mod issuer;
pub mod issuer_file;
pub mod lease;
pub mod metrics;
pub mod oidc;
pub mod policy;
pub mod reconcile;
pub mod report;
pub mod run;
pub mod teardown;
pub mod terminal;
pub mod timings;
pub mod watch;
