//! PURE: makes the JSON patch that adds an identity to a pod.
//!
//! The pod is read as a [`Pod`], which has only the fields that the rules read and is never written back: the patch consists
//! of additions at exact paths, so that fields this program does not know cannot be lost. All of them append, except that a
//! variable that is set to the empty text, which SDKs treat as unset, gets its value in place.
//!
//! Variables, volume, mount and the order of variables are those of the EKS Pod Identity Webhook. It puts the volume first; here
//! it is the last, since other programs find volumes by their position. `envFrom` is not considered: in Kubernetes `env` takes
//! precedence over it, so the injected variables do, too.

use std::borrow::Cow;

use crds::pod::problem::{ExpectedIdentity, PodProblem, problems};
use crds::pod::skipped::skipped_containers;
use crds::pod::token::{ALTERNATIVE_SUFFIX, token_directory, token_volume};
use crds::pod::variable::{Variable, Variables};
use crds::pod::{Container, Pod, Volume};
use thiserror::Error;

use crate::identity::expiration::parse_expiration;
use crate::identity::model::{CredentialMethod, Identity, IdentitySource};
use crate::identity::settings::Settings;
use crate::json::patch::{Addition, Patch, Value};

/// The token's file in its volume.
const TOKEN_FILE: &str = "token";
/// The name of the projected token's volume in the EKS webhook.
pub const TOKEN_VOLUME: &str = "aws-iam-token";
/// The label by which EKS's agent recognizes its pods. It does not depend on the prefix of annotations, as in the EKS
/// webhook.
const LABEL: (&str, &str) = ("eks.amazonaws.com/pod-identity", "enabled");
/// A lifetime of exactly this length is shortened by up to [`JITTER_SECONDS`] where jitter is enabled, as in the EKS webhook.
const JITTERED_SECONDS: i64 = 86_400;
const JITTER_SECONDS: u64 = 7_200;
/// The most names of `skip-containers` without a container for which a warning is given.
const MOST_UNKNOWN: usize = 4;
/// The length of a session name that STS accepts.
const SESSION_NAME_LENGTH: std::ops::RangeInclusive<usize> = 2..=64;

/// The patch, and what the user should know about it.
#[derive(Debug, Default)]
pub struct Mutation<'a> {
    /// Empty where the pod lacks nothing.
    pub patch: Patch<'a>,
    /// Containers that get no identity although no annotation excludes them.
    pub left_out: Vec<String>,
    /// What keeps containers from using the identity, and annotations without effect.
    pub problems: Vec<PodProblem>,
    /// Other admission warnings.
    pub warnings: Vec<String>,
    /// Whether the token has the lifetime that the identity says.
    pub has_lifetime_of_identity: bool,
}

/// Why a pod cannot be given its identity.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MutateError {
    /// Both names are used by volumes that do not contain the token.
    #[error(
        "volumes {0} and {0}{ALTERNATIVE_SUFFIX} are not the AWS token of this ServiceAccount: rename one of them"
    )]
    VolumeNamesTaken(String),
}

/// Whether the pod already has a token: an earlier entry of the webhook configuration gave it its identity.
#[must_use]
pub fn has_token(pod: &Pod<'_>) -> bool {
    let ours = |volume: &Volume<'_>| {
        volume.name.strip_prefix(TOKEN_VOLUME).is_some_and(|rest| ["", ALTERNATIVE_SUFFIX].contains(&rest))
    };
    pod.volumes().iter().any(|volume| ours(volume) && volume.audience_of_token(TOKEN_FILE).is_some())
        && pod.has_token_variable()
}

/// The names and paths of one credential method in a pod.
struct TokenLayout<'a> {
    volume: &'a str,
    directory: &'a str,
    file: &'a str,
    /// The variable that names the role or the agent, with its value.
    first: (Variable, &'a str),
    /// The variable with the path of the token's file.
    file_variable: Variable,
}

impl<'a> TokenLayout<'a> {
    fn of(identity: &'a Identity<'_>, settings: &'a Settings) -> Self {
        match &identity.method {
            CredentialMethod::Role(arn) => Self {
                volume: TOKEN_VOLUME,
                directory: &settings.mount_path,
                file: TOKEN_FILE,
                first: (Variable::RoleArn, arn),
                file_variable: Variable::TokenFile,
            },
            CredentialMethod::ContainerCredentials => {
                let container = &settings.container_credentials;
                Self {
                    volume: &container.volume_name,
                    directory: &container.mount_path,
                    file: &container.token_path,
                    first: (Variable::CredentialsUri, &container.full_uri),
                    file_variable: Variable::AuthorizationFile,
                }
            }
        }
    }
}

