//! PURE: token lifetimes, limited to what the product allows.

use crds::binding::MINIMUM_TOKEN_EXPIRATION_SECONDS;

/// The longest token lifetime, which is also a binding's longest: 24 h. Kubernetes accepts 2^32 seconds in a pod
/// (`ValidateProjectedVolumeSource`), but a token cannot be revoked, and a signing key that leaves the cluster is published only
/// as long as tokens may live.
pub const MAXIMUM_TOKEN_EXPIRATION_SECONDS: i64 = 86_400;

/// The lifetime within the limits.
#[must_use]
pub fn in_range(seconds: i64) -> i64 {
    seconds.clamp(MINIMUM_TOKEN_EXPIRATION_SECONDS, MAXIMUM_TOKEN_EXPIRATION_SECONDS)
}

/// The lifetime within the limits; a warning about `what` where it had to be changed.
pub fn limited(seconds: i64, what: &str, warnings: &mut Vec<String>) -> i64 {
    let limited = in_range(seconds);
    if limited != seconds {
        warnings.push(format!(
            "{what} {seconds} is not between {MINIMUM_TOKEN_EXPIRATION_SECONDS} and {MAXIMUM_TOKEN_EXPIRATION_SECONDS}; \
             {limited} is used"
        ));
    }
    limited
}

/// A token lifetime as the annotation spells it: a whole number of seconds, within the limits. `None`, with a
/// warning, where it is unreadable: then the next source counts.
pub fn parse_expiration(text: &str, prefix: &str, warnings: &mut Vec<String>) -> Option<i64> {
    let Ok(seconds) = text.parse::<i64>() else {
        warnings.push(format!("{prefix}/token-expiration is not a whole number of seconds; ignored"));
        return None;
    };
    Some(limited(seconds, &format!("{prefix}/token-expiration"), warnings))
}
