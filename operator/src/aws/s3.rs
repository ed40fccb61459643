//! Amazon S3: one bucket, its configuration, and two objects. Every call that supports it carries the expected bucket owner:
//! bucket names are global, and a bucket of that name may belong to another account.

use std::collections::HashMap;

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketNamespace, CreateBucketConfiguration, ObjectOwnership, OwnershipControls,
    OwnershipControlsRule, PublicAccessBlockConfiguration, ServerSideEncryption, Tag, Tagging,
};
use crds::names::account_of_bucket;

use super::call::Calls;
use super::error::{AwsError, Class, optional, tolerate};
use super::model::{BucketRef, CACHE_CONTROL, CLOCKS, CONTENT_TYPE, Object, PublicAccess, S3Write, Tags};

/// Calls on one bucket, in its region.
#[derive(Clone)]
pub struct S3 {
    client: Client,
    bucket: BucketRef,
    calls: Calls,
}

macro_rules! call {
    ($self:ident, $operation:literal, $resource:expr, $builder:expr) => {{
        $self.calls.permit(concat!("s3:", $operation)).await;
        $self.calls.record(concat!("s3:", $operation), $resource, $builder.send().await)
    }};
}

impl S3 {
    pub(super) fn new(config: &SdkConfig, bucket: BucketRef, calls: Calls) -> Self {
        let region = Region::new(bucket.region.clone());
        let config = Builder::from(config).region(region).interceptor(calls.clone()).build();
        Self { client: Client::from_conf(config), bucket, calls }
    }

    /// Makes one change.
    ///
    /// # Errors
    /// Not if the bucket to create exists already, or the object or bucket to delete does not exist.
    pub async fn apply(&self, write: &S3Write) -> Result<(), AwsError> {
        match write {
            // It exists after a crash, or if another administrator was faster: the next read of its tags shows its owner.
            S3Write::CreateBucket { tags } => tolerate(Class::AlreadyExists, self.create(tags).await),
            S3Write::PutTags(tags) => self.put_tags(tags).await,
            S3Write::EnforceOwner => self.enforce_owner().await,
            S3Write::PutPolicy(document) => self.put_policy(&document.to_string()).await,
            S3Write::PutPublicAccess(access) => self.put_public_access(*access).await,
            S3Write::PutObject { key, body, clocks, over } => {
                self.put_object(key, body, clocks, over.as_deref()).await
            }
            S3Write::DeleteObject { key } => self.delete_object(key).await,
            S3Write::DeleteBucket => self.delete().await,
        }
    }

    /// The bucket's tags, `None` where there is no such bucket.
    pub async fn tags(&self) -> Result<Option<Tags>, AwsError> {
        let request = self
            .client
            .get_bucket_tagging()
            .bucket(&self.bucket.name)
            .expected_bucket_owner(&self.bucket.owner);
        match call!(self, "GetBucketTagging", &self.bucket.name, request) {
            Ok(response) => {
                Ok(Some(response.tag_set().iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()))
            }
            Err(error) if error.code == "NoSuchTagSet" => Ok(Some(Tags::new())),
            Err(error) => optional(Err(error)),
        }
    }

    /// Whether the bucket exists.
    pub async fn exists(&self) -> Result<bool, AwsError> {
        let request =
            self.client.head_bucket().bucket(&self.bucket.name).expected_bucket_owner(&self.bucket.owner);
        match optional(call!(self, "HeadBucket", &self.bucket.name, request)) {
            Ok(found) => Ok(found.is_some()),
            // The answer to HEAD has no body.
            Err(error) if error.code == "403" => Err(AwsError {
                class: Class::Denied,
                message: "S3 gives no reason; the bucket may also belong to another account".into(),
                ..error
            }),
            Err(error) => Err(error),
        }
    }

