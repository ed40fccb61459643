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
