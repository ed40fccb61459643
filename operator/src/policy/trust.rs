//! PURE: the trust policy that lets exactly one `ServiceAccount` assume a role.

use crds::names::scheme_less;
use serde_json::{Value, json};

use super::VERSION;

/// The one `ServiceAccount` that may assume a role, and the OIDC provider of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust<'a> {
    /// ARN of the IAM OIDC provider.
    pub provider_arn: &'a str,
    /// The issuer URL; condition keys begin with it, without its scheme.
    pub issuer_url: &'a str,
    /// The token's `aud` claim.
    pub audience: &'a str,
    /// The token's `sub` claim: `system:serviceaccount:<namespace>:<name>`.
    pub subject: &'a str,
}

impl Trust<'_> {
    /// One statement with `StringEquals` on the full `sub` and on `aud`. `StringEquals` has no wildcards, so that `*` in a name
    /// is only a character.
    #[must_use]
    pub fn policy(&self) -> Value {
        document(&[self.statement("Allow")])
    }

    /// The same statement with `Deny`: the trust policy of a role that is being deleted. IAM refuses a policy without statements.
    #[must_use]
    pub fn revoked(&self) -> Value {
        document(&[self.statement("Deny")])
    }

    /// What lets nothing in where IAM refuses a policy that only denies: the statement with a condition that no request meets.
    #[must_use]
    pub fn closed(&self) -> Value {
        let mut statement = self.statement("Allow");
        statement["Condition"]["DateLessThan"] = json!({"aws:CurrentTime": LONG_AGO});
        document(&[statement])
    }

    fn statement(&self, effect: &str) -> Value {
        let url = scheme_less(self.issuer_url);
        json!({
            "Effect": effect,
            "Principal": {"Federated": self.provider_arn},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": {
                (format!("{url}:sub")): self.subject,
                (format!("{url}:aud")): self.audience,
            }},
        })
    }
}

/// No request is made before this time.
const LONG_AGO: &str = "1970-01-01T00:00:00Z";

/// Any trust policy turned into one that lets nothing in: with every statement a `Deny`, and, where IAM refuses that, with a
/// condition that no request meets. `None` where the text is no policy.
#[must_use]
pub fn letting_nothing_in(trust: &str) -> Option<[Value; 2]> {
    let parsed: Value = serde_json::from_str(trust).ok()?;
    parsed.get("Statement")?;
    let statements = statements(&parsed);
    let with = |edit: fn(&mut Value)| {
        let mut statements = statements.clone();
        statements.iter_mut().for_each(edit);
        document(&statements)
    };
    let denying = with(|statement| statement["Effect"] = json!("Deny"));
    let closed =
        with(|statement| statement["Condition"]["DateLessThan"] = json!({"aws:CurrentTime": LONG_AGO}));
    Some([denying, closed])
}

/// Whether a statement lets nothing in: it denies, or has the condition that no request meets.
#[must_use]
pub fn lets_nothing_in(statement: &Value) -> bool {
    statement["Effect"] == "Deny" || statement["Condition"]["DateLessThan"]["aws:CurrentTime"] == LONG_AGO
}

/// A statement as it was before [`letting_nothing_in`].
#[must_use]
pub fn before_revocation(statement: &Value) -> Value {
    let mut statement = statement.clone();
    statement["Effect"] = json!("Allow");
    if let Some(condition) = statement["Condition"].as_object_mut() {
        condition.remove("DateLessThan");
    }
    statement
}

/// The trust policy of the operator's own role, which may be assumed with tokens of several issuers: one statement for each.
#[must_use]
pub fn union(trusts: &[Trust<'_>]) -> Value {
    document(&trusts.iter().map(|trust| trust.statement("Allow")).collect::<Vec<_>>())
}

/// The statements of a policy: a list, or a single one.
#[must_use]
pub fn statements(policy: &Value) -> Vec<Value> {
    match policy.get("Statement") {
        Some(Value::Array(list)) => list.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    }
}

/// A policy of these statements.
#[must_use]
pub fn of_statements(statements: impl IntoIterator<Item = Value>) -> Value {
    document(&statements.into_iter().collect::<Vec<_>>())
}

fn document(statements: &[Value]) -> Value {
    json!({"Version": VERSION, "Statement": statements})
}

#[cfg(test)]
mod tests {
    use crds::names::{provider_arn, subject};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// For all names: one Allow, StringEquals on exactly two keys, and the values are the full names.
        #[test]
        fn exactly_one_service_account_is_trusted(ns in "[a-z0-9*?$-]{1,63}", sa in "[a-z0-9.*?-]{1,253}", aud in "[!-~]{1,255}") {
            let url = "https://b.s3.eu-central-1.amazonaws.com/homelab";
            let provider_arn = provider_arn("aws", "111122223333", url);
            let subject = subject(&ns, &sa);
            let trust = Trust { provider_arn: &provider_arn, issuer_url: url, audience: &aud, subject: &subject };
            let policy = trust.policy();
            let statements = policy["Statement"].as_array().expect("a list");
            prop_assert_eq!(statements.len(), 1);
            let statement = &statements[0];
            prop_assert_eq!(&statement["Principal"], &json!({"Federated": provider_arn}));
            let conditions = statement["Condition"].as_object().expect("conditions");
            prop_assert_eq!(conditions.keys().collect::<Vec<_>>(), ["StringEquals"]);
            let equals = conditions["StringEquals"].as_object().expect("keys");
            prop_assert_eq!(equals.len(), 2);
            prop_assert_eq!(equals["b.s3.eu-central-1.amazonaws.com/homelab:sub"].as_str(), Some(subject.as_str()));
            prop_assert_eq!(equals["b.s3.eu-central-1.amazonaws.com/homelab:aud"].as_str(), Some(aud.as_str()));
            prop_assert_eq!(&trust.revoked()["Statement"][0]["Effect"], "Deny");
        }

        /// With the longest possible names it is within IAM's default quota of 2,048 characters.
        #[test]
        fn the_longest_trust_policy_fits(sa in "[a-z]{253}", ns in "[a-z]{63}") {
            let url = format!("https://{}", "a".repeat(247));
            let (arn, subject) = (provider_arn("aws-us-gov", "111122223333", &url), subject(&ns, &sa));
            let trust = Trust { provider_arn: &arn, issuer_url: &url, audience: &"x".repeat(255), subject: &subject };
            prop_assert!(trust.policy().to_string().len() <= 2048);
        }
    }
}
