//! The closed sets of condition types and reasons, and what a condition is decided from. The list of a status is in [`conditions`](crate::conditions).
//!
//! The rules are those that kstatus (Flux, Helm, kubectl) and Argo CD read: `Ready` is always present, `Reconciling` and
//! `Stalled` exist only while True and never both, and every condition carries the generation that it was computed for.

use serde::{Deserialize, Serialize};

use crate::names;

/// The condition types of both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionType {
    /// The summary that users wait for.
    Ready,
    /// The API server issues tokens with this issuer's URL.
    IssuerMatches,
    /// The bucket contains both documents as specified, or the documents are not the operator's to publish (`spec.s3` is absent).
    Published,
    /// The IAM OIDC provider exists with the specified audiences.
    ProviderRegistered,
    /// Both documents can be read over HTTPS without credentials.
    PubliclyReachable,
    /// STS exchanged a token of this cluster for credentials.
    TokenExchangeVerified,
    /// The bucket's policy keeps sessions of this issuer from writing; it never takes part in Ready.
    BucketFenced,
    /// Present only when False: the API server accepts tokens that are made for AWS: a receiver of such a token
    /// could use it at the API server.
    AudiencesSeparate,
    /// Present only when False: calls to AWS fail.
    AWSReachable,
    /// A grant of the issuer covers the binding.
    Granted,
    /// The role, its trust policy and its policies are as specified in AWS.
    RoleReady,
    /// The `ServiceAccount` carries our annotations.
    ServiceAccountAnnotated,
    /// No pod of the `ServiceAccount` runs without the identity; it never takes part in Ready.
    PodsInjected,
    /// Present only when True: the operator is changing something or retries.
    Reconciling,
    /// Present only when True: a person has to change something.
    Stalled,
}

impl ConditionType {
    /// The type's name in a status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::IssuerMatches => "IssuerMatches",
            Self::Published => "Published",
            Self::ProviderRegistered => "ProviderRegistered",
            Self::PubliclyReachable => "PubliclyReachable",
            Self::TokenExchangeVerified => "TokenExchangeVerified",
            Self::BucketFenced => "BucketFenced",
            Self::AudiencesSeparate => "AudiencesSeparate",
            Self::AWSReachable => "AWSReachable",
            Self::Granted => "Granted",
            Self::RoleReady => "RoleReady",
            Self::ServiceAccountAnnotated => "ServiceAccountAnnotated",
            Self::PodsInjected => "PodsInjected",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Every reason a condition or event may carry. docs/reasons.md explains each; a test compares the two.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
            /// One that this version does not know: read from a status that another version wrote, and never written.
            Other,
        }

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Where it is explained.
            #[must_use]
            pub fn url(self) -> String {
                format!("{}/reasons.md#{}", names::DOCS, self.as_str().to_ascii_lowercase())
            }

            /// Whether it says only that something takes its time.
            #[must_use]
            pub const fn passes_by_itself(self) -> bool {
                matches!(
                    self,
                    Self::Progressing | Self::ProgressingWithRetry | Self::Publishing | Self::Propagating | Self::Deleting
                        | Self::WaitingForGrant
                )
            }

            /// The reason's name in a condition.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                    Self::Other => "Other",
                }
            }
        }
    };
}

