//! Amazon S3: one bucket, its configuration, and two objects. Every call that can carries the expected owner.

use std::sync::Arc;

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketNamespace, CreateBucketConfiguration, ObjectOwnership, OwnershipControls,
    OwnershipControlsRule, PublicAccessBlockConfiguration, Tag,
};

use super::Tags;
use super::error::{AwsError, Class, optional, tolerate};
use crate::metrics::Metrics;

/// S3 in one region, for one account's buckets.
#[derive(Clone)]
pub struct S3 {
    client: Client,
    region: String,
    account: String,
    metrics: Arc<Metrics>,
}

/// The four flags of a bucket's public-access block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "S3's own shape")]
pub struct PublicAccess {
    /// Refuse public ACLs.
    pub block_acls: bool,
    /// Ignore public ACLs.
    pub ignore_acls: bool,
    /// Refuse public bucket policies.
    pub block_policy: bool,
    /// Ignore public bucket policies for strangers.
    pub restrict_buckets: bool,
}

/// An object as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub body: Vec<u8>,
    /// The entity tag, for conditional writes.
    pub etag: String,
    /// `Content-Type`.
    pub content_type: String,
    /// `Cache-Control`.
    pub cache_control: String,
}

macro_rules! call {
    ($self:ident, $operation:literal, $resource:expr, $builder:expr) => {
        $self.metrics.aws(concat!("s3:", $operation), $resource, $builder.send().await)
    };
}

impl S3 {
    pub(super) fn new(config: &SdkConfig, region: &str, account: &str, metrics: Arc<Metrics>) -> Self {
        let config = aws_sdk_s3::config::Builder::from(config).region(Region::new(region.to_owned())).build();
        Self {
            client: Client::from_conf(config),
            region: region.to_owned(),
            account: account.to_owned(),
            metrics,
        }
    }

    /// The bucket's tags, `None` where there is no such bucket.
    pub async fn tags(&self, bucket: &str) -> Result<Option<Tags>, AwsError> {
        let request = self.client.get_bucket_tagging().bucket(bucket).expected_bucket_owner(&self.account);
        match call!(self, "GetBucketTagging", bucket, request) {
            Ok(answer) => {
                Ok(Some(answer.tag_set().iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()))
            }
            Err(error) if error.code == "NoSuchTagSet" => Ok(Some(Tags::new())),
            Err(error) => optional(Err(error)),
        }
    }

