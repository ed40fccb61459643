//! PURE: evaluation of one policy document, after the IAM user guide's "policy evaluation logic" and "condition operators".
//! Only what this project's policies and tests use is supported; a document with anything else is refused when it is put.

mod condition;
mod parse;

use std::collections::BTreeMap;

use serde_json::Value;

use condition::conditions;
pub(crate) use condition::date_time;
pub use parse::{Kind, parse, size};

/// Condition keys of a request, lower case, with their values.
pub type Context = BTreeMap<String, Vec<String>>;

/// The principal of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// An anonymous caller.
    Anonymous,
    /// An IAM principal: all its ARNs (session, role), and its account.
    Aws {
        /// ARNs.
        arns: Vec<String>,
        /// Twelve digits.
        account: String,
    },
    /// The OIDC provider of a web identity token.
    Federated(String),
}

/// The request that a document is evaluated for.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// `service:Action`.
    pub action: &'a str,
    /// ARN; `None` in a trust policy, which has no resource.
    pub resource: Option<&'a str>,
    /// The principal; `None` for identity policies, which name no principal.
    pub principal: Option<&'a Principal>,
    /// Condition keys.
    pub context: &'a Context,
}

/// The result of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A statement denies. No other document can allow the request.
    Deny,
    /// A statement allows, none denies.
    Allow,
    /// No statement applies.
    NoMatch,
}

/// Evaluates a document.
#[must_use]
pub fn evaluate(document: &Value, query: Query<'_>) -> Verdict {
    let mut verdict = Verdict::NoMatch;
    for statement in list(&document["Statement"]) {
        if applies(statement, query) {
            if statement["Effect"] == "Deny" {
                return Verdict::Deny;
            }
            verdict = Verdict::Allow;
        }
    }
    verdict
}

fn applies(statement: &Value, query: Query<'_>) -> bool {
    let action = |pattern: &Value| matches(&text(pattern).to_lowercase(), &query.action.to_lowercase());
    let actions = match (&statement["Action"], &statement["NotAction"]) {
        (Value::Null, not) => !list(not).iter().any(|p| action(p)),
        (patterns, _) => list(patterns).iter().any(|p| action(p)),
    };
    let resources =
        query.resource.is_none_or(|resource| match (&statement["Resource"], &statement["NotResource"]) {
            (Value::Null, not) => !list(not).iter().any(|p| matches(text(p), resource)),
            (patterns, _) => list(patterns).iter().any(|p| matches(text(p), resource)),
        });
    let allows = statement["Effect"] == "Allow";
    let principals =
        query.principal.is_none_or(|principal| matches_principal(&statement["Principal"], principal, allows));
    actions && resources && principals && conditions(&statement["Condition"], query.context)
}

/// Whether a `Principal` element matches. An Allow for a whole account delegates to that account's identity policies, so by
/// itself it matches no principal.
fn matches_principal(element: &Value, principal: &Principal, allows: bool) -> bool {
    let anybody = |v: &Value| v == "*";
    if anybody(element) {
        return true;
    }
    match principal {
        Principal::Anonymous => list(&element["AWS"]).iter().any(|v| anybody(v)),
        Principal::Aws { arns, account } => list(&element["AWS"]).iter().any(|v| {
            let v = text(v);
            let root = v.starts_with("arn:") && v.ends_with(&format!("::{account}:root"));
            v == "*" || (!allows && (v == account || root)) || arns.iter().any(|arn| arn == v)
        }),
        Principal::Federated(provider) => list(&element["Federated"]).iter().any(|v| text(v) == provider),
    }
}

/// Whether some statement allows.
#[must_use]
pub fn allows(document: &Value) -> bool {
    list(&document["Statement"]).iter().any(|statement| statement["Effect"] == "Allow")
}

/// Whether S3 calls a bucket policy public: an Allow for any principal that no condition limits to fixed values (S3 user
/// guide, "The meaning of public"). None of the supported conditions counts as such a limit.
#[must_use]
pub fn is_public(document: &Value) -> bool {
    list(&document["Statement"]).iter().any(|statement| {
        let principal = &statement["Principal"];
        let anybody = principal == "*" || list(&principal["AWS"]).iter().any(|v| *v == "*");
        statement["Effect"] == "Allow" && anybody
    })
}

