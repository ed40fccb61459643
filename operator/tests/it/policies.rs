//! What the policies allow and deny, by an evaluator that is not the operator's: the boundary, the operator's own policy.

use aws_sim::policy::{Context, Kind, Principal, Query, Verdict, evaluate, parse};
use operator::aws::model::Identity;
use operator::installation::{Installation, NamedIssuer};
use operator::policy::bucket::Bucket;
use operator::policy::{boundary, operator as own};
use serde_json::{Value, json};

use crate::world::ACCOUNT;

const ROLE: &str = "arn:aws:iam::111122223333:role/podidentity/homelab/homelab.vault.vault-x";
const BOUNDARY: &str = "arn:aws:iam::111122223333:policy/podidentity/homelab/homelab.boundary";

fn installation(count: usize) -> Installation {
    let issuer = |n: usize| {
        let bucket = format!("oidc-{n}-111122223333-eu-central-1-an");
        let spec = json!({"clusterName": "homelab", "s3": {"bucket": bucket, "region": "eu-central-1"}});
        NamedIssuer { name: format!("issuer-{n}"), spec: serde_json::from_value(spec).unwrap() }
    };
    Installation::new(&Identity::of_account(ACCOUNT), (0..count).map(issuer)).unwrap()
}

fn ask(document: &Value, action: &str, resource: &str, keys: &[(&str, &str)]) -> Verdict {
    let mut context = Context::new();
    for (key, value) in keys {
        context.entry(key.to_lowercase()).or_default().push((*value).to_owned());
    }
    evaluate(document, Query { action, resource: Some(resource), principal: None, context: &context })
}

#[test]
fn the_boundary_leaves_no_way_to_more_rights() {
    let bucket = "oidc-111122223333-eu-central-1-an";
    let read_only = [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")];
    let document = boundary::policy("aws", ACCOUNT, &read_only);
    parse(&document.to_string(), Kind::Identity).unwrap();
    assert!(document.to_string().len() < 6144, "IAM's limit of a managed policy");
    let object = format!("arn:aws:s3:::{bucket}/homelab/openid/v1/jwks");
    for (action, resource, expected) in [
        ("iam:CreateUser", "*", Verdict::Deny),
        ("organizations:CreateAccount", "*", Verdict::Deny),
        ("account:PutAlternateContact", "*", Verdict::Deny),
        ("sso:CreateAccountAssignment", "*", Verdict::Deny),
        ("sso-directory:CreateUser", "*", Verdict::Deny),
        ("identitystore:CreateGroupMembership", "*", Verdict::Deny),
        ("identitystore-auth:BatchDeleteSession", "*", Verdict::Deny),
        ("identity-sync:CreateSyncProfile", "*", Verdict::Deny),
        ("rolesanywhere:UpdateTrustAnchor", "*", Verdict::Deny),
        ("sts:AssumeRoot", "arn:aws:iam::999999999999:root", Verdict::Deny),
        ("sts:AssumeRole", "arn:aws:iam::111122223333:role/admin", Verdict::Deny),
        ("sts:AssumeRole", "arn:aws:iam::999999999999:role/partner", Verdict::Allow),
        ("s3:CreateAccessGrant", "*", Verdict::Deny),
        ("s3:GetDataAccess", "*", Verdict::Deny),
        ("s3:PutAccountPublicAccessBlock", "*", Verdict::Deny),
        ("s3:PutObject", object.as_str(), Verdict::Deny),
        ("s3:GetObject", object.as_str(), Verdict::Allow),
        ("s3:PutObject", "arn:aws:s3:::data/x", Verdict::Allow),
        ("dynamodb:PutItem", "*", Verdict::Allow),
    ] {
        assert_eq!(ask(&document, action, resource, &[]), expected, "{action} {resource}");
    }
}

/// Action, resource, condition keys, and what is expected.
type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Verdict);

