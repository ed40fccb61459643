//! PURE: the types of a binding's reconcile.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::binding::DEFAULT_TOKEN_EXPIRATION_SECONDS;
use crds::condition::ConditionType;
use crds::conditions::{find, is_true};
use crds::names::{self, annotation};
use crds::{Finding, MissingPods, OidcIssuer, PodIdentityBinding, PodIdentityBindingSpec, Reason};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::role::trust::Moves;
use super::role::{Heir, Target};
use crate::aws::error::AwsError;
use crate::aws::model::{Role, RoleChanges, RolePolicies};
use crate::grant::Losses;
use crate::model::{self, ObjectState};
use crate::pods::model::{PodsState, WorkloadRef};

/// The binding and what it refers to, resolved once a pass.
#[derive(Debug, Clone)]
pub struct View {
    /// Metadata and what the status said.
    pub object: ObjectState,
    /// The binding.
    pub binding: Arc<PodIdentityBinding>,
    /// The issuer it names, if that exists; while it is deleted the one under which its role was made; or another one, under which its role
    /// stays (`refused`).
    pub issuer: Option<Arc<OidcIssuer>>,
    /// Whether the issuer that it names exists.
    pub knows_issuer: bool,
    /// The issuer whose grants hold for the role: the one under which it was made, until a specification with another is in effect.
    pub granting: Option<Arc<OidcIssuer>>,
    /// The other bindings on the `ServiceAccount`.
    pub siblings: Vec<Sibling>,
    /// The names of the issuers that decide on the role, and those that exist: that of the specification, and the one under which it was made.
    pub own_issuers: Vec<(String, Option<Arc<OidcIssuer>>)>,
    /// The same of those that the other bindings name.
    pub sibling_issuers: Vec<(String, Option<Arc<OidcIssuer>>)>,
    /// Whether it is in the operator's own namespace.
    pub own_namespace: bool,
    /// Whether the `ServiceAccount` is the operator's own.
    pub reserved: bool,
    /// The time of the pass.
    pub now: Timestamp,
    /// The labels of its namespace, once they are known.
    pub labels: Option<Arc<BTreeMap<String, String>>>,
    /// Whether a grant of its issuer covers it.
    pub grant: Result<(), Finding>,
    /// Which rule of the CRD the specification breaks: the API server may have stored it without that rule.
    pub invalid: Option<Finding>,
    /// Why the binding stays under `issuer` although its specification names another one.
    pub refused: Option<Finding>,
    /// How many roles of the issuer have lost their grant; counted only where this one may have.
    pub losses: Losses,
    /// The role it should have.
    pub target: Result<Target, Unresolved>,
}

/// Another binding on the same `ServiceAccount`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts of one object")]
pub struct Sibling {
    /// Its name.
    pub name: String,
    /// Its creation.
    pub created: Option<Timestamp>,
    /// Whether its deletion was requested.
    pub deleting: bool,
    /// Whether its status names a role of its own.
    pub has_role: bool,
    /// Whether it has our finalizer.
    pub acted_on: bool,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether its specification has the same effect as this binding's.
    pub same_effect: bool,
    /// Whether its `spec.roleARN` is the role of this binding.
    pub uses_role: bool,
    /// What makes the role its own, where it makes the same role and a grant covers it.
    pub heir: Option<Heir>,
}

/// Why the role of a binding is not known.
#[derive(Debug, Clone)]
pub enum Unresolved {
    /// The issuer does not exist.
    NoIssuer,
    /// The binding never asked for a role of its own.
    NotNeeded,
    /// It is being deleted, and its issuer is abandoned: AWS is not asked.
    Abandoned,
    /// The account is not known: AWS could not be asked.
    Account(AwsError),
}

impl View {
    /// The specification.
    #[must_use]
    pub fn spec(&self) -> &PodIdentityBindingSpec {
        &self.binding.spec
    }

    /// What decides on a former statement of the role's trust policy.
    #[must_use]
    pub fn moves(&self) -> Moves {
        /// The CRD allows no longer one.
        const LONGEST_RETENTION: SignedDuration = SignedDuration::from_hours(8760);
        let retention = self.issuer.as_ref().map_or(Duration::ZERO, |issuer| issuer.spec.key_retention());
        let status = self.issuer.as_ref().and_then(|issuer| issuer.status.as_ref());
        let conditions = status.map_or(&[][..], |status| &*status.conditions);
        Moves {
            is_in_use: !is_true(conditions, ConditionType::IssuerMatches),
            now: self.now,
            may_begin: !self.shows_drift(),
            retention: SignedDuration::try_from(retention).unwrap_or_default().min(LONGEST_RETENTION),
        }
    }

