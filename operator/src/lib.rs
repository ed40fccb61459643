//! The operator: reconciles `OidcIssuer` and `PodIdentityBinding` against the API server and AWS.
//!
//! A pass reads as five sentences: resolve (the object and its target, once), observe (all reads), decide (pure), act (one
//! remote call a step), report (status, events, metrics). `driver.rs` is a pass; ARCHITECTURE.md has the map.

pub mod act;
pub mod adopt;
pub mod api_servers;
pub mod aws;
pub mod backoff;
pub mod binding;
pub mod bootstrap;
pub mod certificates;
pub mod change;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod context;
pub mod distribution;
pub mod driver;
pub mod dry_run;
pub mod events;
pub mod finalizer;
pub mod grant;
pub mod health;
pub mod installation;
pub mod issuer;
pub mod issuer_file;
pub mod kind;
pub mod kubeconfig;
pub mod lease;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod oidc;
pub mod orphans;
pub mod ownership;
pub mod pods;
pub mod policy;
pub mod report;
pub mod run;
pub mod sweep;
pub mod tags;
pub mod teardown;
pub mod terminal;
pub mod timings;
pub mod turns;
pub mod watch;
