//! PURE: the `Condition` element (IAM user guide, "IAM JSON policy elements: Condition operators").

use serde_json::Value;

use super::{Context, list, matches, plain};

/// Whether all conditions of a statement hold.
pub(super) fn conditions(block: &Value, context: &Context) -> bool {
    let Some(operators) = block.as_object() else { return true };
    operators.iter().all(|(operator, keys)| {
        keys.as_object().is_some_and(|keys| {
            keys.iter().all(|(key, wanted)| {
                let found = context.get(&key.to_lowercase()).map(Vec::as_slice);
                condition(operator, found, &list(wanted).iter().map(|v| plain(v)).collect::<Vec<_>>())
            })
        })
    })
}

/// One operator, one key. An absent key fails a positive operator and passes a negated one.
fn condition(operator: &str, found: Option<&[String]>, wanted: &[String]) -> bool {
    let (set, operator) = match operator.split_once(':') {
        Some((set, rest)) => (Some(set), rest),
        None => (None, operator),
    };
    if operator == "Null" {
        return wanted.iter().any(|w| (w == "true") == found.is_none_or(<[String]>::is_empty));
    }
    let (operator, if_exists) = operator.strip_suffix("IfExists").map_or((operator, false), |o| (o, true));
    let Some(found) = found.filter(|f| !f.is_empty()) else {
        let negated = operator.contains("Not") && set != Some("ForAnyValue");
        return if_exists || negated || set == Some("ForAllValues");
    };
    let (positive, negated) = match operator {
        "StringNotEquals" => ("StringEquals", true),
        "StringNotEqualsIgnoreCase" => ("StringEqualsIgnoreCase", true),
        "StringNotLike" => ("StringLike", true),
        "ArnNotEquals" | "ArnNotLike" => ("ArnLike", true),
        other => (other, false),
    };
    let one = |value: &String| wanted.iter().any(|w| compare(positive, value, w)) != negated;
    match set {
        Some("ForAllValues") => found.iter().all(one),
        Some("ForAnyValue") => found.iter().any(one),
        // Several values without a set operator: a negated one must hold for all.
        _ if negated => found.iter().all(one),
        _ => found.iter().any(one),
    }
}

fn compare(operator: &str, value: &str, wanted: &str) -> bool {
    match operator {
        "StringEquals" => value == wanted,
        "StringEqualsIgnoreCase" | "Bool" => value.eq_ignore_ascii_case(wanted),
        "StringLike" => matches(wanted, value),
        "ArnEquals" | "ArnLike" => {
            let (w, v): (Vec<&str>, Vec<&str>) =
                (wanted.splitn(6, ':').collect(), value.splitn(6, ':').collect());
            w.len() == v.len() && w.iter().zip(&v).all(|(w, v)| matches(w, v))
        }
        date if date.starts_with("Date") => match (time(value), time(wanted)) {
            (Some(value), Some(wanted)) => match date {
                "DateEquals" => value == wanted,
                "DateLessThan" => value < wanted,
                "DateLessThanEquals" => value <= wanted,
                "DateGreaterThan" => value > wanted,
                _ => value >= wanted,
            },
            _ => false,
        },
        _ => false,
    }
}

/// A time as condition keys have it.
pub(crate) fn date_time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time: ISO 8601 with or without a fraction, a date alone, or seconds since 1970.
fn time(text: &str) -> Option<jiff::Timestamp> {
    let midnight =
        |date: jiff::civil::Date| date.to_zoned(jiff::tz::TimeZone::UTC).map(|time| time.timestamp());
    let seconds = || text.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let date = || text.parse::<jiff::civil::Date>().and_then(midnight).ok();
    text.parse().ok().or_else(seconds).or_else(date)
}

const OPERATORS: [&str; 17] = [
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "ArnEquals",
    "ArnLike",
    "ArnNotEquals",
    "ArnNotLike",
    "Bool",
    "Null",
    "DateEquals",
    "DateLessThan",
    "DateLessThanEquals",
    "DateGreaterThan",
    "DateGreaterThanEquals",
];

/// Whether an operator is supported, with its set qualifier and `IfExists`.
pub(super) fn is_operator(operator: &str) -> bool {
    let bare = operator.rsplit(':').next().unwrap_or_default();
    OPERATORS.contains(&bare.strip_suffix("IfExists").unwrap_or(bare))
}
