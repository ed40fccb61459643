//! The constraints of IAM's and STS's parameters, and the errors of their operations, as the service models of AWS's SDKs
//! state them (`constraints.json`, from botocore).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

use crate::wire::{ApiError, Request};

/// A parameter's shape; of an operation, the shape of all its parameters.
#[derive(Debug, Deserialize)]
struct Shape {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    members: BTreeMap<String, Shape>,
    /// Of a list's members.
    member: Option<Box<Shape>>,
    min: Option<u64>,
    max: Option<u64>,
    pattern: Option<String>,
    #[serde(rename = "enum", default)]
    values: Vec<String>,
    #[serde(default)]
    required: BTreeSet<String>,
    /// An operation's error codes with their HTTP status.
    #[serde(default)]
    errors: Vec<(String, u16)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Structure,
    List,
    String,
    Integer,
    Boolean,
}

/// The operations by `service:Operation`.
#[allow(clippy::expect_used, reason = "the file is part of the program")]
static MODEL: LazyLock<BTreeMap<String, Shape>> =
    LazyLock::new(|| serde_json::from_str(include_str!("constraints.json")).expect("constraints.json"));

/// The compiled patterns.
static PATTERNS: LazyLock<BTreeMap<&str, Regex>> = LazyLock::new(|| {
    fn collect<'a>(shape: &'a Shape, found: &mut BTreeSet<&'a str>) {
        found.extend(shape.pattern.as_deref());
        shape.members.values().chain(shape.member.as_deref()).for_each(|member| collect(member, found));
    }
    let mut found = BTreeSet::new();
    MODEL.values().for_each(|shape| collect(shape, &mut found));
    found.into_iter().map(|pattern| (pattern, compiled(pattern))).collect()
});

/// A pattern of AWS's models, which are Java's, as a whole match.
#[allow(clippy::expect_used, reason = "the patterns are part of the program")]
fn compiled(pattern: &str) -> Regex {
    // Java's \w is ASCII. Its \u takes four digits, but the models write planes beyond the first with it.
    let mut text =
        pattern.replace("\\u10000-\\u10FFFF", "\\x{10000}-\\x{10FFFF}").replace("\\w", "A-Za-z0-9_");
    while let Some(at) = text.find("\\u") {
        let digits = text[at + 2..at + 6].to_owned();
        text.replace_range(at..at + 6, &format!("\\x{{{digits}}}"));
    }
    Regex::new(&format!(r"\A(?:{text})\z")).expect("a pattern of constraints.json")
}

/// Parameters that the simulator does not support. A request with one is refused: to ignore it would do something else than
/// AWS does.
const UNSUPPORTED: [(&str, &[&str]); 5] = [
    ("iam:CreateRole", &["MaxSigninSessionDuration"]),
    ("iam:UpdateRole", &["MaxSigninSessionDuration"]),
    ("iam:CreatePolicy", &["Description"]),
    ("iam:CreateOpenIDConnectProvider", &["ThumbprintList", "ContextProvider", "IdentityCenterInstanceArn"]),
    ("sts:AssumeRoleWithWebIdentity", &["ProviderId", "PolicyArns", "MinimumSessionTokenSize"]),
];

/// Checks all parameters of a call. A parameter that AWS does not know is ignored, as AWS ignores it.
pub(crate) fn check(request: &Request, action: &str) -> Result<(), ApiError> {
    let operation = format!("{}:{action}", request.service);
    let Some(shape) = MODEL.get(&operation) else { return Ok(()) };
    let mut broken = Vec::new();
    structure(request, shape, ("", ""), &mut broken);
    if !broken.is_empty() {
        let s = if broken.len() == 1 { "" } else { "s" };
        let list = broken.join("; ");
        return Err(ApiError::validation(format!("{} validation error{s} detected: {list}", broken.len())));
    }
    let mut unsupported = UNSUPPORTED.iter().filter(|(of, _)| *of == operation).flat_map(|(_, names)| *names);
    match unsupported.find(|name| is_given(request, name)) {
        Some(name) => {
            let message = format!("aws-sim does not support {name} of {operation}");
            Err(ApiError::new(501, "NotImplemented", message))
        }
        None => Ok(()),
    }
}

/// Codes that every operation may answer (IAM API reference, "Common errors"), and those of signatures.
const COMMON: [&str; 11] = [
    "AccessDenied",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidAction",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "NotImplemented",
    "SignatureDoesNotMatch",
    "Throttling",
    "ValidationError",
    "XAmzContentSHA256Mismatch",
];

