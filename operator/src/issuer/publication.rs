//! PURE: what has to be written so that bucket, documents and provider are as specified. The reconcile and `bootstrap`
//! both follow this one plan.

use crds::names::{boundary_arn, operator_role_arn, provider_arn, tag};
use crds::{OidcIssuerSpec, Reason};
use serde_json::Value;

use crate::aws::Tags;
use crate::aws::s3::{CACHE_CONTROL, CONTENT_TYPE, Object, PublicAccess};
use crate::oidc::{Documents, Keys};
use crate::policy::bucket::Bucket as BucketPolicy;
use crate::policy::equivalent;

use super::observe::{AwsState, Bucket};

/// An issuer's names and documents in AWS, all computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The issuer URL.
    pub issuer_url: String,
    /// The bucket's name.
    pub bucket: String,
    /// Object keys: discovery document, JWKS.
    pub keys: [String; 2],
    /// ARN of the provider.
    pub provider_arn: String,
    /// ARN of the operator's own role.
    pub operator_role_arn: String,
    /// ARN of the boundary of the cluster's roles.
    pub boundary_arn: String,
    /// Audiences.
    pub audiences: Vec<String>,
    /// Ownership tags of bucket and provider.
    pub tags: Tags,
    partition: &'static str,
}

/// One write. Each is one remote call, idempotent, and safe to repeat after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Make the bucket, owned from its first instant.
    CreateBucket,
    /// Turn ACLs off.
    EnforceOwner,
    /// Put the fence before anything becomes public.
    PutFence(Value),
    /// Allow public policies, still refuse public ACLs.
    OpenPublicAccess(PublicAccess),
    /// Put the full policy.
    PutPolicy(Value),
    /// Write the JWKS; over this entity tag, if one stands.
    PutJwks(Vec<u8>, Option<String>),
    /// Write the discovery document; over this entity tag, if one stands.
    PutDiscovery(Vec<u8>, Option<String>),
    /// Register the issuer.
    CreateProvider,
    /// Add an audience.
    AddAudience(String),
    /// Remove an audience.
    RemoveAudience(String),
}

/// Why nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For the condition.
    pub reason: Reason,
    /// For the user.
    pub message: String,
}

impl Write {
    /// What is written, for events, metrics and the terminal.
    #[must_use]
    pub const fn attribute(&self) -> &'static str {
        match self {
            Self::CreateBucket => "bucket",
            Self::EnforceOwner => "bucket ownership controls",
            Self::PutFence(_) | Self::PutPolicy(_) => "bucket policy",
            Self::OpenPublicAccess(_) => "public-access block",
            Self::PutJwks(..) => "JWKS",
            Self::PutDiscovery(..) => "discovery document",
            Self::CreateProvider => "OIDC provider",
            Self::AddAudience(_) | Self::RemoveAudience(_) => "provider audiences",
        }
    }
}

/// ACLs stay refused and ignored; a public policy must be allowed, or nobody could read the two documents.
pub const OPEN: PublicAccess =
    PublicAccess { block_acls: true, ignore_acls: true, block_policy: false, restrict_buckets: false };

impl Target {
    /// The names of an issuer in an account.
    #[must_use]
    pub fn new(name: &str, spec: &OidcIssuerSpec, account: &str) -> Self {
        let partition = spec.partition().id;
        let issuer_url = spec.issuer_url();
        Self {
            bucket: spec.s3.bucket.clone(),
            keys: [spec.discovery_key(), spec.jwks_key()],
            provider_arn: provider_arn(partition, account, &issuer_url),
            operator_role_arn: operator_role_arn(partition, account, &spec.cluster_name),
            boundary_arn: boundary_arn(partition, account, &spec.cluster_name),
            audiences: spec.audiences.clone(),
            tags: spec.ownership_tags("OidcIssuer", None, name),
            issuer_url,
            partition,
        }
    }

    /// The bucket policy's subject.
    #[must_use]
    pub fn bucket_policy(&self) -> BucketPolicy<'_> {
        BucketPolicy {
            partition: self.partition,
            name: &self.bucket,
            public_keys: [&self.keys[0], &self.keys[1]],
            provider_arn: &self.provider_arn,
            operator_role_arn: &self.operator_role_arn,
        }
    }
}

/// A bucket whose name says `-<account>-<region>-an` can be made by that account in that region only.
pub fn check_account(spec: &OidcIssuerSpec, account: &str) -> Result<(), Refusal> {
    let bucket = &spec.s3.bucket;
    let Some(head) = bucket.strip_suffix(&format!("-{}-an", spec.s3.region)) else { return Ok(()) };
    match head.rsplit('-').next() {
        Some(named) if named.len() == 12 && named.bytes().all(|b| b.is_ascii_digit()) && named != account => {
            Err(Refusal {
                reason: Reason::InvalidSpec,
                message: format!(
                    "bucket {bucket} can only be made by account {named}, but these credentials are of account \
                     {account}: use the right credentials, or change spec.s3.bucket"
                ),
            })
        }
        _ => Ok(()),
    }
}

/// The documents to publish: those of the API server's keys, or nothing while they are not known.
#[must_use]
pub fn documents(spec: &OidcIssuerSpec, keys: &Keys) -> Documents {
    Documents::new(&spec.issuer_url(), &spec.jwks_uri(), keys)
}

