//! PURE: which policy documents AWS accepts (IAM user guide, "Grammar of the IAM JSON policy language"). Refused beyond that:
//! what the evaluation does not support, `NotPrincipal` and policy variables.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::condition::is_operator;
use super::{list, text};

/// The kind of a policy document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Attached to an identity: a resource, no principal.
    Identity,
    /// A role's trust policy: a principal, no resource.
    Trust,
    /// Attached to a resource: both.
    Resource,
}

/// The parts of IAM that a resource can name (IAM's own message).
const IAM_PATHS: [&str; 13] = [
    "user/",
    "federated-user/",
    "role/",
    "group/",
    "instance-profile/",
    "mfa/",
    "server-certificate/",
    "policy/",
    "sms-mfa/",
    "saml-provider/",
    "oidc-provider/",
    "report/",
    "access-report/",
];

/// Parses a document. Refuses what AWS refuses as `MalformedPolicyDocument`, and what [`super::evaluate`] does not support.
pub fn parse(document: &str, kind: Kind) -> Result<Value, String> {
    let parsed: Value =
        serde_json::from_str(document).map_err(|_| "This policy contains invalid Json".to_owned())?;
    let members = object(&parsed)?;
    known(members, &["Version", "Id", "Statement"])?;
    if !["2012-10-17", "2008-10-17"].contains(&text(&parsed["Version"])) {
        return Err("The policy must contain a valid version string".into());
    }
    if !parsed["Id"].is_null() && !parsed["Id"].is_string() {
        return Err(syntax());
    }
    if parsed.to_string().contains("${") {
        return Err("aws-sim does not evaluate policy variables".into());
    }
    let statements = list(&parsed["Statement"]);
    if statements.is_empty() {
        return Err(syntax());
    }
    let mut ids = BTreeSet::new();
    for element in statements {
        let members = object(element)?;
        statement(members, kind)?;
        let id = members.get("Sid").map(text).unwrap_or_default();
        if !id.is_empty() && !ids.insert(id) {
            return Err("Statement IDs (SID) in a single policy must be unique.".into());
        }
    }
    Ok(parsed)
}

/// The size of a document as IAM counts it: without white space (IAM user guide, "IAM and AWS STS quotas").
#[must_use]
pub fn size(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}

fn statement(members: &Map<String, Value>, kind: Kind) -> Result<(), String> {
    known(
        members,
        &["Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "NotResource", "Condition"],
    )?;
    id(members.get("Sid"), kind)?;
    if !members.get("Effect").is_some_and(|effect| ["Allow", "Deny"].contains(&text(effect))) {
        return Err("Syntax error: a statement needs Effect Allow or Deny".into());
    }
    let actions = one_of(members, "Action", "NotAction")?;
    for action in actions.ok_or("Policy statement must contain actions.")? {
        check_action(action, kind)?;
    }
    let resources = one_of(members, "Resource", "NotResource")?;
    match (kind, resources) {
        (Kind::Trust, Some(_)) => return Err("Has prohibited field Resource".into()),
        (Kind::Trust, None) => {}
        (Kind::Identity | Kind::Resource, None) => {
            return Err("Policy statement must contain resources.".into());
        }
        (Kind::Identity | Kind::Resource, Some(resources)) => {
            resources.into_iter().try_for_each(check_resource)?;
        }
    }
    match (kind, members.get("Principal")) {
        (Kind::Identity, Some(_)) => {
            return Err("Policy document should not specify a principal.".into());
        }
        (Kind::Identity, None) => {}
        (Kind::Trust | Kind::Resource, None) => return Err("Missing required field Principal".into()),
        (Kind::Trust | Kind::Resource, Some(principal)) => check_principal(principal)?,
    }
    members.get("Condition").map_or(Ok(()), check_conditions)
}

fn syntax() -> String {
    "Syntax errors in policy.".into()
}

fn object(value: &Value) -> Result<&Map<String, Value>, String> {
    value.as_object().ok_or_else(syntax)
}

fn known(members: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    let unknown = members.keys().find(|name| !names.contains(&name.as_str()));
    unknown.map_or(Ok(()), |name| Err(format!("Syntax errors in policy: unknown element {name}.")))
}

fn id(id: Option<&Value>, kind: Kind) -> Result<(), String> {
    let Some(id) = id else { return Ok(()) };
    let id = id.as_str().ok_or_else(syntax)?;
    // S3 takes any.
    if kind != Kind::Resource && !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*".into());
    }
    Ok(())
}

