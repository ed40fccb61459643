//! S3: buckets with their configuration, and small objects, by virtual host or by path.

use std::collections::BTreeMap;

use aws_sim_api::{Bucket, Object, Tags};
use bytes::Bytes;
use http::Response;
use serde_json::Value;

use crate::account::Account;
use crate::authz::{AccessRequest, Caller, authorize};
use crate::digest::sha256_hex;
use crate::model::{LogFields, Settings};
use crate::policy::{Kind, is_public, list, parse};
use crate::wire::{ApiError, Request, element, response, xml_text, xml_texts};

/// The API operation of a request.
pub(crate) fn action(request: &Request) -> &'static str {
    const SUBRESOURCES: [&str; 5] =
        ["tagging", "policy", "publicAccessBlock", "ownershipControls", "location"];
    const NO_SUBRESOURCE: [&str; 2] = ["x-id", "list-type"];
    // An unknown query parameter selects another operation than method and path alone.
    if request.names().any(|name| !SUBRESOURCES.contains(&name) && !NO_SUBRESOURCE.contains(&name)) {
        return "Unknown";
    }
    let sub = SUBRESOURCES.iter().find(|name| request.names().any(|given| given == **name)).copied();
    match (request.method.as_str(), request.bucket.is_some(), request.key.is_empty(), sub) {
        ("GET", false, ..) => "ListBuckets",
        ("GET", true, true, Some("tagging")) => "GetBucketTagging",
        ("GET", true, true, Some("policy")) => "GetBucketPolicy",
        ("PUT", true, true, Some("policy")) => "PutBucketPolicy",
        ("DELETE", true, true, Some("policy")) => "DeleteBucketPolicy",
        ("GET", true, true, Some("publicAccessBlock")) => "GetPublicAccessBlock",
        ("PUT", true, true, Some("publicAccessBlock")) => "PutPublicAccessBlock",
        ("GET", true, true, Some("ownershipControls")) => "GetBucketOwnershipControls",
        ("PUT", true, true, Some("ownershipControls")) => "PutBucketOwnershipControls",
        ("GET", true, true, Some("location")) => "GetBucketLocation",
        ("GET", true, true, None) => "ListObjectsV2",
        ("HEAD", true, true, _) => "HeadBucket",
        ("PUT", true, true, None) => "CreateBucket",
        ("DELETE", true, true, None) => "DeleteBucket",
        ("GET", true, false, None) => "GetObject",
        ("HEAD", true, false, None) => "HeadObject",
        ("PUT", true, false, None) => "PutObject",
        ("DELETE", true, false, None) => "DeleteObject",
        _ => "Unknown",
    }
}

/// The permission that an operation needs. Some names differ from the operation's, as on AWS.
fn permission(action: &str) -> &'static str {
    match action {
        "GetBucketTagging" => "s3:GetBucketTagging",
        "GetBucketPolicy" => "s3:GetBucketPolicy",
        "PutBucketPolicy" => "s3:PutBucketPolicy",
        "DeleteBucketPolicy" => "s3:DeleteBucketPolicy",
        "GetPublicAccessBlock" => "s3:GetBucketPublicAccessBlock",
        "PutPublicAccessBlock" => "s3:PutBucketPublicAccessBlock",
        "GetBucketOwnershipControls" => "s3:GetBucketOwnershipControls",
        "PutBucketOwnershipControls" => "s3:PutBucketOwnershipControls",
        "GetBucketLocation" => "s3:GetBucketLocation",
        "DeleteBucket" => "s3:DeleteBucket",
        "GetObject" | "HeadObject" => "s3:GetObject",
        "PutObject" => "s3:PutObject",
        "DeleteObject" => "s3:DeleteObject",
        _ => "s3:ListBucket",
    }
}

