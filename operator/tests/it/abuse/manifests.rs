//! The manifests of a tenant that asks for namespaces, policies and roles of others: the specification, whether the API server or the
//! controller refuses it, and what is done in AWS.

use serde_json::{Value, json};

use super::{ADMINISTRATOR, FREE, Tenancy, role_arn};
use crate::world::{QUEUE, STORAGE};

/// What the tenant's namespace is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grants {
    /// Policy `storage` and those under `/team/`, no inline policies, sessions of an hour.
    Narrow,
    /// Every managed policy, inline policies, sessions of 12 hours: the boundary is the only limit.
    Wide,
}

/// One manifest.
pub struct Manifest {
    pub name: &'static str,
    pub grants: Grants,
    pub spec: Value,
    /// What the API server's refusal says; `None` where the CRD allows it.
    pub refused: Option<&'static str>,
    /// The reason of Ready, where the CRD allows it or has no rules.
    pub reason: &'static str,
    /// What is then changed in AWS, all of it about the role of the tenant's own `ServiceAccount`.
    pub writes: &'static [&'static str],
}

const ACCOUNT: &str = "spec.serviceAccountName";
const MADE: &[&str] = &["CreateRole"];
const ATTACHED: &[&str] = &["CreateRole", "AttachRolePolicy"];
const NOTHING: &[&str] = &[];

/// A role for a `ServiceAccount` of that name, which is no name.
fn account(
    name: &'static str,
    service_account: &str,
    reason: &'static str,
    writes: &'static [&'static str],
) -> Manifest {
    let spec = json!({"serviceAccountName": service_account, "role": {"policyARNs": [STORAGE]}});
    Manifest { name, grants: Grants::Narrow, spec, refused: Some(ACCOUNT), reason, writes }
}

/// A role with that policy.
fn policy(name: &'static str, arn: &str, refused: Option<&'static str>) -> Manifest {
    let spec = json!({"serviceAccountName": FREE, "role": {"policyARNs": [arn]}});
    let reason = if refused.is_some() { "InvalidSpec" } else { "NotGranted" };
    Manifest { name, grants: Grants::Narrow, spec, refused, reason, writes: NOTHING }
}

/// The same where every policy is granted.
fn granted(
    name: &'static str,
    arn: &str,
    refused: Option<&'static str>,
    reason: &'static str,
    writes: &'static [&'static str],
) -> Manifest {
    Manifest { grants: Grants::Wide, reason, writes, ..policy(name, arn, refused) }
}

/// A binding of `free` with these fields.
fn fields(
    name: &'static str,
    fields: Value,
    refused: Option<&'static str>,
    reason: &'static str,
) -> Manifest {
    let mut spec = json!({"serviceAccountName": FREE});
    let Value::Object(fields) = fields else { unreachable!("fields are an object") };
    spec.as_object_mut().unwrap().extend(fields);
    Manifest { name, grants: Grants::Narrow, spec, refused, reason, writes: NOTHING }
}

/// All manifests.
pub fn manifests(tenancy: &Tenancy) -> Vec<Manifest> {
    let mut all = of_other_namespaces(tenancy);
    all.extend(of_other_policies());
    all.extend(of_other_roles(tenancy));
    all.extend(of_the_boundary());
    all
}

fn of_other_namespaces(tenancy: &Tenancy) -> Vec<Manifest> {
    let neighbour = &tenancy.neighbour;
    let long = "a".repeat(254);
    // 50 characters are cut after 11 or 12 that are not these.
    let (two, shifted) = ("é".repeat(60), format!("a{}", "é".repeat(60)));
    vec![
        account("another namespace by a slash", &format!("{neighbour}/app"), "InvalidSpec", NOTHING),
        account(
            "another namespace by a path",
            &format!("../../{neighbour}/serviceaccounts/app"),
            "InvalidSpec",
            NOTHING,
        ),
        account(
            "another namespace by an encoded path",
            &format!("..%2f..%2f{neighbour}%2fserviceaccounts%2fapp"),
            "InvalidSpec",
            NOTHING,
        ),
        account("another subject by a colon", &format!("app:{neighbour}"), "InvalidSpec", NOTHING),
        account(
            "another subject whole",
            &format!("x:system:serviceaccount:{neighbour}:app"),
            "InvalidSpec",
            NOTHING,
        ),
        account("every ServiceAccount by a wildcard", "*", "InvalidSpec", NOTHING),
        account("several ServiceAccounts by a prefix", "app*", "InvalidSpec", NOTHING),
        account("one character of any value", "ap?", "InvalidSpec", NOTHING),
        account("a policy variable", "${aws:username}", "InvalidSpec", NOTHING),
        account("a query for the API server", "free?force=true&fieldManager=gitops", "InvalidSpec", NOTHING),
        account("a fragment", "free#x", "InvalidSpec", NOTHING),
        account("a subresource", "free/token", "InvalidSpec", NOTHING),
        account("the parent folder", "..", "InvalidSpec", NOTHING),
        account("another case", "Free", "InvalidSpec", NOTHING),
        account("a letter that looks the same", "fr\u{435}e", "InvalidSpec", NOTHING),
        account("letters of two bytes", &two, "InvalidSpec", NOTHING),
        account("letters of two bytes, shifted", &shifted, "InvalidSpec", NOTHING),
        account("a line break", "free\n", "InvalidSpec", NOTHING),
        account("a space", " free", "InvalidSpec", NOTHING),
        account("the character 0", "free\0", "InvalidSpec", NOTHING),
        account("no name", "", "InvalidSpec", NOTHING),
        account("a name that is too long", &long, "InvalidSpec", NOTHING),
    ]
}

