//! What is added to a pod that has an identity. Pure: the pod's JSON and the identity in, a JSON patch out.
//!
//! The pod is read through [`Pod`], which knows only what the rules look at and is never written back: the patch is made
//! of additions at exact places, so that fields this program has never heard of cannot be lost. Appending at the end of
//! a container's lists and inserting one volume in front moves nothing that a later operation points at.
//!
//! Variables, volume, mount and their order are those of the EKS Pod Identity Webhook. `envFrom` is not looked at: in
//! Kubernetes `env` wins over it, so what is injected here wins, too.

use std::collections::{BTreeMap, BTreeSet};

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::identity::{Identity, parse_expiration};

/// Names the token's volume may have; the second where somebody else's volume already has the first.
const VOLUMES: [&str; 2] = ["aws-iam-token", "aws-iam-token-podidentity"];
/// The token's file in its volume.
const TOKEN_FILE: &str = "token";
/// Appended to the mount path in a container that mounts something else there.
const OTHER_PATH_SUFFIX: &str = "-podidentity";

/// Where in a pod the identity goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Prefix of the pod's annotations, without the slash.
    pub annotation_prefix: String,
    /// Directory the token is mounted at, without a slash at its end.
    pub mount_path: String,
}

/// What the rules look at in a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Pod {
    #[serde(default)]
    metadata: Option<Metadata>,
    spec: Spec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    service_account_name: Option<String>,
    node_selector: Option<BTreeMap<String, String>>,
    os: Option<Named>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    env: Option<Vec<Named>>,
    volume_mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mount {
    name: String,
    mount_path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Volume {
    name: String,
    projected: Option<Projected>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Projected {
    sources: Option<Vec<Projection>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Projection {
    service_account_token: Option<TokenProjection>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct TokenProjection {
    path: String,
}

/// The additions, and what the user should know about them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mutation {
    /// Empty where nothing is missing.
    pub patch: Patch,
    /// Admission warnings.
    pub warnings: Vec<String>,
}

/// Why a pod cannot be given its identity.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MutateError {
    /// Both names are taken by volumes that are no token.
    #[error(
        "volumes {} and {} are not the AWS token of this ServiceAccount: rename one of them",
        VOLUMES[0],
        VOLUMES[1]
    )]
    VolumeNamesTaken,
}

impl Pod {
    /// The pod's `ServiceAccount`; `None` for mirror pods, which have none. The API server has filled in `default`.
    #[must_use]
    pub fn service_account(&self) -> Option<&str> {
        self.spec.service_account_name.as_deref().filter(|name| !name.is_empty())
    }

    fn annotation(&self, prefix: &str, key: &str) -> Option<&str> {
        let annotations = self.metadata.as_ref()?.annotations.as_ref()?;
        annotations.get(&format!("{prefix}/{key}")).map(String::as_str)
    }

    /// Affinities are not looked at, as in the reference.
    fn is_windows(&self) -> bool {
        let selects = |key: &str| {
            self.spec.node_selector.as_ref().and_then(|s| s.get(key)).is_some_and(|os| os == "windows")
        };
        selects("kubernetes.io/os")
            || selects("beta.kubernetes.io/os")
            || self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }
}

impl Volume {
    /// Whether it holds a token at the place our variable names.
    fn is_token(&self) -> bool {
        let sources = self.projected.as_ref().and_then(|projected| projected.sources.as_deref());
        sources
            .unwrap_or_default()
            .iter()
            .any(|source| source.service_account_token.as_ref().is_some_and(|token| token.path == TOKEN_FILE))
    }
}

/// What `pod` lacks of `identity`.
pub fn mutate(pod: &Pod, identity: &Identity, target: &Target) -> Result<Mutation, MutateError> {
    let mut warnings = Vec::new();
    let mut additions = Vec::new();

    let (volume, present) = token_volume(pod.spec.volumes.as_deref().unwrap_or_default())?;
    if volume != VOLUMES[0] {
        warnings.push(format!("volume {} is not the AWS token; {volume} is added beside it", VOLUMES[0]));
    }
    if !present {
        let prefix = &target.annotation_prefix;
        let seconds = pod
            .annotation(prefix, "token-expiration")
            .and_then(|text| parse_expiration(text, prefix, &mut warnings))
            .unwrap_or(identity.expiration_seconds);
        additions.push(volume_addition(pod, volume, &identity.audience, seconds));
    }

    let skipped = skipped_containers(pod, target);
    let (containers, init_containers) = (&pod.spec.containers, &pod.spec.init_containers);
    let lists = [("containers", containers), ("initContainers", init_containers)]
        .map(|(list, containers)| (list, containers.as_deref().unwrap_or_default()));
    let unknown =
        skipped.iter().filter(|name| lists.iter().all(|(_, l)| l.iter().all(|c| c.name != ***name)));
    warnings.extend(
        unknown.map(|name| format!("{}/skip-containers: no container {name}", target.annotation_prefix)),
    );

    let injection = Injection { identity, volume, mount_path: &target.mount_path, windows: pod.is_windows() };
    for (list, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            if skipped.contains(container.name.as_str()) {
                continue;
            }
            let Needs { env, mount } = injection.needs(container, &mut warnings);
            let place = format!("/spec/{list}/{index}");
            additions.extend(append(&place, "env", container.env.is_some(), env));
            additions.extend(append(
                &place,
                "volumeMounts",
                container.volume_mounts.is_some(),
                mount.into_iter().collect(),
            ));
        }
    }
    Ok(Mutation { patch: Patch(additions), warnings })
}