    /// Facts of a role that was seen and is this binding's own.
    #[must_use]
    pub fn own_role(&self, observed: &Observed) -> Option<RoleFacts> {
        let (Ok(target), Ok(Some(RoleState::Found(role, _)))) = (&self.target, &observed.role) else {
            return None;
        };
        (self.spec().role.is_some() && target.owns(role).is_ok()).then(|| RoleFacts::of(target))
    }

    /// The reason of Ready in the status.
    #[must_use]
    pub fn ready_reason(&self) -> Option<Reason> {
        let status = self.binding.status.as_ref()?;
        find(&status.conditions, ConditionType::Ready).map(|ready| ready.reason)
    }

    /// Whether the status says Stalled.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        let status = self.binding.status.as_ref();
        status.is_some_and(|status| is_true(&status.conditions, ConditionType::Stalled))
    }

    /// Whether a difference between role and specification was made in AWS, and not by an edit. That is so where the status says that the
    /// role was equal to this specification (Ready for this generation, or its digest), or that this difference was reported before.
    #[must_use]
    pub fn shows_drift(&self) -> bool {
        let status = self.binding.status.as_ref();
        let is_of_generation =
            status.is_some_and(|status| status.observed_generation == Some(self.object.generation));
        let reported = is_of_generation && self.ready_reason() == Some(Reason::DriftDetected);
        self.object.was_ready || reported || self.was_read_as_target() == Some(true)
    }

    /// Whether `spec.roleARN` is the role that this binding makes or made: then it stays as it is.
    #[must_use]
    pub fn uses_own_role(&self) -> bool {
        let named = self.spec().role_arn.as_deref();
        self.target.as_ref().is_ok_and(|target| named.is_some_and(|arn| target.is(arn)))
    }

    /// Whether the role stays when this binding gives it up: it, or another binding on the `ServiceAccount`, uses the role by its ARN.
    #[must_use]
    pub fn keeps_role(&self) -> bool {
        self.uses_own_role() || self.siblings.iter().any(|sibling| sibling.uses_role && !sibling.deleting)
    }

    /// The role that the status names, where it is not the one that would be looked for now: the issuer was made again under
    /// another cluster name, or the credentials are of another account.
    #[must_use]
    pub fn former_role(&self) -> Option<&str> {
        let (target, status) = (self.target.as_ref().ok()?, self.binding.status.as_ref()?);
        status.role_name.as_ref()?;
        status.role_arn.as_deref().filter(|arn| !target.is(arn))
    }

    /// Whether no spec of this binding ever asked for a role: it has its first generation; a deletion counts as one more.
    #[must_use]
    pub fn never_had_role(&self) -> bool {
        self.spec().role.is_none() && self.object.generation <= 1 + i64::from(self.object.deleting)
    }

    /// The issuer, or that it does not exist.
    pub fn issuer(&self) -> Result<&OidcIssuer, Finding> {
        self.issuer.as_deref().ok_or_else(|| missing_issuer(self.spec().issuer_name()))
    }

    /// The issuer whose tokens pods get: with `spec.roleARN` the specified one, also where the binding has an earlier role under another.
    #[must_use]
    pub fn issuer_of_pods(&self) -> Option<&OidcIssuer> {
        let specified = self.own_issuers.first().and_then(|(_, issuer)| issuer.as_deref());
        specified.filter(|_| self.spec().role_arn.is_some()).or(self.issuer.as_deref())
    }

    /// ARN of the role that pods get: the specified one, or the one that is made. `None` while it is not known.
    #[must_use]
    pub fn role_arn(&self) -> Option<&str> {
        let made = || self.target.as_ref().ok().map(|target| target.arn.as_str());
        self.spec().role_arn.as_deref().or_else(made)
    }

    /// The annotations by which the EKS webhook's contract passes the binding on.
    #[must_use]
    pub fn annotations(&self, role_arn: &str) -> BTreeMap<String, String> {
        let spec = self.spec();
        let regional = spec.sts_regional_endpoints.unwrap_or(true);
        let mut annotations = BTreeMap::from([
            (annotation::ROLE_ARN.to_owned(), role_arn.to_owned()),
            (annotation::STS_REGIONAL_ENDPOINTS.to_owned(), regional.to_string()),
        ]);
        let default = self.issuer_of_pods().map(|issuer| issuer.spec.audience());
        if let Some(audience) =
            spec.audience.as_deref().or(default).filter(|audience| *audience != names::DEFAULT_AUDIENCE)
        {
            annotations.insert(annotation::AUDIENCE.to_owned(), audience.to_owned());
        }
        let seconds = spec.token_expiration_seconds.filter(|s| *s != DEFAULT_TOKEN_EXPIRATION_SECONDS);
        if let Some(seconds) = seconds {
            annotations.insert(annotation::TOKEN_EXPIRATION.to_owned(), seconds.to_string());
        }
        annotations
    }
}

