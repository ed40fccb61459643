//! PURE: a JSON patch (RFC 6902) of additions only, serialized without a tree of JSON values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

/// The operations, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Patch<'a>(Vec<Addition<'a>>);

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition<'a> {
    path: String,
    value: Value<'a>,
}

/// What is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A label's value, or a variable's.
    Text(Cow<'a, str>),
    /// Where a variable's value comes from: the pod's name.
    FromPodName,
    /// All labels.
    Labels(BTreeMap<&'static str, &'static str>),
    /// All metadata.
    Metadata {
        /// The labels.
        labels: BTreeMap<&'static str, &'static str>,
    },
    /// An environment variable: name and value.
    Variable(&'static str, Cow<'a, str>),
    /// An environment variable of this name whose value is the pod's name.
    PodName(&'static str),
    /// A volume mount, read-only: name and path.
    Mount(Cow<'a, str>, Cow<'a, str>),
    /// A volume with a token.
    Token {
        /// The volume's name.
        name: Cow<'a, str>,
        /// The token's only source.
        source: TokenSource<'a>,
    },
    /// A new list.
    List(Vec<Value<'a>>),
}

/// A `serviceAccountToken` projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenSource<'a> {
    audience: &'a str,
    expiration_seconds: i64,
    path: &'a str,
}

impl<'a> Patch<'a> {
    /// Appends an operation.
    pub fn push(&mut self, addition: Addition<'a>) {
        self.0.push(addition);
    }

    /// Appends operations that append `values` to the list at `path`, or create it.
    pub fn append(&mut self, path: &str, exists: bool, values: Vec<Value<'a>>) {
        if exists {
            self.0.extend(values.into_iter().map(|value| Addition { path: format!("{path}/-"), value }));
        } else if !values.is_empty() {
            self.0.push(Addition { path: path.to_owned(), value: Value::List(values) });
        }
    }

    /// Whether there is no operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Addition<'a> {
    /// Adds `value` at `path`, a JSON pointer.
    #[must_use]
    pub fn new(path: String, value: Value<'a>) -> Self {
        Self { path, value }
    }
}

impl<'a> Value<'a> {
    /// A volume with one token.
    #[must_use]
    pub fn token(name: Cow<'a, str>, audience: &'a str, expiration_seconds: i64, path: &'a str) -> Self {
        Self::Token { name, source: TokenSource { audience, expiration_seconds, path } }
    }
}

impl Serialize for Addition<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut operation = serializer.serialize_struct("Addition", 3)?;
        operation.serialize_field("op", "add")?;
        operation.serialize_field("path", &self.path)?;
        operation.serialize_field("value", &self.value)?;
        operation.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    field_ref: FieldRef,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FieldRef {
    api_version: &'static str,
    field_path: &'static str,
}

#[derive(Serialize)]
struct Projected<'a> {
    sources: [Projection<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Projection<'a> {
    service_account_token: &'a TokenSource<'a>,
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Labels(labels) => labels.serialize(serializer),
            Self::List(values) => values.serialize(serializer),
            Self::Metadata { labels } => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("labels", labels)?;
                map.end()
            }
            Self::Variable(name, value) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("name", name)?;
                map.serialize_entry("value", value)?;
                map.end()
            }
            Self::FromPodName => {
                // With the API server's defaults, so that a second pass and a diff find no difference.
                let field_ref = FieldRef { api_version: "v1", field_path: "metadata.name" };
                Reference { field_ref }.serialize(serializer)
            }
            Self::PodName(name) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("name", name)?;
                map.serialize_entry("valueFrom", &Self::FromPodName)?;
                map.end()
            }
            Self::Mount(name, path) => {
                let mut map = serializer.serialize_map(Some(3))?;
                map.serialize_entry("name", name)?;
                map.serialize_entry("readOnly", &true)?;
                map.serialize_entry("mountPath", path)?;
                map.end()
            }
            Self::Token { name, source } => {
                let sources = [Projection { service_account_token: source }];
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("name", name)?;
                map.serialize_entry("projected", &Projected { sources })?;
                map.end()
            }
        }
    }
}