fn of_other_policies() -> Vec<Manifest> {
    let pattern = Some("spec.role.policyARNs");
    let inline = json!([{"name": "x", "document": {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
    ]}}]);
    let session = |name, duration: &str, refused, reason| {
        fields(name, json!({"role": {"maxSessionDuration": duration}}), refused, reason)
    };
    vec![
        policy("the neighbour's policy", QUEUE, None),
        policy("every right", ADMINISTRATOR, None),
        policy(
            "a policy whose name begins like the granted one",
            "arn:aws:iam::111122223333:policy/storage-2",
            None,
        ),
        policy("the granted one in another case", "arn:aws:iam::111122223333:policy/Storage", None),
        policy("the granted one below a path", "arn:aws:iam::111122223333:policy/x/storage", None),
        policy("the granted one of another account", "arn:aws:iam::999999999999:policy/storage", None),
        policy("the granted one of AWS", "arn:aws:iam::aws:policy/storage", None),
        policy("the granted one of another partition", "arn:aws-cn:iam::111122223333:policy/storage", None),
        policy("a pattern", "arn:aws:iam::111122223333:policy/*", pattern),
        policy("a pattern in the account", "arn:aws:iam::*:policy/storage", pattern),
        policy("all policies", "*", pattern),
        policy("one with a space", "arn:aws:iam::111122223333:policy/storage ", pattern),
        policy("a role", "arn:aws:iam::111122223333:role/storage", pattern),
        Manifest {
            reason: "InvalidSpec",
            writes: MADE,
            ..policy("out of the granted path", "arn:aws:iam::111122223333:policy/team/../queue", None)
        },
        Manifest {
            reason: "InvalidSpec",
            writes: NOTHING,
            ..policy("a granted pattern as it is", "arn:aws:iam::111122223333:policy/team/*", pattern)
        },
        fields(
            "an inline policy without a grant for it",
            json!({"role": {"inlinePolicies": inline}}),
            None,
            "NotGranted",
        ),
        session("a second more than the ceiling", "3601s", None, "NotGranted"),
        session("the longest session of IAM", "12h", None, "NotGranted"),
        session("longer than IAM's longest", "13h", Some("spec.role.maxSessionDuration"), "InvalidSpec"),
        session("a negative session", "-2h", Some("spec.role.maxSessionDuration"), "InvalidSpec"),
        session(
            "a session without end",
            "99999999999999999999h",
            Some("spec.role.maxSessionDuration"),
            "InvalidSpec",
        ),
        session("a session without a number", "soon", Some("spec.role.maxSessionDuration"), "InvalidSpec"),
        session("a session of fractions", "1.5h", Some("spec.role.maxSessionDuration"), "NotGranted"),
    ]
}

