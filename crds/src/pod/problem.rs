//! PURE: what keeps a pod's containers from using the identity that the pod should have, although it has or gets its token.
//!
//! Found before the pod is changed: by the webhook, which warns and refuses pods that require their identity.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::annotation::{Place, UnreadAnnotation, unread_annotation};
use super::token::{below, token_volume};
use super::variable::{Setting, Variable};
use super::{Container, Mount, Pod, Volume};

/// The identity that a pod should have, and how it should get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedIdentity<'a> {
    /// What says so, as messages name it: for example `its PodIdentityBinding`.
    pub source: &'static str,
    /// The variable with the role's ARN or the agent's address, and its value as it is injected: each `$` is doubled.
    pub first: (Variable, &'a str),
    /// The variable with the path of the token's file.
    pub file_variable: Variable,
    /// The name of the token's volume.
    pub volume: &'a str,
    /// The token's file in its volume.
    pub file: &'a str,
    /// The token's audience.
    pub audience: &'a str,
    /// The prefix of annotations, without the slash.
    pub annotation_prefix: &'a str,
    /// Whether annotations of the `ServiceAccount` could give it: a binding does not look at them.
    pub by_annotations: bool,
}

/// A problem of a pod or of one of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodProblem {
    /// A container sets the role, or the agent, to something else.
    OtherRole {
        /// The container.
        container: String,
        /// The variable, and what it is set to.
        found: (Variable, String),
        /// What says otherwise, and the value that it gives.
        expected: (&'static str, String),
    },
    /// A container uses a token of another audience.
    OtherToken {
        /// The container.
        container: String,
        /// The audience of its token.
        found: String,
        /// What says otherwise, and the value that it gives.
        expected: (&'static str, String),
    },
    /// A container sets only one of the two variables.
    HalfIdentity {
        /// The container.
        container: String,
        /// The variable that it sets.
        set: Variable,
        /// The variable that it does not set.
        missing: Variable,
        /// Whether `envFrom` may set that one.
        may_be_set: bool,
    },
    /// A container has a static key.
    StaticKey {
        /// The container.
        container: String,
        /// Whether the object that the key is in may be missing.
        optional: bool,
    },
    /// A container has a profile.
    Profile {
        /// The container.
        container: String,
    },
    /// A container mounts the token by subPath.
    SubPath {
        /// The container.
        container: String,
        /// The path of that mount.
        path: String,
    },
    /// A volume has the name of the token's, and a token of another audience.
    OtherVolume {
        /// The volume.
        volume: String,
        /// The audience of its token.
        found: String,
        /// What says otherwise, and the value that it gives.
        expected: (&'static str, String),
    },
    /// An annotation that nothing reads.
    Annotation {
        /// What is wrong, and what is right.
        message: String,
    },
}

/// The most problems that are reported for one pod; if one prevents the identity, at least one such problem is reported.
const MOST_PROBLEMS: usize = 16;

/// The problems of a pod as it is, before anything is added to it. Containers in `skipped` are not looked at.
#[must_use]
pub fn problems(
    pod: &Pod<'_>,
    skipped: &BTreeSet<String>,
    identity: &ExpectedIdentity<'_>,
) -> Vec<PodProblem> {
    let ExpectedIdentity { volume, file, audience, annotation_prefix, by_annotations, .. } = *identity;
    let mut found = Problems::default();
    let counts =
        |unread_annotation: &UnreadAnnotation| by_annotations || unread_annotation.place() == Place::Pod;
    unread_annotations(pod.annotation_keys(), annotation_prefix).filter(counts).for_each(
        |unread_annotation| found.add(PodProblem::annotation(&unread_annotation, annotation_prefix)),
    );
    found.extend(other_volume(pod.volumes(), identity));
    let volumes = Volumes { all: pod.volumes(), by_name: OnceCell::new() };
    let token = token_volume(pod.volumes(), volume, file, audience).map(|(name, _)| name);
    let containers = pod.containers().iter().chain(pod.init_containers());
    for container in containers.filter(|container| !skipped.contains(&*container.name)) {
        found.extend(token.as_deref().and_then(|volume| sub_path(container, volume)));
        variables(container, &volumes, identity, &mut found);
    }
    found.0
}

/// The volumes of a pod, of which there may be as many as containers. Few pods have a container that names a token's file.
struct Volumes<'a> {
    all: &'a [Volume<'a>],
    by_name: OnceCell<BTreeMap<&'a str, &'a Volume<'a>>>,
}

