//! PURE: which identity a `ServiceAccount` has, and what a pod lacks of it. From what the cluster, the files and the flags
//! say ([`facts`], [`issuers`], [`mapping`], [`credentials`], [`settings`]) [`decide`] makes an [`model::Identity`], and from
//! that and the [`crds::pod`] [`mutate`] makes a patch.

pub mod credentials;
pub mod decide;
pub mod expiration;
pub mod facts;
pub mod issuers;
pub mod mapping;
pub mod model;
pub mod mutate;
pub mod settings;