fn of_other_roles(tenancy: &Tenancy) -> Vec<Manifest> {
    let neighbours = role_arn(&tenancy.neighbour, "app");
    let uses = |name, arn: &str, refused, reason| fields(name, json!({"roleARN": arn}), refused, reason);
    let arn = Some("spec.roleARN");
    let one_of = Some("exactly one of spec.role");
    vec![
        uses("the neighbour's role", &neighbours, None, "Ready"),
        uses(
            "the neighbour's role in another case",
            &neighbours.replace("homelab.", "HOMELAB."),
            None,
            "Ready",
        ),
        uses(
            "the operator's role",
            "arn:aws:iam::111122223333:role/podidentity-system/podidentity-operator.homelab",
            None,
            "Ready",
        ),
        uses(
            "the canary's role",
            "arn:aws:iam::111122223333:role/podidentity-system/podidentity-canary.homelab",
            None,
            "Ready",
        ),
        uses("an administrator's role", "arn:aws:iam::111122223333:role/admin", None, "Ready"),
        uses(
            "another cluster's role",
            "arn:aws:iam::111122223333:role/podidentity/office/office.x",
            None,
            "Ready",
        ),
        uses("a role of another account", "arn:aws:iam::999999999999:role/partner", None, "Ready"),
        uses("every role", "arn:aws:iam::111122223333:role/*", arn, "InvalidSpec"),
        uses(
            "an environment variable",
            "arn:aws:iam::111122223333:role/$(AWS_SECRET_ACCESS_KEY)",
            arn,
            "InvalidSpec",
        ),
        uses("a user", "arn:aws:iam::111122223333:user/admin", arn, "InvalidSpec"),
        uses("no role by an empty name", "", arn, "InvalidSpec"),
        fields(
            "the neighbour's role beside an own one",
            json!({"role": {}, "roleARN": neighbours}),
            one_of,
            "InvalidSpec",
        ),
        fields("no role at all", json!({}), one_of, "InvalidSpec"),
        fields(
            "an issuer by a path",
            json!({"issuerRef": {"name": "../default"}, "role": {}}),
            Some("spec.issuerRef.name"),
            "InvalidSpec",
        ),
        fields(
            "an issuer in another case",
            json!({"issuerRef": {"name": "Default"}, "role": {}}),
            Some("spec.issuerRef.name"),
            "InvalidSpec",
        ),
        fields(
            "an audience that is a policy variable",
            json!({"audience": "${aws:x}", "role": {}}),
            Some("spec.audience"),
            "InvalidSpec",
        ),
        fields("an audience of no issuer", json!({"audience": "vault", "role": {}}), None, "InvalidSpec"),
        fields(
            "an unknown drift policy",
            json!({"driftPolicy": "Never", "role": {}}),
            Some("spec.driftPolicy"),
            "InvalidSpec",
        ),
        fields(
            "an unknown deletion policy",
            json!({"deletionPolicy": "Keep", "role": {}}),
            Some("spec.deletionPolicy"),
            "InvalidSpec",
        ),
        Manifest {
            spec: json!({"serviceAccountName": "app", "roleARN": neighbours}),
            ..fields(
                "the neighbour's role for a bound ServiceAccount",
                json!({}),
                None,
                "ServiceAccountAlreadyBound",
            )
        },
        Manifest {
            spec: json!({"serviceAccountName": "app", "role": {"policyARNs": [ADMINISTRATOR]}}),
            ..fields("more rights for a bound ServiceAccount", json!({}), None, "ServiceAccountAlreadyBound")
        },
        Manifest {
            spec: json!({"serviceAccountName": "podidentity-operator", "role": {"policyARNs": [STORAGE]}}),
            writes: ATTACHED,
            ..fields("a ServiceAccount that is named as the operator's", json!({}), None, "Ready")
        },
    ]
}

fn of_the_boundary() -> Vec<Manifest> {
    const BOUNDARY: &str = "arn:aws:iam::111122223333:policy/podidentity/homelab/homelab.boundary";
    let rule = Some("are permissions boundaries of this operator");
    let inline = |name, policy: &str, document: Value, refused, reason, writes| Manifest {
        grants: Grants::Wide,
        writes,
        ..fields(
            name,
            json!({"role": {"inlinePolicies": [{"name": policy, "document": document}]}}),
            refused,
            reason,
        )
    };
    let nothing = || json!({"Version": "2012-10-17", "Statement": []});
    let changed = |from: &str, to: &str| BOUNDARY.replace(from, to);
    vec![
        granted("the boundary", BOUNDARY, rule, "InvalidSpec", NOTHING),
        granted(
            "the boundary in upper case",
            &changed("podidentity", "PODIDENTITY"),
            rule,
            "InvalidSpec",
            NOTHING,
        ),
        granted("another cluster's boundary", &changed("homelab", "office"), rule, "InvalidSpec", NOTHING),
        granted(
            "the boundary behind two slashes",
            &changed(":policy/", ":policy//"),
            None,
            "InvalidSpec",
            MADE,
        ),
        granted("the boundary in this folder", &changed(":policy/", ":policy/./"), None, "InvalidSpec", MADE),
        granted(
            "the boundary by way of another folder",
            &changed(":policy/", ":policy/x/../"),
            None,
            "InvalidSpec",
            MADE,
        ),
        granted(
            "the boundary without its path",
            "arn:aws:iam::111122223333:policy/homelab.boundary",
            None,
            "InvalidSpec",
            MADE,
        ),
        granted(
            "the boundary in another partition",
            &changed("arn:aws:", "arn:aws-cn:"),
            rule,
            "InvalidSpec",
            NOTHING,
        ),
        granted(
            "a policy of another account",
            "arn:aws:iam::999999999999:policy/storage",
            None,
            "InvalidSpec",
            MADE,
        ),
        granted(
            "a policy that does not exist",
            "arn:aws:iam::111122223333:policy/none",
            None,
            "InvalidSpec",
            MADE,
        ),
        inline(
            "an inline policy named as a revocation",
            "podidentity-revoked",
            nothing(),
            Some("is the operator's own policy"),
            "InvalidSpec",
            NOTHING,
        ),
        inline(
            "an inline policy with a path for a name",
            "../x",
            nothing(),
            Some("an inline policy's name has letters"),
            "InvalidSpec",
            NOTHING,
        ),
        inline("an inline policy that is none", "x", json!({"Allow": "*"}), None, "InvalidSpec", MADE),
        inline(
            "an inline policy of a resource",
            "x",
            json!({"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"},
            ]}),
            None,
            "InvalidSpec",
            MADE,
        ),
    ]
}
