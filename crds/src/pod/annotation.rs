//! PURE: annotations that nothing reads, because the key is misspelled or has another domain, or the object is the wrong one.

use std::fmt;

use strsim::osa_distance;

use crate::names::GROUP;
use crate::names::annotation::PREFIX as EKS_PREFIX;

/// The object that an annotation is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The `ServiceAccount`.
    ServiceAccount,
    /// The pod.
    Pod,
}

/// The keys that are read, without their prefix, and where.
const KEYS: [(&str, &[Place]); 5] = [
    ("role-arn", &[Place::ServiceAccount]),
    ("audience", &[Place::ServiceAccount]),
    ("sts-regional-endpoints", &[Place::ServiceAccount]),
    ("token-expiration", &[Place::ServiceAccount, Place::Pod]),
    ("skip-containers", &[Place::Pod]),
];

/// Names under the EKS webhook's prefix that mean `role-arn`. Under a prefix of the user's own they may mean anything.
const ROLE_NAMES: [&str; 5] = ["role", "arn", "iam-role", "iam-role-arn", "aws-role-arn"];
/// Keys of this many different letters are taken for the same.
const LETTERS: usize = 2;
/// A domain of this many different letters is taken for the prefix: `eks.amazon.com` for `eks.amazonaws.com`.
const DOMAIN_LETTERS: usize = 3;
/// The longest key that Kubernetes accepts: a domain, a slash and a name.
const LONGEST_KEY: usize = 253 + 1 + 63;

/// An annotation that nothing reads, and the one that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadAnnotation {
    key: Box<str>,
    found: Place,
    right: &'static str,
    place: Place,
}

/// What is meant by the annotation `key` of an object, where nothing reads it there; `None` for every other key. `prefix` is
/// that of the annotations which are read.
#[must_use]
pub fn unread_annotation(key: &str, prefix: &str, found: Place) -> Option<UnreadAnnotation> {
    let (domain, name) = key.rsplit_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let (right, places) = match domain {
        Some(domain) if domain == prefix => {
            KEYS.into_iter().find(|(right, _)| *right == name).or_else(|| similar(name, prefix))
        }
        _ => KEYS.into_iter().find(|(right, _)| is_same(name, right)).filter(|(right, _)| match domain {
            Some(domain) => is_similar_domain(domain, prefix),
            // The others are words that any program may use.
            None => *right == "role-arn" || *right == "sts-regional-endpoints",
        }),
    }?;
    let place = if places.contains(&found) { found } else { places[0] };
    let is_read = domain == Some(prefix) && name == right && place == found;
    let key = key[..key.floor_char_boundary(LONGEST_KEY)].into();
    (!is_read).then_some(UnreadAnnotation { key, found, right, place })
}

impl UnreadAnnotation {
    /// Where the annotation that is meant is read.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// Says what is wrong, and what is right under that prefix.
    #[must_use]
    pub fn message(&self, prefix: &str) -> String {
        let Self { key, found, right, place } = self;
        let right = format!("{prefix}/{right}");
        let advice = match (**key == *right, place == found) {
            (true, _) => format!("it is read from the {place}"),
            (false, true) => format!("{right} is read"),
            (false, false) => format!("{right} is read, from the {place}"),
        };
        format!("annotation {key} of the {found} has no effect: {advice}")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "pod",
        })
    }
}

/// Whether two names differ in case and separators only.
fn is_same(name: &str, right: &str) -> bool {
    fn letters(name: &str) -> impl Iterator<Item = u8> {
        name.bytes().filter(|byte| !matches!(byte, b'-' | b'_' | b'.')).map(|byte| byte.to_ascii_lowercase())
    }
    letters(name).eq(letters(right))
}

