//! PURE: the types of an issuer's reconcile.

use std::sync::Arc;
use std::time::Instant;

use crds::{Finding, OidcIssuer, OidcIssuerSpec, PublishedKey};

use super::keys::Life;
use super::publication::target::Target;
use crate::api_servers::model::ApiServers;
use crate::aws::error::AwsError;
use crate::aws::model::{Bucket, Provider};
use crate::distribution::Distribution;
use crate::model::{self, ObjectState};
use crate::oidc::{Documents, Keys};

/// The issuer and its names in AWS, resolved once a pass.
#[derive(Debug, Clone)]
pub struct View {
    /// Metadata and what the status said.
    pub object: ObjectState,
    /// The issuer.
    pub issuer: Arc<OidcIssuer>,
    /// Its names; an error while the account is not known.
    pub target: Result<Target, AwsError>,
    /// Why nothing of it is read or changed in AWS: an older issuer has the same URL or the same place, or it is abandoned.
    pub untouched: Option<Finding>,
}

impl View {
    /// The specification.
    #[must_use]
    pub fn spec(&self) -> &OidcIssuerSpec {
        &self.issuer.spec
    }

    /// The keys that the status knows.
    #[must_use]
    pub fn recorded_keys(&self) -> &[PublishedKey] {
        self.issuer.status.as_ref().map_or(&[], |status| &status.keys)
    }

    /// Digest of the documents that were last seen published as wanted.
    #[must_use]
    pub fn published_digest(&self) -> Option<&str> {
        self.issuer.status.as_ref()?.published_digest.as_deref()
    }
}

/// Which reads are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// The API servers' documents, and the keys that are published in advance.
    pub api: bool,
    /// Bucket and provider.
    pub aws: bool,
}

/// What one pass saw.
#[derive(Debug, Clone)]
pub struct Observed {
    /// What the API servers issue and sign with; an error where none of them answered.
    pub api: Result<ApiServers, Finding>,
    /// The keys that are published in advance.
    pub additional: Additional,
    /// The distribution, where an API server has another issuer: only then is it of interest.
    pub distribution: Distribution,
    /// What is in AWS; an error, too, where the account is not known.
    pub aws: Result<AwsState, AwsError>,
    /// Bindings (`namespace/name`) that use the issuer; looked for only during its deletion.
    pub dependents: Vec<String>,
    /// Names of other `OidcIssuer`s with the same URL, in other accounts.
    pub same_url: Vec<String>,
    /// The issuer of the operator's own token for AWS, where it has one in a file; read only during a deletion.
    pub own_token_issuer: Option<String>,
}

impl Observed {
    /// The metric label of a read that failed, if one did.
    #[must_use]
    pub fn failed_read(&self) -> Option<&'static str> {
        let aws = || self.aws.as_ref().err().map(|error| error.class.label());
        self.api.as_ref().err().map(|_| "kubernetes").or_else(aws)
    }
}

/// The keys of `spec.keys.additional`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Additional {
    /// All of them.
    pub keys: Keys,
    /// What of the `ConfigMap`s is missing or is no public key; each sentence names the `ConfigMap` and the key of its data.
    pub invalid: Vec<String>,
    /// `ConfigMap`s that could not be read this time: nothing is concluded from them.
    pub unread: Vec<String>,
}

/// What is in AWS for an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AwsState {
    /// The bucket, if there is one of that name in our account.
    pub bucket: Option<Bucket>,
    /// The OIDC provider, if registered.
    pub provider: Option<Provider>,
}

/// What is remembered of one issuer between passes, with its age. Lost with the process, and then read again.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The specification that the last pass was made for, without its grants: they concern bindings only.
    pub spec: Option<OidcIssuerSpec>,
    /// ARN of the provider that was read; that of another account is another provider.
    pub provider_arn: Option<String>,
    /// The API servers' documents and when they were read.
    pub api: Option<(Result<ApiServers, Finding>, Instant)>,
    /// The keys that are published in advance, read together with the API servers.
    pub additional: Additional,
    /// The distribution; it does not change.
    pub distribution: Option<Distribution>,
    /// The keys as the last pass published them, with their states.
    pub keys: Option<Life>,
    /// Whether this process has read its documents anonymously: what is published there is of this cluster, whatever key it has.
    pub publishes: bool,
    /// What of the `ConfigMap`s an event was published for.
    pub invalid: Vec<String>,
    /// AWS and when it was read.
    pub aws: Option<(AwsState, Instant)>,
    /// When we last changed something in AWS.
    pub last_write: Option<Instant>,
    /// The last verification.
    pub verification: Option<Verification>,
    /// Since when there is definite evidence against the issuer.
    pub bad_since: Option<Instant>,
    /// Since when an API server is out of reach.
    pub out_of_reach_since: Option<Instant>,
    /// Whether this process has deleted the provider.
    pub provider_deleted: bool,
    /// Whether this process has deleted the bucket.
    pub bucket_deleted: bool,
    /// What no read of a deletion has shown.
    pub missing: Missing,
}

