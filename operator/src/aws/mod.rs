//! The boundary to AWS: thin wrappers around the SDK that return domain types. Tests replace the HTTP client below the SDK, not
//! the wrappers, so that error parsing, retries and encodings are tested, too.

pub mod accounts;
mod call;
pub mod cause;
mod classify;
mod credentials;
pub mod error;
pub mod iam;
pub mod inventory;
pub mod limit;
pub mod model;
pub mod own_token;
pub mod public;
pub mod recent;
pub mod s3;
pub mod setup;
pub mod sts;
