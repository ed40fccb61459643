//! PURE: two `OidcIssuer`s that cannot both be kept as specified. The older one stays; the newer one changes nothing.

use crds::{Finding, Management, OidcIssuer, OidcIssuerSpec, Reason};
use k8s_openapi::jiff::Timestamp;

/// That an older issuer has the same URL in the same account, or the same place for its documents.
#[must_use]
pub fn duplicate<'a>(issuer: &OidcIssuer, all: impl IntoIterator<Item = &'a OidcIssuer>) -> Option<Finding> {
    let older = all.into_iter().filter(|other| age(other) < age(issuer));
    let shared = |other: &'a OidcIssuer| Some((other, shared(&issuer.spec, &other.spec)?));
    let (other, what) = older.filter_map(shared).min_by_key(|(other, _)| age(other))?;
    let name = other.name();
    let message = format!(
        "OidcIssuer {name} is older and has {what}: this one changes nothing. Delete one of them, or give this one another {}",
        if what == SAME_URL {
            "issuer URL, or operatorRoleARN of another account"
        } else {
            "spec.s3.bucket or, in an existing one, spec.s3.prefix"
        }
    );
    Some(Finding::new(Reason::DuplicateIssuer, message))
}

const SAME_URL: &str = "the same issuer URL in the same AWS account";

/// The order of two issuers: by their creation, then by name.
fn age(issuer: &OidcIssuer) -> (Timestamp, &str) {
    let created = issuer.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
    (created, issuer.name())
}

/// What two issuers have in common that only one may have.
fn shared(one: &OidcIssuerSpec, other: &OidcIssuerSpec) -> Option<&'static str> {
    if one.issuer_url() == other.issuer_url() && one.role_account() == other.role_account() {
        return Some(SAME_URL);
    }
    // Names of buckets are unique in all accounts of a partition.
    let (one_s3, other_s3) = (one.s3.as_ref()?, other.s3.as_ref()?);
    let is_managed = one_s3.management == Management::Managed || other_s3.management == Management::Managed;
    match one_s3.bucket == other_s3.bucket {
        true if is_managed => Some("the same bucket, which is managed for it alone"),
        true if one.prefix() == other.prefix() => Some("the same place in the same bucket"),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn issuer(name: &str, created: i64, fields: &Value) -> OidcIssuer {
        let mut spec = json!({"clusterName": "lab"});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let created = Timestamp::from_second(created).unwrap().to_string();
        let metadata = json!({"name": name, "creationTimestamp": created});
        let object = json!({"apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": metadata, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_newer_of_two_that_share_something_is_the_duplicate() {
        let s3 = |bucket: &str, prefix: &str, management: &str| json!({"s3": {"bucket": bucket, "region": "eu-central-1", "prefix": prefix, "management": management}});
        let url = |url: &str| json!({"issuerURL": url});
        let other_account =
            |url: &str| json!({"issuerURL": url, "operatorRoleARN": "arn:aws:iam::999999999999:role/x/y"});
        for (one, other, says) in [
            (
                s3("a", "x", "Managed"),
                s3("a", "x", "Managed"),
                Some("the same issuer URL in the same AWS account"),
            ),
            (s3("a", "x", "Managed"), s3("a", "y", "Managed"), Some("the same bucket")),
            (s3("a", "x", "Managed"), s3("a", "y", "Existing"), Some("the same bucket")),
            (s3("a", "x", "Existing"), s3("a", "y", "Existing"), None),
            (s3("a", "x", "Managed"), s3("b", "x", "Managed"), None),
            (url("https://a.example.com"), url("https://a.example.com"), Some("the same issuer URL")),
            (url("https://a.example.com"), other_account("https://a.example.com"), None),
            (
                other_account("https://a.example.com"),
                other_account("https://a.example.com"),
                Some("the same issuer URL"),
            ),
        ] {
            let all = [issuer("older", 1, &one), issuer("newer", 2, &other)];
            assert_eq!(duplicate(&all[0], &all), None, "{one} {other}");
            let found = duplicate(&all[1], &all).map(|finding| finding.message);
            assert_eq!(found.is_some(), says.is_some(), "{one} {other}: {found:?}");
            assert!(
                found.is_none_or(|found| found.contains(says.unwrap()) && found.contains("OidcIssuer older"))
            );
        }
        // Made in the same second: the first by name stays.
        let one = s3("a", "x", "Managed");
        let all = [issuer("a", 1, &one), issuer("b", 1, &one)];
        assert_eq!((duplicate(&all[0], &all).is_none(), duplicate(&all[1], &all).is_some()), (true, true));
    }
}