impl<'a> Volumes<'a> {
    fn get(&self, name: &str) -> Option<&'a Volume<'a>> {
        let by_name = || self.all.iter().rev().map(|volume| (&*volume.name, volume)).collect();
        self.by_name.get_or_init(by_name).get(name).copied()
    }
}

/// Problems within their limit.
#[derive(Default)]
struct Problems(Vec<PodProblem>);

impl Problems {
    fn add(&mut self, problem: PodProblem) {
        let prevents = problem.prevents_identity() && !self.0.iter().any(PodProblem::prevents_identity);
        if self.0.len() < MOST_PROBLEMS || prevents {
            self.0.push(problem);
        }
    }

    fn extend(&mut self, problem: Option<PodProblem>) {
        if let Some(problem) = problem {
            self.add(problem);
        }
    }
}

/// Annotations of a pod that give a `ServiceAccount` its role, and that nothing reads there.
pub fn annotation_problems<'a>(keys: impl Iterator<Item = &'a str>, prefix: &str) -> Vec<PodProblem> {
    unread_annotations(keys, prefix)
        .take(MOST_PROBLEMS)
        .map(|found| PodProblem::annotation(&found, prefix))
        .collect()
}

fn unread_annotations<'a>(
    keys: impl Iterator<Item = &'a str>,
    prefix: &str,
) -> impl Iterator<Item = UnreadAnnotation> {
    keys.filter_map(move |key| unread_annotation(key, prefix, Place::Pod))
}

