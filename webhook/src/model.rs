//! PURE: types that the protocol, the cluster and the metrics share. Their names are label values of metrics.

/// The entry of the webhook configuration that a review comes through, known by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookEntry {
    /// All pods; fails open.
    Pods,
    /// Pods of namespaces labelled `podidentity.dev/require=true`: a pod of a bound `ServiceAccount` gets its identity or is
    /// refused.
    RequiredNamespaces,
    /// Pods with that label: refused until their identity exists.
    RequiredPods,
}

impl WebhookEntry {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pods, Self::RequiredNamespaces, Self::RequiredPods];

    /// The URL path of the entry.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Pods => "/mutate",
            Self::RequiredNamespaces => "/mutate/required-namespaces",
            Self::RequiredPods => "/mutate/required-pods",
        }
    }

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::RequiredNamespaces => "required-namespaces",
            Self::RequiredPods => "required-pods",
        }
    }
}

/// Where facts about a `ServiceAccount` come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactsOrigin {
    /// The watched copies.
    Cache,
    /// A live lookup.
    Live,
}

impl FactsOrigin {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Live => "live",
        }
    }
}

/// The result of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// What the pod lacked was added.
    Mutated,
    /// The pod lacked nothing.
    Complete,
    /// The `ServiceAccount` has no identity.
    NoRole,
    /// The pod names no `ServiceAccount`.
    NoServiceAccount,
    /// The review is not about the creation of a pod.
    NotOurs,
    /// The pod was refused.
    Denied,
    /// The pod was refused because it requires an identity and has none yet.
    Required,
    /// The review could not be read.
    Malformed,
    /// The answer is not known: the API server counts a failed call.
    Unavailable,
    /// A defect of this program.
    Panicked,
}

impl Outcome {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mutated => "mutated",
            Self::Complete => "complete",
            Self::NoRole => "no_role",
            Self::NoServiceAccount => "no_service_account",
            Self::NotOurs => "not_ours",
            Self::Denied => "denied",
            Self::Required => "required",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
            Self::Panicked => "panicked",
        }
    }
}

/// Why a pod that should have an identity, or might, was admitted without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MissingIdentityReason {
    /// It was admitted before its identity was known; that became known within a minute.
    BeforeIdentity,
    /// Its binding gives no identity (yet).
    BindingUnusable,
    /// A container has no free path to mount the token at.
    NoMountPath,
    /// Whether it has an identity could not be found out, and the entry fails open.
    Unknown,
}

impl MissingIdentityReason {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::BeforeIdentity, Self::BindingUnusable, Self::NoMountPath, Self::Unknown];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeIdentity => "before_identity",
            Self::BindingUnusable => "binding_unusable",
            Self::NoMountPath => "no_place",
            Self::Unknown => "unknown",
        }
    }
}
