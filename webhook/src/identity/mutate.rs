//! PURE: makes the JSON patch that adds an identity to a pod.
//!
//! The pod is read as a [`Pod`], which has only the fields that the rules read and is never written back: the patch consists
//! of additions at exact paths, so that fields this program does not know cannot be lost. Appending to a container's lists
//! and inserting one volume in front does not change the paths of later operations.
//!
//! Variables, volume, mount and their order are those of the EKS Pod Identity Webhook. `envFrom` is not considered: in
//! Kubernetes `env` takes precedence over it, so the injected variables do, too.

use std::borrow::Cow;
use std::collections::BTreeSet;

use thiserror::Error;

use crate::identity::expiration::parse_expiration;
use crate::identity::model::{CredentialMethod, Identity};
use crate::identity::pod::{Container, Mount, Pod, Variable, Volume};
use crate::identity::settings::Settings;
use crate::json::patch::{Addition, Patch, Value};

/// Appended to the volume's name, or to the mount path, where the pod uses that for something else.
const ALTERNATIVE_SUFFIX: &str = "-podidentity";
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
/// The length of a session name that STS accepts.
const SESSION_NAME_LENGTH: std::ops::RangeInclusive<usize> = 2..=64;

/// The patch, and what the user should know about it.
#[derive(Debug, Default)]
pub struct Mutation<'a> {
    /// Empty where the pod lacks nothing.
    pub patch: Patch<'a>,
    /// Containers that get no identity although no annotation excludes them.
    pub left_out: Vec<String>,
    /// Admission warnings.
    pub warnings: Vec<String>,
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
    pod.volumes().iter().any(|volume| ours(volume) && volume.is_token(TOKEN_FILE)) && pod.has_token_variable()
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
    let (volume, present) = token_volume(pod.volumes(), &layout)?;
    if volume != layout.volume {
        let warning = format!("volume {} is not the AWS token; {volume} is added beside it", layout.volume);
        mutation.warnings.push(warning);
    }
    if !present {
        let seconds = expiration(pod, identity, settings, seed, &mut mutation.warnings);
        let value = Value::token(volume.clone(), identity.audience, seconds, layout.file);
        mutation.patch.push(match &pod.spec.volumes {
            Some(_) => Addition::new("/spec/volumes/0".into(), value),
            None => Addition::new("/spec/volumes".into(), Value::List(vec![value])),
        });
    }

    let skipped = skipped_containers(pod, settings);
    let lists = [("containers", pod.containers()), ("initContainers", pod.init_containers())];
    let unknown =
        skipped.iter().filter(|name| lists.iter().all(|(_, l)| l.iter().all(|c| &*c.name != **name)));
    let unknown = unknown.map(|name| format!("{}: no container {name}", settings.skip_containers));
    mutation.warnings.extend(unknown);

    let windows = pod.is_windows();
    let session = session(pod, identity, settings, &mut mutation.warnings);
    let injection = Injection { identity, layout, volume, windows, session };
    for (list, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            if skipped.contains(&*container.name) {
                continue;
            }
            let MissingParts { env, mount } = injection.missing_parts(container, &mut mutation);
            let path = |field: &str| format!("/spec/{list}/{index}/{field}");
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

/// The name of the token's volume, and whether the pod already has it.
fn token_volume<'a>(
    volumes: &[Volume<'_>],
    layout: &TokenLayout<'a>,
) -> Result<(Cow<'a, str>, bool), MutateError> {
    [Cow::Borrowed(layout.volume), format!("{}{ALTERNATIVE_SUFFIX}", layout.volume).into()]
        .into_iter()
        .find_map(|name| match volumes.iter().find(|volume| *volume.name == *name) {
            None => Some((name, false)),
            Some(volume) => volume.is_token(layout.file).then_some((name, true)),
        })
        .ok_or_else(|| MutateError::VolumeNamesTaken(layout.volume.to_owned()))
}

fn expiration(
    pod: &Pod<'_>,
    identity: &Identity<'_>,
    settings: &Settings,
    seed: &str,
    warnings: &mut Vec<String>,
) -> i64 {
    let seconds = pod
        .annotation(&settings.token_expiration)
        .and_then(|text| parse_expiration(text, &settings.annotation_prefix, warnings))
        .unwrap_or(identity.expiration_seconds);
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

/// The annotation is one CSV record. Container names contain neither blanks nor quotes, so both are removed, and a name
/// after `, ` counts (the EKS webhook ignores it).
fn skipped_containers<'a>(pod: &'a Pod<'_>, settings: &Settings) -> BTreeSet<&'a str> {
    pod.annotation(&settings.skip_containers)
        .and_then(|text| text.lines().find(|line| !line.is_empty()))
        .unwrap_or_default()
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|name| !name.is_empty())
        .collect()
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
    env: Vec<Value<'a>>,
    mount: Vec<Value<'a>>,
}

impl<'a> Injection<'a> {
    fn missing_parts(&self, container: &Container<'_>, mutation: &mut Mutation<'_>) -> MissingParts<'a> {
        let (first, value) = self.layout.first;
        // Both `value` and `valueFrom` count as set.
        let set = container.env.unwrap_or_default();
        let (has_first, has_file) = (set.has(first), set.has(self.layout.file_variable));
        let has_identity = has_first || has_file;
        let has_region = set.has(Variable::Region) || set.has(Variable::DefaultRegion);
        let has_sts = set.has(Variable::StsRegionalEndpoints);
        if has_identity && has_region && has_sts {
            return MissingParts::default();
        }
        if has_first != has_file {
            let (own, missing) = if has_first {
                (first, self.layout.file_variable)
            } else {
                (self.layout.file_variable, first)
            };
            mutation.warnings.push(format!(
                "container {} sets {} itself, so {} is not injected",
                container.name,
                own.name(),
                missing.name()
            ));
        }

        let mut missing_parts = MissingParts::default();
        let mut push = |variable: Variable, value: Cow<'a, str>| {
            missing_parts.env.push(Value::Variable(variable.name(), escaped(value)));
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
                        missing_parts.env.push(Value::PodName(Variable::SessionName.name()));
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
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        if let Some(Mount { mount_path, .. }) = mounts.iter().find(|mount| *mount.name == *self.volume) {
            let directory = mount_path.trim_end_matches('/').to_owned().into();
            return MountPlace::At { directory, mounted: true };
        }
        let free = |path: &str| mounts.iter().all(|mount| mount.mount_path.trim_end_matches('/') != path);
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
