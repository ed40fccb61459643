//! The API of `podidentity.dev`: the two kinds, their conditions and reasons, and every name that more than one crate
//! uses. It uses no client, no clock and no AWS SDK.

#![allow(clippy::duplicated_attributes, reason = "each printcolumn has its own `type_`")]

// `KubeSchema` makes copies of the types for their schemas, and nothing uses those of types with `serde(remote)`.
#[allow(dead_code, reason = "of these copies; the types themselves are public")]
pub mod binding;
pub mod condition;
pub mod conditions;
pub mod duration;
pub mod generate;
pub mod glob;
pub mod holder;
pub mod in_effect;
pub mod issuer;
pub mod keys;
pub mod lenient;
pub mod names;
pub mod pod;
pub mod publication;
pub mod rules;
pub mod selector;

pub use binding::{
    DriftPolicy, InlinePolicy, IssuerRef, MissingPods, PodIdentityBinding, PodIdentityBindingSpec,
    PodIdentityBindingStatus, RoleDeletionPolicy, RoleSpec,
};
pub use condition::{ConditionType, Finding, Reason};
pub use issuer::{
    DeletionPolicy, Grant, GrantNamespaces, InlinePolicies, OidcIssuer, OidcIssuerSpec, OidcIssuerStatus,
};
pub use keys::{AdditionalKeys, KeySettings, KeyState, PublishedKey};
pub use publication::{Management, ProviderSettings, S3Location};
