//! Which operation of S3 a request is: its method, whether it names a bucket and an object, and its query parameters decide.

use crate::wire::Request;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Service,
    Bucket,
    Object,
}

/// An operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub name: &'static str,
    method: &'static str,
    level: Level,
    /// The query parameter that selects it.
    selector: Option<&'static str>,
    /// The permission that it needs (Service Authorization Reference, Amazon S3). Some names differ from the operation's.
    pub permission: &'static str,
    /// Its other query parameters.
    parameters: &'static [&'static str],
}

const fn on(
    level: Level,
    name: &'static str,
    method: &'static str,
    selector: Option<&'static str>,
    permission: &'static str,
) -> Operation {
    Operation { name, method, level, selector, permission, parameters: &[] }
}

const fn bucket(
    name: &'static str,
    method: &'static str,
    selector: &'static str,
    permission: &'static str,
) -> Operation {
    on(Level::Bucket, name, method, Some(selector), permission)
}

const fn object(name: &'static str, method: &'static str, permission: &'static str) -> Operation {
    on(Level::Object, name, method, None, permission)
}

static OPERATIONS: &[Operation] = &[
    Operation {
        parameters: &["max-buckets", "continuation-token", "prefix"],
        ..on(Level::Service, "ListBuckets", "GET", None, "s3:ListAllMyBuckets")
    },
    on(Level::Bucket, "CreateBucket", "PUT", None, "s3:CreateBucket"),
    on(Level::Bucket, "HeadBucket", "HEAD", None, "s3:ListBucket"),
    on(Level::Bucket, "DeleteBucket", "DELETE", None, "s3:DeleteBucket"),
    Operation {
        parameters: &["prefix", "max-keys", "marker"],
        ..on(Level::Bucket, "ListObjects", "GET", None, "s3:ListBucket")
    },
    Operation {
        parameters: &["prefix", "max-keys", "continuation-token", "start-after"],
        ..bucket("ListObjectsV2", "GET", "list-type", "s3:ListBucket")
    },
    Operation {
        parameters: &["prefix", "max-keys", "key-marker", "version-id-marker"],
        ..bucket("ListObjectVersions", "GET", "versions", "s3:ListBucketVersions")
    },
    bucket("GetBucketTagging", "GET", "tagging", "s3:GetBucketTagging"),
    bucket("PutBucketTagging", "PUT", "tagging", "s3:PutBucketTagging"),
    bucket("GetBucketPolicy", "GET", "policy", "s3:GetBucketPolicy"),
    bucket("PutBucketPolicy", "PUT", "policy", "s3:PutBucketPolicy"),
    bucket("DeleteBucketPolicy", "DELETE", "policy", "s3:DeleteBucketPolicy"),
    bucket("GetPublicAccessBlock", "GET", "publicAccessBlock", "s3:GetBucketPublicAccessBlock"),
    bucket("PutPublicAccessBlock", "PUT", "publicAccessBlock", "s3:PutBucketPublicAccessBlock"),
    bucket("GetBucketOwnershipControls", "GET", "ownershipControls", "s3:GetBucketOwnershipControls"),
    bucket("PutBucketOwnershipControls", "PUT", "ownershipControls", "s3:PutBucketOwnershipControls"),
    bucket("GetBucketLocation", "GET", "location", "s3:GetBucketLocation"),
    bucket("GetBucketVersioning", "GET", "versioning", "s3:GetBucketVersioning"),
    bucket("GetBucketAcl", "GET", "acl", "s3:GetBucketAcl"),
    object("GetObject", "GET", "s3:GetObject"),
    object("HeadObject", "HEAD", "s3:GetObject"),
    object("PutObject", "PUT", "s3:PutObject"),
    object("DeleteObject", "DELETE", "s3:DeleteObject"),
    on(Level::Object, "DeleteObject", "DELETE", Some("versionId"), "s3:DeleteObjectVersion"),
];

impl Operation {
    /// The operation of a request, `None` if it is not implemented: an unknown query parameter selects another operation
    /// than method and path alone, or changes what the operation does.
    pub(super) fn of(request: &Request) -> Option<&'static Self> {
        let level = match (&request.bucket, request.key.is_empty()) {
            (None, _) => Level::Service,
            (Some(_), true) => Level::Bucket,
            (Some(_), false) => Level::Object,
        };
        let given = |name: &str| request.names().any(|given| given == name);
        let fits = |operation: &&Self| {
            operation.method == request.method
                && operation.level == level
                && operation.selector.is_none_or(given)
                && request.names().all(|name| {
                    name == "x-id" || operation.selector == Some(name) || operation.parameters.contains(&name)
                })
        };
        OPERATIONS.iter().find(fits)
    }
}
