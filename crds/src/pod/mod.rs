//! PURE: the fields of a pod that the rules about its AWS identity read. A pod is never written back.

pub mod annotation;
pub mod injected;
mod list;
pub mod problem;
pub mod skipped;
pub mod text;
pub mod token;
pub mod variable;

use std::collections::BTreeMap;

use serde::Deserialize;

use self::text::Text;
use self::variable::{Variable, Variables};

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Pod<'a> {
    /// Its metadata.
    #[serde(borrow, default)]
    pub metadata: Option<Metadata<'a>>,
    /// Its specification.
    #[serde(borrow)]
    pub spec: Spec<'a>,
}

/// A pod's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Metadata<'a> {
    /// Empty for a pod that a controller creates.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// By key.
    #[serde(borrow, default)]
    pub labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
    /// By key.
    #[serde(borrow, default)]
    pub annotations: Option<BTreeMap<Text<'a>, Text<'a>>>,
}

/// A pod's specification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec<'a> {
    #[serde(borrow, default)]
    node_selector: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow, default)]
    os: Option<Named<'a>>,
    #[serde(borrow, default, deserialize_with = "list::containers")]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default, deserialize_with = "list::containers")]
    init_containers: Option<Vec<Container<'a>>>,
    /// Its volumes.
    #[serde(borrow, default, deserialize_with = "list::without_empty_items")]
    pub volumes: Option<Vec<Volume<'a>>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
}

/// A container of either list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// What it sets AWS's variables to; `None` where it has no list of variables.
    #[serde(borrow, default)]
    pub env: Option<Variables<'a>>,
    /// Whether it has variables of other objects, whose names are not known.
    #[serde(rename = "envFrom", default, deserialize_with = "list::is_present")]
    pub has_env_from: bool,
    /// Its mounts.
    #[serde(borrow, default, deserialize_with = "list::without_empty_items")]
    pub volume_mounts: Option<Vec<Mount<'a>>>,
}

/// A volume mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount<'a> {
    /// The volume's name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// The path in the container.
    #[serde(borrow, default)]
    pub mount_path: Text<'a>,
    /// The part of the volume that is mounted; empty for the whole volume.
    #[serde(borrow, default)]
    pub sub_path: Option<Text<'a>>,
    /// The same, with variables.
    #[serde(borrow, default)]
    pub sub_path_expr: Option<Text<'a>>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Volume<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    projected: Option<Projected<'a>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Projected<'a> {
    #[serde(borrow, default)]
    sources: Option<Vec<Projection<'a>>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Projection<'a> {
    #[serde(borrow, default)]
    service_account_token: Option<TokenProjection<'a>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct TokenProjection<'a> {
    /// Absent for the API server's own audience, which AWS refuses.
    #[serde(borrow, default)]
    audience: Option<Text<'a>>,
    #[serde(borrow, default)]
    path: Text<'a>,
}

impl Pod<'_> {
    /// Its containers.
    #[must_use]
    pub fn containers(&self) -> &[Container<'_>] {
        self.spec.containers.as_deref().unwrap_or_default()
    }

    /// Its init containers, native sidecars among them.
    #[must_use]
    pub fn init_containers(&self) -> &[Container<'_>] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }

    /// Whether a container of either list has a variable with the path of a token.
    #[must_use]
    pub fn has_token_variable(&self) -> bool {
        let has_variable = |container: &Container<'_>| {
            container
                .env
                .as_ref()
                .is_some_and(|env| env.has(Variable::TokenFile) || env.has(Variable::AuthorizationFile))
        };
        self.init_containers().iter().chain(self.containers()).any(has_variable)
    }

    /// Its volumes.
    #[must_use]
    pub fn volumes(&self) -> &[Volume<'_>] {
        self.spec.volumes.as_deref().unwrap_or_default()
    }

    /// The keys of its annotations.
    pub fn annotation_keys(&self) -> impl Iterator<Item = &str> {
        let annotations = self.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
        annotations.into_iter().flatten().map(|(key, _)| &**key)
    }

    /// The annotation's value.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.annotations.as_ref()?.get(key).map(|value| &**value)
    }

    /// Whether it runs on Windows. Affinities are not considered, as in the EKS webhook.
    #[must_use]
    pub fn is_windows(&self) -> bool {
        let selector = self.spec.node_selector.as_ref();
        let selects = |key: &str| selector.and_then(|s| s.get(key)).is_some_and(|os| &**os == "windows");
        selects("kubernetes.io/os")
            || selects("beta.kubernetes.io/os")
            || self.spec.os.as_ref().is_some_and(|os| &*os.name == "windows")
    }
}

impl Container<'_> {
    /// Its mounts.
    #[must_use]
    pub fn mounts(&self) -> &[Mount<'_>] {
        self.volume_mounts.as_deref().unwrap_or_default()
    }
}

impl Mount<'_> {
    /// The path in the container, without a slash at its end.
    #[must_use]
    pub fn path(&self) -> &str {
        self.mount_path.trim_end_matches('/')
    }

    /// Whether it is at that path, or below it.
    #[must_use]
    pub fn is_in(&self, path: &str) -> bool {
        self.path().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether the whole volume is mounted. The kubelet updates files of a volume there, and not where one is mounted by
    /// subPath (Kubernetes documentation, "Volumes", "Using subPath"): a token mounted so is never renewed.
    #[must_use]
    pub fn is_of_whole_volume(&self) -> bool {
        let is_empty = |path: &Option<Text<'_>>| path.as_ref().is_none_or(|path| path.is_empty());
        is_empty(&self.sub_path) && is_empty(&self.sub_path_expr)
    }
}

impl Volume<'_> {
    /// The audience of the token in the volume's file of that path; `None` where there is no token, and empty for the API
    /// server's own audience.
    #[must_use]
    pub fn audience_of_token(&self, file: &str) -> Option<&str> {
        let sources = self.projected.as_ref()?.sources.as_deref()?;
        let tokens = sources.iter().filter_map(|source| source.service_account_token.as_ref());
        let mut of_file = tokens.filter(|token| &*token.path == file);
        of_file.next().map(|token| token.audience.as_deref().unwrap_or_default())
    }
}
