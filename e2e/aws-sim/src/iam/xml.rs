//! Parts of responses that several resources share.

use aws_sim_api::Tags;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::wire::element;

/// When every resource was created.
pub(super) const CREATE_DATE: &str = "2026-01-01T00:00:00Z";

/// IAM returns documents percent-encoded (RFC 3986).
pub(super) fn encoded(document: &Value) -> String {
    utf8_percent_encode(&document.to_string(), NON_ALPHANUMERIC).to_string()
}

pub(super) fn tags_xml(tags: &Tags) -> String {
    let member = |(key, value): (&String, &String)| {
        format!("<member>{}{}</member>", element("Key", key), element("Value", value))
    };
    if tags.is_empty() {
        String::new()
    } else {
        format!("<Tags>{}</Tags>", tags.iter().map(member).collect::<String>())
    }
}