/// Whether AWS's model declares an error of an operation with that status. Everything of S3 counts as declared: its model
/// declares next to nothing.
pub(crate) fn declares(service: &str, action: &str, error: &ApiError) -> bool {
    // CreateRole with a missing boundary: not declared, but seen in many public logs ("Scope ARN: … does not exist").
    let seen = action == "CreateRole" && error.code == "NoSuchEntity";
    let same = |(code, status): &(String, u16)| *code == error.code && *status == error.status;
    service == "s3"
        || seen
        || COMMON.contains(&error.code.as_str())
        || MODEL.get(&format!("{service}:{action}")).is_some_and(|shape| shape.errors.iter().any(same))
}

/// More members than any list may have, and than are counted.
const MOST: usize = 1000;

fn is_given(request: &Request, name: &str) -> bool {
    let below = format!("{name}.");
    request.names().any(|given| given == name || given.starts_with(&below))
}

/// The members of a structure. `prefix` is that of parameters' names, `path` that of the fields in messages.
fn structure(request: &Request, shape: &Shape, (prefix, path): (&str, &str), broken: &mut Vec<String>) {
    for (name, member) in &shape.members {
        let full = format!("{prefix}{name}");
        let field = format!("{path}{}{}", name[..1].to_lowercase(), &name[1..]);
        if is_given(request, &full) {
            value(request, member, (&full, &field), broken);
        } else if shape.required.contains(name) {
            broken.push(format!(
                "Value null at '{field}' failed to satisfy constraint: Member must not be null"
            ));
        }
    }
}

/// One parameter that is given.
fn value(request: &Request, shape: &Shape, (name, field): (&str, &str), broken: &mut Vec<String>) {
    let text = request.parameter(name).unwrap_or_default();
    let mut must = |rule: String| {
        broken.push(format!("Value at '{field}' failed to satisfy constraint: Member must {rule}"));
    };
    match shape.kind {
        Kind::Structure => {
            structure(request, shape, (&format!("{name}."), &format!("{field}.")), broken);
        }
        Kind::List => {
            let item = |n: usize| format!("{name}.member.{n}");
            let length = (1..=MOST).take_while(|n| is_given(request, &item(*n))).count();
            bounds(shape, "length", length as u64, &mut must);
            for n in 1..=length {
                if let Some(member) = &shape.member {
                    let below = format!("{field}.{n}.member");
                    value(request, member, (&item(n), &below), broken);
                }
            }
        }
        Kind::String => {
            bounds(shape, "length", text.chars().count() as u64, &mut must);
            if let Some(pattern) = shape.pattern.as_deref().filter(|p| !PATTERNS[p].is_match(text)) {
                must(format!("satisfy regular expression pattern: {pattern}"));
            }
            if !shape.values.is_empty() && !shape.values.iter().any(|value| value == text) {
                must(format!("satisfy enum value set: [{}]", shape.values.join(", ")));
            }
        }
        Kind::Integer => match text.parse::<u64>() {
            Ok(number) => bounds(shape, "value", number, &mut must),
            Err(_) => must("be a number".to_owned()),
        },
        Kind::Boolean => {
            if !["true", "false"].contains(&text) {
                must("be true or false".to_owned());
            }
        }
    }
}

