//! The AWS SDK's clients of a simulated account.

use aws_credential_types::Credentials;
use aws_sdk_iam::config::{BehaviorVersion, Region};
use aws_sdk_iam::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{BucketLocationConstraint, BucketNamespace, CreateBucketConfiguration};
use aws_sim::{Settings, Sim, sdk};
use serde_json::{Value, json};

pub const ACCOUNT: &str = "111122223333";
pub const BUCKET: &str = "data-111122223333-eu-central-1-an";

pub struct Clients {
    pub sim: Sim,
    pub iam: aws_sdk_iam::Client,
    pub s3: aws_sdk_s3::Client,
}

impl Clients {
    pub fn of(sim: &Sim, keys: Credentials) -> Self {
        let http = sdk::http_client(sim);
        let region = Region::new(sim.settings().region.clone());
        let iam = aws_sdk_iam::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .credentials_provider(keys.clone())
            .http_client(http.clone())
            .build();
        let s3 = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(region)
            .credentials_provider(keys)
            .http_client(http)
            .build();
        Self {
            sim: sim.clone(),
            iam: aws_sdk_iam::Client::from_conf(iam),
            s3: aws_sdk_s3::Client::from_conf(s3),
        }
    }

    pub fn administrator() -> Self {
        Self::of_administrator(&Sim::new(Settings::default()))
    }

    pub fn of_administrator(sim: &Sim) -> Self {
        let keys = sim.administrator();
        Self::of(sim, Credentials::new(keys.access_key_id, keys.secret_access_key, None, None, "test"))
    }

    pub async fn role(&self, name: &str, path: &str, trust: &Value) -> String {
        let made =
            self.iam.create_role().role_name(name).path(path).assume_role_policy_document(trust.to_string());
        outcome(made.send().await)
    }

    pub async fn bucket(&self) {
        let made = self
            .s3
            .create_bucket()
            .bucket(BUCKET)
            .bucket_namespace(BucketNamespace::AccountRegional)
            .create_bucket_configuration(
                CreateBucketConfiguration::builder()
                    .location_constraint(BucketLocationConstraint::EuCentral1)
                    .build(),
            );
        made.send().await.unwrap();
    }

    pub async fn put(&self, key: &str) -> String {
        outcome(self.s3.put_object().bucket(BUCKET).key(key).body(b"x".to_vec().into()).send().await)
    }

    pub async fn anonymous_read(&self, key: &str) -> u16 {
        let url = format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com/{key}");
        let request = http::Request::get(url).body(bytes::Bytes::new()).unwrap();
        self.sim.handle(request).await.unwrap().status().as_u16()
    }
}

/// `ok`, or AWS's error code.
pub fn outcome<T, E, R>(result: Result<T, aws_sdk_iam::error::SdkError<E, R>>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match result {
        Ok(_) => "ok".into(),
        Err(error) => error.as_service_error().and_then(|e| e.code()).unwrap_or("no response").to_owned(),
    }
}

pub fn trust() -> Value {
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole",
    }]})
}

pub fn allow(action: &str, resource: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]})
}

pub fn public() -> Value {
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{BUCKET}/open"),
    }]})
}