/// The strings of an element or of its negation, `None` where neither is there.
fn one_of<'a>(
    members: &'a Map<String, Value>,
    name: &str,
    negation: &str,
) -> Result<Option<Vec<&'a str>>, String> {
    match (members.get(name), members.get(negation)) {
        (None, None) => Ok(None),
        (Some(value), None) | (None, Some(value)) => strings(value).map(Some),
        (Some(_), Some(_)) => Err(syntax()),
    }
}

/// A string, or a list of some.
fn strings(value: &Value) -> Result<Vec<&str>, String> {
    let strings: Option<Vec<&str>> = list(value).into_iter().map(Value::as_str).collect();
    strings.filter(|strings| !strings.is_empty()).ok_or_else(syntax)
}

fn check_action(action: &str, kind: Kind) -> Result<(), String> {
    let Some((vendor, name)) = action.split_once(':') else {
        return match kind {
            Kind::Identity | Kind::Resource if action == "*" => Ok(()),
            Kind::Trust => Err(not_sts()),
            _ => Err("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.".into()),
        };
    };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if vendor.is_empty() || !vendor.bytes().all(|byte| letter(byte) || byte == b'.') {
        return Err(format!("Vendor {vendor} is not valid"));
    }
    if name.is_empty() || !name.bytes().all(|byte| letter(byte) || byte == b'*' || byte == b'?') {
        return Err(format!("Action {action} is not valid"));
    }
    match (kind, vendor) {
        (Kind::Trust, "sts") | (Kind::Resource, "s3") | (Kind::Identity, _) => Ok(()),
        (Kind::Trust, _) => Err(not_sts()),
        (Kind::Resource, _) => Err("Policy has invalid action".into()),
    }
}

fn not_sts() -> String {
    "AssumeRole policy may only specify STS AssumeRole actions.".into()
}

fn check_resource(resource: &str) -> Result<(), String> {
    if resource == "*" {
        return Ok(());
    }
    let parts: Vec<&str> = resource.splitn(6, ':').collect();
    let ["arn", partition, vendor, region, _, path] = parts.as_slice() else {
        return Err(format!("Resource {resource} must be in ARN format or \"*\"."));
    };
    if partition.is_empty() || vendor.is_empty() || path.is_empty() {
        return Err(format!("Resource {resource} must be in ARN format or \"*\"."));
    }
    if *vendor == "iam" && !region.is_empty() {
        return Err(format!("IAM resource {resource} cannot contain region information."));
    }
    let known = ["*", "root"].contains(path) || IAM_PATHS.iter().any(|start| path.starts_with(start));
    if *vendor == "iam" && !known {
        let starts = IAM_PATHS.join(", ");
        return Err(format!("IAM resource path must either be \"*\", root, or start with {starts}."));
    }
    Ok(())
}

fn check_principal(principal: &Value) -> Result<(), String> {
    if principal == "*" {
        return Ok(());
    }
    let members = object(principal)?;
    known(members, &["AWS", "Federated", "Service", "CanonicalUser"])?;
    if members.is_empty() {
        return Err(syntax());
    }
    for (kind, values) in members {
        for value in strings(values)? {
            let valid = match kind.as_str() {
                "AWS" => is_aws_principal(value),
                "Federated" => value.contains(":oidc-provider/") || !value.starts_with("arn:"),
                _ => !value.is_empty(),
            };
            if !valid && kind == "Federated" {
                return Err("Federated principals must be valid domain names or SAML metadata ARNs".into());
            }
            if !valid {
                return Err(format!("Invalid principal in policy: \"{kind}\":\"{value}\""));
            }
        }
    }
    Ok(())
}

/// `*`, an account, the ARN of a principal, or the unique id that replaces the ARN of a deleted one.
fn is_aws_principal(value: &str) -> bool {
    let account = |id: &str| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit());
    let unique =
        value.len() > 16 && value.starts_with('A') && value.bytes().all(|b| b.is_ascii_alphanumeric());
    let arn = match value.splitn(6, ':').collect::<Vec<_>>().as_slice() {
        ["arn", _, "iam" | "sts", "", id, path] => account(id) && !path.is_empty() && !path.contains('*'),
        _ => false,
    };
    value == "*" || account(value) || unique || arn
}

