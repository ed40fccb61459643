//! PURE: what keeps a pod's containers from using the identity that the pod should have, although it has or gets its token.
//!
//! Found before the pod is changed: by the webhook, which warns and refuses pods that require their identity.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use super::annotation::{NearMiss, Place, near_miss};
use super::token::{TokenMount, below, token_mount, token_volume};
use super::variable::{Setting, Variable};
use super::{Container, Pod, Volume};

/// The identity that a pod should have, and how it should get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedIdentity<'a> {
    /// What says so, as messages name it: for example `its PodIdentityBinding`.
    pub source: &'static str,
    /// The variable that names the role, or the agent, with its value in `env[].value`, where `$$` stands for `$`.
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
        /// What says something else, and what.
        expected: (&'static str, String),
    },
    /// A container uses a token of another audience.
    OtherToken {
        /// The container.
        container: String,
        /// The audience of its token.
        found: String,
        /// What says something else, and what.
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
    },
    /// A container has a static key.
    StaticKey {
        /// The container.
        container: String,
    },
    /// A container has a profile.
    Profile {
        /// The container.
        container: String,
    },
    /// A container mounts the token by subPath only.
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
        /// What says something else, and what.
        expected: (&'static str, String),
    },
    /// An annotation that nothing reads.
    Annotation {
        /// What is wrong, and what is right.
        message: String,
    },
}

/// The problems of a pod as it is, before anything is added to it. Containers in `skipped` are not looked at.
#[must_use]
pub fn problems(
    pod: &Pod<'_>,
    skipped: &BTreeSet<String>,
    identity: &ExpectedIdentity<'_>,
) -> Vec<PodProblem> {
    let mut problems = annotation_problems(pod.annotations(), identity.annotation_prefix);
    problems.extend(other_volume(pod.volumes(), identity));
    let ExpectedIdentity { volume, file, audience, .. } = *identity;
    let present = token_volume(pod.volumes(), volume, file, audience).filter(|(_, is_present)| *is_present);
    let containers = pod.containers().iter().chain(pod.init_containers());
    for container in containers.filter(|container| !skipped.contains(&*container.name)) {
        problems.extend(present.as_ref().and_then(|(volume, _)| sub_path(container, volume)));
        add_problems(container, pod.volumes(), identity, &mut problems);
    }
    problems
}

/// Annotations of a pod that nothing reads.
pub fn annotation_problems<'a>(keys: impl Iterator<Item = &'a str>, prefix: &str) -> Vec<PodProblem> {
    let near_misses = keys.filter_map(|key| near_miss(key, prefix, Place::Pod));
    near_misses.map(|found| PodProblem::annotation(&found, prefix)).collect()
}

fn other_volume(volumes: &[Volume<'_>], identity: &ExpectedIdentity<'_>) -> Option<PodProblem> {
    let ExpectedIdentity { source, volume, file, audience, .. } = *identity;
    let found = volumes.iter().find(|found| *found.name == *volume)?.audience_of_token(file)?;
    let (volume, found, expected) = (volume.to_owned(), found.to_owned(), (source, audience.to_owned()));
    (found != audience).then_some(PodProblem::OtherVolume { volume, found, expected })
}

fn sub_path(container: &Container<'_>, volume: &str) -> Option<PodProblem> {
    let TokenMount::Part(path) = token_mount(container, volume) else { return None };
    Some(PodProblem::SubPath { container: container.name.to_string(), path: path.to_owned() })
}

/// The problems of a container's variables.
fn add_problems(
    container: &Container<'_>,
    volumes: &[Volume<'_>],
    identity: &ExpectedIdentity<'_>,
    problems: &mut Vec<PodProblem>,
) {
    let ExpectedIdentity { source, first: (first, value), file_variable, audience, .. } = *identity;
    let name = || container.name.to_string();
    // Most containers set no variable of AWS.
    let Some(set) = container.env.as_ref().filter(|set| !set.is_empty()) else { return };
    let literal = |variable| set.get(variable).and_then(Setting::literal);
    if let Some(found) = literal(first).filter(|found| *found != value) {
        let found = (first, found.to_owned());
        problems.push(PodProblem::OtherRole {
            container: name(),
            found,
            expected: (source, value.to_owned()),
        });
    }
    let found = literal(file_variable).and_then(|path| audience_at(container, volumes, path));
    if let Some(found) = found.filter(|found| *found != audience) {
        let (found, expected) = (found.to_owned(), (source, audience.to_owned()));
        problems.push(PodProblem::OtherToken { container: name(), found, expected });
    }
    let half = match (set.has(first), set.has(file_variable)) {
        (true, false) => Some((first, file_variable)),
        (false, true) => Some((file_variable, first)),
        _ => None,
    };
    problems.extend(half.map(|(set, missing)| PodProblem::HalfIdentity { container: name(), set, missing }));
    if set.has(Variable::AccessKeyId) {
        problems.push(PodProblem::StaticKey { container: name() });
    }
    if set.has(Variable::Profile) {
        problems.push(PodProblem::Profile { container: name() });
    }
}

/// The audience of the projected token that a path in a container names; `None` where it names none.
fn audience_at<'a>(container: &Container<'_>, volumes: &'a [Volume<'_>], path: &str) -> Option<&'a str> {
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
    volumes.iter().find(|volume| *volume.name == *mount.name)?.audience_of_token(&file)
}

impl PodProblem {
    /// The problem of an annotation under that prefix.
    #[must_use]
    pub fn annotation(found: &NearMiss, prefix: &str) -> Self {
        Self::Annotation { message: found.message(prefix) }
    }

    /// Whether a container does not use the pod's identity for certain.
    #[must_use]
    pub const fn prevents_identity(&self) -> bool {
        matches!(
            self,
            Self::OtherRole { .. }
                | Self::OtherToken { .. }
                | Self::HalfIdentity { .. }
                | Self::StaticKey { .. }
        )
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

/// An audience as it is told; a token without one has the API server's own.
fn told(audience: &str) -> &str {
    if audience.is_empty() { "the API server's own" } else { audience }
}

impl fmt::Display for PodProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRole { container, found: (variable, found), expected: (source, expected) } => {
                write!(f, "container {container}: {} is {found}, {source} says {expected}", variable.name())
            }
            Self::OtherToken { container, found, expected: (source, expected) } => {
                let found = told(found);
                write!(f, "container {container} uses a token of audience {found}, {source} says {expected}")
            }
            Self::HalfIdentity { container, set, missing } => {
                let (set, missing) = (set.name(), missing.name());
                write!(f, "container {container} sets {set} itself, so {missing} is not injected")
            }
            Self::StaticKey { container } => {
                let key = Variable::AccessKeyId.name();
                write!(
                    f,
                    "container {container} sets {key}: every AWS SDK uses that key, and not the role; remove it"
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
                "volume {volume} has a token of audience {}, {source} says {expected}: the token is added beside it",
                told(found)
            ),
            Self::Annotation { message } => f.write_str(message),
        }
    }
}