/// The key that a name under the right prefix is taken for.
fn similar(name: &str, prefix: &str) -> Option<(&'static str, &'static [Place])> {
    if prefix == EKS_PREFIX && ROLE_NAMES.into_iter().any(|role| is_same(name, role)) {
        return Some(KEYS[0]);
    }
    // Longer names cannot be similar, and are not compared.
    let longest = KEYS.into_iter().map(|(right, _)| right.len()).max().unwrap_or_default() + LETTERS;
    let lower = name.to_ascii_lowercase().replace('_', "-");
    KEYS.into_iter().find(|(right, _)| {
        name.len() <= longest && (is_same(name, right) || osa_distance(&lower, right) <= LETTERS)
    })
}

fn is_similar_domain(domain: &str, prefix: &str) -> bool {
    // Another program's annotations, such as those of the EKS webhook beside this one.
    if domain == EKS_PREFIX || domain == prefix {
        return false;
    }
    let is_end = prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    // A domain of another length cannot be similar, and a long one is not compared.
    let is_near = || {
        domain.len().abs_diff(prefix.len()) <= DOMAIN_LETTERS
            && osa_distance(domain, prefix) <= DOMAIN_LETTERS
    };
    domain == GROUP || is_end || is_near()
}

#[cfg(test)]
mod tests {
    use super::Place::{Pod, ServiceAccount};
    use super::*;

    const PREFIX: &str = "eks.amazonaws.com";

    fn message(key: &str, found: Place) -> Option<String> {
        unread_annotation(key, PREFIX, found).map(|found| found.message(PREFIX))
    }

    #[test]
    fn a_misspelled_or_misplaced_key_is_named_with_the_right_one() {
        for (key, found, advice) in [
            ("eks.amazon.com/role-arn", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("eks.amazonaws.com.cn/role-arn", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("amazonaws.com/role-arn", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("iam.amazonaws.com/role-arn", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("podidentity.dev/role-arn", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("eks.amazonaws.com/roleArn", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("eks.amazonaws.com/role_arn", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("eks.amazonaws.com/role-an", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("eks.amazonaws.com/role", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("eks.amazonaws.com/iam-role", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("eks.amazonaws.com/tokenExpiration", Pod, "eks.amazonaws.com/token-expiration is read"),
            ("eks.amazonaws.com/skip_containers", Pod, "eks.amazonaws.com/skip-containers is read"),
            ("role_arn", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("role-arn", ServiceAccount, "eks.amazonaws.com/role-arn is read"),
            ("role-arn", Pod, "eks.amazonaws.com/role-arn is read, from the ServiceAccount"),
            ("eks.amazonaws.com/role-arn", Pod, "it is read from the ServiceAccount"),
            ("eks.amazonaws.com/audience", Pod, "it is read from the ServiceAccount"),
            ("eks.amazonaws.com/skip-containers", ServiceAccount, "it is read from the pod"),
        ] {
            let expected = format!("annotation {key} of the {found} has no effect: {advice}");
            assert_eq!(message(key, found), Some(expected));
        }
    }

    #[test]
    fn keys_that_are_read_and_those_of_other_programs_are_not_named() {
        for (key, found) in [
            ("eks.amazonaws.com/role-arn", ServiceAccount),
            ("eks.amazonaws.com/token-expiration", ServiceAccount),
            ("eks.amazonaws.com/token-expiration", Pod),
            ("eks.amazonaws.com/skip-containers", Pod),
            ("eks.amazonaws.com/compute-type", Pod),
            ("iam.amazonaws.com/role", Pod),
            ("audience", ServiceAccount),
            ("role", ServiceAccount),
            ("example.com/role-arn", ServiceAccount),
            ("vault.hashicorp.com/role", Pod),
            ("kubectl.kubernetes.io/last-applied-configuration", ServiceAccount),
            ("", Pod),
            ("/", Pod),
        ] {
            assert_eq!(message(key, found), None, "{key}");
        }
        // Beside the EKS webhook, whose annotations are its own.
        assert_eq!(unread_annotation("eks.amazonaws.com/role-arn", "aws.example.com", ServiceAccount), None);
        assert!(unread_annotation("aws.example.com/roleArn", "aws.example.com", ServiceAccount).is_some());
        assert_eq!(unread_annotation("aws.example.com/role", "aws.example.com", ServiceAccount), None);
    }
}