/// During a deletion: since when every read has shown none. One answer is not believed: what it hides would be left in AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missing {
    /// No provider.
    pub provider_since: Option<Instant>,
    /// No bucket.
    pub bucket_since: Option<Instant>,
}

impl Memory {
    /// Whether the last pass was made for a specification with the same effect on bucket, documents and provider.
    #[must_use]
    pub fn is_for(&self, spec: &OidcIssuerSpec) -> bool {
        self.spec.as_ref() == Some(&without_grants(spec))
    }
}

/// What of a specification concerns bucket, documents and provider.
#[must_use]
pub fn without_grants(spec: &OidcIssuerSpec) -> OidcIssuerSpec {
    OidcIssuerSpec { grants: Vec::new(), ..spec.clone() }
}

/// Both documents read anonymously and, if asked for, a token exchanged for credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// When.
    pub at: Instant,
    /// Digest of the documents it was made for.
    pub digest: String,
    /// Both documents read anonymously.
    pub public: Evidence,
    /// A token exchanged for credentials; `None` where that makes no sense yet.
    pub exchange: Option<Evidence>,
    /// Whether the bucket's policy keeps a session of this issuer from writing; `None` where it was not tried.
    pub fence: Option<Fence>,
    /// The API server's own audiences: those of a token that is requested without one. Empty where that is not known.
    pub api_audiences: Vec<String>,
}

/// What a write with a session of this issuer showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fence {
    /// Denied, although the session could read.
    Holds,
    /// It succeeded.
    Ineffective,
    /// There is no role or no object to try it with.
    NoCanary,
    /// The bucket's policy is somebody else's, or there is no bucket.
    NotManaged,
    /// It is not known, for this reason.
    NotProved(String),
}

/// What a check showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// It works.
    Good,
    /// It does not, for certain.
    Bad(Finding),
    /// It is not known: time-outs, 5xx.
    Unclear(Finding),
}

/// What anonymous readers must find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Our documents, byte for byte.
    Published(Documents),
    /// Documents of somebody else, with at least these keys.
    Elsewhere(Keys),
}

impl Expected {
    /// Our documents.
    #[must_use]
    pub const fn documents(&self) -> Option<&Documents> {
        match self {
            Self::Published(documents) => Some(documents),
            Self::Elsewhere(_) => None,
        }
    }

    /// What distinguishes it from another.
    #[must_use]
    pub fn digest(&self) -> String {
        match self {
            Self::Published(documents) => documents.digest(),
            Self::Elsewhere(keys) => keys.ids().collect::<Vec<_>>().join(" "),
        }
    }
}

/// What only an issuer's reconcile does: verify what was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// What must be found.
    pub expected: Expected,
    /// Whether the token exchange makes sense yet.
    pub exchange: bool,
}

/// Facts of the status.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// The issuer URL.
    pub issuer_url: String,
    /// Public URL of the JWKS.
    pub jwks_uri: String,
    /// Partition, once the account is known.
    pub partition: Option<String>,
    /// Account, once known.
    pub account: Option<String>,
    /// Provider ARN, once the account is known.
    pub provider_arn: Option<String>,
    /// Digest of both documents, once both are published as wanted.
    pub digest: Option<String>,
    /// The keys, once both the API servers and the bucket were read.
    pub keys: Option<Vec<PublishedKey>>,
    /// Whether keys that the status has and `keys` has not are taken out.
    pub keys_complete: bool,
}

/// What a pass leaves for the next.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Note {
    /// Since when there is definite evidence against the issuer.
    pub bad_since: Option<Instant>,
    /// What no read of a deletion has shown.
    pub missing: Missing,
    /// Since when an API server is out of reach, others being in reach.
    pub out_of_reach_since: Option<Instant>,
    /// The keys; `None` where they could not be decided.
    pub keys: Option<Life>,
    /// [`Additional::invalid`] of this pass.
    pub invalid: Vec<String>,
}

/// One thing to do.
pub type Step = model::Step<Verify>;
/// What one pass does and reports.
pub type Plan = model::Plan<Verify, Facts, Note>;
