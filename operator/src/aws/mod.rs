//! The AWS seam: thin concrete wrappers over the SDK, domain types out. Tests replace the HTTP client underneath, never
//! these wrappers: error parsing, retries and encodings stay under test.

pub mod accounts;
mod call;
pub mod error;
pub mod iam;
pub mod inventory;
pub mod model;
pub mod public;
pub mod s3;
pub mod setup;
pub mod sts;