    /// Makes a bucket with its tags and without ACLs in one call: owned from its first instant. Names that end in
    /// `-<account>-<region>-an` are made in the account-regional namespace.
    pub async fn create(&self, bucket: &str, tags: &Tags) -> Result<(), AwsError> {
        let tags = tags
            .iter()
            .filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok())
            .collect();
        // us-east-1 is the one region that refuses its own name as location.
        let location =
            (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.as_str()));
        let configuration = CreateBucketConfiguration::builder()
            .set_location_constraint(location)
            .set_tags(Some(tags))
            .build();
        let own = bucket.ends_with(&format!("-{}-{}-an", self.account, self.region));
        let request = self
            .client
            .create_bucket()
            .bucket(bucket)
            .create_bucket_configuration(configuration)
            .object_ownership(ObjectOwnership::BucketOwnerEnforced)
            .set_bucket_namespace(own.then_some(BucketNamespace::AccountRegional));
        call!(self, "CreateBucket", bucket, request).map(|_| ())
    }

    /// Whether ACLs are off (`BucketOwnerEnforced`).
    pub async fn owner_enforced(&self, bucket: &str) -> Result<bool, AwsError> {
        let request =
            self.client.get_bucket_ownership_controls().bucket(bucket).expected_bucket_owner(&self.account);
        let answer = optional(call!(self, "GetBucketOwnershipControls", bucket, request))?;
        Ok(answer.and_then(|a| a.ownership_controls).is_some_and(|c| {
            c.rules().iter().all(|r| r.object_ownership == ObjectOwnership::BucketOwnerEnforced)
        }))
    }

    /// Turns ACLs off.
    pub async fn enforce_owner(&self, bucket: &str) -> Result<(), AwsError> {
        let rule =
            OwnershipControlsRule::builder().object_ownership(ObjectOwnership::BucketOwnerEnforced).build();
        let controls = rule.and_then(|rule| OwnershipControls::builder().rules(rule).build()).ok();
        let request = self
            .client
            .put_bucket_ownership_controls()
            .bucket(bucket)
            .set_ownership_controls(controls)
            .expected_bucket_owner(&self.account);
        call!(self, "PutBucketOwnershipControls", bucket, request).map(|_| ())
    }

    /// The bucket's public-access block; none is all four off.
    pub async fn public_access(&self, bucket: &str) -> Result<PublicAccess, AwsError> {
        let request =
            self.client.get_public_access_block().bucket(bucket).expected_bucket_owner(&self.account);
        let answer = optional(call!(self, "GetPublicAccessBlock", bucket, request))?;
        Ok(answer
            .and_then(|a| a.public_access_block_configuration)
            .map(|c| PublicAccess {
                block_acls: c.block_public_acls.unwrap_or_default(),
                ignore_acls: c.ignore_public_acls.unwrap_or_default(),
                block_policy: c.block_public_policy.unwrap_or_default(),
                restrict_buckets: c.restrict_public_buckets.unwrap_or_default(),
            })
            .unwrap_or_default())
    }

    /// Sets the bucket's public-access block.
    pub async fn put_public_access(&self, bucket: &str, access: PublicAccess) -> Result<(), AwsError> {
        let configuration = PublicAccessBlockConfiguration::builder()
            .block_public_acls(access.block_acls)
            .ignore_public_acls(access.ignore_acls)
            .block_public_policy(access.block_policy)
            .restrict_public_buckets(access.restrict_buckets)
            .build();
        let request = self
            .client
            .put_public_access_block()
            .bucket(bucket)
            .public_access_block_configuration(configuration)
            .expected_bucket_owner(&self.account);
        call!(self, "PutPublicAccessBlock", bucket, request).map(|_| ())
    }

    /// The bucket's policy, if it has one.
    pub async fn policy(&self, bucket: &str) -> Result<Option<String>, AwsError> {
        let request = self.client.get_bucket_policy().bucket(bucket).expected_bucket_owner(&self.account);
        Ok(optional(call!(self, "GetBucketPolicy", bucket, request))?.and_then(|a| a.policy))
    }

    /// Replaces the bucket's policy.
    pub async fn put_policy(&self, bucket: &str, document: &str) -> Result<(), AwsError> {
        let request = self
            .client
            .put_bucket_policy()
            .bucket(bucket)
            .policy(document)
            .expected_bucket_owner(&self.account);
        call!(self, "PutBucketPolicy", bucket, request).map(|_| ())
    }

    /// An object, if it exists.
    pub async fn object(&self, bucket: &str, key: &str) -> Result<Option<Object>, AwsError> {
        let request = self.client.get_object().bucket(bucket).key(key).expected_bucket_owner(&self.account);
        let Some(answer) = optional(call!(self, "GetObject", key, request))? else { return Ok(None) };
        let etag = answer.e_tag.unwrap_or_default();
        let (content_type, cache_control) =
            (answer.content_type.unwrap_or_default(), answer.cache_control.unwrap_or_default());
        let body = answer.body.collect().await.map_err(|e| AwsError {
            class: Class::Transient,
            operation: "s3:GetObject",
            resource: key.to_owned(),
            code: String::new(),
            message: "the answer broke off".into(),
            detail: e.to_string(),
        })?;
        Ok(Some(Object { body: body.to_vec(), etag, content_type, cache_control }))
    }

    /// Writes an object: over the version of that entity tag, or only where none stands.
    pub async fn put_object(
        &self,
        bucket: &str,
        key: &str,
        body: &[u8],
        over: Option<&str>,
    ) -> Result<(), AwsError> {
        let request = self
            .client
            .put_object()
            .bucket(bucket)
            .key(key)
            .body(body.to_vec().into())
            .content_type(CONTENT_TYPE)
            .cache_control(CACHE_CONTROL)
            .set_if_match(over.map(str::to_owned))
            .set_if_none_match(over.is_none().then(|| "*".to_owned()))
            .expected_bucket_owner(&self.account);
        call!(self, "PutObject", key, request).map(|_| ())
    }

    /// Removes an object; no error if it is gone.
    pub async fn delete_object(&self, bucket: &str, key: &str) -> Result<(), AwsError> {
        let request =
            self.client.delete_object().bucket(bucket).key(key).expected_bucket_owner(&self.account);
        tolerate(Class::NotFound, call!(self, "DeleteObject", key, request))
    }

    /// Removes an empty bucket; no error if it is gone.
    pub async fn delete(&self, bucket: &str) -> Result<(), AwsError> {
        let request = self.client.delete_bucket().bucket(bucket).expected_bucket_owner(&self.account);
        tolerate(Class::NotFound, call!(self, "DeleteBucket", bucket, request))
    }
}

/// The media type of both documents; S3 would say `application/octet-stream`.
pub const CONTENT_TYPE: &str = "application/json";
/// Short: a new signing key must reach STS soon, whatever sits between.
pub const CACHE_CONTROL: &str = "max-age=60";