pub(crate) fn dispatch(
    account: &mut Account,
    settings: &Settings,
    caller: &Caller,
    request: &Request,
    action: &str,
    log: &mut LogFields,
) -> Result<Response<Bytes>, ApiError> {
    if action == "Unknown" || action == "ListBuckets" {
        return Err(ApiError::new(501, "NotImplemented", "not implemented in aws-sim"));
    }
    let name = request.bucket.clone().unwrap_or_default();
    let key = &request.key;
    let arn =
        if key.is_empty() { format!("arn:aws:s3:::{name}") } else { format!("arn:aws:s3:::{name}/{key}") };
    arn.clone_into(&mut log.resource);
    if action == "CreateBucket" {
        return create(account, settings, caller, request, &name, &arn);
    }
    let no_bucket = || ApiError::new(404, "NoSuchBucket", "The specified bucket does not exist");
    let bucket = account.state.buckets.get(&name).ok_or_else(no_bucket)?;
    let expected = request.header("x-amz-expected-bucket-owner");
    let of_another = bucket.owner != settings.account;
    if of_another || (!expected.is_empty() && expected != bucket.owner) {
        return Err(ApiError::new(403, "AccessDenied", "Access Denied"));
    }
    // RestrictPublicBuckets: a public policy does not apply to anonymous callers.
    let restricted = matches!(caller, Caller::Anonymous)
        && bucket.public_access_block[3]
        && bucket.policy.as_ref().is_some_and(is_public);
    let resource_policy = bucket.policy.as_ref().filter(|_| !restricted);
    authorize(
        account,
        caller,
        &AccessRequest { resource_policy, ..AccessRequest::new(permission(action), &arn) },
    )?;
    let may_list = || {
        let bucket_arn = format!("arn:aws:s3:::{name}");
        authorize(
            account,
            caller,
            &AccessRequest { resource_policy, ..AccessRequest::new("s3:ListBucket", &bucket_arn) },
        )
        .is_ok()
    };
    match action {
        "GetObject" | "HeadObject" => {
            let missing = || {
                if may_list() {
                    ApiError::new(404, "NoSuchKey", "The specified key does not exist.")
                } else {
                    ApiError::new(403, "AccessDenied", "Access Denied")
                }
            };
            let object = bucket.objects.get(key).ok_or_else(missing)?;
            let length = object.body.len().to_string();
            let mut headers =
                vec![("etag", object.etag.as_str()), ("content-type", object.content_type.as_str())];
            headers.extend(object.cache_control.as_deref().map(|c| ("cache-control", c)));
            if action == "HeadObject" {
                headers.push(("content-length", &length));
                return Ok(response(200, &headers, ""));
            }
            Ok(response(200, &headers, object.body.clone()))
        }
        "GetBucketTagging" if bucket.tags.is_empty() => {
            Err(ApiError::new(404, "NoSuchTagSet", "The TagSet does not exist"))
        }
        "GetBucketTagging" => Ok(xml("Tagging", &format!("<TagSet>{}</TagSet>", tags_xml(&bucket.tags)))),
        "GetBucketPolicy" => match &bucket.policy {
            Some(_) => Ok(response(200, &[("content-type", "application/json")], bucket.policy_text.clone())),
            None => Err(ApiError::new(404, "NoSuchBucketPolicy", "The bucket policy does not exist")),
        },
        "GetPublicAccessBlock" => {
            let flags: String = PAB
                .iter()
                .zip(bucket.public_access_block)
                .map(|(n, on)| element(n, &on.to_string()))
                .collect();
            Ok(xml("PublicAccessBlockConfiguration", &flags))
        }
        "GetBucketOwnershipControls" => {
            let rule = format!("<Rule>{}</Rule>", element("ObjectOwnership", &bucket.ownership));
            Ok(xml("OwnershipControls", &rule))
        }
        "GetBucketLocation" => Ok(response(
            200,
            &[("content-type", "application/xml")],
            element("LocationConstraint", &bucket.region),
        )),
        "HeadBucket" => Ok(response(200, &[("x-amz-bucket-region", &bucket.region)], "")),
        "ListObjectsV2" => Ok(listing(&name, bucket)),
        _ => match account.state.buckets.get_mut(&name) {
            Some(bucket) => change(bucket, request, action, &arn).map(|(response, deleted)| {
                if deleted {
                    account.state.buckets.remove(&name);
                }
                response
            }),
            None => Err(no_bucket()),
        },
    }
}

fn listing(name: &str, bucket: &Bucket) -> Response<Bytes> {
    let one = |(key, object): (&String, &Object)| {
        let size = element("Size", &object.body.len().to_string());
        format!("<Contents>{}{size}</Contents>", element("Key", key))
    };
    let contents: String = bucket.objects.iter().map(one).collect();
    let head = element("Name", name) + &element("KeyCount", &bucket.objects.len().to_string());
    xml("ListBucketResult", &format!("{head}<IsTruncated>false</IsTruncated>{contents}"))
}

const PAB: [&str; 4] = ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"];

