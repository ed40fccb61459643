//! PURE: what is added to a pod that has an identity: the pod's JSON and the identity in, a JSON patch out.
//!
//! The pod is read through [`Pod`] (in [`crate::pod`]), which knows only what the rules look at and is never written back:
//! the patch is made of additions at exact places, so that fields this program has never heard of cannot be lost. Appending
//! at the end of a container's lists and inserting one volume in front moves nothing that a later operation points at.
//!
//! Variables, volume, mount and their order are those of the EKS Pod Identity Webhook. `envFrom` is not looked at: in
//! Kubernetes `env` wins over it, so what is injected here wins, too.

use std::borrow::Cow;
use std::collections::BTreeSet;

use thiserror::Error;

use crate::identity::{Identity, Means, parse_expiration};
use crate::patch::{Addition, Patch, Value};
use crate::pod::{Container, Mount, Pod, Variable, Volume};
use crate::settings::Settings;

/// Appended to the volume's name, or to the mount path, where something else has it.
const OTHER: &str = "-podidentity";
/// The token's file in its volume.
const TOKEN_FILE: &str = "token";
/// The projected token's volume, as the reference calls it.
pub const TOKEN_VOLUME: &str = "aws-iam-token";
/// What EKS's agent knows its pods by. The same whatever the annotations' prefix is, as in the reference.
const LABEL: (&str, &str) = ("eks.amazonaws.com/pod-identity", "enabled");
/// A life of exactly this long is shortened by up to [`JITTER_SECONDS`] where that is wanted, as the reference does it.
const JITTERED_SECONDS: i64 = 86_400;
const JITTER_SECONDS: u64 = 7_200;
/// STS takes so many characters for a session's name.
const SESSION_NAME: std::ops::RangeInclusive<usize> = 2..=64;

/// The additions, and what the user should know about them.
#[derive(Debug, Default)]
pub struct Mutation<'a> {
    /// Empty where nothing is missing.
    pub patch: Patch<'a>,
    /// Containers that get no identity although nobody asked for that.
    pub left_out: Vec<String>,
    /// Admission warnings.
    pub warnings: Vec<String>,
}

/// Why a pod cannot be given its identity.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MutateError {
    /// Both names are taken by volumes that are no token.
    #[error("volumes {0} and {0}{OTHER} are not the AWS token of this ServiceAccount: rename one of them")]
    VolumeNamesTaken(String),
}

/// Whether the pod has a token of ours already: an earlier entry of the webhook configuration gave it its identity.
#[must_use]
pub fn has_token(pod: &Pod<'_>) -> bool {
    let ours = |volume: &Volume<'_>| {
        volume.name.strip_prefix(TOKEN_VOLUME).is_some_and(|rest| ["", OTHER].contains(&rest))
    };
    pod.volumes().iter().any(|volume| ours(volume) && volume.is_token(TOKEN_FILE)) && pod.names_a_token()
}

/// How one means of getting credentials looks in a pod.
struct Wiring<'a> {
    volume: &'a str,
    directory: &'a str,
    file: &'a str,
    /// The first variable, with its value.
    first: (Variable, &'a str),
    /// The one that names the token's file.
    file_variable: Variable,
}