#[test]
fn the_operator_changes_bounded_roles_of_its_cluster_only() {
    let document = own::policy(&installation(1));
    parse(&document.to_string(), Kind::Identity).unwrap();
    let boundary = ("iam:PermissionsBoundary", BOUNDARY);
    let tagged = ("aws:ResourceTag/podidentity.dev/cluster", "homelab");
    let requested = ("aws:RequestTag/podidentity.dev/cluster", "homelab");
    let own_key = ("aws:TagKeys", "podidentity.dev/cluster");
    let policy = |arn| ("iam:PolicyARN", arn);
    let other_boundary = "arn:aws:iam::111122223333:policy/podidentity/office/office.boundary";
    let other = ("iam:PermissionsBoundary", other_boundary);
    let storage = "arn:aws:iam::111122223333:policy/storage";
    let table: &[Row<'_>] = &[
        ("iam:CreateRole", ROLE, &[boundary, requested, own_key], Verdict::Allow),
        ("iam:CreateRole", ROLE, &[other, requested, own_key], Verdict::NoMatch),
        ("iam:CreateRole", ROLE, &[boundary, requested, own_key, ("aws:TagKeys", "team")], Verdict::NoMatch),
        ("iam:TagRole", ROLE, &[boundary, tagged, requested, own_key], Verdict::Allow),
        ("iam:TagRole", ROLE, &[boundary, tagged, requested, ("aws:TagKeys", "team")], Verdict::NoMatch),
        // Whether or not AWS fills the key of the boundary on these calls.
        ("iam:UpdateAssumeRolePolicy", ROLE, &[boundary, tagged], Verdict::Allow),
        ("iam:UpdateAssumeRolePolicy", ROLE, &[tagged], Verdict::Allow),
        ("iam:UpdateAssumeRolePolicy", ROLE, &[other, tagged], Verdict::NoMatch),
        ("iam:UpdateAssumeRolePolicy", ROLE, &[], Verdict::NoMatch),
        ("iam:DeleteRole", ROLE, &[boundary], Verdict::NoMatch),
        ("iam:DeleteRole", ROLE, &[boundary, tagged], Verdict::Allow),
        ("iam:AttachRolePolicy", ROLE, &[boundary, policy(storage)], Verdict::Allow),
        ("iam:AttachRolePolicy", ROLE, &[policy(storage)], Verdict::NoMatch),
        ("iam:AttachRolePolicy", ROLE, &[boundary, policy(BOUNDARY)], Verdict::NoMatch),
        ("iam:AttachRolePolicy", ROLE, &[boundary, policy(other_boundary)], Verdict::NoMatch),
        ("iam:ListRoles", "arn:aws:iam::111122223333:role/podidentity/homelab/", &[], Verdict::Allow),
        ("iam:ListRoles", "arn:aws:iam::111122223333:role/", &[], Verdict::NoMatch),
        ("iam:GetRole", "arn:aws:iam::111122223333:role/admin", &[], Verdict::NoMatch),
        ("iam:ListInstanceProfilesForRole", ROLE, &[], Verdict::Allow),
        ("iam:ListInstanceProfilesForRole", "arn:aws:iam::111122223333:role/admin", &[], Verdict::NoMatch),
        ("iam:PutRolePolicy", ROLE, &[boundary, tagged], Verdict::Allow),
        ("iam:PutRolePolicy", ROLE, &[tagged], Verdict::NoMatch),
        ("iam:PutRolePolicy", "arn:aws:iam::111122223333:role/admin", &[boundary, tagged], Verdict::NoMatch),
        (
            "iam:UntagRole",
            ROLE,
            &[boundary, tagged, ("aws:TagKeys", "podidentity.dev/retained")],
            Verdict::Allow,
        ),
        ("iam:UntagRole", ROLE, &[boundary, tagged, ("aws:TagKeys", "team")], Verdict::NoMatch),
        ("iam:UntagRole", ROLE, &[("aws:TagKeys", "podidentity.dev/retained")], Verdict::NoMatch),
        ("iam:DeleteRolePermissionsBoundary", ROLE, &[boundary, tagged], Verdict::NoMatch),
        ("iam:CreatePolicyVersion", BOUNDARY, &[], Verdict::NoMatch),
        ("s3:DeleteObject", "arn:aws:s3:::oidc-0-111122223333-eu-central-1-an/x", &[], Verdict::NoMatch),
    ];
    for (action, resource, keys, expected) in table {
        assert_eq!(ask(&document, action, resource, keys), *expected, "{action} {resource} {keys:?}");
    }
}

