//! A call to `AssumeRoleWithWebIdentity` that succeeds, in parts that a test may change.

use aws_credential_types::Credentials;
use aws_sim::{Provider, Settings, Sim, Tags};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use crate::clients::{ACCOUNT, Clients, allow};

pub const HOST: &str = "oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com";
pub const BUCKET: &str = "oidc-111122223333-eu-central-1-an";
pub const SUBJECT: &str = "system:serviceaccount:vault:vault";

pub fn issuer() -> String {
    format!("https://{HOST}/homelab")
}

/// A call that succeeds, in parts that a row of the table may change.
pub struct Case {
    pub sim: Sim,
    pub key: KeyPair,
    pub header: Header,
    pub claims: Value,
    pub role: String,
    pub seconds: String,
    pub session_name: String,
    pub policy: Option<String>,
    pub token: Option<String>,
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

pub fn jwk(key: &KeyPair, kid: &str) -> Value {
    let point = key.der_bytes();
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": coordinate(1..33), "y": coordinate(33..65)})
}

pub fn discovery() -> Value {
    json!({
        "issuer": issuer(),
        "jwks_uri": format!("{}/openid/v1/jwks", issuer()),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

pub fn provider_arn() -> String {
    format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{HOST}/homelab")
}

pub fn trust(effect: &str, operator: &str, subject: &str, audience: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": effect,
        "Principal": {"Federated": provider_arn()},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {operator: {
            (format!("{HOST}/homelab:sub")): subject,
            (format!("{HOST}/homelab:aud")): audience,
        }},
    }]})
}

impl Case {
    pub fn valid() -> Self {
        let sim = Sim::new(Settings::default());
        let key = KeyPair::generate().unwrap();
        sim.put_bucket(BUCKET, ACCOUNT);
        sim.change(|state| {
            let bucket = state.buckets.get_mut(BUCKET).unwrap();
            bucket.public_access_block = [true, true, false, false];
            bucket.policy = Some(json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
                "Resource": [format!("arn:aws:s3:::{BUCKET}/homelab/*")],
            }]}));
            let provider = Provider {
                url: format!("{HOST}/homelab"),
                client_ids: vec!["sts.amazonaws.com".into()],
                tags: Tags::new(),
            };
            state.providers.insert(provider_arn(), provider);
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("one".into());
        let role = sim.put_role(
            "/podidentity/homelab/",
            "homelab.vault",
            trust("Allow", "StringEquals", SUBJECT, "sts.amazonaws.com"),
            &[],
        );
        let case = Self {
            claims: json!({
                "iss": issuer(), "sub": SUBJECT, "aud": ["sts.amazonaws.com"],
                "iat": now(), "nbf": now(), "exp": now() + 3600,
            }),
            sim,
            key,
            header,
            role,
            seconds: "3600".into(),
            session_name: "session".into(),
            policy: None,
            token: None,
        };
        case.publish(&discovery(), &json!({"keys": [jwk(&case.key, "one")]}));
        case
    }

    pub fn publish(&self, discovery: &Value, jwks: &Value) {
        self.sim.put_object(BUCKET, "homelab/.well-known/openid-configuration", discovery.to_string());
        self.sim.put_object(BUCKET, "homelab/openid/v1/jwks", jwks.to_string());
    }

    pub fn set_trust(&self, trust: Value) {
        self.sim.change(|state| state.roles.get_mut("homelab.vault").unwrap().trust = trust);
    }

    pub fn signed(&self) -> String {
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        encode(&self.header, &self.claims, &key).unwrap()
    }

    pub async fn assume(&self) -> (u16, String) {
        let token = self.token.clone().unwrap_or_else(|| self.signed());
        let mut form = format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName={}&DurationSeconds={}&WebIdentityToken={token}",
            self.role, self.session_name, self.seconds
        );
        if let Some(policy) = &self.policy {
            form.push_str("&Policy=");
            form.push_str(policy);
        }
        let request =
            http::Request::post("https://sts.eu-central-1.amazonaws.com/").body(Bytes::from(form)).unwrap();
        let response = self.sim.handle(request).await.unwrap();
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        (response.status().as_u16(), body)
    }

    /// Clients of a session that the call returns.
    pub async fn session(&self) -> Clients {
        let (status, body) = self.assume().await;
        assert_eq!(status, 200, "{body}");
        let text = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let keys = Credentials::new(
            text("AccessKeyId"),
            text("SecretAccessKey"),
            Some(text("SessionToken")),
            None,
            "test",
        );
        Clients::of(&self.sim, keys)
    }

    /// The same with this inline policy in the role: what its sessions may do.
    pub fn may(self, action: &str, resource: &str) -> Self {
        self.inline("may", allow(action, resource));
        self
    }

    /// Puts an inline policy into the role.
    pub fn inline(&self, name: &str, document: Value) {
        self.sim.change(|state| {
            let role = state.roles.get_mut("homelab.vault").unwrap();
            role.inline.insert(name.into(), document);
        });
    }
}
