//! PURE: which binding may make which role. Default deny; one grant must cover a binding whole.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::binding::DEFAULT_SESSION;
use crds::glob::glob;
use crds::names::{ROLES_PATH, is_boundary};
use crds::selector::selects;
use crds::{Finding, Grant, GrantNamespaces, InlinePolicies, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A namespace: grants name it or select its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels; `None` while they are not known: then only its name, and the selector of every namespace, cover it.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

/// What a binding that makes a role asks for, or what its role has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The binding's namespace.
    pub namespace: Namespace<'a>,
    /// Managed policies.
    pub policy_arns: &'a [String],
    /// Whether there are inline policies.
    pub inline: bool,
    /// How long a session may last.
    pub session: Duration,
}

/// Roles of one issuer whose bindings no grant covers any more, revoked ones not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// How many.
    pub lost: usize,
    /// Of how many roles.
    pub roles: usize,
}

impl Losses {
    /// Whether it is likely that a change of grants took away more than was meant: more than five roles and more than 10 %.
    #[must_use]
    pub const fn is_suspicious(self) -> bool {
        self.lost > 5 && self.lost * 10 > self.roles
    }
}

/// Whether one of the grants covers the request; if none does, the message says what is missing.
pub fn check(issuer: &str, grants: &[Grant], request: Request<'_>) -> Result<(), Finding> {
    let Request { namespace, policy_arns, inline, session } = request;
    let refused = |message: String| Err(Finding::new(Reason::NotGranted, message));
    // As a boundary it takes rights away; attached it would give all that it does not deny.
    if let Some(boundary) = policy_arns.iter().find(|arn| is_boundary(arn)) {
        return refused(format!(
            "{boundary} is under {ROLES_PATH}: it is a permissions boundary and can never be attached, whatever a grant says. \
             Take it out of spec.role.policyARNs"
        ));
    }
    let of_namespace: Vec<&Grant> = grants.iter().filter(|g| covers_namespace(g, namespace)).collect();
    let namespace = namespace.name;
    if of_namespace.is_empty() {
        return refused(format!(
            "no grant of OidcIssuer {issuer} covers namespace {namespace}: add the namespace to spec.grants[].namespaces.names of the \
             OidcIssuer"
        ));
    }
    let missing = |grant: &Grant| -> Vec<String> {
        let covered = |arn: &&String| grant.policy_arns.iter().any(|pattern| matches(pattern, arn));
        let policies = policy_arns.iter().filter(|arn| !covered(arn)).cloned();
        let ceiling = grant.max_session_duration.map_or(DEFAULT_SESSION, Duration::from);
        let longer = (session > ceiling)
            .then(|| format!("sessions of {} s (it allows {} s)", session.as_secs(), ceiling.as_secs()));
        let documents = (inline && grant.inline_policies != Some(InlinePolicies::Allow))
            .then(|| "inline policies (its inlinePolicies is not Allow)".to_owned());
        policies.chain(documents).chain(longer).collect()
    };
    // The grant that lacks least is the one the administrator most likely meant.
    let closest = of_namespace.into_iter().map(|grant| (missing(grant), grant)).min_by_key(|(m, _)| m.len());
    match closest {
        Some((missing, grant)) if !missing.is_empty() => refused(format!(
            "no single grant of OidcIssuer {issuer} for namespace {namespace} covers the binding; the closest, {}, does not \
             allow {}. Extend that grant, or change spec.role",
            grant.name,
            missing.join(", ")
        )),
        _ => Ok(()),
    }
}

/// Which of the grants cover a namespace.
#[must_use]
pub fn covering(grants: &[Grant], namespace: Namespace<'_>) -> Vec<bool> {
    grants.iter().map(|grant| covers_namespace(grant, namespace)).collect()
}

fn covers_namespace(grant: &Grant, namespace: Namespace<'_>) -> bool {
    let Some(GrantNamespaces { names, selector }) = &grant.namespaces else { return false };
    let selected = |selector: &LabelSelector| match namespace.labels {
        Some(labels) => selects(selector, labels),
        None => *selector == LabelSelector::default(),
    };
    selector.as_ref().is_some_and(selected) || names.iter().flatten().any(|name| name == namespace.name)
}

