//! What the API server would refuse, without asking it: the limits in the CRD's schema, and its CEL rules. Types, required and
//! unknown fields are the parser's.

use std::collections::BTreeSet;

use crds::OidcIssuer;
use kube::CustomResourceExt;
use kube::core::cel::{ErrorKind, validate_cel};
use serde_json::Value;

/// Why the API server would refuse an issuer: field and reason, one for each refusal. Rules about a change (`oldSelf`) need the
/// former object, and are the API server's alone.
#[must_use]
pub fn refusals(issuer: &OidcIssuer) -> Vec<String> {
    let schema = OidcIssuer::crd().spec.versions.into_iter().next().and_then(|version| version.schema);
    let schema =
        serde_json::to_value(schema.and_then(|schema| schema.open_api_v3_schema)).unwrap_or_default();
    let object = serde_json::to_value(issuer).unwrap_or_default();
    let mut refusals = Vec::new();
    limits(&schema, &object, "", &mut refusals);
    // As in the API server: rules see only what the schema admits.
    if refusals.is_empty()
        && let Err(errors) = validate_cel(issuer)
    {
        // A rule that this library cannot evaluate says nothing about the file.
        let refused =
            errors.into_vec().into_iter().filter(|error| error.kind == ErrorKind::ValidationFailure);
        refusals.extend(refused.map(|error| error.to_string()));
    }
    refusals
}

/// The limits of lengths, and the uniqueness of list elements. No crate: validators of JSON Schema do not know the list types of
/// Kubernetes, and these few keywords are all that the parser leaves.
fn limits(schema: &Value, value: &Value, path: &str, refusals: &mut Vec<String>) {
    let limit = |keyword: &str| schema[keyword].as_u64();
    let mut bounded = |what: &str, size: usize, [least, most]: [Option<u64>; 2]| {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if least.is_some_and(|least| size < least) {
            refusals.push(format!(
                "{path}: has {size} {what}, and at least {} are required",
                least.unwrap_or_default()
            ));
        }
        if most.is_some_and(|most| size > most) {
            refusals.push(format!(
                "{path}: has {size} {what}, and at most {} are allowed",
                most.unwrap_or_default()
            ));
        }
    };
    match value {
        Value::String(text) => {
            bounded("characters", text.chars().count(), [limit("minLength"), limit("maxLength")]);
        }
        Value::Array(elements) => {
            bounded("elements", elements.len(), [limit("minItems"), limit("maxItems")]);
            if let Some(twice) = twice(schema, elements) {
                refusals.push(format!("{path}: duplicate entries: {twice}"));
            }
            for (index, element) in elements.iter().enumerate() {
                limits(&schema["items"], element, &format!("{path}[{index}]"), refusals);
            }
        }
        Value::Object(members) => {
            bounded("entries", members.len(), [limit("minProperties"), limit("maxProperties")]);
            for (name, member) in members {
                let schema = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                limits(schema, member, &path, refusals);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What a list of unique elements has twice.
fn twice(schema: &Value, elements: &[Value]) -> Option<String> {
    let identity = |element: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(element.to_string()),
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array()?.iter().filter_map(Value::as_str);
            Some(keys.map(|key| element[key].to_string()).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    };
    let mut seen = BTreeSet::new();
    elements.iter().filter_map(identity).find(|identity| !seen.insert(identity.clone()))
}
