//! `AssumeRoleWithWebIdentity`: a token and trust policy that are accepted, and a table of changes after which the call must
//! be refused, each with AWS's error code.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use crate::clients::ACCOUNT;
use crate::exchange::{BUCKET, Case, HOST, SUBJECT, discovery, issuer, jwk, now, trust};

#[tokio::test]
async fn a_token_of_the_published_issuer_is_exchanged() {
    let case = Case::valid();
    let (status, body) = case.assume().await;
    assert_eq!(status, 200, "{body}");
    for part in [
        "<AccessKeyId>ASIA",
        "assumed-role/homelab.vault/session</Arn>",
        "<SubjectFromWebIdentityToken>system:serviceaccount:vault:vault</SubjectFromWebIdentityToken>",
        "<Audience>sts.amazonaws.com</Audience>",
    ] {
        assert!(body.contains(part), "{part} is not in {body}");
    }
    let read: Vec<_> = case.sim.calls().into_iter().filter(|c| c.action == "GetObject").collect();
    assert_eq!(read.len(), 2, "both documents are read");
    assert!(read.iter().all(|c| c.principal == "anonymous"), "anonymously");
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn what_aws_refuses_is_refused_with_its_error_code() {
    type Change = fn(&mut Case);
    let invalid = (400, "InvalidIdentityToken");
    let denied = (403, "AccessDenied");
    let validation = (400, "ValidationError");
    let cases: &[(&str, Change, (u16, &str))] = &[
        ("no JWT at all", |c| c.token = Some("junkjunk".into()), invalid),
        ("two parts", |c| c.token = Some("abcd.efgh".into()), invalid),
        ("payload that is no object", |c| c.token = Some("e30.WzFd.AA".into()), invalid),
        ("no issuer", |c| drop(c.claims.as_object_mut().unwrap().remove("iss")), invalid),
        ("another issuer", |c| c.claims["iss"] = json!("https://other.example.com"), invalid),
        ("issuer with a trailing slash", |c| c.claims["iss"] = json!(issuer() + "/"), invalid),
        ("issuer over http", |c| c.claims["iss"] = json!(issuer().replace("https", "http")), invalid),
        ("issuer in other case", |c| c.claims["iss"] = json!(issuer().to_uppercase()), invalid),
        ("no subject", |c| drop(c.claims.as_object_mut().unwrap().remove("sub")), invalid),
        ("no audience", |c| drop(c.claims.as_object_mut().unwrap().remove("aud")), invalid),
        ("no expiry", |c| drop(c.claims.as_object_mut().unwrap().remove("exp")), invalid),
        ("no time of issue", |c| drop(c.claims.as_object_mut().unwrap().remove("iat")), invalid),
        ("expiry that is no integer", |c| c.claims["exp"] = json!("tomorrow"), invalid),
        ("issued in the future", |c| c.claims["iat"] = json!(now() + 600), invalid),
        ("not valid yet", |c| c.claims["nbf"] = json!(now() + 600), invalid),
        ("an unregistered audience", |c| c.claims["aud"] = json!(["vault"]), invalid),
        ("two audiences", |c| c.claims["aud"] = json!(["sts.amazonaws.com", "vault"]), invalid),
        ("an authorized party that is no client", |c| c.claims["azp"] = json!("vault"), invalid),
        ("expired beyond grace", |c| c.claims["exp"] = json!(now() - 301), (400, "ExpiredTokenException")),
        ("an unknown key", |c| c.header.kid = Some("two".into()), invalid),
        ("no key id", |c| c.header.kid = None, invalid),
        ("another key under the same id", |c| c.key = KeyPair::generate().unwrap(), invalid),
        (
            "a changed payload",
            |c| {
                let signed = c.signed();
                let parts: Vec<&str> = signed.split('.').collect();
                c.claims["sub"] = json!("system:serviceaccount:kube-system:admin");
                let forged = URL_SAFE_NO_PAD.encode(c.claims.to_string());
                c.token = Some(format!("{}.{forged}.{}", parts[0], parts[2]));
            },
            invalid,
        ),
        (
            "no signature and alg none",
            |c| {
                let part = |v: Value| URL_SAFE_NO_PAD.encode(v.to_string());
                c.token = Some(format!(
                    "{}.{}.AA",
                    part(json!({"alg": "none", "kid": "one"})),
                    part(c.claims.clone())
                ));
            },
            invalid,
        ),
        (
            "HMAC with the public key as secret",
            |c| {
                let mut header = Header::new(Algorithm::HS256);
                header.kid = Some("one".into());
                let secret = EncodingKey::from_secret(c.key.der_bytes());
                c.token = Some(encode(&header, &c.claims, &secret).unwrap());
            },
            invalid,
        ),
        (
            "no published discovery document",
            |c| {
                c.sim.change(|s| {
                    s.buckets
                        .get_mut(BUCKET)
                        .unwrap()
                        .objects
                        .remove("homelab/.well-known/openid-configuration")
                });
            },
            invalid,
        ),
        (
            "a discovery document of another issuer",
            |c| {
                let mut other = discovery();
                other["issuer"] = json!("https://other.example.com");
                c.publish(&other, &json!({"keys": [jwk(&c.key, "one")]}));
            },
            invalid,
        ),
        (
            "a discovery document without a required member",
            |c| {
                let mut other = discovery();
                other.as_object_mut().unwrap().remove("subject_types_supported");
                c.publish(&other, &json!({"keys": [jwk(&c.key, "one")]}));
            },
            invalid,
        ),
        (
            "an internal jwks_uri",
            |c| {
                let mut other = discovery();
                other["jwks_uri"] = json!("http://10.0.0.1/openid/v1/jwks");
                c.publish(&other, &json!({"keys": [jwk(&c.key, "one")]}));
            },
            invalid,
        ),
        ("an empty key set", |c| c.publish(&discovery(), &json!({"keys": []})), invalid),
        (
            "101 keys",
            |c| {
                let keys: Vec<Value> = (0..101)
                    .map(|n| jwk(&c.key, &if n == 0 { "one".into() } else { n.to_string() }))
                    .collect();
                c.publish(&discovery(), &json!({"keys": keys}));
            },
            invalid,
        ),
        (
            "documents that are not public",
            |c| {
                c.sim.change(|s| s.buckets.get_mut(BUCKET).unwrap().policy = None);
            },
            invalid,
        ),
        (
            "a public policy under RestrictPublicBuckets",
            |c| {
                c.sim.change(|s| s.buckets.get_mut(BUCKET).unwrap().public_access_block[3] = true);
            },
            invalid,
        ),
        ("no provider", |c| c.sim.change(|s| s.providers.clear()), invalid),
        ("no role", |c| c.sim.change(|s| s.roles.clear()), denied),
        (
            "a role ARN without its path",
            |c| c.role = format!("arn:aws:iam::{ACCOUNT}:role/homelab.vault"),
            denied,
        ),
        ("a role of another account", |c| c.role = c.role.replace(ACCOUNT, "999999999999"), invalid),
        (
            "another subject in the trust policy",
            |c| {
                c.set_trust(trust(
                    "Allow",
                    "StringEquals",
                    "system:serviceaccount:vault:other",
                    "sts.amazonaws.com",
                ));
            },
            denied,
        ),
        (
            "a wildcard under StringEquals",
            |c| {
                c.set_trust(trust(
                    "Allow",
                    "StringEquals",
                    "system:serviceaccount:vault:*",
                    "sts.amazonaws.com",
                ));
            },
            denied,
        ),
        (
            "another audience in the trust policy",
            |c| c.set_trust(trust("Allow", "StringEquals", SUBJECT, "vault")),
            denied,
        ),
        (
            "a trust policy that denies",
            |c| c.set_trust(trust("Deny", "StringEquals", SUBJECT, "sts.amazonaws.com")),
            denied,
        ),
        (
            "a claim that is no condition key",
            |c| {
                let mut other = trust("Allow", "StringEquals", SUBJECT, "sts.amazonaws.com");
                other["Statement"][0]["Condition"]["StringEquals"]
                    [format!("{HOST}/homelab:kubernetes.io/namespace")] = json!("vault");
                c.set_trust(other);
            },
            denied,
        ),
        (
            "trust in another provider",
            |c| {
                let mut other = trust("Allow", "StringEquals", SUBJECT, "sts.amazonaws.com");
                other["Statement"][0]["Principal"]["Federated"] =
                    json!(format!("arn:aws:iam::{ACCOUNT}:oidc-provider/x"));
                c.set_trust(other);
            },
            denied,
        ),
        ("a session longer than the role's", |c| c.seconds = "7200".into(), validation),
        ("a session shorter than STS's", |c| c.seconds = "899".into(), validation),
        ("a session name with a slash", |c| c.session_name = "a/b".into(), validation),
        (
            "a session policy without statements",
            |c| c.policy = Some("{}".into()),
            (400, "MalformedPolicyDocument"),
        ),
    ];
    assert!(cases.len() >= 30);
    for (what, change, (status, code)) in cases {
        let mut case = Case::valid();
        change(&mut case);
        let (found, body) = case.assume().await;
        assert_eq!(found, *status, "{what}: {body}");
        assert!(body.contains(&format!("<Code>{code}</Code>")), "{what}: {body}");
    }
}

#[tokio::test]
async fn the_grace_after_expiry_is_five_minutes() {
    let mut case = Case::valid();
    case.claims["exp"] = json!(now() - 200);
    assert_eq!(case.assume().await.0, 200);
}
