//! PURE: the permissions boundary of every role that is created for a binding: its maximum permissions.

use serde_json::{Value, json};

use super::VERSION;

/// Allows what the role's own policies allow, except:
/// - IAM, Organizations, Account Management, IAM Identity Center with its directories, and IAM Roles Anywhere: a role must not
///   get more rights, nor give them (Service Authorization Reference: each is a service prefix of its own);
/// - `sts:AssumeRoot`, and role chaining inside the account: sessions of the second role have no `aws:FederatedProvider`, by
///   which the bucket policies recognise pods;
/// - writes to an issuer's bucket, and S3 Access Grants, which give access to a bucket past the caller's own policies;
/// - the account's public-access block, which could make the issuers' documents unreadable.
///
/// `read_only` are the ARNs of what all issuers of the cluster in the account publish: there is one boundary for all of them.
#[must_use]
pub fn policy(partition: &str, account: &str, read_only: &[String]) -> Value {
    let documents = json!({
        "Sid": "TheIssuersBucketIsReadOnly",
        "Effect": "Deny",
        "NotAction": ["s3:Get*", "s3:List*"],
        "Resource": read_only,
    });
    let mut policy = json!({
        "Version": VERSION,
        "Statement": [
            {"Sid": "WhatThePoliciesAllow", "Effect": "Allow", "Action": "*", "Resource": "*"},
            {
                "Sid": "NoEscalation",
                "Effect": "Deny",
                "Action": [
                    "iam:*", "organizations:*", "account:*", "sso:*", "sso-directory:*", "identitystore:*",
                    "identitystore-auth:*", "identity-sync:*", "rolesanywhere:*", "sts:AssumeRoot",
                    "s3:*AccessGrant*", "s3:GetDataAccess", "s3:PutAccountPublicAccessBlock",
                ],
                "Resource": "*",
            },
            {
                "Sid": "NoRoleChaining",
                "Effect": "Deny",
                "Action": "sts:AssumeRole",
                "Resource": format!("arn:{partition}:iam::{account}:role/*"),
            },
        ],
    });
    // IAM refuses a statement without a resource.
    if let Some(statements) = policy["Statement"].as_array_mut().filter(|_| !read_only.is_empty()) {
        statements.push(documents);
    }
    policy
}

/// The statements of `wanted` that deny something which another boundary does not deny in every case. A condition, and whatever
/// this does not understand, counts as not denied.
#[must_use]
pub fn missing_denies(document: &str, wanted: &Value) -> Vec<Value> {
    let parsed: Value = serde_json::from_str(document).unwrap_or_default();
    let denies: Vec<&Value> = list(&parsed["Statement"]).filter(|one| is_plain_deny(one)).collect();
    let covers = |wanted: &Value| {
        let resources = || list(&wanted["Resource"]).filter_map(Value::as_str);
        // Other than the names of actions, ARNs are compared with regard to case.
        let on_all =
            |one: &&&Value| resources().all(|resource| any(&one["Resource"], resource, str::to_owned));
        let denies: Vec<&&Value> = denies.iter().filter(on_all).collect();
        let action =
            |action: &str| denies.iter().any(|one| any(&one["Action"], action, str::to_ascii_lowercase));
        let Some(except) = wanted.get("NotAction") else {
            return list(&wanted["Action"]).filter_map(Value::as_str).all(action);
        };
        // Everything but these is denied: so it must be there, with these or fewer exceptions.
        let fewer = |one: &&&Value| {
            let included = |theirs: &Value| {
                theirs.as_str().is_some_and(|theirs| any(except, theirs, str::to_ascii_lowercase))
            };
            !one["NotAction"].is_null() && list(&one["NotAction"]).all(included)
        };
        denies.iter().any(fewer) || action("s3:*")
    };
    let wanted = list(&wanted["Statement"]).filter(|one| one["Effect"] == "Deny");
    wanted.filter(|one| !covers(one)).cloned().collect()
}

