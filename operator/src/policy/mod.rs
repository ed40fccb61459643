//! PURE: every policy document that we write, and when two documents mean the same.

pub mod boundary;
pub mod bucket;
pub mod operator;
pub mod trust;

use serde_json::{Map, Value};

/// The current version of the IAM policy language.
pub(crate) const VERSION: &str = "2012-10-17";

/// Whether two policy documents mean the same. The order of members, statements and list elements, `Sid` and `Id`, and whether
/// a single element is in a list do not matter. A text that is not JSON equals no document.
#[must_use]
pub fn equivalent(stored: &str, wanted: &Value) -> bool {
    serde_json::from_str(stored).is_ok_and(|stored: Value| canonical(&stored) == canonical(wanted))
}

/// Whether a policy document can only take rights away: every statement denies. Such a policy is an incident responder's, for
/// example the `AWSRevokeOlderSessions` of the IAM console (IAM user guide, "Revoke IAM role temporary security credentials").
/// A text that is no policy gives no answer that a right could rest on: `false`.
#[must_use]
pub fn only_denies(document: &str) -> bool {
    let parsed: Value = serde_json::from_str(document).unwrap_or_default();
    let statements = match &parsed["Statement"] {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    !statements.is_empty() && statements.iter().all(|statement| statement["Effect"] == "Deny")
}

fn canonical(value: &Value) -> Value {
    match value {
        // `Principal: "*"` and `{"AWS": "*"}` mean the same, too, but S3 and IAM return the form that was put.
        Value::Object(map) => {
            let map: Map<String, Value> = map
                .iter()
                .filter(|(member, _)| *member != "Sid" && *member != "Id")
                .map(|(member, value)| (member.clone(), canonical(value)))
                .collect();
            Value::Object(map)
        }
        Value::Array(list) if list.len() == 1 => canonical(&list[0]),
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(canonical).collect();
            list.sort_by_cached_key(Value::to_string);
            list.dedup();
            if list.len() == 1 { list.remove(0) } else { Value::Array(list) }
        }
        // A condition may have a boolean as JSON boolean or as string.
        Value::Bool(value) => Value::String(value.to_string()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_only_denies_if_every_statement_does() {
        for (document, expected) in [
            (r#"{"Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}"#, true),
            (r#"{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}"#, true),
            (r#"{"Statement":[{"Effect":"Deny"},{"Effect":"Deny"}]}"#, true),
            (r#"{"Statement":[{"Effect":"Deny"},{"Effect":"Allow"}]}"#, false),
            (r#"{"Statement":[]}"#, false),
            (r#"{"Version":"2012-10-17"}"#, false),
            ("[]", false),
            ("not json", false),
        ] {
            assert_eq!(only_denies(document), expected, "{document}");
        }
    }

    #[test]
    fn documents_are_compared_by_meaning() {
        let wanted = json!({"Version": VERSION, "Statement": [
            {"Sid": "a", "Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}]});
        for same in [
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:List*","s3:Get*"],"Resource":"*"}]}"#,
            r#"{"Statement":{"Resource":["*"],"Effect":"Allow","Action":["s3:List*","s3:Get*","s3:Get*"]},"Version":"2012-10-17"}"#,
        ] {
            assert!(equivalent(same, &wanted), "{same}");
        }
        for other in [
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:Get*"],"Resource":"*"}]}"#,
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":["s3:Get*","s3:List*"],"Resource":"*"}]}"#,
            r#"{"Version":"2012-10-17","Statement":[]}"#,
            "not json",
            "",
        ] {
            assert!(!equivalent(other, &wanted), "{other}");
        }
    }
}
