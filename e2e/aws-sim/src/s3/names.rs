//! PURE: names of buckets (S3 user guide, "General purpose bucket naming rules" and "Namespaces for general purpose
//! buckets").

use crate::wire::ApiError;

const PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];
/// Ends the names of an account's own namespace.
const REGIONAL: &str = "-an";

/// Checks the name of a new bucket. `namespace` is the header `x-amz-bucket-namespace`.
pub(super) fn check(name: &str, namespace: &str, account: &str, region: &str) -> Result<(), ApiError> {
    let invalid = |message: &str| Err(ApiError::new(400, "InvalidBucketName", message));
    if !is_valid(name) {
        return invalid("The specified bucket is not valid.");
    }
    let regional = namespace == "account-regional";
    match owner(name, region) {
        Some(_) if !regional => Err(ApiError::new(
            400,
            "MissingNamespaceHeader",
            "The bucket name is of an account regional namespace, and the request has no x-amz-bucket-namespace header of it.",
        )),
        Some(owner) if owner == account => Ok(()),
        None if !regional && !name.ends_with(REGIONAL) => Ok(()),
        _ => invalid("The bucket name does not fit its namespace."),
    }
}

/// The account in a name of an account's own namespace: `…-<account>-<region>-an`.
fn owner<'a>(name: &'a str, region: &str) -> Option<&'a str> {
    let (_, account) =
        name.strip_suffix(REGIONAL)?.strip_suffix(region)?.strip_suffix('-')?.rsplit_once('-')?;
    (account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit())).then_some(account)
}

fn is_valid(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().last()];
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| letter(byte) || byte == b'-' || byte == b'.')
        && ends.iter().all(|byte| byte.is_some_and(letter))
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
        && !PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(name: &str, namespace: &str) -> String {
        let checked = check(name, namespace, "111122223333", "eu-central-1");
        checked.map_or_else(|error| error.code, |()| "ok".to_owned())
    }

    #[test]
    fn names_that_s3_accepts() {
        for name in ["abc", "a.b-c", "1-2.3", "a--b", "1.2.3", &"x".repeat(63)] {
            assert_eq!(code(name, ""), "ok", "{name}");
            assert_eq!(code(name, "global"), "ok", "{name}");
        }
        assert_eq!(code("x-111122223333-eu-central-1-an", "account-regional"), "ok");
    }

    #[test]
    fn names_that_s3_refuses() {
        for name in [
            "ab",
            &"x".repeat(64),
            "Upper",
            "under_score",
            "-abc",
            "abc-",
            ".abc",
            "abc.",
            "a..b",
            "192.168.5.4",
            "xn--abc",
            "sthree-abc",
            "amzn-s3-demo-abc",
            "abc-s3alias",
            "abc--ol-s3",
            "abc.mrap",
            "abc--x-s3",
            "abc--table-s3",
            "abc-an",
            "x-11112222333-eu-central-1-an",
            "x-111122223333-eu-west-1-an",
        ] {
            assert_eq!(code(name, ""), "InvalidBucketName", "{name}");
        }
    }

    #[test]
    fn a_name_of_an_account_needs_the_namespace_and_the_namespace_such_a_name() {
        assert_eq!(code("x-111122223333-eu-central-1-an", ""), "MissingNamespaceHeader");
        assert_eq!(code("x-111122223333-eu-central-1-an", "global"), "MissingNamespaceHeader");
        assert_eq!(code("x-999999999999-eu-central-1-an", "account-regional"), "InvalidBucketName");
        assert_eq!(code("plain", "account-regional"), "InvalidBucketName");
    }
}
