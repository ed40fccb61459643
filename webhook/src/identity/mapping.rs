//! PURE: roles by `ServiceAccount` from a ConfigMap, in the form that kOps writes and the EKS Pod Identity Webhook
//! reads: a JSON object `{"namespace/serviceaccount": {"RoleARN": …, "Audience": …, "UseRegionalSTS": …,
//! "TokenExpiration": …}}`. A namespace may contain `*` for any characters; the EKS webhook accepts only `*` alone.
//!
//! An invalid entry is reported and left out; the others, and the last valid version of that one, stay in force.

use std::collections::HashMap;
use std::sync::Arc;

use crds::glob::glob;
use serde_json::{Map, Value};
use thiserror::Error;

/// The key of the ConfigMap that holds the JSON object.
pub const KEY: &str = "config";

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// The role.
    pub role_arn: Box<str>,
    /// The token's audience; `None` where the entry has none or an empty one.
    pub audience: Option<Box<str>>,
    /// Whether `AWS_STS_REGIONAL_ENDPOINTS=regional` is injected. The flag does not count here, as in the EKS webhook.
    pub sts_regional_endpoints: bool,
    /// The token's lifetime in seconds; `None` where the entry has none or 0.
    pub expiration_seconds: Option<i64>,
}

/// All entries: by `ServiceAccount`, then by namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping(HashMap<Box<str>, HashMap<Box<str>, Arc<Mapped>>>);

/// Why an entry, or the whole text, is not usable. Contains only keys and fields, never values.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MappingProblem {
    /// The text is not a JSON object.
    #[error("key {KEY} is not a JSON object: the last valid version stays in force")]
    NotAnObject,
    /// The key has the wrong form.
    #[error(
        "entry {0:?}: the key must be namespace/serviceaccount; in the namespace, * stands for any characters"
    )]
    Key(String),
    /// The value is not an object.
    #[error("entry {0:?} is not an object")]
    Value(String),
    /// There is no role.
    #[error("entry {0:?} has no RoleARN")]
    NoRole(String),
    /// A field has the wrong type.
    #[error("entry {0:?}: {1} must be {2}")]
    Field(String, &'static str, &'static str),
}

impl Mapping {
    /// Reads the text. Of what is invalid, the `last` version is kept.
    #[must_use]
    pub fn read(text: &str, last: &Self) -> (Self, Vec<MappingProblem>) {
        let Ok(entries) = serde_json::from_str::<Map<String, Value>>(text) else {
            return (last.clone(), vec![MappingProblem::NotAnObject]);
        };
        let (mut mapping, mut problems) = (Self::default(), Vec::new());
        for (key, value) in entries {
            let Some((namespace, service_account)) = split(&key) else {
                problems.push(MappingProblem::Key(key));
                continue;
            };
            let entry = match entry(&key, value) {
                Ok(entry) => Some(Arc::new(entry)),
                Err(problem) => {
                    problems.push(problem);
                    last.exactly(namespace, service_account).cloned()
                }
            };
            if let Some(entry) = entry {
                mapping.0.entry(service_account.into()).or_default().insert(namespace.into(), entry);
            }
        }
        (mapping, problems)
    }

    /// The entry of a `ServiceAccount`: that of its namespace, or else that of the longest pattern that matches it.
    #[must_use]
    pub fn get(&self, namespace: &str, service_account: &str) -> Option<&Arc<Mapped>> {
        let by_namespace = self.0.get(service_account)?;
        by_namespace.get(namespace).or_else(|| {
            let matching = by_namespace.iter().filter(|(pattern, _)| glob(pattern, namespace));
            matching.max_by_key(|(pattern, _)| (pattern.len(), *pattern)).map(|(_, entry)| entry)
        })
    }

    /// The entry of exactly this namespace, or pattern.
    #[must_use]
    pub fn exactly(&self, namespace: &str, service_account: &str) -> Option<&Arc<Mapped>> {
        self.0.get(service_account)?.get(namespace)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(HashMap::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn split(key: &str) -> Option<(&str, &str)> {
    let (namespace, service_account) = key.split_once('/')?;
    let valid = !namespace.is_empty() && !service_account.is_empty() && !service_account.contains(['/', '*']);
    valid.then_some((namespace, service_account))
}

/// Field names are case-insensitive, as in Go's JSON decoder, which the EKS webhook uses.
fn entry(key: &str, value: Value) -> Result<Mapped, MappingProblem> {
    let Value::Object(fields) = value else { return Err(MappingProblem::Value(key.to_owned())) };
    let field = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value).filter(|value| !value.is_null())
    };
    let wrong = |name, form| MappingProblem::Field(key.to_owned(), name, form);
    let text = |name: &'static str| match field(name) {
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str().into())),
        Some(_) => Err(wrong(name, "a string")),
        None => Ok(None),
    };
    let role_arn = text("RoleARN")?.ok_or_else(|| MappingProblem::NoRole(key.to_owned()))?;
    let sts_regional_endpoints = match field("UseRegionalSTS") {
        Some(Value::Bool(wanted)) => *wanted,
        Some(_) => return Err(wrong("UseRegionalSTS", "true or false")),
        None => false,
    };
    let expiration_seconds = match field("TokenExpiration") {
        Some(seconds) => {
            Some(seconds.as_i64().ok_or_else(|| wrong("TokenExpiration", "a whole number of seconds"))?)
        }
        None => None,
    };
    Ok(Mapped {
        role_arn,
        audience: text("Audience")?,
        sts_regional_endpoints,
        expiration_seconds: expiration_seconds.filter(|seconds| *seconds != 0),
    })
}
