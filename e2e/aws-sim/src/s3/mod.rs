//! S3: buckets with their configuration, and small objects, by virtual host or by path.

mod create;
mod list;
mod names;
mod operation;
mod read;
mod versions;
mod write;

use aws_sim_api::{Bucket, Object};
use bytes::Bytes;
use http::Response;

use crate::account::Account;
use crate::authz::{AccessRequest, Caller, authorize};
use crate::digest::sha256_hex;
use crate::model::{LogFields, Settings};
use crate::policy::is_public;
use crate::wire::{ApiError, Request, response};
use operation::Operation;

pub(crate) use versions::{put_object, versions};

/// The API operation of a request.
pub(crate) fn action(request: &Request) -> &'static str {
    Operation::of(request).map_or("Unknown", |operation| operation.name)
}

/// One authorised call on a bucket. Each file adds operations.
struct S3Call<'a> {
    account: &'a mut Account,
    settings: &'a Settings,
    caller: &'a Caller,
    request: &'a Request,
    operation: &'static Operation,
    /// The bucket's name.
    name: &'a str,
}

pub(crate) fn dispatch(
    account: &mut Account,
    settings: &Settings,
    caller: &Caller,
    request: &Request,
    log: &mut LogFields,
) -> Result<Response<Bytes>, ApiError> {
    let Some(operation) = Operation::of(request) else { return Err(not_implemented()) };
    let name = request.bucket.as_deref().unwrap_or_default();
    let mut call = S3Call { account, settings, caller, request, operation, name };
    log.resource = call.arn();
    match operation.name {
        "ListBuckets" => return call.list_buckets(),
        "CreateBucket" => return call.create(),
        _ => call.authorize()?,
    }
    match operation.name {
        "GetObject" | "HeadObject" => call.object(),
        "ListObjects" | "ListObjectsV2" => call.list_objects(),
        "ListObjectVersions" => call.list_versions(),
        name if name.starts_with("Get") || name == "HeadBucket" => call.configuration(),
        _ => call.write(),
    }
}

impl S3Call<'_> {
    fn bucket_arn(&self) -> String {
        format!("arn:aws:s3:::{}", self.name)
    }

    /// The resource of the call.
    fn arn(&self) -> String {
        match (self.name, self.request.key.as_str()) {
            ("", _) => "*".to_owned(),
            (_, "") => self.bucket_arn(),
            (_, key) => format!("{}/{key}", self.bucket_arn()),
        }
    }

    fn bucket(&self) -> Result<&Bucket, ApiError> {
        let missing = || ApiError::new(404, "NoSuchBucket", "The specified bucket does not exist");
        self.account.state.buckets.get(self.name).ok_or_else(missing)
    }

    /// Whether the bucket belongs to another account.
    fn is_foreign(&self, bucket: &Bucket) -> bool {
        bucket.owner != self.settings.account
    }

    /// Authorises the call on the existing bucket.
    fn authorize(&self) -> Result<(), ApiError> {
        let bucket = self.bucket()?;
        let expected = self.request.header("x-amz-expected-bucket-owner");
        if !expected.is_empty() && expected != bucket.owner {
            return Err(access_denied());
        }
        self.permit(self.operation.permission, &self.arn())?;
        // S3 API reference, GetBucketPolicy: no right suffices for another account.
        if self.operation.name.ends_with("BucketPolicy") && self.is_foreign(bucket) {
            return Err(ApiError::new(
                405,
                "MethodNotAllowed",
                "The specified method is not allowed against this resource.",
            ));
        }
        Ok(())
    }

    /// Evaluates all policies for an action on the bucket, or on an object in it.
    fn permit(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        let bucket = self.bucket()?;
        let foreign = self.is_foreign(bucket);
        // RestrictPublicBuckets: a public policy does not apply to callers outside of the bucket's account.
        let outside = foreign || matches!(self.caller, Caller::Anonymous);
        let blocked =
            bucket.public_access_block[3] || (!foreign && self.account.behaviour.account_public_access_block);
        let restricted = outside && blocked && bucket.policy.as_ref().is_some_and(is_public);
        let encryption = self.request.header("x-amz-server-side-encryption");
        let context = (!encryption.is_empty())
            .then(|| ("s3:x-amz-server-side-encryption".to_owned(), encryption.to_owned()));
        authorize(
            self.account,
            self.caller,
            &AccessRequest {
                resource_policy: bucket.policy.as_ref().filter(|_| !restricted),
                foreign,
                context: context.into_iter().collect(),
                ..AccessRequest::new(action, resource)
            },
        )
    }
}

fn access_denied() -> ApiError {
    ApiError::new(403, "AccessDenied", "Access Denied")
}

fn not_implemented() -> ApiError {
    ApiError::new(501, "NotImplemented", "not implemented in aws-sim")
}

/// An object of that content.
pub(crate) fn object(body: Bytes, content_type: &str, cache_control: Option<&str>) -> Object {
    Object {
        etag: format!("\"{}\"", &sha256_hex(&body)[..32]),
        body,
        content_type: content_type.to_owned(),
        cache_control: cache_control.map(str::to_owned),
        metadata: std::collections::BTreeMap::new(),
        encryption: aws_sim_api::Encryption::default(),
    }
}

fn xml(root: &str, inner: &str) -> Response<Bytes> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</{root}>"
    );
    response(200, &[("content-type", "application/xml")], text)
}
