//! PURE: the types of pods that run without their identity.

use crds::names::annotation;
use crds::pod::injected::WithoutIdentity;
use crds::pod::problem::{ExpectedIdentity, PodProblem};
use crds::pod::variable::Variable;

/// A `ServiceAccount`: namespace and name.
pub type Key = (String, String);

/// The identity that the pods of a `ServiceAccount` should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// ARN of the role.
    pub role_arn: Box<str>,
    /// Audience of the token.
    pub audience: Box<str>,
}

impl Expected {
    /// As the rules about pods read it. `prefix` is that of the webhook's annotations. Names of volume and file are the EKS webhook's.
    #[must_use]
    pub fn identity<'a>(&'a self, prefix: &'a str) -> ExpectedIdentity<'a> {
        ExpectedIdentity {
            source: "its PodIdentityBinding",
            first: (Variable::RoleArn, &self.role_arn),
            file_variable: Variable::TokenFile,
            volume: "aws-iam-token",
            file: "token",
            audience: &self.audience,
            annotation_prefix: prefix,
            by_annotations: false,
        }
    }
}

/// The prefix of the annotations of pods that count, unless the webhook has another one.
pub const DEFAULT_PREFIX: &str = annotation::PREFIX;

/// A pod that runs without its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What prevents it; `None` where nothing was injected.
    pub prevented: Option<Box<str>>,
    /// Whether a pod that is made anew may have it.
    pub restart_helps: bool,
    /// What made the pod, where that can be restarted.
    pub workload: Option<WorkloadRef>,
}

impl Missing {
    /// What is kept of it.
    #[must_use]
    pub fn new(why: &WithoutIdentity, workload: Option<WorkloadRef>) -> Self {
        let (prevented, restart_helps) = match why {
            WithoutIdentity::NotInjected => (None, true),
            // An earlier identity may have been injected.
            WithoutIdentity::Prevented(problem) => (
                Some(cut(problem.to_string())),
                matches!(problem, PodProblem::OtherRole { .. } | PodProblem::OtherToken { .. }),
            ),
        };
        Self { prevented, restart_helps, workload }
    }
}

/// What is kept of a message, which has values of the pod.
fn cut(mut message: String) -> Box<str> {
    /// In bytes.
    const LIMIT: usize = 256;
    message.truncate(message.floor_char_boundary(LIMIT));
    message.into()
}

/// The kinds of workloads that can be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkloadKind {
    /// A Deployment.
    Deployment,
    /// A `StatefulSet`.
    StatefulSet,
    /// A `DaemonSet`.
    DaemonSet,
}

impl WorkloadKind {
    /// The kind, as Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

/// A workload of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadRef {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: Box<str>,
}

/// What is known of the pods of a `ServiceAccount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodsState {
    /// Pods are not watched.
    NotWatched,
    /// They are not known yet.
    NotKnown,
    /// They cannot be read: why.
    Unreadable(String),
    /// Those that run without the identity.
    Known(Found),
}

/// Pods that run without the identity, as a status shows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// How many.
    pub count: usize,
    /// The first ones by name, at most [`NAMED`], with what prevents it.
    pub named: Vec<(String, Option<Box<str>>)>,
    /// What can be restarted, in order.
    pub workloads: Vec<WorkloadRef>,
}

/// The most pods that a status names.
pub const NAMED: usize = 5;
/// The most workloads of a `ServiceAccount` that are looked at in one pass, to restart them.
pub const WORKLOADS: usize = 16;
