//! PURE: token lifetimes, limited to what Kubernetes accepts.

use crds::binding::MINIMUM_TOKEN_EXPIRATION_SECONDS;

/// The longest token lifetime Kubernetes accepts in a pod (`ValidateProjectedVolumeSource`: 2^32 seconds).
pub const MAXIMUM_TOKEN_EXPIRATION_SECONDS: i64 = 1 << 32;

/// The lifetime within what Kubernetes accepts.
#[must_use]
pub fn in_range(seconds: i64) -> i64 {
    seconds.clamp(MINIMUM_TOKEN_EXPIRATION_SECONDS, MAXIMUM_TOKEN_EXPIRATION_SECONDS)
}

/// The lifetime within what Kubernetes accepts; a warning about `what` where it had to be changed.
pub fn limited(seconds: i64, what: &str, warnings: &mut Vec<String>) -> i64 {
    let limited = in_range(seconds);
    if limited != seconds {
        warnings.push(format!("{what} {seconds} is out of range; {limited} is used"));
    }
    limited
}

/// A token lifetime as the annotation spells it: a whole number of seconds, within what Kubernetes accepts. `None`, with a
/// warning, where it is unreadable: then the next source counts.
pub fn parse_expiration(text: &str, prefix: &str, warnings: &mut Vec<String>) -> Option<i64> {
    let Ok(seconds) = text.parse::<i64>() else {
        warnings.push(format!("{prefix}/token-expiration is not a whole number of seconds; ignored"));
        return None;
    };
    Some(limited(seconds, &format!("{prefix}/token-expiration"), warnings))
}