reasons! {
    /// Everything is as specified.
    Ready,
    /// The check succeeded.
    Verified,
    /// The operator is making changes towards the specified state.
    Progressing,
    /// Something failed, and the operator retries it.
    ProgressingWithRetry,
    /// The object is being deleted.
    Deleting,
    /// The deletion waits for something that the message names.
    DeletionBlocked,
    /// An administrator has said that the AWS account is lost: the object ends, and what it made stays in AWS.
    Abandoned,
    /// The operator's own credentials rest on the issuer that is to be deleted.
    OperatorDependsOnIssuer,
    /// An older `OidcIssuer` has the same URL in the same account, or the same place for its documents.
    DuplicateIssuer,
    /// The API server issues tokens with another issuer URL.
    IssuerMismatch,
    /// The API server's discovery document or keys could not be read.
    APIServerUnreachable,
    /// The documents are being written, or have not been read since.
    Publishing,
    /// The public URL does not return the published documents.
    NotPublic,
    /// IAM could not reach the issuer's URL when it was to be registered.
    IssuerUnreachable,
    /// STS refused a token of the cluster.
    TokenExchangeFailed,
    /// A write with a session of this issuer succeeded: the bucket's policy does not keep pods out.
    FenceIneffective,
    /// Whether the bucket's policy keeps pods out could not be tried.
    FenceNotProved,
    /// The role with which the bucket's policy is tried does not exist.
    CanaryMissing,
    /// The operator does not manage the bucket's policy.
    NotManaged,
    /// The bucket has keys of which neither an API server nor the status knows one.
    ForeignKeys,
    /// No API server shows a signing key any more: it stays published for its retention.
    KeyRetired,
    /// A published key was removed from the JWKS.
    KeyRemoved,
    /// What is known of published keys was lost and is taken from the bucket.
    KeyHistoryMissing,
    /// A `ConfigMap` of `spec.keys.additional` is missing, or has something else than public keys.
    AdditionalKeysInvalid,
    /// A change in IAM has not taken effect in all of AWS yet.
    Propagating,
    /// The check has not been made yet.
    NotVerified,
    /// An audience of the issuer is one of the API server's own.
    AudienceOfAPIServer,
    /// The operator cannot request a token of its own `ServiceAccount`.
    TokenRequestFailed,
    /// A bucket, role, policy or provider of that name exists and has another owner.
    NotOwned,
    /// What the specification says exists already is missing in AWS, or is not as it has to be.
    ExistingNotAsSpecified,
    /// The operator's own AWS credentials do not work.
    CredentialsUnavailable,
    /// AWS STS refuses the operator's own token: an administrator has to run `bootstrap` again.
    OperatorLockedOut,
    /// AWS denied one of the operator's calls.
    OperatorPermissionMissing,
    /// AWS cannot be reached.
    AWSUnavailable,
    /// AWS throttles the operator's calls.
    Throttled,
    /// A quota of AWS is exceeded.
    QuotaExceeded,
    /// AWS refuses a value of the specification.
    InvalidSpec,
    /// A public-access block of the AWS account or the organisation forbids the public documents.
    PublicAccessBlocked,
    /// The permissions boundary of the cluster's roles does not exist.
    BoundaryMissing,
    /// The `OidcIssuer` is missing or not usable yet.
    DependencyNotReady,
    /// No grant covers the binding yet; one may be applied soon.
    WaitingForGrant,
    /// A grant of the issuer covers the binding.
    Granted,
    /// No grant covers the binding.
    NotGranted,
    /// No grant covers the rights of the role any more: it is revoked soon.
    GrantLost,
    /// The role is revoked: no grant covers its rights.
    Revoked,
    /// A change of grants would revoke many roles: nothing is revoked before an administrator confirms it.
    GrantChangeSuspicious,
    /// A role that the operator does not manage needs no grant.
    NotRequired,
    /// Another binding holds the same `ServiceAccount`.
    ServiceAccountAlreadyBound,
    /// Another binding with the same specification holds the `ServiceAccount`, and is Ready.
    ServedByOlderBinding,
    /// The operator's own `ServiceAccount` cannot be bound.
    ReservedServiceAccount,
    /// The `ServiceAccount` does not exist yet.
    ServiceAccountNotFound,
    /// Another field manager owns the annotation on the `ServiceAccount`.
    AnnotationOwnedByOther,
    /// The API server refuses the annotations on the `ServiceAccount`.
    AnnotationRefused,
    /// The `ServiceAccount` has the annotations.
    Annotated,
    /// No pod of the `ServiceAccount` runs without the identity.
    PodsInjected,
    /// Pods of the `ServiceAccount` run without the identity.
    PodsWithoutIdentity,
    /// Pods are not watched, so that those without the identity are not known.
    PodsNotWatched,
    /// An attribute in AWS had drifted and was corrected.
    DriftCorrected,
    /// Somebody else has changed the role, and `spec.driftPolicy` is `ReportOnly`.
    DriftDetected,
    /// The role has a policy that the binding does not specify and that only denies; it is never removed.
    ForeignDeny,
    /// A role with this cluster's tags names a binding that does not exist.
    OrphanedRole,
}

