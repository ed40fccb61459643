//! Durations as the fields of both kinds have them, written as `25h` or `1h30m`. Kubernetes' own type ends the program at a number
//! that no clock can count, which an API server stores that does not apply the CRD's rules.

use kube::core::Duration;
use serde::{Deserialize, Deserializer, de};

/// The CRDs allow no longer text.
const LONGEST: usize = 32;
/// Digits of the largest number: so many hours are a hundred thousand years.
const MOST_DIGITS: usize = 9;

/// Reads an optional duration.
///
/// # Errors
/// If the text is no duration, or one that no field can have.
pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let is_long = |number: &str| number.trim_start_matches('0').len() > MOST_DIGITS;
    if text.len() > LONGEST || text.split(|c: char| !c.is_ascii_digit()).any(is_long) {
        return Err(de::Error::custom("the duration is too long"));
    }
    text.parse().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_duration_is_an_error_and_no_panic() {
        let hour = std::time::Duration::from_hours(1);
        for (text, expected) in [
            ("1h", Some(hour)),
            ("60m", Some(hour)),
            ("0000000000001h", Some(hour)),
            ("999999999h", Some(hour * 999_999_999)),
        ] {
            let read = optional(json!(text)).unwrap();
            assert_eq!(read.map(std::time::Duration::from), expected, "{text}");
        }
        assert!(optional(json!(null)).unwrap().is_none());
        let long = format!("{}h", "1".repeat(40));
        for text in ["99999999999999999999h", "1e300h", "infh", "NaNh", "h", "1", "1d", "soon", &long] {
            assert!(optional(json!(text)).is_err(), "{text}");
        }
    }
}
