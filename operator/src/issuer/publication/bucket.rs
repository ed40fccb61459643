//! PURE: the bucket's configuration: owner, ACLs, policy, public-access block.

use crds::names::account_of_bucket;
use crds::{Finding, Reason};
use serde_json::Value;

use super::target::Target;
use crate::aws::model::{Bucket, PublicAccess, S3Write, Write};
use crate::change::Change;
use crate::policy::bucket::Bucket as BucketPolicy;
use crate::policy::equivalent;

/// The attribute of the bucket's policy.
pub const POLICY: &str = "bucket policy";

/// ACLs stay refused and ignored; a public policy must be allowed, or the two documents could not be read.
pub const OPEN: PublicAccess =
    PublicAccess { block_acls: true, ignore_acls: true, block_policy: false, restrict_buckets: false };

/// The bucket policy's terms.
#[must_use]
pub fn wanted(target: &Target) -> BucketPolicy<'_> {
    BucketPolicy {
        partition: target.partition,
        name: &target.bucket.name,
        public_keys: [&target.discovery_key, &target.jwks_key],
        provider_arn: &target.provider_arn,
        issuer_url: &target.issuer_url,
        operator_role_arn: &target.operator_role_arn,
    }
}

/// Whether the bucket can be this issuer's: made by this account, and not by somebody else.
pub fn check(target: &Target, found: Option<&Bucket>) -> Result<(), Finding> {
    let bucket = &target.bucket;
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
    found.map_or(Ok(()), |found| target.owner.check("bucket", &bucket.name, &found.tags))
}

/// What makes the configuration as wanted, in an order in which a crash between any two calls leaves nothing without an
/// owner and nothing public that is not fenced.
#[must_use]
pub fn diff(target: &Target, found: Option<&Bucket>) -> Vec<Change> {
    let policy = wanted(target);
    let (full, fence) = (policy.policy(), policy.deny_only());
    let stored = found.and_then(|bucket| bucket.policy.as_deref());
    let is_stored = |document: &Value| stored.is_some_and(|stored| equivalent(stored, document));
    let put_policy = |document: &Value| {
        let (old, new) = (stored.map(str::to_owned), Some(document.to_string()));
        change(target, POLICY, old, new, S3Write::PutPolicy(document.clone()))
    };
    let mut changes = Vec::new();
    match found {
        None => {
            let write = S3Write::CreateBucket { tags: target.owner.tags().clone() };
            changes.push(change(target, "bucket", None, Some(target.bucket.name.clone()), write));
        }
        Some(bucket) if !bucket.owner_enforced => {
            let (old, new) = (Some("ACLs are on".into()), Some("BucketOwnerEnforced".into()));
            changes.push(change(target, "bucket ownership controls", old, new, S3Write::EnforceOwner));
        }
        Some(_) => {}
    }
    if !found.is_some_and(|bucket| bucket.public_access == OPEN) {
        if !is_stored(&full) && !is_stored(&fence) {
            changes.push(put_policy(&fence));
        }
        let old = found.map(|bucket| describe(bucket.public_access));
        let write = S3Write::PutPublicAccess(OPEN);
        changes.push(change(target, "public-access block", old, Some(describe(OPEN)), write));
    }
    if !is_stored(&full) {
        changes.push(put_policy(&full));
    }
    changes
}

/// What takes the bucket away once its documents are gone.
#[must_use]
pub fn removal(target: &Target, found: Option<&Bucket>) -> Option<Change> {
    found.map(|_| change(target, "bucket", Some(target.bucket.name.clone()), None, S3Write::DeleteBucket))
}

fn describe(access: PublicAccess) -> String {
    let PublicAccess { block_acls, ignore_acls, block_policy, restrict_buckets } = access;
    format!(
        "BlockPublicAcls={block_acls} IgnorePublicAcls={ignore_acls} BlockPublicPolicy={block_policy} \
         RestrictPublicBuckets={restrict_buckets}"
    )
}

fn change(
    target: &Target,
    attribute: &'static str,
    old: Option<String>,
    new: Option<String>,
    write: S3Write,
) -> Change {
    Change { attribute, old, new, write: Write::S3(target.bucket.clone(), write) }
}