/// Whether a grant's policy pattern covers an ARN: equal, `*` alone for any, or with `*` in the resource part. The
/// partition and account never match by wildcard (the CRD refuses a `*` there).
fn matches(pattern: &str, arn: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let (Some((head, tail)), Some((arn_head, arn_tail))) =
        (pattern.split_once(":policy/"), arn.split_once(":policy/"))
    else {
        return false;
    };
    head == arn_head && !head.contains('*') && glob(tail, arn_tail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VAULT: &str = "arn:aws:iam::111122223333:policy/vault-storage";
    const BOUNDARY: &str = "arn:aws:iam::111122223333:policy/podidentity/homelab/homelab.boundary";
    const OTHER: &str = "arn:aws:iam::111122223333:policy/team/other";

    fn grant(names: &[&str], policies: &[&str]) -> Grant {
        Grant {
            name: names.join("-"),
            namespaces: Some(GrantNamespaces {
                names: Some(names.iter().map(ToString::to_string).collect()),
                selector: None,
            }),
            policy_arns: policies.iter().map(ToString::to_string).collect(),
            ..Grant::default()
        }
    }
    fn ask(grants: &[Grant], namespace: &str, policies: &[&str]) -> Result<(), String> {
        let policy_arns: Vec<String> = policies.iter().map(ToString::to_string).collect();
        let namespace = Namespace { name: namespace, labels: Some(&NO_LABELS) };
        ask_for(grants, Request { namespace, policy_arns: &policy_arns, ..REQUEST })
    }
    fn ask_for(grants: &[Grant], request: Request<'_>) -> Result<(), String> {
        check("default", grants, request).map_err(|finding| finding.message)
    }
    static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
    const VAULT_NAMESPACE: Namespace<'_> = Namespace { name: "vault", labels: Some(&NO_LABELS) };
    const REQUEST: Request<'_> =
        Request { namespace: VAULT_NAMESPACE, policy_arns: &[], inline: false, session: DEFAULT_SESSION };

    #[test]
    fn a_session_is_as_long_as_the_grant_allows_and_an_hour_where_it_says_nothing() {
        let two_hours = Duration::from_hours(2);
        let long = Request { session: two_hours, ..REQUEST };
        let silent = grant(&["vault"], &[]);
        let refused = ask_for(std::slice::from_ref(&silent), long).unwrap_err();
        assert!(refused.contains("sessions of 7200 s (it allows 3600 s)"), "{refused}");
        let allowing = Grant { max_session_duration: Some(two_hours.into()), ..silent.clone() };
        ask_for(&[allowing], long).unwrap();
        ask_for(&[silent], REQUEST).unwrap();
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        assert!(ask(&[], "vault", &[]).unwrap_err().contains("covers namespace vault"));
        assert!(ask(&[Grant::default()], "vault", &[]).is_err());
        assert!(ask(&[grant(&[], &["*"])], "vault", &[VAULT]).is_err());
        assert!(ask(&[grant(&["vault"], &[])], "vault", &[VAULT]).unwrap_err().contains(VAULT));
        assert!(
            ask(&[grant(&["vault"], &[])], "vault", &[]).is_ok(),
            "a role without rights needs a namespace only"
        );
    }

    #[test]
    fn a_selector_grants_to_namespaces_with_its_labels() {
        let selecting = |selector: LabelSelector| {
            let namespaces = GrantNamespaces { names: None, selector: Some(selector) };
            [Grant { namespaces: Some(namespaces), ..grant(&[], &[VAULT]) }]
        };
        assert!(ask(&selecting(LabelSelector::default()), "vault", &[VAULT]).is_ok());
        let labels = BTreeMap::from([("team".to_owned(), "vault".to_owned())]);
        let labelled = LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() };
        assert!(ask(&selecting(labelled.clone()), "vault", &[VAULT]).is_err());
        let namespace = Namespace { name: "vault", labels: Some(&labels) };
        assert!(ask_for(&selecting(labelled), Request { namespace, ..REQUEST }).is_ok());
        // Labels that are not known are not "no labels".
        let expressions = serde_json::from_value(serde_json::json!({
            "matchExpressions": [{"key": "untrusted", "operator": "DoesNotExist"}],
        }));
        let trusted = selecting(expressions.unwrap());
        for (labels, granted) in [(Some(&NO_LABELS), true), (None, false)] {
            let namespace = Namespace { name: "vault", labels };
            assert_eq!(ask_for(&trusted, Request { namespace, ..REQUEST }).is_ok(), granted);
            assert!(ask_for(&selecting(LabelSelector::default()), Request { namespace, ..REQUEST }).is_ok());
        }
    }

    #[test]
    fn inline_policies_need_a_grant_that_allows_them() {
        let with = Request { inline: true, ..REQUEST };
        for (inline_policies, allowed) in
            [(None, false), (Some(InlinePolicies::Deny), false), (Some(InlinePolicies::Allow), true)]
        {
            let grants = [Grant { inline_policies, ..grant(&["vault"], &["*"]) }];
            assert_eq!(ask_for(&grants, with).is_ok(), allowed, "{inline_policies:?}");
            assert!(ask_for(&grants, REQUEST).is_ok());
        }
        let refused = ask_for(&[grant(&["vault"], &["*"])], with).unwrap_err();
        assert!(refused.contains("does not allow inline policies"), "{refused}");
    }

    #[test]
    fn the_boundary_is_never_a_policy() {
        for pattern in ["*", BOUNDARY, "arn:aws:iam::111122223333:policy/*"] {
            let others = BOUNDARY.replace("homelab", "office");
            for boundary in [BOUNDARY, &others, &BOUNDARY.replace("podidentity", "PodIdentity")] {
                let refused = ask(&[grant(&["vault"], &[pattern])], "vault", &[boundary]).unwrap_err();
                assert!(refused.contains("permissions boundary"), "{refused}");
            }
        }
    }

    #[test]
    fn one_grant_must_cover_the_whole() {
        let apart = [grant(&["vault"], &[VAULT]), grant(&["vault"], &[OTHER])];
        assert!(ask(&apart, "vault", &[VAULT]).is_ok());
        assert!(ask(&apart, "vault", &[OTHER]).is_ok());
        assert!(ask(&apart, "vault", &[VAULT, OTHER]).is_err());
        assert!(ask(&[grant(&["vault"], &[VAULT, OTHER])], "vault", &[OTHER, VAULT]).is_ok());
    }

    #[test]
    fn patterns_match_in_the_resource_part_only() {
        for (pattern, arn, expected) in [
            ("*", VAULT, true),
            (VAULT, VAULT, true),
            (VAULT, OTHER, false),
            ("arn:aws:iam::111122223333:policy/*", VAULT, true),
            ("arn:aws:iam::111122223333:policy/team/*", OTHER, true),
            ("arn:aws:iam::111122223333:policy/team/*", VAULT, false),
            ("arn:aws:iam::111122223333:policy/*-storage", VAULT, true),
            ("arn:aws:iam::111122223333:policy/v*t-s*e", VAULT, true),
            ("arn:aws:iam::111122223333:policy/vault-storag", VAULT, false),
            ("arn:aws:iam::999999999999:policy/*", VAULT, false),
            ("arn:aws:iam::*:policy/*", VAULT, false),
            ("arn:aws:iam::aws:policy/*", VAULT, false),
            ("arn:aws:iam::aws:policy/Amazon*", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess", true),
            ("arn:aws:iam::111122223333:policy/a*a", "arn:aws:iam::111122223333:policy/a", false),
        ] {
            assert_eq!(matches(pattern, arn), expected, "{pattern} ~ {arn}");
        }
    }

    proptest! {
        /// A namespace that no grant names gets nothing, whatever the grants hold.
        #[test]
        fn an_unnamed_namespace_gets_nothing(
            names in proptest::collection::vec("[a-m]{1,5}", 0..4),
            policies in proptest::collection::vec(prop_oneof![Just("*".to_owned()), Just(VAULT.to_owned())], 0..3),
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
            prop_assert!(ask(&[grant(&names, &policies)], "zzz", &[]).is_err());
        }
    }
}