fn check_conditions(block: &Value) -> Result<(), String> {
    for (operator, keys) in object(block)? {
        if !is_operator(operator) {
            return Err(format!("Invalid Condition type : {operator}."));
        }
        for (key, values) in object(keys)? {
            if !key.contains(':') {
                return Err(
                    "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.".into()
                );
            }
            let scalar = |value: &&Value| value.is_string() || value.is_boolean() || value.is_number();
            if values.is_null() || !list(values).iter().all(scalar) {
                return Err(syntax());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    const PROVIDER: &str = "arn:aws:iam::111122223333:oidc-provider/x";

    /// A document with one statement that is accepted, with these members put over it.
    fn with(kind: Kind, over: &Value) -> Result<Value, String> {
        let mut statement = match kind {
            Kind::Identity => json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}),
            Kind::Trust => json!({"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
                "Principal": {"Federated": PROVIDER}}),
            Kind::Resource => json!({"Effect": "Allow", "Action": "s3:GetObject", "Principal": "*",
                "Resource": "arn:aws:s3:::b/*"}),
        };
        for (name, value) in over.as_object().unwrap() {
            if value.is_null() {
                statement.as_object_mut().unwrap().remove(name);
            } else {
                statement[name] = value.clone();
            }
        }
        document(&json!({"Statement": [statement]}), kind)
    }

    fn document(over: &Value, kind: Kind) -> Result<Value, String> {
        let mut document = json!({"Version": "2012-10-17"});
        document.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        parse(&document.to_string(), kind)
    }

    #[test]
    fn what_aws_accepts_is_accepted() {
        for (kind, over) in [
            (Kind::Identity, json!({})),
            (Kind::Identity, json!({"Sid": "Abc1", "Action": ["*"], "Resource": ["arn:aws:s3:::b/*", "*"]})),
            (Kind::Identity, json!({"Action": null, "NotAction": ["iam:*", "access-analyzer:Get?*"]})),
            (Kind::Identity, json!({"Resource": null, "NotResource": "arn:aws:sqs:eu-central-1:1:q"})),
            (Kind::Identity, json!({"Resource": ["arn:aws:iam::*:role/a*", "arn:aws:iam::1:*"]})),
            (
                Kind::Identity,
                json!({"Condition": {
                "StringEquals": {"aws:RequestTag/a": ["b", 1, true]}, "Null": {"aws:a": "true"},
                "ForAllValues:StringLikeIfExists": {"aws:TagKeys": "a*"}}}),
            ),
            (Kind::Trust, json!({})),
            (Kind::Trust, json!({"Effect": "Deny", "Principal": "*", "Action": "sts:*"})),
            (
                Kind::Trust,
                json!({"Principal": {"Federated": "accounts.google.com", "Service": "ec2.amazonaws.com"}}),
            ),
            (
                Kind::Trust,
                json!({"Principal": {"AWS": ["111122223333", "*", "arn:aws:iam::111122223333:role/a/b",
                "AROAEXAMPLEEXAMPLE123"]}}),
            ),
            (Kind::Resource, json!({"Sid": "with spaces and -", "Action": "s3:*"})),
        ] {
            assert!(with(kind, &over).is_ok(), "{kind:?} {over}: {:?}", with(kind, &over));
        }
        let two = json!([{"Effect": "Allow", "Action": "a:b", "Resource": "*"}, {"Sid": "", "Effect": "Deny",
            "Action": "a:b", "Resource": "*"}, {"Sid": "", "Effect": "Deny", "Action": "a:b", "Resource": "*"}]);
        assert!(document(&json!({"Id": "any text", "Statement": two}), Kind::Identity).is_ok());
        assert!(
            document(&json!({"Statement": two[0]}), Kind::Identity).is_ok(),
            "one statement without a list"
        );
    }

    #[test]
    fn statements_that_aws_refuses_are_refused() {
        use Kind::{Identity, Resource, Trust};
        for (kind, over) in [
            (Identity, json!({"Effect": "Perhaps"})),
            (Identity, json!({"Effect": null})),
            (Identity, json!({"Conditions": {}})),
            (Identity, json!({"Principle": "*"})),
            (Identity, json!({"Sid": "with-dash"})),
            (Identity, json!({"Sid": 1})),
            (Trust, json!({"Sid": "with space"})),
            (Identity, json!({"Action": null})),
            (Identity, json!({"Action": []})),
            (Identity, json!({"Action": [1]})),
            (Identity, json!({"Action": {"a": "b"}})),
            (Identity, json!({"Action": "GetObject"})),
            (Identity, json!({"Action": "s3:"})),
            (Identity, json!({"Action": "s3:a:b"})),
            (Identity, json!({"Action": "s*:GetObject"})),
            (Identity, json!({"Action": ["s3:GetObject", "**"]})),
            (Identity, json!({"NotAction": "s3:GetObject"})),
            (Identity, json!({"Resource": null})),
            (Identity, json!({"Resource": []})),
            (Identity, json!({"Resource": "bucket/*"})),
            (Identity, json!({"Resource": "arn:aws:s3"})),
            (Identity, json!({"Resource": "arn:aws:s3:::"})),
            (Identity, json!({"Resource": ["*", ""]})),
            (Identity, json!({"Resource": "arn:aws:iam::1:roles/a"})),
            (Identity, json!({"Resource": "arn:aws:iam:us-east-1:1:role/a"})),
            (Identity, json!({"Resource": "arn:aws:s3:::${aws:username}/*"})),
            (Identity, json!({"NotResource": "*"})),
            (Identity, json!({"Principal": "*"})),
            (Identity, json!({"Condition": []})),
            (Identity, json!({"Condition": {"StringSame": {"aws:a": "b"}}})),
            (Identity, json!({"Condition": {"StringEquals": "aws:a"}})),
            (Identity, json!({"Condition": {"StringEquals": {"a": "b"}}})),
            (Identity, json!({"Condition": {"StringEquals": {"aws:a": {"b": "c"}}}})),
            (Identity, json!({"Condition": {"StringEquals": {"aws:a": null}}})),
            (Trust, json!({"Condition": {"StringEquals": {"x:aud": "${aws:username}"}}})),
            (Trust, json!({"Action": "s3:GetObject"})),
            (Trust, json!({"Action": "*"})),
            (Trust, json!({"Resource": "*"})),
            (Trust, json!({"NotResource": "*"})),
            (Trust, json!({"Principal": null})),
            (Trust, json!({"Principal": {}})),
            (Trust, json!({"Principal": {"Federation": PROVIDER}})),
            (Trust, json!({"Principal": {"Federated": []}})),
            (Trust, json!({"Principal": {"Federated": "arn:aws:iam::1:role/x"}})),
            (Trust, json!({"Principal": {"AWS": "somebody"}})),
            (Trust, json!({"Principal": {"AWS": "arn:aws:iam::111122223333:role/*"}})),
            (Trust, json!({"Principal": null, "NotPrincipal": {"AWS": "*"}})),
            (Resource, json!({"Principal": null})),
            (Resource, json!({"Action": "sqs:SendMessage"})),
            (Resource, json!({"Resource": null})),
        ] {
            assert!(with(kind, &over).is_err(), "{kind:?} {over}");
        }
    }

    #[test]
    fn documents_that_aws_refuses_are_refused() {
        let one = json!({"Sid": "A", "Effect": "Allow", "Action": "a:b", "Resource": "*"});
        for over in [
            json!({"Statement": []}),
            json!({"Statement": null}),
            json!({"Statement": ["A"]}),
            json!({"Statement": one, "Version": "2012-10-18"}),
            json!({"Statement": one, "Versions": "2012-10-17"}),
            json!({"Statement": one, "Id": 1}),
            json!({"Statement": [one, one]}),
        ] {
            assert!(document(&over, Kind::Identity).is_err(), "{over}");
        }
        assert!(parse("{", Kind::Identity).is_err());
        assert!(parse("[]", Kind::Identity).is_err());
    }

    #[test]
    fn white_space_does_not_count() {
        assert_eq!(size("{ \"a\":\n\t\"b c\" }"), 10);
    }
}