fn other_volume(volumes: &[Volume<'_>], identity: &ExpectedIdentity<'_>) -> Option<PodProblem> {
    let ExpectedIdentity { source, volume, file, audience, .. } = *identity;
    let found = volumes.iter().find(|found| *found.name == *volume)?.audience_of_token(file)?;
    let (volume, found, expected) = (volume.to_owned(), found.to_owned(), (source, audience.to_owned()));
    (found != audience).then_some(PodProblem::OtherVolume { volume, found, expected })
}

/// A mount of the token by subPath, also where the container mounts the whole volume besides.
fn sub_path(container: &Container<'_>, volume: &str) -> Option<PodProblem> {
    let is_part = |mount: &&Mount<'_>| *mount.name == *volume && !mount.is_of_whole_volume();
    let path = container.mounts().iter().find(is_part)?.path().to_owned();
    Some(PodProblem::SubPath { container: container.name.to_string(), path })
}

fn variables(
    container: &Container<'_>,
    volumes: &Volumes<'_>,
    identity: &ExpectedIdentity<'_>,
    found: &mut Problems,
) {
    // Most containers set no variable of AWS.
    let Some(set) = container.env.as_ref().filter(|set| !set.is_empty()) else { return };
    let ExpectedIdentity { source, first: (first, value), file_variable, audience, .. } = *identity;
    let name = || container.name.to_string();
    let literal = |variable| set.get(variable).and_then(Setting::literal);
    if let Some(other) = literal(first).filter(|other| *other != value) {
        let (other, expected) = ((first, other.to_owned()), (source, value.to_owned()));
        found.add(PodProblem::OtherRole { container: name(), found: other, expected });
    }
    let other = literal(file_variable).and_then(|path| audience_at(container, volumes, path));
    if let Some(other) = other.filter(|other| *other != audience) {
        let (other, expected) = (other.to_owned(), (source, audience.to_owned()));
        found.add(PodProblem::OtherToken { container: name(), found: other, expected });
    }
    let half = match (set.has(first), set.has(file_variable)) {
        (true, false) => Some((first, file_variable)),
        (false, true) => Some((file_variable, first)),
        _ => None,
    };
    found.extend(half.map(|(set, missing)| {
        let may_be_set = container.has_env_from;
        PodProblem::HalfIdentity { container: name(), set, missing, may_be_set }
    }));
    if let Some(key) = set.get(Variable::AccessKeyId) {
        let optional = *key == Setting::Reference { optional: true };
        found.add(PodProblem::StaticKey { container: name(), optional });
    }
    if set.has(Variable::Profile) {
        found.add(PodProblem::Profile { container: name() });
    }
}

/// The audience of the projected token that a path in a container names; `None` where it names none.
fn audience_at<'a>(container: &Container<'_>, volumes: &Volumes<'a>, path: &str) -> Option<&'a str> {
    // On Windows the variable has a drive and backslashes.
    let path = path.strip_prefix("C:").unwrap_or(path).replace('\\', "/");
    let mounts = container.mounts().iter().filter_map(|mount| Some((mount, below(mount, &path)?)));
    // The longest path is mounted over the others.
    let (mount, rest) = mounts.max_by_key(|(mount, _)| mount.path().len())?;
    let file = match mount.sub_path.as_deref().filter(|sub_path| !sub_path.is_empty()) {
        None => Cow::Borrowed(rest),
        Some(sub_path) if rest.is_empty() => Cow::Borrowed(sub_path),
        Some(sub_path) => format!("{sub_path}/{rest}").into(),
    };
    volumes.get(&mount.name)?.audience_of_token(&file)
}

impl PodProblem {
    /// The problem of an annotation under that prefix.
    #[must_use]
    pub fn annotation(found: &UnreadAnnotation, prefix: &str) -> Self {
        Self::Annotation { message: found.message(prefix) }
    }

    /// Whether a container certainly does not use the pod's identity. Not certain is what an optional object or `envFrom` may
    /// decide, and a token without an audience where the API server's own audiences include AWS's.
    #[must_use]
    pub fn prevents_identity(&self) -> bool {
        match self {
            Self::OtherRole { .. } => true,
            Self::OtherToken { found, .. } => !found.is_empty(),
            Self::HalfIdentity { may_be_set, .. } => !may_be_set,
            Self::StaticKey { optional, .. } => !optional,
            Self::Profile { .. }
            | Self::SubPath { .. }
            | Self::OtherVolume { .. }
            | Self::Annotation { .. } => false,
        }
    }

    /// The label's value in metrics, and the only part of it that is logged: a message has values of the pod.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::OtherRole { .. } => "other_role",
            Self::OtherToken { .. } => "other_token",
            Self::HalfIdentity { .. } => "half_identity",
            Self::StaticKey { .. } => "static_key",
            Self::Profile { .. } => "profile",
            Self::SubPath { .. } => "sub_path",
            Self::OtherVolume { .. } => "other_volume",
            Self::Annotation { .. } => "annotation",
        }
    }

    /// All reasons.
    pub const REASONS: [&str; 8] = [
        "other_role",
        "other_token",
        "half_identity",
        "static_key",
        "profile",
        "sub_path",
        "other_volume",
        "annotation",
    ];
}

/// A token as messages name it; one without an audience has the API server's own.
fn token_of(audience: &str) -> String {
    if audience.is_empty() {
        "a token without an audience".into()
    } else {
        format!("a token of audience {audience}")
    }
}

impl fmt::Display for PodProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRole { container, found: (variable, found), expected: (source, expected) } => {
                write!(f, "container {container}: {} is {found}, {source} says {expected}", variable.name())
            }
            Self::OtherToken { container, found, expected: (source, expected) } => {
                write!(f, "container {container} uses {}, {source} says {expected}", token_of(found))
            }
            Self::HalfIdentity { container, set, missing, .. } => {
                let (set, missing) = (set.name(), missing.name());
                write!(f, "container {container} sets {set} itself, so {missing} is not injected")
            }
            Self::StaticKey { container, .. } => {
                let key = Variable::AccessKeyId.name();
                write!(
                    f,
                    "container {container} sets {key}: AWS SDKs use that key, and not the role; remove it"
                )
            }
            Self::Profile { container } => {
                let profile = Variable::Profile.name();
                write!(
                    f,
                    "container {container} sets {profile}: AWS SDKs for Go use that profile, and not the role"
                )
            }
            Self::SubPath { container, path } => write!(
                f,
                "container {container} mounts the token by subPath at {path}, where it is never renewed: mount the whole volume"
            ),
            Self::OtherVolume { volume, found, expected: (source, expected) } => write!(
                f,
                "volume {volume} has {}, {source} says {expected}: the token is added beside it",
                token_of(found)
            ),
            Self::Annotation { message } => f.write_str(message),
        }
    }
}