/// Whether the published keys are all of another API server. Where that one also issues under another URL, a file was
/// copied to a second cluster or the wrong cluster is asked: its keys must not replace those that stand.
#[must_use]
pub fn foreign_keys(state: &AwsState, keys: &Keys) -> bool {
    let standing = state.bucket.as_ref().and_then(|bucket| bucket.jwks.as_ref());
    let standing = standing.and_then(|object| Keys::parse(&object.body).ok());
    standing.is_some_and(|standing| !standing.ids().any(|id| keys.ids().any(|known| known == id)))
}

/// What has to be written, in an order in which a crash between any two leaves nothing un-owned, nothing public that is
/// not fenced, and no provider whose documents are missing. `wanted` is `None` while the API server's keys are not
/// known: the documents are then left as they are, never shrunk.
pub fn plan(target: &Target, state: &AwsState, wanted: Option<&Documents>) -> Result<Vec<Write>, Refusal> {
    let AwsState { bucket, provider } = state;
    if let Some(bucket) = bucket {
        owned("bucket", &target.bucket, &bucket.tags, &target.tags)?;
    }
    if let Some(provider) = provider {
        owned("OIDC provider", &target.provider_arn, &provider.tags, &target.tags)?;
    }
    let mut writes = bucket_writes(target, bucket.as_ref(), wanted);
    match provider {
        // IAM reads the URL when it registers it: there must be something to read.
        None if wanted.is_none() && bucket.as_ref().is_none_or(|b| b.discovery.is_none()) => {}
        None => writes.push(Write::CreateProvider),
        Some(provider) => {
            let missing = target.audiences.iter().filter(|a| !provider.client_ids.contains(a)).cloned();
            writes.extend(missing.map(Write::AddAudience));
            let surplus = provider.client_ids.iter().filter(|a| !target.audiences.contains(a)).cloned();
            writes.extend(surplus.map(Write::RemoveAudience));
        }
    }
    Ok(writes)
}

fn bucket_writes(target: &Target, bucket: Option<&Bucket>, wanted: Option<&Documents>) -> Vec<Write> {
    let policy = target.bucket_policy();
    let mut writes = Vec::new();
    let stands = |document: &Value| {
        bucket.and_then(|b| b.policy.as_deref()).is_some_and(|stored| equivalent(stored, document))
    };
    match bucket {
        None => writes.push(Write::CreateBucket),
        Some(bucket) if !bucket.owner_enforced => writes.push(Write::EnforceOwner),
        Some(_) => {}
    }
    let full = policy.policy();
    let open = bucket.is_some_and(|b| b.public_access == OPEN);
    if !open {
        if !stands(&full) && !stands(&policy.deny_only()) {
            writes.push(Write::PutFence(policy.deny_only()));
        }
        writes.push(Write::OpenPublicAccess(OPEN));
    }
    if !stands(&full) {
        writes.push(Write::PutPolicy(full));
    }
    if let Some(Documents { discovery, jwks }) = wanted {
        let standing = bucket.and_then(|b| b.jwks.as_ref());
        if !published(standing, jwks) {
            writes.push(Write::PutJwks(jwks.clone(), standing.map(|o| o.etag.clone())));
        }
        let standing = bucket.and_then(|b| b.discovery.as_ref());
        if !published(standing, discovery) {
            writes.push(Write::PutDiscovery(discovery.clone(), standing.map(|o| o.etag.clone())));
        }
    }
    writes
}

fn published(standing: Option<&Object>, wanted: &[u8]) -> bool {
    standing.is_some_and(|o| {
        o.body == wanted && o.content_type == CONTENT_TYPE && o.cache_control == CACHE_CONTROL
    })
}

/// Ownership is proved by tags and never by a uid: a restored cluster must find its own.
pub fn owned(what: &str, name: &str, found: &Tags, ours: &Tags) -> Result<(), Refusal> {
    let proof = [tag::CLUSTER, tag::KIND, tag::NAMESPACE, tag::NAME, tag::ISSUER];
    if proof.iter().all(|key| found.get(*key) == ours.get(*key)) {
        return Ok(());
    }
    let of = |key: &str| found.get(key).map_or("?", String::as_str);
    let message = match found.get(tag::CLUSTER) {
        None => format!(
            "{what} {name} exists and does not carry this operator's ownership tags: it belongs to somebody else. \
             Choose another name, or remove it"
        ),
        Some(cluster)
            if Some(cluster) == ours.get(tag::CLUSTER) && found.get(tag::ISSUER) != ours.get(tag::ISSUER) =>
        {
            format!(
                "{what} {name} belongs to another cluster named {cluster} (issuer {}): cluster name taken in this \
                 account. Choose another spec.clusterName",
                of(tag::ISSUER)
            )
        }
        Some(cluster) => {
            let namespace = found.get(tag::NAMESPACE).map_or(String::new(), |ns| format!("{ns}/"));
            format!(
                "{what} {name} belongs to {} {namespace}{} of cluster {cluster}, issuer {}",
                of(tag::KIND),
                of(tag::NAME),
                of(tag::ISSUER)
            )
        }
    };
    Err(Refusal { reason: Reason::NotOwned, message })
}