/// Which reads are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// The role itself.
    pub role: bool,
    /// What is attached to it.
    pub policies: bool,
}

/// What one pass saw.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The role; `None` where it was not looked for.
    pub role: Result<Option<RoleState>, AwsError>,
    /// What this process did to roles of that name.
    pub changes: RoleChanges,
    /// The `ServiceAccount`, if it exists.
    pub service_account: Option<ServiceAccountState>,
    /// Its pods that run without the identity.
    pub pods: PodsState,
    /// What made them and is restarted.
    pub restarts: Vec<WorkloadRef>,
}

/// That an issuer does not exist.
#[must_use]
pub fn missing_issuer(name: &str) -> Finding {
    Finding::new(Reason::DependencyNotReady, format!("OidcIssuer {name} does not exist: create it"))
}

impl Observed {
    /// Whether the role, or a part of what it may do, could not be read.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        match &self.role {
            Err(_) => true,
            Ok(Some(RoleState::Found(_, Some(policies)))) => policies.has_unread(),
            Ok(_) => false,
        }
    }
}

/// Whether a role exists, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one is made in a pass, and not kept")]
pub enum RoleState {
    /// No role of that name.
    Missing,
    /// The role, and its policies where they were read.
    Found(Role, Option<RolePolicies>),
    /// The role was read as specified, and nothing says that it has changed since.
    AsSpecified,
}

/// That the role was read as specified. What was read is not kept then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSpec {
    /// [`Target::digest`] of what it was compared with.
    pub target: String,
    /// [`ListedRole::digest`](crate::aws::model::ListedRole::digest) of the role.
    pub listed: u64,
    /// When it was read; `None` where an earlier process did that.
    pub read: Option<Instant>,
    /// When it is read again.
    pub until: Instant,
}

/// A `ServiceAccount`, as far as decisions look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountState {
    /// Its uid: an apply without it would create the `ServiceAccount` anew.
    pub uid: String,
    /// Its `resourceVersion`: a refused apply is tried again only after it changes.
    pub version: String,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// Keys of the annotations that are ours by server-side apply.
    pub ours: Vec<String>,
}

impl ServiceAccountState {
    /// Whether it has these annotations, and none of ours besides.
    #[must_use]
    pub fn has_exactly(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(key, value)| self.annotations.get(key) == Some(value))
            && self.ours.iter().all(|key| wanted.contains_key(key))
    }
}

/// What is remembered of one binding between passes. Lost with the process, and then read again.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts of one binding")]
pub struct Memory {
    /// Whether this process has acted on the binding: a role may exist although the cached object has no finalizer yet.
    pub acted: bool,
    /// Generation of the spec that the reads were made for.
    pub generation: i64,
    /// Hash of the ARN of the role that was read; that of another account is another role.
    pub role_arn: Option<u64>,
    /// The role (`None`: there is none) and when it was read.
    pub role: Option<(Option<Box<Role>>, Instant)>,
    /// Its policies and when they were read.
    pub policies: Option<Box<(RolePolicies, Instant)>>,
    /// Digest of each inline policy that this process has put since it last read the role or its policies.
    pub put_inline: Vec<u64>,
    /// Whether the role is read whatever is known of it.
    pub reads_again: bool,
    /// Whether the boundary comes first in a revocation: IAM has refused the last change of the trust policy or of an inline policy.
    pub boundary_first: bool,
    /// Whether this process has had a pass that knew the role: only the first one believes the status.
    pub begun: bool,
    /// That the role was read as specified; then `role` and `policies` are not kept.
    pub in_spec: Option<InSpec>,
    /// The digest that this process has taken out of the status since it read the role as specified.
    pub digest_forgotten: Option<Box<str>>,
    /// Since when every read said that there is no role of this binding.
    pub absent_since: Option<Instant>,
    /// Since when another binding holds the `ServiceAccount`, and has another specification.
    pub conflict_since: Option<Instant>,
    /// The last refused apply of annotations, and when that was.
    pub refused: Option<Box<(Refusal, Instant)>>,
    /// The last apply of annotations.
    pub annotated: Option<Annotated>,
    /// Whether it is known that no role of this binding remains from an earlier generation of the spec.
    pub no_earlier_role: bool,
    /// When the role is revoked, as this process decided it first: a status that says a later time is not believed.
    pub revoke_at: Option<Timestamp>,
    /// Why workloads could not be restarted, and when that was tried.
    pub restart_refused: Option<Box<(String, Instant)>>,
    /// The workload that was looked at last, where a pass looks at a part of them.
    pub restart_after: Option<Box<WorkloadRef>>,
}

