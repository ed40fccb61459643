//! PURE: the bucket's configuration: owner, ACLs, policy, public-access block.

use crds::names::account_of_bucket;
use crds::{Finding, Management, Reason};
use serde_json::Value;

use super::target::{Location, Target};
use crate::aws::model::{Bucket, PublicAccess, S3Write, Tags, Write};
use crate::change::Change;
use crate::oidc::Discovery;
use crate::policy::bucket::Bucket as BucketPolicy;
use crate::policy::equivalent;
use crate::tags;

/// The attribute of the bucket's ACLs, which its public-access block ignores in any case.
const OWNERSHIP_CONTROLS: &str = "bucket ownership controls";
/// The attribute of the bucket's tags.
const TAGS: &str = "bucket tags";
/// The attribute of the bucket's policy.
pub const POLICY: &str = "bucket policy";

/// ACLs stay refused and ignored; a public policy must be allowed, or the two documents could not be read.
pub const OPEN: PublicAccess =
    PublicAccess { block_acls: true, ignore_acls: true, block_policy: false, restrict_buckets: false };

/// The policy's terms for a managed bucket.
#[must_use]
pub fn wanted<'a>(target: &'a Target, location: &'a Location) -> BucketPolicy<'a> {
    BucketPolicy {
        partition: target.partition,
        name: &location.bucket.name,
        public_keys: [&location.discovery_key, &location.jwks_key],
        provider_arn: &target.provider_arn,
        issuer_url: &target.issuer_url,
        operator_role_arn: &target.operator_role_arn,
    }
}

/// Whether the bucket, or the place in it, can be this issuer's.
pub fn check(target: &Target, found: Option<&Bucket>) -> Result<(), Finding> {
    let Some(location) = &target.location else { return Ok(()) };
    let bucket = &location.bucket;
    if let Some(named) =
        account_of_bucket(&bucket.name, &bucket.region).filter(|named| *named != bucket.owner)
    {
        let message = format!(
            "bucket {} can only be made by account {named}, but these credentials are of account {}: use the right \
             credentials, or change spec.s3.bucket",
            bucket.name, bucket.owner
        );
        return Err(Finding::new(Reason::InvalidSpec, message));
    }
    match (location.management, found) {
        (Management::Managed, None) => Ok(()),
        (Management::Managed, Some(found)) => target.owner.check("bucket", &bucket.name, &found.tags),
        (Management::Existing, None) => {
            let message = format!(
                "there is no bucket {} in account {}, and spec.s3.management is Existing: make it, or let it be Managed",
                bucket.name, bucket.owner
            );
            Err(Finding::new(Reason::ExistingNotAsSpecified, message))
        }
        (Management::Existing, Some(found)) => check_place(target, location, found),
    }
}

/// Whether the place in a bucket of somebody else is free, or has this issuer's documents.
fn check_place(target: &Target, location: &Location, found: &Bucket) -> Result<(), Finding> {
    let discovery = found.discovery.as_ref().and_then(|object| Discovery::parse(&object.body).ok());
    match discovery {
        Some(Discovery { issuer }) if issuer != target.issuer_url => {
            let message = format!(
                "{} in bucket {} is the discovery document of issuer {issuer}: choose another spec.s3.prefix, or remove it",
                location.discovery_key, location.bucket.name
            );
            Err(Finding::new(Reason::NotOwned, message))
        }
        _ => Ok(()),
    }
}

/// What makes the configuration as wanted, in an order in which a crash between any two calls leaves nothing without an
/// owner and nothing public that is not fenced.
#[must_use]
pub fn diff(target: &Target, found: Option<&Bucket>) -> Vec<Change> {
    let Some(location) = target.managed() else { return Vec::new() };
    let policy = wanted(target, location);
    let (full, fence) = (policy.policy(), policy.deny_only());
    let stored = found.and_then(|bucket| bucket.policy.as_deref());
    let is_stored = |document: &Value| stored.is_some_and(|stored| equivalent(stored, document));
    let put_policy = |document: &Value| {
        let (old, new) = (stored.map(str::to_owned), Some(document.to_string()));
        change(location, POLICY, old, new, S3Write::PutPolicy(document.clone()))
    };
    let mut changes = Vec::new();
    match found {
        None => {
            let write = S3Write::CreateBucket { tags: target.owner.tags().clone() };
            changes.push(change(location, "bucket", None, Some(location.bucket.name.clone()), write));
        }
        Some(bucket) if !bucket.owner_enforced => {
            let (old, new) = (Some("ACLs are on".into()), Some("BucketOwnerEnforced".into()));
            changes.push(change(location, OWNERSHIP_CONTROLS, old, new, S3Write::EnforceOwner));
        }
        Some(_) => {}
    }
    if let Some(found) = found
        && let Some(missing) = tags::missing(target.owner.tags(), &found.tags, str::eq)
    {
        // The call replaces all tags: those of others stay.
        let (old, new) = (missing.describe_instead(), Some(missing.describe()));
        let all: Tags = found.tags.clone().into_iter().chain(missing.tags).collect();
        changes.push(change(location, TAGS, old, new, S3Write::PutTags(all)));
    }
    if !found.is_some_and(|bucket| bucket.public_access == OPEN) {
        if !is_stored(&full) && !is_stored(&fence) {
            changes.push(put_policy(&fence));
        }
        let old = found.map(|bucket| describe(bucket.public_access));
        let write = S3Write::PutPublicAccess(OPEN);
        changes.push(change(location, "public-access block", old, Some(describe(OPEN)), write));
    }
    if !is_stored(&full) {
        changes.push(put_policy(&full));
    }
    changes
}

/// Whether a change of the bucket may be made after the documents are published: it protects nothing.
#[must_use]
pub fn can_wait(change: &Change) -> bool {
    matches!(change.attribute, OWNERSHIP_CONTROLS | TAGS)
}

/// What takes the bucket away once its documents are gone.
#[must_use]
pub fn removal(target: &Target, found: Option<&Bucket>) -> Option<Change> {
    let location = target.managed()?;
    found.map(|_| change(location, "bucket", Some(location.bucket.name.clone()), None, S3Write::DeleteBucket))
}

fn describe(access: PublicAccess) -> String {
    let PublicAccess { block_acls, ignore_acls, block_policy, restrict_buckets } = access;
    format!(
        "BlockPublicAcls={block_acls} IgnorePublicAcls={ignore_acls} BlockPublicPolicy={block_policy} \
         RestrictPublicBuckets={restrict_buckets}"
    )
}

fn change(
    location: &Location,
    attribute: &'static str,
    old: Option<String>,
    new: Option<String>,
    write: S3Write,
) -> Change {
    Change { attribute, old, new, write: Write::S3(location.bucket.clone(), write) }
}
