//! Reads of one object, and of a bucket's configuration.

use aws_sim_api::{Encryption, Tags};
use bytes::Bytes;
use http::Response;

use super::write::{METADATA, PAB};
use super::{S3Call, access_denied, not_implemented, xml};
use crate::authz::Caller;
use crate::wire::{ApiError, element, response};

impl S3Call<'_> {
    /// `GetObject` and `HeadObject`.
    pub(super) fn object(&self) -> Result<Response<Bytes>, ApiError> {
        let bucket = self.bucket()?;
        let Some(object) = bucket.objects.get(&self.request.key) else {
            // Without the right to list, a missing key is not visible.
            self.permit("s3:ListBucket", &self.bucket_arn()).map_err(|_| access_denied())?;
            return Err(ApiError::new(404, "NoSuchKey", "The specified key does not exist."));
        };
        if object.encryption == Encryption::Kms && matches!(self.caller, Caller::Anonymous) {
            return Err(ApiError::new(
                400,
                "InvalidArgument",
                "Requests specifying Server Side Encryption with AWS KMS managed keys require AWS Signature Version 4.",
            ));
        }
        let length = object.body.len().to_string();
        let mut headers = vec![
            ("etag", object.etag.as_str()),
            ("content-type", object.content_type.as_str()),
            ("x-amz-server-side-encryption", object.encryption.header()),
        ];
        headers.extend(object.cache_control.as_deref().map(|c| ("cache-control", c)));
        let metadata =
            object.metadata.iter().map(|(name, value)| (format!("{METADATA}{name}"), value.as_str()));
        let metadata: Vec<(String, &str)> = metadata.collect();
        headers.extend(metadata.iter().map(|(name, value)| (name.as_str(), *value)));
        if self.operation.name == "HeadObject" {
            headers.push(("content-length", &length));
            return Ok(response(200, &headers, ""));
        }
        Ok(response(200, &headers, object.body.clone()))
    }

    /// Every read of a bucket's configuration.
    pub(super) fn configuration(&self) -> Result<Response<Bytes>, ApiError> {
        let bucket = self.bucket()?;
        match self.operation.name {
            "HeadBucket" => Ok(response(200, &[("x-amz-bucket-region", &bucket.region)], "")),
            "GetBucketTagging" if bucket.tags.is_empty() => {
                Err(ApiError::new(404, "NoSuchTagSet", "The TagSet does not exist"))
            }
            "GetBucketTagging" => Ok(xml("Tagging", &format!("<TagSet>{}</TagSet>", tags_xml(&bucket.tags)))),
            "GetBucketPolicy" => match &bucket.policy {
                Some(_) => {
                    Ok(response(200, &[("content-type", "application/json")], bucket.policy_text.clone()))
                }
                None => Err(ApiError::new(404, "NoSuchBucketPolicy", "The bucket policy does not exist")),
            },
            "GetPublicAccessBlock" => {
                let flags = PAB.iter().zip(bucket.public_access_block);
                let flags: String = flags.map(|(name, on)| element(name, &on.to_string())).collect();
                Ok(xml("PublicAccessBlockConfiguration", &flags))
            }
            "GetBucketOwnershipControls" => {
                let rule = format!("<Rule>{}</Rule>", element("ObjectOwnership", &bucket.ownership));
                Ok(xml("OwnershipControls", &rule))
            }
            // us-east-1 is the absence of a location constraint.
            "GetBucketLocation" if bucket.region == "us-east-1" => Ok(xml("LocationConstraint", "")),
            "GetBucketLocation" => Ok(xml("LocationConstraint", &bucket.region)),
            "GetBucketVersioning" => {
                let status = if bucket.versioned { element("Status", "Enabled") } else { String::new() };
                Ok(xml("VersioningConfiguration", &status))
            }
            // Under BucketOwnerEnforced, and by default, the owner has FULL_CONTROL and there is no other grant.
            "GetBucketAcl" => {
                let owner = element("ID", &bucket.owner);
                let grantee = format!(
                    "<Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\">{owner}</Grantee>"
                );
                let grant = format!("<Grant>{grantee}{}</Grant>", element("Permission", "FULL_CONTROL"));
                let inner = format!("<Owner>{owner}</Owner><AccessControlList>{grant}</AccessControlList>");
                Ok(xml("AccessControlPolicy", &inner))
            }
            _ => Err(not_implemented()),
        }
    }
}

fn tags_xml(tags: &Tags) -> String {
    tags.iter().map(|(k, v)| format!("<Tag>{}{}</Tag>", element("Key", k), element("Value", v))).collect()
}
