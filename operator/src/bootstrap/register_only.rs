//! PURE: `bootstrap --register-only`: the issuers of a file as they are in a second AWS account. Their documents are published
//! from the first one.

use crds::names::{account_of_bucket, operator_role_arn};
use crds::{Finding, OidcIssuer, OidcIssuerSpec, Reason};

use crate::aws::model::Identity;
use crate::installation::NamedIssuer;

/// The issuers with the same URLs in the account of these credentials. One whose `operatorRoleARN` is of this account stays as it is.
///
/// # Errors
/// If the account is the one in which the documents are.
pub fn issuers(of_file: &[NamedIssuer], identity: &Identity) -> Result<Vec<NamedIssuer>, Finding> {
    of_file.iter().map(|issuer| second(issuer, identity)).collect()
}

fn second(issuer: &NamedIssuer, identity: &Identity) -> Result<NamedIssuer, Finding> {
    let NamedIssuer { name, spec } = issuer;
    let account = &identity.account;
    if spec.role_account() == Some(account) {
        return Ok(issuer.clone()); // it is this account's already
    }
    let of_bucket = || spec.s3.as_ref().and_then(|s3| account_of_bucket(&s3.bucket, &s3.region));
    let first = spec.account_id.as_deref().or_else(of_bucket);
    if first == Some(account) {
        let message = format!(
            "OidcIssuer {name} publishes its documents in account {account}, and these credentials are of the same one: \
             --register-only is for another account. Use its credentials, or leave the option out"
        );
        return Err(Finding::new(Reason::InvalidSpec, message));
    }
    let partition = spec.partition().unwrap_or_else(|| identity.partition()).id;
    // The account is the fifth part of an ARN: the organisation's boundary has one name in all of its accounts.
    let same_policy = |arn: &String| {
        let mut parts: Vec<&str> = arn.splitn(6, ':').collect();
        if let Some(part) = parts.get_mut(4) {
            *part = account;
        }
        parts.join(":")
    };
    let second = OidcIssuerSpec {
        issuer_url: Some(spec.issuer_url()),
        s3: None,
        account_id: Some(account.clone()),
        operator_role_arn: Some(operator_role_arn(partition, account, &spec.cluster_name)),
        permissions_boundary: spec.permissions_boundary.as_ref().map(same_policy),
        // They name policies of the first account, and keys are published from there.
        grants: Vec::new(),
        keys: None,
        ..spec.clone()
    };
    Ok(NamedIssuer { name: format!("{name}-{account}"), spec: second })
}

/// The objects as a person adds them to Git.
#[must_use]
pub fn manifest(issuers: &[NamedIssuer]) -> String {
    let object = |NamedIssuer { name, spec }: &NamedIssuer| {
        let text = serde_saphyr::to_string(&OidcIssuer::new(name, spec.clone())).unwrap_or_default();
        format!(
            "{}\n  # grants: which namespaces may make roles in this account, with which policies",
            text.trim_end()
        )
    };
    issuers.iter().map(object).collect::<Vec<_>>().join("\n---\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::issuer_file;

    #[test]
    fn an_issuer_keeps_its_url_and_gets_a_name_and_a_role_of_the_other_account() {
        let file = json!({"apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": {"name": "default"}, "spec": {
            "clusterName": "homelab", "audiences": ["vault"], "tags": {"team": "platform"},
            "s3": {"bucket": "oidc-111122223333-eu-central-1-an", "region": "eu-central-1"},
            "permissionsBoundary": "arn:aws:iam::111122223333:policy/org/limit",
            "grants": [{"name": "x", "policyARNs": ["*"]}],
        }});
        let of_file = issuer_file::parse("f", &file.to_string()).unwrap();
        let second = issuers(&of_file, &Identity::of_account("999999999999")).unwrap();
        let expected = "\
apiVersion: podidentity.dev/v1alpha1
kind: OidcIssuer
metadata:
  name: default-999999999999
spec:
  clusterName: homelab
  issuerURL: https://oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com/homelab
  audiences:
  - vault
  accountID: \"999999999999\"
  operatorRoleARN: arn:aws:iam::999999999999:role/podidentity-system/podidentity-operator.homelab
  permissionsBoundary: arn:aws:iam::999999999999:policy/org/limit
  tags:
    team: platform
  deletionPolicy: Retain
  # grants: which namespaces may make roles in this account, with which policies";
        assert_eq!(manifest(&second), expected);
        // What is printed is a file for every subcommand.
        assert_eq!(issuer_file::parse("f", &manifest(&second)).unwrap(), second);
        let refused = issuers(&of_file, &Identity::of_account("111122223333")).unwrap_err();
        assert!(refused.message.contains("--register-only is for another account"), "{refused:?}");
        let again = issuers(&second, &Identity::of_account("999999999999")).unwrap();
        assert_eq!(again, second, "it is of this account");
        // The documents of another publisher, for example of a managed Kubernetes.
        let mut elsewhere = of_file.clone();
        (elsewhere[0].spec.s3, elsewhere[0].spec.issuer_url) =
            (None, Some("https://oidc.example.com/id/".into()));
        let second = issuers(&elsewhere, &Identity::of_account("999999999999")).unwrap();
        assert_eq!(
            (second[0].name.as_str(), second[0].spec.role_account()),
            ("default-999999999999", Some("999999999999"))
        );
    }
}