/// What `pod` lacks of `identity`. `seed` is what jitter is derived from; it differs from pod to pod, as the review's uid does.
pub fn mutate<'a>(
    pod: &'a Pod<'_>,
    identity: &'a Identity<'_>,
    settings: &'a Settings,
    seed: &str,
) -> Result<Mutation<'a>, MutateError> {
    let layout = TokenLayout::of(identity, settings);
    let mut mutation = Mutation::default();
    if identity.method == CredentialMethod::ContainerCredentials {
        label(pod, &mut mutation);
    }
    let first = escaped(Cow::Borrowed(layout.first.1));
    let expected = ExpectedIdentity {
        source: identity.source.in_messages(),
        first: (layout.first.0, &first),
        file_variable: layout.file_variable,
        volume: layout.volume,
        file: layout.file,
        audience: identity.audience,
        annotation_prefix: &settings.annotation_prefix,
        by_annotations: matches!(identity.source, IdentitySource::Annotations | IdentitySource::ConfigMap),
    };
    let skipped = skipped_containers(pod.annotation(&settings.skip_containers).unwrap_or_default());
    mutation.problems = problems(pod, &skipped, &expected);
    let (volume, present) = token_volume(pod.volumes(), layout.volume, layout.file, identity.audience)
        .ok_or_else(|| MutateError::VolumeNamesTaken(layout.volume.to_owned()))?;
    if volume != layout.volume
        && !mutation.problems.iter().any(|p| matches!(p, PodProblem::OtherVolume { .. }))
    {
        let warning = format!("volume {} is not the AWS token; {volume} is added beside it", layout.volume);
        mutation.warnings.push(warning);
    }
    if !present {
        let seconds = expiration(pod, identity, settings, seed, &mut mutation);
        let value = Value::token(volume.clone(), identity.audience, seconds, layout.file);
        mutation.patch.append("/spec/volumes", pod.spec.volumes.is_some(), vec![value]);
    }

    let lists = [("containers", pod.containers()), ("initContainers", pod.init_containers())];
    let mut unknown = skipped.clone();
    for container in pod.containers().iter().chain(pod.init_containers()) {
        unknown.remove(&*container.name);
    }
    let unknown = unknown.iter().map(|name| format!("{}: no container {name}", settings.skip_containers));
    mutation.warnings.extend(unknown.take(MOST_UNKNOWN));

    let windows = pod.is_windows();
    let session = session(pod, identity, settings, &mut mutation.warnings);
    let injection = Injection { identity, layout, volume, windows, session };
    for (list, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            if skipped.contains(&*container.name) {
                continue;
            }
            let MissingParts { empty, env, mount } = injection.missing_parts(container, &mut mutation);
            let path = |field: &str| format!("/spec/{list}/{index}/{field}");
            for (place, value) in empty {
                let field = if value == Value::FromPodName { "valueFrom" } else { "value" };
                mutation.patch.push(Addition::new(path(&format!("env/{place}/{field}")), value));
            }
            mutation.patch.append(&path("env"), container.env.is_some(), env);
            mutation.patch.append(&path("volumeMounts"), container.volume_mounts.is_some(), mount);
        }
    }
    Ok(mutation)
}

/// Adds the label that the EKS webhook adds in container-credentials mode. A pod with another value under that key keeps it.
fn label(pod: &Pod<'_>, mutation: &mut Mutation<'_>) {
    let (key, value) = LABEL;
    let labels = pod.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    match labels.and_then(|labels| labels.get(key)) {
        Some(found) if **found == *value => {}
        Some(_) => mutation.warnings.push(format!("label {key} is not {value}: not changed")),
        None => {
            let addition = match (&pod.metadata, labels) {
                (None, _) => {
                    Addition::new("/metadata".into(), Value::Metadata { labels: [(key, value)].into() })
                }
                (_, None) => Addition::new("/metadata/labels".into(), Value::Labels([(key, value)].into())),
                _ => Addition::new(
                    format!("/metadata/labels/{}", key.replace('/', "~1")),
                    Value::Text(Cow::Borrowed(value)),
                ),
            };
            mutation.patch.push(addition);
        }
    }
}

fn expiration(
    pod: &Pod<'_>,
    identity: &Identity<'_>,
    settings: &Settings,
    seed: &str,
    mutation: &mut Mutation<'_>,
) -> i64 {
    let own = pod
        .annotation(&settings.token_expiration)
        .and_then(|text| parse_expiration(text, &settings.annotation_prefix, &mut mutation.warnings));
    mutation.has_lifetime_of_identity = own.is_none();
    let seconds = own.unwrap_or(identity.expiration_seconds);
    let jitter = settings.expiration_jitter || identity.method == CredentialMethod::ContainerCredentials;
    if seconds == JITTERED_SECONDS && jitter { seconds - jitter_seconds(seed) } else { seconds }
}

/// The seconds to subtract, the same for the same seed: between 0 and [`JITTER_SECONDS`], evenly distributed (FNV-1a).
fn jitter_seconds(seed: &str) -> i64 {
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i64::try_from(hash % (JITTER_SECONDS + 1)).unwrap_or_default()
}