/// Everything that changes a bucket, and whether the call deletes it.
fn change(
    bucket: &mut Bucket,
    request: &Request,
    action: &str,
    arn: &str,
) -> Result<(Response<Bytes>, bool), ApiError> {
    let done = || Ok((response(200, &[], ""), false));
    match action {
        "PutBucketPolicy" => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let malformed = |why: String| ApiError::new(400, "MalformedPolicy", why);
            let policy = parse(&text, Kind::Resource).map_err(malformed)?;
            let inside = |resource: &&Value| {
                let rest = resource.as_str().and_then(|r| r.strip_prefix(arn));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if !list(&policy["Statement"]).iter().flat_map(|s| list(&s["Resource"])).all(|r| inside(&r)) {
                return Err(malformed("Policy has invalid resource".into()));
            }
            if bucket.public_access_block[2] && is_public(&policy) {
                return Err(ApiError::new(
                    403,
                    "AccessDenied",
                    format!(
                        "User is not authorized to perform: s3:PutBucketPolicy on resource: {arn} because public policies are blocked by the BlockPublicPolicy block public access setting."
                    ),
                ));
            }
            bucket.policy = Some(policy);
            bucket.policy_text = text;
            Ok((response(204, &[], ""), false))
        }
        "DeleteBucketPolicy" => {
            bucket.policy = None;
            Ok((response(204, &[], ""), false))
        }
        "PutPublicAccessBlock" => {
            for (flag, name) in bucket.public_access_block.iter_mut().zip(PAB) {
                *flag = xml_text(&request.body, name).as_deref() == Some("true");
            }
            done()
        }
        "PutBucketOwnershipControls" => {
            let wanted = xml_text(&request.body, "ObjectOwnership");
            bucket.ownership = wanted.ok_or_else(|| {
                ApiError::new(400, "MalformedXML", "The XML you provided was not well-formed")
            })?;
            done()
        }
        "PutObject" => {
            let current = bucket.objects.get(&request.key);
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
            let cache = Some(request.header("cache-control")).filter(|c| !c.is_empty());
            let object = object(request.body.clone(), request.header("content-type"), cache);
            let put = response(200, &[("etag", object.etag.as_str())], "");
            bucket.objects.insert(request.key.clone(), object);
            Ok((put, false))
        }
        "DeleteObject" => {
            bucket.objects.remove(&request.key);
            Ok((response(204, &[], ""), false))
        }
        "DeleteBucket" if bucket.objects.is_empty() => Ok((response(204, &[], ""), true)),
        "DeleteBucket" => {
            Err(ApiError::new(409, "BucketNotEmpty", "The bucket you tried to delete is not empty"))
        }
        _ => Err(ApiError::new(501, "NotImplemented", "not implemented in aws-sim")),
    }
}

fn create(
    account: &mut Account,
    settings: &Settings,
    caller: &Caller,
    request: &Request,
    name: &str,
    arn: &str,
) -> Result<Response<Bytes>, ApiError> {
    let (keys, values) = (xml_texts(&request.body, "Key"), xml_texts(&request.body, "Value"));
    let tags: Tags = keys.into_iter().zip(values).collect();
    let ownership = request.header("x-amz-object-ownership");
    authorize(account, caller, &AccessRequest::new("s3:CreateBucket", arn))?;
    if !tags.is_empty() {
        authorize(account, caller, &AccessRequest::new("s3:TagResource", arn))?;
    }
    if !ownership.is_empty() {
        authorize(account, caller, &AccessRequest::new("s3:PutBucketOwnershipControls", arn))?;
    }
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if !(3..=63).contains(&name.len()) || !name.chars().all(label) {
        return Err(ApiError::new(400, "InvalidBucketName", "The specified bucket is not valid."));
    }
    let region = xml_text(&request.body, "LocationConstraint").unwrap_or_else(|| "us-east-1".into());
    if region != settings.region {
        let message = format!(
            "The {region} location constraint is incompatible for the region specific endpoint this request was sent to."
        );
        return Err(ApiError::new(400, "IllegalLocationConstraintException", message));
    }
    let regional = name.ends_with("-an");
    let own = name.ends_with(&format!("-{}-{region}-an", settings.account));
    if regional != (request.header("x-amz-bucket-namespace") == "account-regional") || (regional && !own) {
        return Err(ApiError::new(400, "InvalidBucketName", "The bucket name does not fit its namespace."));
    }
    match account.state.buckets.get(name) {
        Some(bucket) if bucket.owner == settings.account => {
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
    let bucket = Bucket {
        owner: settings.account.clone(),
        region,
        tags,
        policy: None,
        policy_text: String::new(),
        public_access_block: [true; 4],
        ownership: if ownership.is_empty() { "BucketOwnerEnforced".into() } else { ownership.to_owned() },
        objects: BTreeMap::new(),
    };
    account.state.buckets.insert(name.to_owned(), bucket);
    Ok(response(200, &[("location", &format!("/{name}"))], ""))
}

/// An object of that content.
pub(crate) fn object(body: Bytes, content_type: &str, cache_control: Option<&str>) -> Object {
    Object {
        etag: format!("\"{}\"", &sha256_hex(&body)[..32]),
        body,
        content_type: content_type.to_owned(),
        cache_control: cache_control.map(str::to_owned),
    }
}

fn tags_xml(tags: &Tags) -> String {
    tags.iter().map(|(k, v)| format!("<Tag>{}{}</Tag>", element("Key", k), element("Value", v))).collect()
}

fn xml(root: &str, inner: &str) -> Response<Bytes> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</{root}>"
    );
    response(200, &[("content-type", "application/xml")], text)
}
