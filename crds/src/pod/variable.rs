//! PURE: what a container sets the environment variables to that AWS SDKs read.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::text::Text;

/// A variable that AWS SDKs read.
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
    /// The id of a static key. Never injected: every SDK prefers it to a role.
    AccessKeyId,
    /// A profile of a configuration file. Never injected: SDKs for Go prefer it to a role.
    Profile,
}

impl Variable {
    const ALL: [Self; 10] = [
        Self::RoleArn,
        Self::TokenFile,
        Self::SessionName,
        Self::CredentialsUri,
        Self::AuthorizationFile,
        Self::DefaultRegion,
        Self::Region,
        Self::StsRegionalEndpoints,
        Self::AccessKeyId,
        Self::Profile,
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
            Self::AccessKeyId => "AWS_ACCESS_KEY_ID",
            Self::Profile => "AWS_PROFILE",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        let known = || Self::ALL.into_iter().find(|variable| variable.name() == name);
        if name.starts_with("AWS_") { known() } else { None }
    }
}

/// What a container sets a variable to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting<'a> {
    /// The empty text. SDKs treat it as unset; charts render it where a value is not given.
    Empty,
    /// This text.
    Literal(Text<'a>),
    /// A value that is not known: of another object (`valueFrom`), or with a reference `$(NAME)` to another variable.
    Reference {
        /// Whether the other object may be missing: then the kubelet does not set the variable.
        optional: bool,
    },
}

impl Setting<'_> {
    /// The text; `None` where it is not known.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Empty | Self::Reference { .. } => None,
        }
    }
}

/// The variables of AWS that a container sets; nothing else is kept of its list. Of several entries of one name the last
/// counts, as for the kubelet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables<'a>(Vec<Entry<'a>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry<'a> {
    variable: Variable,
    /// Its place in the container's list.
    index: usize,
    setting: Setting<'a>,
}

impl<'a> Variables<'a> {
    /// Whether none of them is in the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the variable is set to; `None` where it is not set, or to the empty text.
    #[must_use]
    pub fn get(&self, variable: Variable) -> Option<&Setting<'a>> {
        self.entry(variable).map(|entry| &entry.setting).filter(|setting| **setting != Setting::Empty)
    }

    /// Whether the variable is set, and not to the empty text.
    #[must_use]
    pub fn has(&self, variable: Variable) -> bool {
        self.get(variable).is_some()
    }

    /// The place in the container's list of a variable that is set to the empty text.
    #[must_use]
    pub fn empty_place(&self, variable: Variable) -> Option<usize> {
        self.entry(variable).filter(|entry| entry.setting == Setting::Empty).map(|entry| entry.index)
    }

    fn entry(&self, variable: Variable) -> Option<&Entry<'a>> {
        self.0.iter().rev().find(|entry| entry.variable == variable)
    }
}

/// An item of a container's list of variables; only the value of a variable of AWS is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value_from: Option<&'a RawValue>,
}

/// Where a value comes from.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    #[serde(default)]
    config_map_key_ref: Option<KeyOf>,
    #[serde(default)]
    secret_key_ref: Option<KeyOf>,
}

/// The key of a ConfigMap or Secret.
#[derive(Deserialize)]
struct KeyOf {
    #[serde(default)]
    optional: Option<bool>,
}

impl<'a> Item<'a> {
    fn setting(&self) -> Setting<'a> {
        match (self.value_from, self.value) {
            (Some(source), _) => {
                let source: Source = serde_json::from_str(source.get()).unwrap_or_default();
                let key = source.secret_key_ref.or(source.config_map_key_ref);
                Setting::Reference { optional: key.and_then(|key| key.optional).unwrap_or_default() }
            }
            (None, None) => Setting::Empty,
            (None, Some(value)) => match serde_json::from_str::<Text<'a>>(value.get()) {
                Ok(text) if text.is_empty() => Setting::Empty,
                Ok(text) if !text.contains("$(") => Setting::Literal(text),
                // Not a text: the API server refuses the pod.
                Ok(_) | Err(_) => Setting::Reference { optional: false },
            },
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Variables<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct VariablesVisitor;
        impl<'de> Visitor<'de> for VariablesVisitor {
            type Value = Variables<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of variables")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Variables<'de>, A::Error> {
                let mut variables = Vec::new();
                let mut index = 0;
                while let Some(item) = list.next_element::<Item<'de>>()? {
                    if let Some(variable) = Variable::of_name(&item.name) {
                        variables.push(Entry { variable, index, setting: item.setting() });
                    }
                    index += 1;
                }
                Ok(Variables(variables))
            }
        }
        deserializer.deserialize_seq(VariablesVisitor)
    }
}