/// Whether `AWS_ROLE_SESSION_NAME` is injected. A generated name always fits, and is not known yet.
fn session(pod: &Pod<'_>, identity: &Identity<'_>, settings: &Settings, warnings: &mut Vec<String>) -> bool {
    if !settings.role_session_name || identity.method == CredentialMethod::ContainerCredentials {
        return false;
    }
    let name = pod.metadata.as_ref().and_then(|metadata| metadata.name.as_deref()).unwrap_or_default();
    let fits = name.is_empty() || SESSION_NAME_LENGTH.contains(&name.len());
    if !fits {
        warnings
            .push(format!("the pod's name is too short or too long for {}", Variable::SessionName.name()));
    }
    fits
}

/// What is the same for every container of a pod.
struct Injection<'a> {
    identity: &'a Identity<'a>,
    layout: TokenLayout<'a>,
    volume: Cow<'a, str>,
    windows: bool,
    session: bool,
}

/// What a container lacks.
#[derive(Default)]
struct MissingParts<'a> {
    /// Values of variables that are set to the empty text, by their place.
    empty: Vec<(usize, Value<'a>)>,
    env: Vec<Value<'a>>,
    mount: Vec<Value<'a>>,
}

impl<'a> Injection<'a> {
    fn missing_parts(&self, container: &Container<'_>, mutation: &mut Mutation<'_>) -> MissingParts<'a> {
        let (first, value) = self.layout.first;
        let none = Variables::default();
        let set = container.env.as_ref().unwrap_or(&none);
        let has_identity = set.has(first) || set.has(self.layout.file_variable);
        let has_region = set.has(Variable::Region) || set.has(Variable::DefaultRegion);
        let has_sts = set.has(Variable::StsRegionalEndpoints);
        if has_identity && has_region && has_sts {
            return MissingParts::default();
        }

        let mut missing_parts = MissingParts::default();
        let mut push = |variable: Variable, value: Cow<'a, str>| {
            let value = escaped(value);
            match set.empty_place(variable) {
                Some(place) => missing_parts.empty.push((place, Value::Text(value))),
                None => missing_parts.env.push(Value::Variable(variable.name(), value)),
            }
        };
        if self.identity.sts_regional_endpoints && !has_sts {
            push(Variable::StsRegionalEndpoints, Cow::Borrowed("regional"));
        }
        if let Some(region) = self.identity.region.filter(|_| !has_region) {
            push(Variable::DefaultRegion, Cow::Borrowed(region));
            push(Variable::Region, Cow::Borrowed(region));
        }
        match self.mount_place(container, has_identity) {
            MountPlace::At { directory, mounted } => {
                if !has_identity {
                    push(first, Cow::Borrowed(value));
                    push(self.layout.file_variable, self.token_file(&directory).into());
                    if self.session && !set.has(Variable::SessionName) {
                        match set.empty_place(Variable::SessionName) {
                            Some(place) => missing_parts.empty.push((place, Value::FromPodName)),
                            None => missing_parts.env.push(Value::PodName(Variable::SessionName.name())),
                        }
                    }
                }
                if !mounted {
                    missing_parts.mount.push(Value::Mount(self.volume.clone(), directory));
                }
            }
            MountPlace::OwnIdentity => {}
            MountPlace::NoFreePath => {
                mutation.warnings.push(format!(
                    "container {} mounts other volumes at {}: it gets no AWS identity",
                    container.name, self.layout.directory
                ));
                mutation.left_out.push(container.name.to_string());
            }
        }
        missing_parts
    }

    /// Where the token is mounted in the container. The API server refuses a pod with two mounts at one path.
    fn mount_place(&self, container: &Container<'_>, has_identity: bool) -> MountPlace<'a> {
        if let Some(path) = token_directory(container, &self.volume) {
            return MountPlace::At { directory: path.to_owned().into(), mounted: true };
        }
        // A mount below the directory would need a file in the read-only volume, or would hide the token.
        let free = |path: &str| container.mounts().iter().all(|mount| !mount.is_in(path));
        let other = format!("{}{ALTERNATIVE_SUFFIX}", self.layout.directory);
        if free(self.layout.directory) {
            MountPlace::At { directory: Cow::Borrowed(self.layout.directory), mounted: false }
        } else if has_identity {
            MountPlace::OwnIdentity
        } else if free(&other) {
            MountPlace::At { directory: other.into(), mounted: false }
        } else {
            MountPlace::NoFreePath
        }
    }

    fn token_file(&self, directory: &str) -> String {
        let file = format!("{directory}/{}", self.layout.file);
        if self.windows { format!("C:{}", file.replace('/', r"\")) } else { file }
    }
}

/// A value that the container gets as it is. The kubelet replaces `$(NAME)` in `env[].value` by the value of an earlier variable,
/// which may be a secret, and `$$` by `$` (`third_party/forked/golang/expansion`): a doubled `$` stands for one, whatever follows.
fn escaped(value: Cow<'_, str>) -> Cow<'_, str> {
    if value.contains('$') { value.replace('$', "$$").into() } else { value }
}

/// Where the token is mounted in a container.
enum MountPlace<'a> {
    /// At this directory.
    At { directory: Cow<'a, str>, mounted: bool },
    /// Nowhere: the container has its own variables and its own volume at the path, so an identity of its own.
    OwnIdentity,
    /// Nowhere: other volumes are mounted at both paths.
    NoFreePath,
}