/// The name of the token's volume, and whether the pod has it already.
fn token_volume(volumes: &[Volume]) -> Result<(&'static str, bool), MutateError> {
    VOLUMES
        .into_iter()
        .find_map(|name| match volumes.iter().find(|volume| volume.name == name) {
            None => Some((name, false)),
            Some(volume) => volume.is_token().then_some((name, true)),
        })
        .ok_or(MutateError::VolumeNamesTaken)
}

fn volume_addition(pod: &Pod, name: &str, audience: &str, expiration_seconds: i64) -> PatchOperation {
    let volume = json!({
        "name": name,
        "projected": {"sources": [{"serviceAccountToken": {
            "audience": audience,
            "expirationSeconds": expiration_seconds,
            "path": TOKEN_FILE,
        }}]},
    });
    match &pod.spec.volumes {
        Some(_) => add("/spec/volumes/0", volume),
        None => add("/spec/volumes", json!([volume])),
    }
}

/// The annotation is one CSV record. Container names hold neither blanks nor quotes, so both are cut off, and a name
/// after `, ` counts (the reference skips nothing there).
fn skipped_containers<'a>(pod: &'a Pod, target: &Target) -> BTreeSet<&'a str> {
    pod.annotation(&target.annotation_prefix, "skip-containers")
        .and_then(|text| text.lines().next())
        .unwrap_or_default()
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|name| !name.is_empty())
        .collect()
}

/// What every container of one pod is given.
struct Injection<'a> {
    identity: &'a Identity,
    volume: &'a str,
    mount_path: &'a str,
    windows: bool,
}

/// What one container lacks.
#[derive(Default)]
struct Needs {
    env: Vec<Value>,
    mount: Option<Value>,
}

impl Injection<'_> {
    fn needs(&self, container: &Container, warnings: &mut Vec<String>) -> Needs {
        let env = container.env.as_deref().unwrap_or_default();
        // Whatever sets it: `value` and `valueFrom` count alike.
        let has = |name: &str| env.iter().any(|variable| variable.name == name);
        let (has_role, has_file) = (has("AWS_ROLE_ARN"), has("AWS_WEB_IDENTITY_TOKEN_FILE"));
        let has_identity = has_role || has_file;
        let has_region = has("AWS_REGION") || has("AWS_DEFAULT_REGION");
        let has_sts = has("AWS_STS_REGIONAL_ENDPOINTS");
        if has_identity && has_region && has_sts {
            return Needs::default();
        }
        if has_role != has_file {
            let (set, unset) = if has_role {
                ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
            } else {
                ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")
            };
            warnings
                .push(format!("container {} sets {set} itself, so {unset} is not injected", container.name));
        }

        let mut needs = Needs::default();
        let mut push = |name: &str, value: &str| needs.env.push(json!({"name": name, "value": value}));
        if self.identity.sts_regional_endpoints && !has_sts {
            push("AWS_STS_REGIONAL_ENDPOINTS", "regional");
        }
        if let Some(region) = self.identity.region.as_ref().filter(|_| !has_region) {
            push("AWS_DEFAULT_REGION", region);
            push("AWS_REGION", region);
        }
        match self.place(container, has_identity) {
            Place::At { directory, mounted } => {
                if !has_identity {
                    push("AWS_ROLE_ARN", &self.identity.role_arn);
                    push("AWS_WEB_IDENTITY_TOKEN_FILE", &self.token_file(&directory));
                }
                needs.mount = (!mounted)
                    .then(|| json!({"name": self.volume, "readOnly": true, "mountPath": directory}));
            }
            Place::Own => {}
            Place::Taken => warnings.push(format!(
                "container {} mounts other volumes at {}: it gets no AWS identity",
                container.name, self.mount_path
            )),
        }
        needs
    }

    /// Where the container finds the token. Two mounts at one path would make the API server refuse the pod.
    fn place(&self, container: &Container, has_identity: bool) -> Place {
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        if let Some(mount) = mounts.iter().find(|mount| mount.name == self.volume) {
            return Place::At { directory: mount.mount_path.trim_end_matches('/').to_owned(), mounted: true };
        }
        let free = |path: &str| mounts.iter().all(|mount| mount.mount_path.trim_end_matches('/') != path);
        let other = format!("{}{OTHER_PATH_SUFFIX}", self.mount_path);
        if free(self.mount_path) {
            Place::At { directory: self.mount_path.to_owned(), mounted: false }
        } else if has_identity {
            Place::Own
        } else if free(&other) {
            Place::At { directory: other, mounted: false }
        } else {
            Place::Taken
        }
    }

    fn token_file(&self, directory: &str) -> String {
        let file = format!("{directory}/{TOKEN_FILE}");
        if self.windows { format!("C:{}", file.replace('/', r"\")) } else { file }
    }
}

/// Where a container finds the token.
enum Place {
    /// In this directory.
    At { directory: String, mounted: bool },
    /// The container has its own variables and its own volume at our path: an identity made by hand.
    Own,
    /// Nowhere.
    Taken,
}

/// Operations that append `values` to the list `field` at `place`.
fn append(place: &str, field: &str, exists: bool, values: Vec<Value>) -> Vec<PatchOperation> {
    if values.is_empty() {
        Vec::new()
    } else if exists {
        values.into_iter().map(|value| add(&format!("{place}/{field}/-"), value)).collect()
    } else {
        vec![add(&format!("{place}/{field}"), Value::Array(values))]
    }
}

fn add(path: &str, value: Value) -> PatchOperation {
    // Paths hold fixed words and numbers only: nothing to escape.
    let path = PointerBuf::parse(path).unwrap_or_default();
    PatchOperation::Add(AddOperation { path, value })
}
