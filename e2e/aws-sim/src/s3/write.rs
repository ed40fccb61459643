//! Changes of a bucket and its objects.

use std::collections::BTreeMap;

use aws_sim_api::{Bucket, Encryption, PublicPolicyDenial};
use bytes::Bytes;
use http::Response;
use serde_json::Value;

use super::versions::{delete_object, delete_version, put_object};
use super::{S3Call, access_denied, not_implemented, object};
use crate::policy::{Kind, is_public, list, parse};
use crate::wire::{ApiError, Request, response, xml_text, xml_texts};

/// The four settings of a block of public access.
pub(super) const PAB: [&str; 4] =
    ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"];

/// The prefix of the headers with an object's user-defined metadata.
pub(super) const METADATA: &str = "x-amz-meta-";

/// Bytes of an object's user-defined metadata: names and values (S3 user guide, "Working with object metadata").
const QUOTA_METADATA: usize = 2 * 1024;

/// Bytes of a bucket policy (S3 user guide, "Bucket policies").
const QUOTA_POLICY: usize = 20 * 1024;

impl S3Call<'_> {
    /// Everything that changes a bucket.
    pub(super) fn write(&mut self) -> Result<Response<Bytes>, ApiError> {
        match self.operation.name {
            "PutBucketPolicy" => self.put_policy(),
            "DeleteBucketPolicy" => {
                self.bucket_mut()?.policy = None;
                Ok(response(204, &[], ""))
            }
            "PutPublicAccessBlock" => self.put_block(),
            "PutBucketOwnershipControls" => {
                let malformed =
                    || ApiError::new(400, "MalformedXML", "The XML you provided was not well-formed");
                let wanted = xml_text(&self.request.body, "ObjectOwnership").ok_or_else(malformed)?;
                self.bucket_mut()?.ownership = wanted;
                Ok(response(200, &[], ""))
            }
            "PutBucketTagging" => {
                let body = &self.request.body;
                let tags = xml_texts(body, "Key").into_iter().zip(xml_texts(body, "Value")).collect();
                self.bucket_mut()?.tags = tags;
                Ok(response(204, &[], ""))
            }
            "PutObject" => self.put_object(),
            "DeleteObject" => self.delete_object(),
            "DeleteBucket" => {
                let bucket = self.bucket()?;
                if !bucket.objects.is_empty() || !bucket.versions.is_empty() {
                    let message = if bucket.versioned {
                        "The bucket you tried to delete is not empty. You must delete all versions in the bucket."
                    } else {
                        "The bucket you tried to delete is not empty"
                    };
                    return Err(ApiError::new(409, "BucketNotEmpty", message));
                }
                self.account.state.buckets.remove(self.name);
                Ok(response(204, &[], ""))
            }
            _ => Err(not_implemented()),
        }
    }

    fn bucket_mut(&mut self) -> Result<&mut Bucket, ApiError> {
        self.bucket()?;
        self.account.state.buckets.get_mut(self.name).ok_or_else(not_implemented)
    }

    fn put_policy(&mut self) -> Result<Response<Bytes>, ApiError> {
        let text = String::from_utf8_lossy(&self.request.body).into_owned();
        let malformed = |why: String| ApiError::new(400, "MalformedPolicy", why);
        if text.len() > QUOTA_POLICY {
            return Err(malformed("Policy exceeds the maximum allowed document size.".into()));
        }
        let policy = parse(&text, Kind::Resource).map_err(malformed)?;
        let arn = self.bucket_arn();
        let inside = |resource: &&Value| {
            let rest = resource.as_str().and_then(|r| r.strip_prefix(&arn));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !list(&policy["Statement"]).iter().flat_map(|s| list(&s["Resource"])).all(|r| inside(&r)) {
            return Err(malformed("Policy has invalid resource".into()));
        }
        let behaviour = &self.account.behaviour;
        let present = self.bucket()?.public_access_block;
        let block = self.account.history.block_in_force(self.name, present, behaviour.settling());
        if (block[2] || behaviour.account_public_access_block) && is_public(&policy) {
            return Err(match behaviour.public_policy_denial {
                PublicPolicyDenial::Bare => access_denied(),
                PublicPolicyDenial::Long => ApiError::new(
                    403,
                    "AccessDenied",
                    format!(
                        "User is not authorized to perform: s3:PutBucketPolicy on resource: {arn} because public policies are blocked by the BlockPublicPolicy block public access setting."
                    ),
                ),
            });
        }
        let bucket = self.bucket_mut()?;
        bucket.policy = Some(policy);
        bucket.policy_text = text;
        Ok(response(204, &[], ""))
    }

    fn put_block(&mut self) -> Result<Response<Bytes>, ApiError> {
        let wanted = PAB.map(|name| xml_text(&self.request.body, name).as_deref() == Some("true"));
        let former = std::mem::replace(&mut self.bucket_mut()?.public_access_block, wanted);
        let settling = self.account.behaviour.settling();
        self.account.history.block_replaced(self.name, former, settling);
        Ok(response(200, &[], ""))
    }

    fn put_object(&mut self) -> Result<Response<Bytes>, ApiError> {
        let request = self.request;
        let current = self.bucket()?.objects.get(&request.key);
        let (only_new, only_over) = (request.header("if-none-match") == "*", request.header("if-match"));
        let unmet = (only_new && current.is_some())
            || (!only_over.is_empty() && current.is_none_or(|o| o.etag != only_over));
        if unmet {
            return Err(ApiError::new(
                412,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
            ));
        }
        let encryption = match request.header("x-amz-server-side-encryption") {
            "" => self.account.behaviour.default_encryption,
            "AES256" => Encryption::Aes256,
            "aws:kms" => Encryption::Kms,
            _ => {
                return Err(ApiError::new(
                    400,
                    "InvalidArgument",
                    "The encryption method specified is not supported",
                ));
            }
        };
        let cache = Some(request.header("cache-control")).filter(|c| !c.is_empty());
        let mut object = object(request.body.clone(), request.header("content-type"), cache);
        object.encryption = encryption;
        object.metadata = metadata(request)?;
        let (etag, id) = (object.etag.clone(), self.account.version_id());
        let bucket = self.bucket_mut()?;
        put_object(bucket, &request.key, object, &id);
        let mut headers =
            vec![("etag", etag.as_str()), ("x-amz-server-side-encryption", encryption.header())];
        if bucket.versioned {
            headers.push(("x-amz-version-id", &id));
        }
        Ok(response(200, &headers, ""))
    }

    fn delete_object(&mut self) -> Result<Response<Bytes>, ApiError> {
        let request = self.request;
        let id = match request.parameter("versionId") {
            Some(id) => id.to_owned(),
            None => self.account.version_id(),
        };
        let bucket = self.bucket_mut()?;
        let marker = match request.parameter("versionId") {
            Some(id) => delete_version(bucket, &request.key, id),
            None => delete_object(bucket, &request.key, &id),
        };
        let mut headers = Vec::new();
        if marker {
            headers.push(("x-amz-delete-marker", "true"));
        }
        if bucket.versioned {
            headers.push(("x-amz-version-id", id.as_str()));
        }
        Ok(response(204, &headers, ""))
    }
}

/// The user-defined metadata of a `PutObject`.
fn metadata(request: &Request) -> Result<BTreeMap<String, String>, ApiError> {
    let entry = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let name = name.as_str().strip_prefix(METADATA)?.to_owned();
        Some((name, value.to_str().ok()?.to_owned()))
    };
    let metadata: BTreeMap<String, String> = request.headers.iter().filter_map(entry).collect();
    if metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > QUOTA_METADATA {
        let message = "Your metadata headers exceed the maximum allowed metadata size";
        return Err(ApiError::new(400, "MetadataTooLarge", message));
    }
    Ok(metadata)
}