/// Wildcards: `*` matches any characters, `?` one, every other character itself.
#[must_use]
pub fn matches(pattern: &str, value: &str) -> bool {
    let (pattern, value): (Vec<char>, Vec<char>) = (pattern.chars().collect(), value.chars().collect());
    let (mut p, mut v, mut star) = (0, 0, None);
    while v < value.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, v));
                p += 1;
            }
            Some(c) if *c == '?' || *c == value[v] => {
                p += 1;
                v += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    v = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// A list, or a single element as a list of one, which a policy allows everywhere.
pub(crate) fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(document: &Value, action: &str, resource: &str, context: &[(&str, &str)]) -> Verdict {
        let context = context.iter().map(|(k, v)| (k.to_lowercase(), vec![(*v).to_owned()])).collect();
        evaluate(document, Query { action, resource: Some(resource), principal: None, context: &context })
    }

    #[test]
    fn a_deny_wins_and_no_match_is_no_allow() {
        let document = json!({"Statement": [
            {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
            {"Effect": "Deny", "NotAction": ["s3:Get*"], "Resource": "arn:aws:s3:::b/*"},
        ]});
        assert_eq!(ask(&document, "s3:GetObject", "arn:aws:s3:::b/k", &[]), Verdict::Allow);
        assert_eq!(ask(&document, "s3:PutObject", "arn:aws:s3:::b/k", &[]), Verdict::Deny);
        assert_eq!(ask(&document, "S3:putobject", "arn:aws:s3:::c/k", &[]), Verdict::Allow);
        assert_eq!(ask(&document, "iam:GetRole", "x", &[]), Verdict::NoMatch);
    }

    #[test]
    fn operators_on_present_and_absent_keys() {
        for (operator, wanted, found, holds) in [
            ("StringEquals", "a", Some("a"), true),
            ("StringEquals", "a*", Some("ab"), false),
            ("StringEquals", "a", None, false),
            ("StringEqualsIfExists", "a", None, true),
            ("StringNotEquals", "a", None, true),
            ("StringNotEquals", "a", Some("a"), false),
            ("StringLike", "a*c?", Some("abbcd"), true),
            ("ArnLike", "arn:aws:iam::*:role/x*", Some("arn:aws:iam::1:role/xy"), true),
            ("ArnNotEquals", "arn:aws:iam::1:role/x", Some("arn:aws:iam::1:role/y"), true),
            ("ArnNotEquals", "arn:aws:iam::1:role/x", None, true),
            ("Null", "true", None, true),
            ("Null", "false", None, false),
            ("Bool", "true", Some("True"), true),
            ("StringNotEqualsIgnoreCase", "a", Some("A"), false),
            ("StringNotEqualsIgnoreCase", "a", None, true),
            ("DateLessThan", "1970-01-01T00:00:00Z", Some("2026-11-24T00:00:00Z"), false),
            ("DateLessThan", "2026-11-24T00:00:00.500Z", Some("2026-11-24T00:00:00Z"), true),
            ("DateLessThan", "2026-11-24T02:00:00+02:00", Some("2026-11-24T00:00:01Z"), false),
            ("DateLessThan", "1764000000", Some("1970-01-02T00:00:00Z"), true),
            ("DateLessThan", "yesterday", Some("1970-01-02T00:00:00Z"), false),
            ("DateLessThan", "2026-11-24T00:00:00Z", None, false),
            ("DateLessThanEquals", "2026-11-24", Some("2026-11-24T00:00:00Z"), true),
            ("DateGreaterThan", "2026-11-24", Some("2026-11-24T00:00:00Z"), false),
            ("DateGreaterThanEquals", "2026-11-24T00:00:00.0Z", Some("2026-11-24T00:00:00Z"), true),
            ("DateEquals", "0", Some("1970-01-01T00:00:00Z"), true),
            ("ForAnyValue:StringEquals", "a", Some("a"), true),
            ("ForAnyValue:StringNotEquals", "a", None, false),
            ("ForAllValues:StringEquals", "a", None, true),
        ] {
            let document = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*",
                "Condition": {operator: {"Key": wanted}}}});
            let context: Vec<(&str, &str)> = found.iter().map(|f| ("key", *f)).collect();
            let verdict = ask(&document, "a:b", "r", &context);
            assert_eq!(verdict == Verdict::Allow, holds, "{operator} {wanted} {found:?}");
        }
    }
}
