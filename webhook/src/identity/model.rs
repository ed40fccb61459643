//! PURE: what goes into the decision about a `ServiceAccount`, and what comes out of it.

use std::borrow::Cow;
use std::sync::Arc;

use crds::pod::problem::PodProblem;

use crate::identity::facts::{Annotations, BindingFacts};
use crate::identity::issuers::Issuers;
use crate::identity::mapping::Mapped;

/// What is known about a `ServiceAccount`.
#[derive(Debug, Clone, Default)]
pub struct ServiceAccountFacts {
    /// Its annotations.
    pub annotations: Option<Arc<Annotations>>,
    /// The bindings that name it.
    pub bindings: Vec<Arc<BindingFacts>>,
    /// The issuers that those bindings use, and the cluster's default issuer.
    pub issuers: Arc<Issuers>,
    /// Its entry in the ConfigMap.
    pub mapped: Option<Arc<Mapped>>,
    /// Whether it is in the container-credentials file.
    pub container_credentials: bool,
}

/// What a pod gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Where it comes from.
    pub source: IdentitySource,
    /// How the SDK gets credentials.
    pub method: CredentialMethod<'a>,
    /// The token's audience.
    pub audience: &'a str,
    /// The token's lifetime in seconds, unless the pod's own annotation says otherwise.
    pub expiration_seconds: i64,
    /// `AWS_REGION` and `AWS_DEFAULT_REGION`, where a region is known.
    pub region: Option<&'a str>,
    /// Whether `AWS_STS_REGIONAL_ENDPOINTS=regional` is injected.
    pub sts_regional_endpoints: bool,
}

/// How an SDK gets credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialMethod<'a> {
    /// It exchanges the token for this role at STS.
    Role(Cow<'a, str>),
    /// It sends the token to an agent on the node (EKS Pod Identity).
    ContainerCredentials,
}

/// Where an identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentitySource {
    /// The container-credentials file.
    ContainerCredentials,
    /// A `PodIdentityBinding`.
    Binding,
    /// Annotations of the `ServiceAccount`.
    Annotations,
    /// The ConfigMap.
    ConfigMap,
}

impl IdentitySource {
    /// How messages about a pod name it.
    #[must_use]
    pub const fn in_messages(self) -> &'static str {
        match self {
            Self::ContainerCredentials => "the container-credentials mode",
            Self::Binding => "its PodIdentityBinding",
            Self::Annotations => "its ServiceAccount",
            Self::ConfigMap => "ConfigMap pod-identity-webhook",
        }
    }

    /// The name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContainerCredentials => "container_credentials",
            Self::Binding => "binding",
            Self::Annotations => "annotations",
            Self::ConfigMap => "config_map",
        }
    }
}

/// The decision, and what the user should know about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision<'a> {
    /// `None`: the pod is not changed.
    pub identity: Option<Identity<'a>>,
    /// Admission warnings.
    pub warnings: Vec<String>,
    /// Those about the token's lifetime, for a pod that gets a token and does not say its lifetime itself.
    pub lifetime_warnings: Vec<String>,
    /// Annotations of the `ServiceAccount` that nothing reads, where annotations count.
    pub problems: Vec<PodProblem>,
}
