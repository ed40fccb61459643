//! PURE: every policy document we write, and their comparison as JSON meaning.

pub mod boundary;
pub mod bucket;
pub mod operator;
pub mod trust;

use serde_json::{Map, Value};

/// The only policy language version in use.
pub(crate) const VERSION: &str = "2012-10-17";

/// Whether two policy documents mean the same: member order, the order of statements and of list elements, and a single
/// element with or without its list do not matter; a text that is no JSON equals nothing.
#[must_use]
pub fn equivalent(stored: &str, wanted: &Value) -> bool {
    serde_json::from_str(stored).is_ok_and(|stored: Value| canonical(&stored) == canonical(wanted))
}

fn canonical(value: &Value) -> Value {
    match value {
        // `Principal: "*"` and `{"AWS": "*"}` mean the same, but S3 and IAM return what was put: no rule is needed.
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
        // IAM stores booleans of conditions as the strings they are compared as.
        Value::Bool(value) => Value::String(value.to_string()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn meaning_is_compared_not_text() {
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