impl<'a> Wiring<'a> {
    fn of(identity: &'a Identity<'_>, settings: &'a Settings) -> Self {
        match &identity.means {
            Means::Role(arn) => Self {
                volume: TOKEN_VOLUME,
                directory: &settings.mount_path,
                file: TOKEN_FILE,
                first: (Variable::RoleArn, arn),
                file_variable: Variable::TokenFile,
            },
            Means::ContainerCredentials => {
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

/// What `pod` lacks of `identity`. `seed` spreads what is to differ from pod to pod; the review's uid serves.
pub fn mutate<'a>(
    pod: &'a Pod<'_>,
    identity: &'a Identity<'_>,
    settings: &'a Settings,
    seed: &str,
) -> Result<Mutation<'a>, MutateError> {
    let wiring = Wiring::of(identity, settings);
    let mut mutation = Mutation::default();
    if identity.means == Means::ContainerCredentials {
        label(pod, &mut mutation);
    }
    let (volume, present) = token_volume(pod.volumes(), &wiring)?;
    if volume != wiring.volume {
        let warning = format!("volume {} is not the AWS token; {volume} is added beside it", wiring.volume);
        mutation.warnings.push(warning);
    }
    if !present {
        let seconds = expiration(pod, identity, settings, seed, &mut mutation.warnings);
        let value = Value::token(volume.clone(), identity.audience, seconds, wiring.file);
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
    let injection = Injection { identity, wiring, volume, windows, session };
    for (list, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            if skipped.contains(&*container.name) {
                continue;
            }
            let Needs { env, mount } = injection.needs(container, &mut mutation);
            let place = |field: &str| format!("/spec/{list}/{index}/{field}");
            mutation.patch.append(&place("env"), container.env.is_some(), env);
            mutation.patch.append(&place("volumeMounts"), container.volume_mounts.is_some(), mount);
        }
    }
    Ok(mutation)
}

/// The label that the reference adds in container-credentials mode. A pod that has another value under that key keeps it.
fn label(pod: &Pod<'_>, mutation: &mut Mutation<'_>) {
    let (key, value) = LABEL;
    let labels = pod.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    match labels.and_then(|labels| labels.get(key)) {
        Some(found) if **found == *value => {}
        Some(_) => mutation.warnings.push(format!("label {key} is not {value}: left as it is")),
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

/// The name of the token's volume, and whether the pod has it already.
fn token_volume<'a>(
    volumes: &[Volume<'_>],
    wiring: &Wiring<'a>,
) -> Result<(Cow<'a, str>, bool), MutateError> {
    [Cow::Borrowed(wiring.volume), format!("{}{OTHER}", wiring.volume).into()]
        .into_iter()
        .find_map(|name| match volumes.iter().find(|volume| *volume.name == *name) {
            None => Some((name, false)),
            Some(volume) => volume.is_token(wiring.file).then_some((name, true)),
        })
        .ok_or_else(|| MutateError::VolumeNamesTaken(wiring.volume.to_owned()))
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
    let jitter = settings.expiration_jitter || identity.means == Means::ContainerCredentials;
    if seconds == JITTERED_SECONDS && jitter { seconds - shortened(seed) } else { seconds }
}

/// Seconds to take off, the same for the same seed: between 0 and [`JITTER_SECONDS`], evenly (FNV-1a).
fn shortened(seed: &str) -> i64 {
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i64::try_from(hash % (JITTER_SECONDS + 1)).unwrap_or_default()
}

/// The annotation is one CSV record. Container names hold neither blanks nor quotes, so both are cut off, and a name
/// after `, ` counts (the reference skips nothing there).
fn skipped_containers<'a>(pod: &'a Pod<'_>, settings: &Settings) -> BTreeSet<&'a str> {
    pod.annotation(&settings.skip_containers)
        .and_then(|text| text.lines().find(|line| !line.is_empty()))
        .unwrap_or_default()
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether `AWS_ROLE_SESSION_NAME` is injected. A name that is generated always fits, and is not there yet.
fn session(pod: &Pod<'_>, identity: &Identity<'_>, settings: &Settings, warnings: &mut Vec<String>) -> bool {
    if !settings.role_session_name || identity.means == Means::ContainerCredentials {
        return false;
    }
    let name = pod.metadata.as_ref().and_then(|metadata| metadata.name.as_deref()).unwrap_or_default();
    let fits = name.is_empty() || SESSION_NAME.contains(&name.len());
    if !fits {
        warnings
            .push(format!("the pod's name is too short or too long for {}", Variable::SessionName.name()));
    }
    fits
}

/// What every container of one pod is given.
struct Injection<'a> {
    identity: &'a Identity<'a>,
    wiring: Wiring<'a>,
    volume: Cow<'a, str>,
    windows: bool,
    session: bool,
}

/// What one container lacks.
#[derive(Default)]
struct Needs<'a> {
    env: Vec<Value<'a>>,
    mount: Vec<Value<'a>>,
}

impl<'a> Injection<'a> {
    fn needs(&self, container: &Container<'_>, mutation: &mut Mutation<'_>) -> Needs<'a> {
        let (first, value) = self.wiring.first;
        // Whatever sets it: `value` and `valueFrom` count alike.
        let set = container.env.unwrap_or_default();
        let (has_first, has_file) = (set.has(first), set.has(self.wiring.file_variable));
        let has_identity = has_first || has_file;
        let has_region = set.has(Variable::Region) || set.has(Variable::DefaultRegion);
        let has_sts = set.has(Variable::StsRegionalEndpoints);
        if has_identity && has_region && has_sts {
            return Needs::default();
        }
        if has_first != has_file {
            let (own, missing) = if has_first {
                (first, self.wiring.file_variable)
            } else {
                (self.wiring.file_variable, first)
            };
            mutation.warnings.push(format!(
                "container {} sets {} itself, so {} is not injected",
                container.name,
                own.name(),
                missing.name()
            ));
        }

        let mut needs = Needs::default();
        let mut push = |variable: Variable, value| needs.env.push(Value::Variable(variable.name(), value));
        if self.identity.sts_regional_endpoints && !has_sts {
            push(Variable::StsRegionalEndpoints, Cow::Borrowed("regional"));
        }
        if let Some(region) = self.identity.region.filter(|_| !has_region) {
            push(Variable::DefaultRegion, Cow::Borrowed(region));
            push(Variable::Region, Cow::Borrowed(region));
        }
        match self.place(container, has_identity) {
            Place::At { directory, mounted } => {
                if !has_identity {
                    push(first, Cow::Borrowed(value));
                    push(self.wiring.file_variable, self.token_file(&directory).into());
                    if self.session && !set.has(Variable::SessionName) {
                        needs.env.push(Value::PodName(Variable::SessionName.name()));
                    }
                }
                if !mounted {
                    needs.mount.push(Value::Mount(self.volume.clone(), directory));
                }
            }
            Place::Own => {}
            Place::Taken => {
                mutation.warnings.push(format!(
                    "container {} mounts other volumes at {}: it gets no AWS identity",
                    container.name, self.wiring.directory
                ));
                mutation.left_out.push(container.name.to_string());
            }
        }
        needs
    }

    /// Where the container finds the token. Two mounts at one path would make the API server refuse the pod.
    fn place(&self, container: &Container<'_>, has_identity: bool) -> Place<'a> {
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        if let Some(Mount { mount_path, .. }) = mounts.iter().find(|mount| *mount.name == *self.volume) {
            let directory = mount_path.trim_end_matches('/').to_owned().into();
            return Place::At { directory, mounted: true };
        }
        let free = |path: &str| mounts.iter().all(|mount| mount.mount_path.trim_end_matches('/') != path);
        let other = format!("{}{OTHER}", self.wiring.directory);
        if free(self.wiring.directory) {
            Place::At { directory: Cow::Borrowed(self.wiring.directory), mounted: false }
        } else if has_identity {
            Place::Own
        } else if free(&other) {
            Place::At { directory: other.into(), mounted: false }
        } else {
            Place::Taken
        }
    }

    fn token_file(&self, directory: &str) -> String {
        let file = format!("{directory}/{}", self.wiring.file);
        if self.windows { format!("C:{}", file.replace('/', r"\")) } else { file }
    }
}

/// Where a container finds the token.
enum Place<'a> {
    /// In this directory.
    At { directory: Cow<'a, str>, mounted: bool },
    /// The container has its own variables and its own volume at our path: an identity made by hand.
    Own,
    /// Nowhere.
    Taken,
}