/// An apply of annotations that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The `ServiceAccount`'s version.
    pub version: String,
    /// Why, and what to do.
    pub finding: Finding,
}

/// What only a binding's reconcile does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// The digest is taken out of the status before the role is changed: this process may end between two changes.
    ForgetDigest,
    /// Annotations on the `ServiceAccount`.
    Annotate(Annotate),
    /// Our finalizer on the binding that the role is handed over to: from then on it is responsible for the role, and an end of
    /// it that is not known here yet makes this step fail.
    Lock(Heir),
    /// A workload whose pods run without the identity is restarted.
    Restart(WorkloadRef),
}

/// What a step of a binding's own showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// It was done.
    Done,
    /// The digest, if there was one, was taken out of the status.
    DigestForgotten(Option<Box<str>>),
    /// Annotations were applied: [`Annotate::content`].
    Annotated(u64),
    /// The annotations were refused.
    Refused(Refusal),
    /// A workload could not be restarted: why.
    NotRestarted(String),
}

/// That annotations were applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotated {
    /// [`Annotate::content`].
    pub content: u64,
    /// When the same were last put back after somebody had removed them.
    pub put_back: Option<Instant>,
}

/// Apply exactly these annotations to the `ServiceAccount` of that uid and version; an empty set takes ours away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotate {
    /// The `ServiceAccount`'s uid.
    pub uid: String,
    /// The version that was seen.
    pub version: String,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Annotate {
    /// A number that differs where another `ServiceAccount` or other annotations are meant.
    #[must_use]
    pub fn content(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.uid, &self.annotations).hash(&mut hasher);
        hasher.finish()
    }
}

/// Facts of the status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The role; `None` leaves it as it is.
    pub role: Option<RoleFacts>,
    /// What the role was read to trust; `None` leaves it as it is.
    pub trusted: Option<Trusted>,
    /// When the role is revoked.
    pub revoke_at: Option<Timestamp>,
    /// Pods that run without the identity; `None` leaves them as they are.
    pub missing: Option<MissingPods>,
    /// [`Target::digest`] under which the role was read as specified, or its differences were reported, or that it was read and differs;
    /// `None` leaves it as it is.
    pub digest: Option<Option<String>>,
}

/// What a role trusts of the specification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trusted {
    /// Name of the issuer; `None` where that was never read.
    pub issuer: Option<String>,
    /// The audience; `None` for `sts.amazonaws.com`.
    pub audience: Option<String>,
}

/// Name and ARN of a role that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoleFacts {
    /// The ARN.
    pub arn: Option<String>,
    /// The name; absent for a role made elsewhere.
    pub name: Option<String>,
}

impl RoleFacts {
    /// Those of a role that the operator makes.
    #[must_use]
    pub fn of(target: &Target) -> Self {
        Self { arn: Some(target.arn.clone()), name: Some(target.name.clone()) }
    }
}

/// What a pass leaves for the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// That the role was read as specified.
    pub in_spec: Option<InSpec>,
    /// Whether it is known that no role of this binding remains from an earlier generation of the spec.
    pub no_earlier_role: bool,
    /// When the role is revoked.
    pub revoke_at: Option<Timestamp>,
    /// Whether the plan revokes the role.
    pub revocation: Revocation,
    /// Since when another binding holds the `ServiceAccount`, and has another specification.
    pub conflict_since: Option<Instant>,
}

/// Whether a plan takes all rights of a role because no grant covers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revocation {
    /// It does not.
    #[default]
    None,
    /// It does.
    Begins,
    /// An earlier one did, and what is left of it is done.
    GoesOn,
}

/// One thing to do.
pub type Step = model::Step<Own>;
/// What one pass does and reports.
pub type Plan = model::Plan<Own, Facts, Note>;
