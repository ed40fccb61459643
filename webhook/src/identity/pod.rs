//! PURE: the fields of a pod that the rules of [`crate::identity::mutate`] read. A pod is never written back.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::json::text::Text;

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
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    init_containers: Option<Vec<Container<'a>>>,
    /// Its volumes.
    #[serde(borrow, default)]
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
    /// Which of the injected variables it sets; `None` where it has no list of variables.
    #[serde(default)]
    pub env: Option<Variables>,
    /// Its mounts.
    #[serde(borrow, default)]
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
                .is_some_and(|env| env.has(Variable::TokenFile) || env.has(Variable::AuthorizationFile))
        };
        self.init_containers().iter().chain(self.containers()).any(has_variable)
    }

    /// Its volumes.
    #[must_use]
    pub fn volumes(&self) -> &[Volume<'_>] {
        self.spec.volumes.as_deref().unwrap_or_default()
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

impl Volume<'_> {
    /// Whether it contains a token in a file of that name.
    #[must_use]
    pub fn is_token(&self, file: &str) -> bool {
        let sources = self.projected.as_ref().and_then(|projected| projected.sources.as_deref());
        sources
            .unwrap_or_default()
            .iter()
            .any(|source| source.service_account_token.as_ref().is_some_and(|token| &*token.path == file))
    }
}

/// The variables that are injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// The role to assume.
    RoleArn,
    /// The token's file, for STS.
    TokenFile,
    /// The name of the session in `CloudTrail`.
    SessionName,
    /// The agent's address.
    CredentialsUri,
    /// The token's file, for the agent.
    AuthorizationFile,
    /// The region, as botocore reads it.
    DefaultRegion,
    /// The region, as all others read it.
    Region,
    /// Whether STS is called in the region.
    StsRegionalEndpoints,
}

impl Variable {
    const ALL: [Self; 8] = [
        Self::RoleArn,
        Self::TokenFile,
        Self::SessionName,
        Self::CredentialsUri,
        Self::AuthorizationFile,
        Self::DefaultRegion,
        Self::Region,
        Self::StsRegionalEndpoints,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoleArn => "AWS_ROLE_ARN",
            Self::TokenFile => "AWS_WEB_IDENTITY_TOKEN_FILE",
            Self::SessionName => "AWS_ROLE_SESSION_NAME",
            Self::CredentialsUri => "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            Self::AuthorizationFile => "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            Self::DefaultRegion => "AWS_DEFAULT_REGION",
            Self::Region => "AWS_REGION",
            Self::StsRegionalEndpoints => "AWS_STS_REGIONAL_ENDPOINTS",
        }
    }
}

/// Which of the injected variables a container sets; nothing else is kept of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Variables(u8);

impl Variables {
    /// Whether the variable is set.
    #[must_use]
    pub const fn has(self, variable: Variable) -> bool {
        self.0 & (1 << variable as u8) != 0
    }

    fn insert(&mut self, name: &str) {
        if name.starts_with("AWS_") {
            let found = Variable::ALL.into_iter().filter(|variable| variable.name() == name);
            self.0 = found.fold(self.0, |set, variable| set | 1 << variable as u8);
        }
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct VariablesVisitor;
        impl<'de> Visitor<'de> for VariablesVisitor {
            type Value = Variables;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of variables")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Variables, A::Error> {
                let mut variables = Variables::default();
                while let Some(Named { name }) = list.next_element()? {
                    variables.insert(&name);
                }
                Ok(variables)
            }
        }
        deserializer.deserialize_seq(VariablesVisitor)
    }
}