fn bounds(shape: &Shape, what: &str, found: u64, must: &mut impl FnMut(String)) {
    if let Some(min) = shape.min.filter(|min| found < *min) {
        must(format!("have {what} greater than or equal to {min}"));
    }
    if let Some(max) = shape.max.filter(|max| found > *max) {
        must(format!("have {what} less than or equal to {max}"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn checked(service: &str, form: &str) -> Result<(), String> {
        let request = http::Request::post(format!("https://{service}.amazonaws.com/"));
        let request = Request::new(request.body(Bytes::from(form.to_owned())).unwrap()).unwrap();
        let action = request.parameter("Action").unwrap().to_owned();
        check(&request, &action).map_err(|error| format!("{} {}", error.code, error.message))
    }

    #[test]
    fn values_within_their_constraints_are_accepted() {
        let role =
            "Action=CreateRole&RoleName=a_b%2B%3D%2C.%40-&AssumeRolePolicyDocument=%7B%7D%C3%BF&Path=/a~b/";
        for (service, form) in [
            ("iam", role),
            ("iam", "Action=TagRole&RoleName=a&Tags.member.1.Key=%C3%A9%20_.:/%3D%2B-@&Tags.member.1.Value="),
            ("iam", "Action=ListRoles&PathPrefix=/podidentity/&MaxItems=1000&Unknown=1"),
            ("iam", "Action=CreatePolicy&PolicyName=a&Path=/a,b%2B@=_-/c/&PolicyDocument=x"),
            ("iam", "Action=CreateOpenIDConnectProvider&Url=https://x&ClientIDList="),
        ] {
            assert_eq!(checked(service, form), Ok(()), "{form}");
        }
    }

    #[test]
    fn values_outside_of_their_constraints_are_refused_with_awss_messages() {
        let one = "ValidationError 1 validation error detected: Value";
        let long = "x".repeat(65);
        let tag = |key: &str, value: &str| {
            format!("Action=TagRole&RoleName=a&Tags.member.1.Key={key}&Tags.member.1.Value={value}")
        };
        let tags: String =
            (1..=51).map(|n| format!("&Tags.member.{n}.Key=k{n}&Tags.member.{n}.Value=")).collect();
        let sts = "Action=AssumeRoleWithWebIdentity&RoleArn=arn:aws:iam::1:role/a&WebIdentityToken=abcd";
        for (service, form, expected) in [
            ("iam", "Action=GetRole".into(), " null at 'roleName' failed to satisfy constraint: Member must not be null"),
            ("iam", "Action=GetRole&RoleName=a:b".into(), " at 'roleName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]+"),
            ("iam", "Action=GetRole&RoleName=%C3%A9".into(), " at 'roleName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]+"),
            ("iam", format!("Action=GetRole&RoleName={long}"), " at 'roleName' failed to satisfy constraint: Member must have length less than or equal to 64"),
            ("iam", "Action=ListRoles&MaxItems=1001".into(), " at 'maxItems' failed to satisfy constraint: Member must have value less than or equal to 1000"),
            ("iam", "Action=ListRoles&MaxItems=0".into(), " at 'maxItems' failed to satisfy constraint: Member must have value greater than or equal to 1"),
            ("iam", tag("a~b", ""), " at 'tags.1.member.key' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]+"),
            ("iam", tag("a", "https://x/~y"), " at 'tags.1.member.value' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*"),
            ("iam", "Action=TagRole&RoleName=a&Tags.member.1.Key=a".into(), " null at 'tags.1.member.value' failed to satisfy constraint: Member must not be null"),
            ("iam", format!("Action=TagRole&RoleName=a{tags}"), " at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50"),
            ("iam", "Action=CreatePolicy&PolicyName=a&PolicyDocument=%E2%82%AC".into(), " at 'policyDocument' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\u0009\\u000A\\u000D\\u0020-\\u00FF]+"),
            ("iam", "Action=CreatePolicyVersion&PolicyArn=arn:aws:iam::1:policy/a&PolicyDocument=x&SetAsDefault=1".into(), " at 'setAsDefault' failed to satisfy constraint: Member must be true or false"),
            ("iam", "Action=GetPolicy&PolicyArn=arn".into(), " at 'policyArn' failed to satisfy constraint: Member must have length greater than or equal to 20"),
            ("iam", "Action=CreateOpenIDConnectProvider&Url=https://x&ClientIDList.member.1=".into(), " at 'clientIDList.1.member' failed to satisfy constraint: Member must have length greater than or equal to 1"),
            ("sts", format!("{sts}&RoleSessionName=x"), " at 'roleSessionName' failed to satisfy constraint: Member must have length greater than or equal to 2"),
            ("sts", format!("{sts}&RoleSessionName=xy&DurationSeconds=899"), " at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"),
        ] {
            assert_eq!(checked(service, &form), Err(format!("{one}{expected}")), "{form}");
        }
        let two = checked("iam", "Action=GetRolePolicy&RoleName=a:b").unwrap_err();
        assert!(
            two.starts_with("ValidationError 2 validation errors detected: Value null at 'policyName'"),
            "{two}"
        );
        assert!(two.contains("null; Value at 'roleName' failed"), "{two}");
    }

    #[test]
    fn a_parameter_that_is_not_supported_is_refused_and_an_unknown_one_ignored() {
        for form in [
            "Action=CreatePolicy&PolicyName=a&PolicyDocument=x&Description=y",
            "Action=CreateOpenIDConnectProvider&Url=https://x&ContextProvider.SubjectSourceKey=y",
        ] {
            assert!(checked("iam", form).unwrap_err().starts_with("NotImplemented"), "{form}");
        }
        assert_eq!(checked("iam", "Action=GetRole&RoleName=a&Colour=red"), Ok(()));
    }

    #[test]
    fn every_unsupported_parameter_is_one_that_aws_knows() {
        for (operation, names) in UNSUPPORTED {
            for name in names {
                assert!(MODEL[operation].members.contains_key(*name), "{operation} {name}");
            }
        }
    }

    #[test]
    fn declared_errors_are_those_of_the_model() {
        let error = |status, code| ApiError::new(status, code, "");
        assert!(declares("iam", "GetRole", &error(404, "NoSuchEntity")));
        assert!(!declares("iam", "GetRole", &error(400, "NoSuchEntity")), "another status");
        assert!(!declares("iam", "GetRole", &error(409, "DeleteConflict")));
        assert!(declares("iam", "GetRole", &error(403, "AccessDenied")));
    }
}
