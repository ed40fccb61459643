//! `CreateBucket`.

use std::collections::{BTreeMap, BTreeSet};

use aws_sim_api::{Bucket, Tags};
use bytes::Bytes;
use http::Response;

use super::{S3Call, names};
use crate::authz::{AccessRequest, authorize};
use crate::wire::{ApiError, response, xml_text, xml_texts};

/// The region without a location constraint.
const US_EAST_1: &str = "us-east-1";

impl S3Call<'_> {
    pub(super) fn create(&mut self) -> Result<Response<Bytes>, ApiError> {
        let (request, name, arn) = (self.request, self.name, self.bucket_arn());
        let (keys, values) = (xml_texts(&request.body, "Key"), xml_texts(&request.body, "Value"));
        let tags: Tags = keys.iter().cloned().zip(values).collect();
        let ownership = request.header("x-amz-object-ownership");
        let permit = |action: &str| authorize(self.account, self.caller, &AccessRequest::new(action, &arn));
        permit("s3:CreateBucket")?;
        if !tags.is_empty() {
            permit("s3:TagResource")?;
        }
        if !ownership.is_empty() {
            permit("s3:PutBucketOwnershipControls")?;
        }
        let region = self.region()?;
        names::check(name, request.header("x-amz-bucket-namespace"), &self.settings.account, region)?;
        if keys.iter().collect::<BTreeSet<_>>().len() < keys.len() {
            return Err(ApiError::new(400, "InvalidTag", "Cannot provide multiple Tags with the same key"));
        }
        let created = response(200, &[("location", &format!("/{name}"))], "");
        match self.account.state.buckets.get(name) {
            // S3 API reference, CreateBucket: only in this region, for compatibility. It changes nothing.
            Some(bucket) if bucket.owner == self.settings.account && region == US_EAST_1 => {
                return Ok(created);
            }
            Some(bucket) if bucket.owner == self.settings.account => {
                return Err(ApiError::new(
                    409,
                    "BucketAlreadyOwnedByYou",
                    "Your previous request to create the named bucket succeeded and you already own it.",
                ));
            }
            Some(_) => {
                return Err(ApiError::new(
                    409,
                    "BucketAlreadyExists",
                    "The requested bucket name is not available.",
                ));
            }
            None => {}
        }
        let behaviour = &self.account.behaviour;
        let bucket = Bucket {
            owner: self.settings.account.clone(),
            region: region.to_owned(),
            tags: if behaviour.create_bucket_tags { tags } else { Tags::new() },
            policy: None,
            policy_text: String::new(),
            public_access_block: [true; 4],
            ownership: if ownership.is_empty() { "BucketOwnerEnforced".into() } else { ownership.to_owned() },
            objects: BTreeMap::new(),
            versioned: behaviour.versioned_buckets,
            versions: Vec::new(),
        };
        self.account.history.forget_blocks(name);
        self.account.state.buckets.insert(name.to_owned(), bucket);
        Ok(created)
    }

    /// The region of the endpoint, which the location constraint must name, except `us-east-1`, which it must not.
    fn region(&self) -> Result<&str, ApiError> {
        let region = self.settings.region.as_str();
        let given = xml_text(&self.request.body, "LocationConstraint");
        match given.as_deref() {
            None if region == US_EAST_1 => Ok(region),
            Some(US_EAST_1) if region == US_EAST_1 => Err(ApiError::new(
                400,
                "InvalidLocationConstraint",
                "The specified location-constraint is not valid",
            )),
            Some(given) if given == region => Ok(region),
            other => {
                let which = other.unwrap_or("unspecified");
                let message = format!(
                    "The {which} location constraint is incompatible for the region specific endpoint this request was sent to."
                );
                Err(ApiError::new(400, "IllegalLocationConstraintException", message))
            }
        }
    }
}