#[test]
fn the_operators_policy_fits_an_inline_policy_for_as_many_issuers_as_its_trust_allows() {
    let length = own::policy(&installation(4)).to_string().len();
    assert!(length < 10_240, "{length}");
}

#[test]
fn the_buckets_policy_keeps_pods_out_and_nobody_else() {
    const OPERATOR: &str = "arn:aws:iam::111122223333:role/podidentity-system/podidentity-operator.homelab";
    const HOST: &str = "b.s3.eu-central-1.amazonaws.com/homelab";
    let provider = format!("arn:aws:iam::111122223333:oidc-provider/{HOST}");
    let url = format!("https://{HOST}");
    let bucket = Bucket {
        partition: "aws",
        name: "b",
        public_keys: ["homelab/.well-known/openid-configuration", "homelab/openid/v1/jwks"],
        provider_arn: &provider,
        issuer_url: &url,
        operator_role_arn: OPERATOR,
    };
    let key = "arn:aws:s3:::b/homelab/openid/v1/jwks";
    let elsewhere = "arn:aws:iam::111122223333:role/terraform/app";
    let others = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com";
    let table: &[(&str, Option<&str>, &str, &str, Verdict)] = &[
        (elsewhere, Some(&provider), "s3:PutObject", "true", Verdict::Deny),
        (elsewhere, Some(HOST), "s3:PutObject", "true", Verdict::Deny),
        (elsewhere, Some(&url), "s3:DeleteObject", "true", Verdict::Deny),
        (elsewhere, Some(&provider), "s3:PutBucketPolicy", "true", Verdict::Deny),
        (elsewhere, Some(&provider), "s3:GetObject", "true", Verdict::Allow),
        (ROLE, None, "s3:PutObject", "true", Verdict::Deny),
        ("arn:aws:iam::999999999999:role/podidentity/office/x", None, "s3:PutObject", "true", Verdict::Deny),
        (OPERATOR, Some(&provider), "s3:PutObject", "true", Verdict::NoMatch),
        (OPERATOR, Some(&provider), "s3:PutObject", "false", Verdict::Deny),
        // People and their automation.
        ("arn:aws:iam::111122223333:user/administrator", None, "s3:PutObject", "true", Verdict::NoMatch),
        (elsewhere, Some(others), "s3:PutObject", "true", Verdict::NoMatch),
        ("arn:aws:iam::111122223333:user/administrator", None, "s3:GetObject", "false", Verdict::Deny),
    ];
    for document in [bucket.policy(), bucket.deny_only()] {
        parse(&document.to_string(), Kind::Resource).unwrap();
    }
    // Before the bucket is public, only what denies is there.
    let documents = [(bucket.policy(), true), (bucket.deny_only(), false)];
    let cases = documents.iter().flat_map(|document| table.iter().map(move |row| (document, row)));
    for ((document, public), (arn, federated, action, tls, expected)) in cases {
        let expected = if *expected == Verdict::Allow && !public { Verdict::NoMatch } else { *expected };
        let mut context = Context::from([
            ("aws:principalarn".to_owned(), vec![(*arn).to_owned()]),
            ("aws:securetransport".to_owned(), vec![(*tls).to_owned()]),
        ]);
        context.extend(federated.map(|value| ("aws:federatedprovider".to_owned(), vec![value.to_owned()])));
        let principal = Principal::Aws { arns: vec![(*arn).to_owned()], account: ACCOUNT.into() };
        let query = Query { action, resource: Some(key), principal: Some(&principal), context: &context };
        assert_eq!(evaluate(document, query), expected, "{arn} {federated:?} {action} {tls}");
    }
}