/// Why something is not as specified: the common form of every refusal and failure, from the check that finds it to the
/// condition that reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The reason of the condition.
    pub reason: Reason,
    /// For users: what is wrong and what to do. No request ids and no times, so that equal states have equal messages.
    pub message: String,
}

impl Finding {
    /// A finding with that reason and message.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Holds {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known.
    Unknown,
    /// It was not observed this time: status, reason and message do not change; Unknown where there was no condition.
    AsBefore,
}

/// A condition as decided; [`merge`] adds times and generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// The condition's type.
    pub type_: ConditionType,
    /// Whether it holds.
    pub holds: Holds,
    /// The reason and the message.
    pub finding: Finding,
}

impl Wanted {
    /// A condition that holds.
    #[must_use]
    pub fn yes(type_: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { type_, holds: Holds::True, finding: Finding::new(reason, message) }
    }

    /// A condition that does not hold.
    #[must_use]
    pub fn no(type_: ConditionType, finding: Finding) -> Self {
        Self { type_, holds: Holds::False, finding }
    }

    /// A condition of which it is not known whether it holds.
    #[must_use]
    pub fn unknown(type_: ConditionType, finding: Finding) -> Self {
        Self { type_, holds: Holds::Unknown, finding }
    }

    /// A condition that was not observed this time. It does not change while the object is Ready; otherwise it is Unknown with
    /// `finding`.
    #[must_use]
    pub fn not_observed(type_: ConditionType, was_ready: bool, finding: Finding) -> Self {
        Self { type_, holds: if was_ready { Holds::AsBefore } else { Holds::Unknown }, finding }
    }
}

/// The state of an object, from which `Ready`, `Reconciling` and `Stalled` follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Summary {
    /// Ready; the reason is `Ready` unless something else should be seen beside it.
    Ready(Finding),
    /// Not ready, and the operator continues without a person: `Reconciling`.
    Reconciling(Finding),
    /// Not ready until a person changes something: `Stalled`.
    Stalled(Finding),
}

impl Summary {
    /// The `Ready` condition and, unless it is True, `Reconciling` or `Stalled`.
    #[must_use]
    pub fn conditions(&self) -> Vec<Wanted> {
        match self {
            Self::Ready(finding) => {
                vec![Wanted::yes(ConditionType::Ready, finding.reason, &finding.message)]
            }
            Self::Reconciling(finding) => {
                // Flux's convention: the reason of `Reconciling` distinguishes a retry from progress.
                let companion = match finding.reason {
                    Reason::Progressing | Reason::Publishing | Reason::Deleting => Reason::Progressing,
                    _ => Reason::ProgressingWithRetry,
                };
                vec![
                    Wanted::no(ConditionType::Ready, finding.clone()),
                    Wanted::yes(ConditionType::Reconciling, companion, &finding.message),
                ]
            }
            Self::Stalled(finding) => vec![
                Wanted::no(ConditionType::Ready, finding.clone()),
                Wanted::yes(ConditionType::Stalled, finding.reason, &finding.message),
            ],
        }
    }

    /// Ready, and nothing else to be seen.
    #[must_use]
    pub fn ready(message: impl Into<String>) -> Self {
        Self::Ready(Finding::new(Reason::Ready, message))
    }

    /// Why the object is not Ready.
    #[must_use]
    pub const fn finding(&self) -> Option<&Finding> {
        match self {
            Self::Ready(_) => None,
            Self::Reconciling(finding) | Self::Stalled(finding) => Some(finding),
        }
    }
}
