//! A simulator of AWS that refuses what AWS refuses: IAM, STS and S3, as far as this project calls them.
//!
//! It exists because no packaged emulator verifies a web identity token against the published documents, nor evaluates
//! conditions, boundaries and bucket policies on every call. A [`Sim`] answers HTTP requests: in the same process
//! ([`sdk`]), or as a TLS server under AWS's host names ([`server`]), with a control API for tests beside it
//! ([`control`]). S3 is implemented here rather than with the `s3s` crate, which supports none of what is needed: bucket
//! policy, public-access block, ownership, tags, anonymous reads.

mod account;
mod authority;
mod authz;
mod constraints;
pub mod control;
mod digest;
mod faults;
mod history;
mod iam;
mod model;
pub mod policy;
mod rate;
mod s3;
#[cfg(feature = "sdk")]
pub mod sdk;
pub mod server;
mod sigv4;
mod sim;
mod sts;
mod wire;

pub use authority::Authority;
pub use aws_sim_api::{
    Behaviour, Bucket, Call, CallRate, Credentials, Encryption, Fault, FaultKind, FederatedProviderForm,
    JwksCache, ListRolesOn, MissingRole, Object, ObjectVersion, Policy, Provider, PublicPolicyDenial, Role,
    State, Tags,
};
pub use model::{ConnectionLost, Fetch, Settings};
pub use sim::Sim;

/// The former path of the account's types.
pub mod world {
    pub use aws_sim_api::{Bucket, Object, Policy, Provider, Role, State, Tags};
}