/// A statement that denies these actions on these resources, without anything that could limit it.
fn is_plain_deny(statement: &Value) -> bool {
    let Some(members) = statement.as_object() else { return false };
    let known =
        |member: &String| matches!(&member[..], "Sid" | "Effect" | "Action" | "NotAction" | "Resource");
    let has = |member: &str| list(&statement[member]).next().is_some();
    let is_one_of = members.contains_key("Action") != members.contains_key("NotAction");
    statement["Effect"] == "Deny"
        && members.keys().all(known)
        && is_one_of
        && (has("Action") || has("NotAction"))
        && has("Resource")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    let list = match value {
        Value::Null => &[],
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    list.iter()
}

/// Whether one of the patterns includes all that `text` includes, which may be a pattern, too.
fn any(patterns: &Value, text: &str, form: impl Fn(&str) -> String) -> bool {
    let text = form(text);
    list(patterns).filter_map(Value::as_str).any(|pattern| includes(&form(pattern), &text))
}

/// `*` of the pattern stands for any text, `?` is not understood.
fn includes(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(end)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_of_others_must_deny_what_ours_denies() {
        let wanted = policy("aws", "111122223333", &["arn:aws:s3:::b".into(), "arn:aws:s3:::b/*".into()]);
        let missing = |change: fn(&mut Value)| -> Vec<String> {
            let mut document = wanted.clone();
            change(&mut document);
            let missing = missing_denies(&document.to_string(), &wanted);
            missing.iter().map(|one| one["Sid"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(missing(|_| {}), [""; 0]);
        // More is denied.
        assert_eq!(missing(|d| d["Statement"][1]["Action"] = json!("*")), [""; 0]);
        assert_eq!(missing(|d| d["Statement"][2]["Resource"] = json!("*")), [""; 0]);
        assert_eq!(missing(|d| d["Statement"][2]["Resource"] = json!(["arn:aws:iam::*:role/*"])), [""; 0]);
        assert_eq!(missing(|d| d["Statement"][3]["NotAction"] = json!("s3:GetObject")), [""; 0]);
        assert_eq!(
            missing(|d| {
                d["Statement"][3].as_object_mut().unwrap().remove("NotAction");
                d["Statement"][3]["Action"] = json!(["S3:*"]);
            }),
            [""; 0]
        );
        // Less is.
        assert_eq!(
            missing(|d| d["Statement"] = json!([])),
            ["NoEscalation", "NoRoleChaining", "TheIssuersBucketIsReadOnly"]
        );
        assert_eq!(missing(|d| d["Statement"][1]["Condition"] = json!({"Bool": {}})), ["NoEscalation"]);
        assert_eq!(missing(|d| d["Statement"][1]["Action"][0] = json!("iam:Create*")), ["NoEscalation"]);
        assert_eq!(
            missing(|d| d["Statement"][1]["Resource"] = json!("arn:aws:iam::*:role/*")),
            ["NoEscalation"]
        );
        assert_eq!(
            missing(|d| d["Statement"][2]["Resource"] = json!("arn:aws:iam::111122223333:role/x")),
            ["NoRoleChaining"]
        );
        assert_eq!(
            missing(|d| d["Statement"][3]["NotAction"] = json!(["s3:Get*", "s3:Put*"])),
            ["TheIssuersBucketIsReadOnly"]
        );
        assert_eq!(
            missing(|d| d["Statement"][3]["Resource"] = json!("arn:aws:s3:::b/*")),
            ["TheIssuersBucketIsReadOnly"]
        );
        assert_eq!(missing(|d| d["Statement"][3]["NotAction"] = json!([])), ["TheIssuersBucketIsReadOnly"]);
        assert_eq!(missing(|d| d["Statement"][3]["NotAction"] = Value::Null), ["TheIssuersBucketIsReadOnly"]);
        assert_eq!(
            missing(|d| d["Statement"][3]["Resource"] = json!(["arn:aws:s3:::B", "arn:aws:s3:::B/*"])),
            ["TheIssuersBucketIsReadOnly"]
        );
        assert_eq!(missing(|d| d["Statement"][1]["NotResource"] = json!("*")), ["NoEscalation"]);
        assert_eq!(missing(|d| d["Statement"][1]["condition"] = json!({})), ["NoEscalation"]);
        assert_eq!(missing_denies("no json", &wanted).len(), 3);
    }

    #[test]
    fn a_pattern_includes_only_what_it_matches_whole() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab*", true),
            ("*", "a*", true),
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("a*b*c", "axbxc", true),
            ("ab*ba", "aba", false),
            ("a", "a*", false),
        ] {
            assert_eq!(includes(pattern, text), expected, "{pattern} {text}");
        }
    }
}
