//! Lists of buckets, objects and versions, in pages.

use aws_sim_api::ObjectVersion;
use bytes::Bytes;
use http::Response;

use super::{S3Call, versions, xml};
use crate::authz::{AccessRequest, authorize};
use crate::wire::{ApiError, element};

/// When every object was written.
const LAST_MODIFIED: &str = "2026-01-01T00:00:00.000Z";
/// The most items on a page (S3 API reference).
const PAGE: usize = 1000;

impl S3Call<'_> {
    /// The first items, as many as the request and S3 allow, and whether there are more.
    fn page<T>(&self, limit: &str, items: impl Iterator<Item = T>) -> (Vec<T>, bool) {
        let asked = self.request.parameter(limit).and_then(|text| text.parse().ok()).unwrap_or(PAGE);
        let max = asked.min(PAGE).min(self.account.behaviour.page_size.unwrap_or(PAGE));
        let mut items = items.peekable();
        let page = items.by_ref().take(max).collect();
        (page, items.peek().is_some())
    }

    fn parameter(&self, name: &str) -> &str {
        self.request.parameter(name).unwrap_or_default()
    }

    pub(super) fn list_buckets(&self) -> Result<Response<Bytes>, ApiError> {
        authorize(
            self.account,
            self.caller,
            &AccessRequest::new(self.operation.permission, "arn:aws:s3:::*"),
        )?;
        let (prefix, after) = (self.parameter("prefix"), self.parameter("continuation-token"));
        let buckets = self.account.state.buckets.iter();
        let own = buckets.filter(|(_, bucket)| bucket.owner == self.settings.account);
        let (page, more) = self
            .page("max-buckets", own.filter(|(name, _)| name.starts_with(prefix) && name.as_str() > after));
        let member = |(name, bucket): &(&String, &aws_sim_api::Bucket)| {
            let region = element("BucketRegion", &bucket.region);
            format!(
                "<Bucket>{}{region}{}</Bucket>",
                element("CreationDate", LAST_MODIFIED),
                element("Name", name)
            )
        };
        let members: String = page.iter().map(member).collect();
        let token = page.last().filter(|_| more).map(|(name, _)| element("ContinuationToken", name));
        let owner = element("ID", &self.settings.account);
        let inner =
            format!("<Buckets>{members}</Buckets><Owner>{owner}</Owner>{}", token.unwrap_or_default());
        Ok(xml("ListAllMyBucketsResult", &inner))
    }

    /// `ListObjects` and `ListObjectsV2`.
    pub(super) fn list_objects(&self) -> Result<Response<Bytes>, ApiError> {
        let bucket = self.bucket()?;
        let prefix = self.parameter("prefix");
        let starts = ["continuation-token", "start-after", "marker"].map(|name| self.parameter(name));
        let after = starts.into_iter().max().unwrap_or_default();
        let (page, more) = self.page(
            "max-keys",
            bucket.objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after),
        );
        let contents: String = page
            .iter()
            .map(|(key, object)| {
                let members = [
                    element("Key", key),
                    element("LastModified", LAST_MODIFIED),
                    element("ETag", &object.etag),
                    element("Size", &object.body.len().to_string()),
                    element("StorageClass", "STANDARD"),
                ];
                format!("<Contents>{}</Contents>", members.concat())
            })
            .collect();
        let token = page.last().filter(|_| more).map(|(key, _)| element("NextContinuationToken", key));
        let inner = [
            element("Name", self.name),
            element("Prefix", prefix),
            element("KeyCount", &page.len().to_string()),
            element("IsTruncated", &more.to_string()),
            contents,
            token.unwrap_or_default(),
        ];
        Ok(xml("ListBucketResult", &inner.concat()))
    }

    pub(super) fn list_versions(&self) -> Result<Response<Bytes>, ApiError> {
        let prefix = self.parameter("prefix");
        let (key_marker, version_marker) =
            (self.parameter("key-marker"), self.parameter("version-id-marker"));
        let all = versions(self.bucket()?);
        let is_marker = |version: &ObjectVersion| version.key == key_marker && version.id == version_marker;
        // The marker's version may have been deleted since: its position is then unknown, and all versions of its key are
        // listed again.
        let known = all.iter().position(|(version, _)| is_marker(version));
        let rest = all.into_iter().enumerate().filter(|(at, (version, _))| match known {
            Some(marker) => *at > marker,
            None if version_marker.is_empty() => version.key.as_str() > key_marker,
            None => version.key.as_str() >= key_marker,
        });
        let (page, more) = self.page(
            "max-keys",
            rest.map(|(_, version)| version).filter(|(version, _)| version.key.starts_with(prefix)),
        );
        let members: String = page.iter().map(|(version, newest)| member(version, *newest)).collect();
        let next = page.last().filter(|_| more).map(|(version, _)| {
            element("NextKeyMarker", &version.key) + &element("NextVersionIdMarker", &version.id)
        });
        let inner = [
            element("Name", self.name),
            element("Prefix", prefix),
            element("IsTruncated", &more.to_string()),
            next.unwrap_or_default(),
            members,
        ];
        Ok(xml("ListVersionsResult", &inner.concat()))
    }
}

fn member(version: &ObjectVersion, newest: bool) -> String {
    let common = [
        element("Key", &version.key),
        element("VersionId", &version.id),
        element("IsLatest", &newest.to_string()),
        element("LastModified", LAST_MODIFIED),
    ]
    .concat();
    match &version.object {
        Some(object) => {
            let size = element("Size", &object.body.len().to_string());
            format!("<Version>{common}{}{size}</Version>", element("ETag", &object.etag))
        }
        None => format!("<DeleteMarker>{common}</DeleteMarker>"),
    }
}