    /// Creates the bucket with its tags and without ACLs in one call, so that its owner is always known. Names that end in
    /// `-<account>-<region>-an` belong to the account-regional namespace, which the call must name.
    async fn create(&self, tags: &Tags) -> Result<(), AwsError> {
        let BucketRef { name, region, owner } = &self.bucket;
        let tags = tags
            .iter()
            .filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok())
            .collect();
        // us-east-1 is the only region that is refused as location constraint.
        let location = (region != "us-east-1").then(|| BucketLocationConstraint::from(region.as_str()));
        let configuration = CreateBucketConfiguration::builder()
            .set_location_constraint(location)
            .set_tags(Some(tags))
            .build();
        let account_regional = account_of_bucket(name, region).is_some_and(|account| account == owner);
        let request = self
            .client
            .create_bucket()
            .bucket(&self.bucket.name)
            .create_bucket_configuration(configuration)
            .object_ownership(ObjectOwnership::BucketOwnerEnforced)
            .set_bucket_namespace(account_regional.then_some(BucketNamespace::AccountRegional));
        call!(self, "CreateBucket", &self.bucket.name, request).map(|_| ())
    }

    async fn put_tags(&self, tags: &Tags) -> Result<(), AwsError> {
        let tags = tags
            .iter()
            .filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok())
            .collect();
        let request = self
            .client
            .put_bucket_tagging()
            .bucket(&self.bucket.name)
            .set_tagging(Tagging::builder().set_tag_set(Some(tags)).build().ok())
            .expected_bucket_owner(&self.bucket.owner);
        call!(self, "PutBucketTagging", &self.bucket.name, request).map(|_| ())
    }

    /// Whether the bucket has no object.
    pub async fn is_empty(&self) -> Result<bool, AwsError> {
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket.name)
            .max_keys(1)
            .expected_bucket_owner(&self.bucket.owner);
        let page = call!(self, "ListObjectsV2", &self.bucket.name, request)?;
        Ok(page.contents().is_empty())
    }

    /// Whether ACLs are off (`BucketOwnerEnforced`).
    pub async fn owner_enforced(&self) -> Result<bool, AwsError> {
        let request = self
            .client
            .get_bucket_ownership_controls()
            .bucket(&self.bucket.name)
            .expected_bucket_owner(&self.bucket.owner);
        let response = optional(call!(self, "GetBucketOwnershipControls", &self.bucket.name, request))?;
        Ok(response.and_then(|a| a.ownership_controls).is_some_and(|c| {
            c.rules().iter().all(|r| r.object_ownership == ObjectOwnership::BucketOwnerEnforced)
        }))
    }

    /// Turns ACLs off.
    async fn enforce_owner(&self) -> Result<(), AwsError> {
        let rule =
            OwnershipControlsRule::builder().object_ownership(ObjectOwnership::BucketOwnerEnforced).build();
        let controls = rule.and_then(|rule| OwnershipControls::builder().rules(rule).build()).ok();
        let request = self
            .client
            .put_bucket_ownership_controls()
            .bucket(&self.bucket.name)
            .set_ownership_controls(controls)
            .expected_bucket_owner(&self.bucket.owner);
        call!(self, "PutBucketOwnershipControls", &self.bucket.name, request).map(|_| ())
    }

    /// The bucket's public-access block; without one, all four settings are off.
    pub async fn public_access(&self) -> Result<PublicAccess, AwsError> {
        let request = self
            .client
            .get_public_access_block()
            .bucket(&self.bucket.name)
            .expected_bucket_owner(&self.bucket.owner);
        let response = optional(call!(self, "GetPublicAccessBlock", &self.bucket.name, request))?;
        Ok(response
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
    async fn put_public_access(&self, access: PublicAccess) -> Result<(), AwsError> {
        let configuration = PublicAccessBlockConfiguration::builder()
            .block_public_acls(access.block_acls)
            .ignore_public_acls(access.ignore_acls)
            .block_public_policy(access.block_policy)
            .restrict_public_buckets(access.restrict_buckets)
            .build();
        let request = self
            .client
            .put_public_access_block()
            .bucket(&self.bucket.name)
            .public_access_block_configuration(configuration)
            .expected_bucket_owner(&self.bucket.owner);
        call!(self, "PutPublicAccessBlock", &self.bucket.name, request).map(|_| ())
    }

    /// The bucket's policy, if it has one.
    pub async fn policy(&self) -> Result<Option<String>, AwsError> {
        let request = self
            .client
            .get_bucket_policy()
            .bucket(&self.bucket.name)
            .expected_bucket_owner(&self.bucket.owner);
        Ok(optional(call!(self, "GetBucketPolicy", &self.bucket.name, request))?.and_then(|a| a.policy))
    }

    /// Replaces the bucket's policy.
    async fn put_policy(&self, document: &str) -> Result<(), AwsError> {
        let request = self
            .client
            .put_bucket_policy()
            .bucket(&self.bucket.name)
            .policy(document)
            .expected_bucket_owner(&self.bucket.owner);
        call!(self, "PutBucketPolicy", &self.bucket.name, request).map(|_| ())
    }

    /// An object, if it exists.
    pub async fn object(&self, key: &str) -> Result<Option<Object>, AwsError> {
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket.name)
            .key(key)
            .expected_bucket_owner(&self.bucket.owner);
        let Some(response) = optional(call!(self, "GetObject", key, request))? else { return Ok(None) };
        let etag = response.e_tag.unwrap_or_default();
        let (content_type, cache_control) =
            (response.content_type.unwrap_or_default(), response.cache_control.unwrap_or_default());
        let by_key = |encryption: &ServerSideEncryption| *encryption != ServerSideEncryption::Aes256;
        let encrypted_by_key = response.server_side_encryption.as_ref().is_some_and(by_key);
        let clocks = response.metadata.and_then(|mut metadata| metadata.remove(CLOCKS)).unwrap_or_default();
        let body = response.body.collect().await.map_err(|e| AwsError {
            class: Class::Transient,
            operation: "s3:GetObject",
            resource: key.to_owned(),
            code: String::new(),
            cause: None,
            message: "the response was incomplete".into(),
            detail: e.to_string(),
        })?;
        let body = body.to_vec();
        Ok(Some(Object { body, etag, content_type, cache_control, encrypted_by_key, clocks }))
    }

    /// Writes an object, whatever was there.
    pub async fn overwrite(&self, key: &str, body: &[u8]) -> Result<(), AwsError> {
        let request = self.client.put_object().bucket(&self.bucket.name).key(key).body(body.to_vec().into());
        let request = request
            .content_type("text/plain")
            .server_side_encryption(ServerSideEncryption::Aes256)
            .expected_bucket_owner(&self.bucket.owner);
        call!(self, "PutObject", key, request).map(|_| ())
    }

    /// Writes an object: `over` is the entity tag of the version that it replaces; `None` if there must be no object yet.
    async fn put_object(
        &self,
        key: &str,
        body: &[u8],
        clocks: &str,
        over: Option<&str>,
    ) -> Result<(), AwsError> {
        let metadata = (!clocks.is_empty()).then(|| HashMap::from([(CLOCKS.into(), clocks.to_owned())]));
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket.name)
            .key(key)
            .body(body.to_vec().into())
            .content_type(CONTENT_TYPE)
            .cache_control(CACHE_CONTROL)
            .set_metadata(metadata)
            // Stated, since a bucket's default of SSE-KMS would make the object unreadable for anonymous callers.
            .server_side_encryption(ServerSideEncryption::Aes256)
            .set_if_match(over.map(str::to_owned))
            .set_if_none_match(over.is_none().then(|| "*".to_owned()))
            .expected_bucket_owner(&self.bucket.owner);
        call!(self, "PutObject", key, request).map(|_| ())
    }

    /// Deletes an object with all its versions and delete markers: in a versioned bucket the plain call would only add a marker.
    /// No error if it does not exist.
    async fn delete_object(&self, key: &str) -> Result<(), AwsError> {
        let (mut key_marker, mut version_marker) = (None, None);
        loop {
            let request = self
                .client
                .list_object_versions()
                .bucket(&self.bucket.name)
                .prefix(key)
                .set_key_marker(key_marker)
                .set_version_id_marker(version_marker)
                .expected_bucket_owner(&self.bucket.owner);
            let page = call!(self, "ListObjectVersions", key, request)?;
            let versions = page.versions().iter().map(|version| (version.key(), version.version_id()));
            let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
            for (_, version) in versions.chain(markers).filter(|(found, _)| *found == Some(key)) {
                let request = self
                    .client
                    .delete_object()
                    .bucket(&self.bucket.name)
                    .key(key)
                    .set_version_id(version.map(str::to_owned))
                    .expected_bucket_owner(&self.bucket.owner);
                tolerate(Class::NotFound, call!(self, "DeleteObject", key, request))?;
            }
            if !page.is_truncated.unwrap_or_default() {
                return Ok(());
            }
            (key_marker, version_marker) = (page.next_key_marker, page.next_version_id_marker);
        }
    }

    /// Deletes an empty bucket; no error if it does not exist.
    async fn delete(&self) -> Result<(), AwsError> {
        let request =
            self.client.delete_bucket().bucket(&self.bucket.name).expected_bucket_owner(&self.bucket.owner);
        tolerate(Class::NotFound, call!(self, "DeleteBucket", &self.bucket.name, request))
    }
}
