//! PURE: what AWS shows and what is changed in AWS, as values. Reads return these types; every change is a [`Write`] that a
//! decision makes and a client carries out.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use crds::names::{self, Partition};
use serde_json::Value;

/// Tags of a resource, by key.
pub type Tags = BTreeMap<String, String>;

/// Account and principal of a set of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Twelve digits.
    pub account: String,
    /// The caller's ARN.
    pub arn: String,
}

impl Identity {
    /// An account of which only the id is known, as in the commands that do not ask AWS.
    #[must_use]
    pub fn of_account(account: &str) -> Self {
        Self { account: account.to_owned(), arn: String::new() }
    }

    /// The partition of the account.
    #[must_use]
    pub fn partition(&self) -> Partition {
        Partition::of_arn(&self.arn).unwrap_or_else(|| Partition::of_region(""))
    }
}

/// An OIDC provider as IAM shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Audiences.
    pub client_ids: Vec<String>,
    /// Tags.
    pub tags: Tags,
}

/// A role as IAM shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The unique id, `AROA…`: a role that was made anew under the same name has another one.
    pub id: String,
    /// The full ARN, path included.
    pub arn: String,
    /// The trust policy, decoded.
    pub trust: String,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// Session limit and description.
    pub settings: RoleSettings,
    /// Tags.
    pub tags: Tags,
}

/// A role as a list shows it: without its boundary, tags and policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRole {
    /// The name.
    pub name: Box<str>,
    /// [`Self::digest`] of its trust policy and settings, which are not kept: there may be tens of thousands of roles.
    pub digest: u64,
}

impl ListedRole {
    /// A number that differs where two roles differ in what a list shows; equal trust policies may be written in different ways, and
    /// differ then.
    #[must_use]
    pub fn digest(trust: &Value, settings: &RoleSettings) -> u64 {
        let mut hasher = DefaultHasher::new();
        (trust.to_string(), settings.max_session_seconds, &settings.description).hash(&mut hasher);
        hasher.finish()
    }

    /// The same of a trust policy as text.
    #[must_use]
    pub fn digest_of_text(trust: &str, settings: &RoleSettings) -> u64 {
        Self::digest(&serde_json::from_str(trust).unwrap_or_default(), settings)
    }
}

/// What the last list of a path shows of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// When the list began.
    pub at: Instant,
    /// [`ListedRole::digest`]; `None` where the role is not in the list.
    pub digest: Option<u64>,
}

/// What this process did to the roles of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoleChanges {
    /// When it last made the role, or wrote its tags. Also a call without an answer counts: it may have been carried out.
    pub made: Option<Instant>,
    /// When it last deleted a role of that name, and [`names::hash_of`] of the id.
    pub deleted: Option<(Instant, u64)>,
}

impl RoleChanges {
    /// Whether it has deleted the role and not made it since.
    #[must_use]
    pub fn ends_deleted(&self) -> bool {
        self.deleted.is_some_and(|(deleted, _)| self.made.is_none_or(|made| made < deleted))
    }

    /// When it last deleted this very role, which IAM may still show for a moment.
    #[must_use]
    pub fn deletion_of(&self, role: &Role) -> Option<Instant> {
        self.deleted.filter(|(_, id)| *id == names::hash_of(&role.id)).map(|(at, _)| at)
    }
}

/// What IAM's `UpdateRole` sets, always both: without a session limit it would put back its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSettings {
    /// `MaxSessionDuration` in seconds, 3,600 to 43,200.
    pub max_session_seconds: i32,
    /// At most 1,000 characters.
    pub description: String,
}

/// What a new role is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRole {
    /// The name.
    pub name: String,
    /// The path, `/…/`.
    pub path: String,
    /// The trust policy.
    pub trust: String,
    /// ARN of the permissions boundary; the operator's own role has none.
    pub boundary: Option<String>,
    /// Session limit and description.
    pub settings: RoleSettings,
    /// Tags, put in the creating call, so that a crash cannot leave it without an owner.
    pub tags: Tags,
}

/// What is attached to a role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RolePolicies {
    /// Managed policies by ARN. Those that the binding specifies are not read; of the others, the document.
    pub attached: BTreeMap<String, Option<String>>,
    /// Inline policies by name, with their documents.
    pub inline: BTreeMap<String, String>,
    /// ARNs of further managed policies that IAM lists and whose documents it does not show. Nothing is known of them: one that only denies
    /// must stay while the role does.
    pub unread_attached: BTreeSet<String>,
    /// Names of such inline policies.
    pub unread_inline: BTreeSet<String>,
}

impl RolePolicies {
    /// Whether the documents of some policies could not be read.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.unread_attached.is_empty() || !self.unread_inline.is_empty()
    }

    /// Policies whose documents could not be read, in words.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        let inline = self.unread_inline.iter().map(|name| format!("inline policy {name}"));
        self.unread_attached.iter().cloned().chain(inline).collect()
    }
}

/// A managed policy's default version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The document, decoded.
    pub document: String,
    /// Tags.
    pub tags: Tags,
    /// Versions that are not the default, oldest first.
    pub old_versions: Vec<String>,
}

/// The four flags of a bucket's public-access block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "S3's own shape")]
pub struct PublicAccess {
    /// Refuse public ACLs.
    pub block_acls: bool,
    /// Ignore public ACLs.
    pub ignore_acls: bool,
    /// Refuse public bucket policies.
    pub block_policy: bool,
    /// Ignore public bucket policies for callers of other accounts.
    pub restrict_buckets: bool,
}

/// An object as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub body: Vec<u8>,
    /// The entity tag, for conditional writes.
    pub etag: String,
    /// `Content-Type`.
    pub content_type: String,
    /// `Cache-Control`.
    pub cache_control: String,
    /// Whether it is encrypted with a key of AWS KMS: then S3 refuses reads without credentials.
    pub encrypted_by_key: bool,
    /// The retention clocks of signing keys in its metadata; empty where there are none.
    pub clocks: String,
}

/// A bucket as S3 shows it. Of one that is not managed, only the documents are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Tags.
    pub tags: Tags,
    /// Whether ACLs are off.
    pub owner_enforced: bool,
    /// The public-access block.
    pub public_access: PublicAccess,
    /// The bucket policy.
    pub policy: Option<String>,
    /// The discovery document.
    pub discovery: Option<Object>,
    /// The JWKS.
    pub jwks: Option<Object>,
}

/// The media type of both documents; S3 would say `application/octet-stream`.
pub const CONTENT_TYPE: &str = "application/json";
/// The name in an object's metadata (`x-amz-meta-…`) under which the retention clocks of signing keys are stored.
pub const CLOCKS: &str = "podidentity-retired-keys";
/// Short: a new signing key must reach STS soon, whatever caches are in between.
pub const CACHE_CONTROL: &str = "max-age=60";

/// A bucket, and what every call on it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketRef {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// The account that must own it.
    pub owner: String,
}

/// One change in AWS: one remote call, safe to repeat after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// In IAM.
    Iam(IamWrite),
    /// In S3.
    S3(BucketRef, S3Write),
}

/// One change in IAM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "variants are the API's operations, fields its parameters")]
pub enum IamWrite {
    CreateProvider {
        url: String,
        audiences: Vec<String>,
        tags: Tags,
    },
    AddAudience {
        provider: String,
        audience: String,
    },
    RemoveAudience {
        provider: String,
        audience: String,
    },
    DeleteProvider {
        provider: String,
    },
    TagProvider {
        provider: String,
        tags: Tags,
    },
    CreateRole(Box<NewRole>),
    /// `otherwise` is put where IAM refuses `document` as malformed.
    PutTrust {
        role: String,
        document: Value,
        otherwise: Option<Value>,
    },
    PutBoundary {
        role: String,
        boundary: String,
    },
    PutSettings {
        role: String,
        settings: RoleSettings,
    },
    AttachPolicy {
        role: String,
        policy: String,
    },
    DetachPolicy {
        role: String,
        policy: String,
    },
    PutInline {
        role: String,
        name: String,
        document: Value,
    },
    DeleteInline {
        role: String,
        name: String,
    },
    DeleteRole {
        role: String,
        /// Its unique id as it was read. IAM deletes by name.
        id: String,
    },
    TagRole {
        role: String,
        tags: Tags,
    },
    UntagRole {
        role: String,
        keys: Vec<String>,
    },
    CreatePolicy {
        name: String,
        path: String,
        document: Value,
        tags: Tags,
    },
    PutPolicyVersion {
        policy: String,
        document: Value,
    },
    DeletePolicyVersion {
        policy: String,
        version: String,
    },
    DeletePolicy {
        policy: String,
    },
    TagPolicy {
        policy: String,
        tags: Tags,
    },
}

/// One change of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "variants are the API's operations, fields its parameters")]
pub enum S3Write {
    /// Makes the bucket with its tags and without ACLs in one call: it has an owner from its first instant.
    CreateBucket {
        tags: Tags,
    },
    /// Puts the tags where the creating call did not.
    PutTags(Tags),
    EnforceOwner,
    PutPolicy(Value),
    PutPublicAccess(PublicAccess),
    /// Over the object of that entity tag, or only where there is none.
    PutObject {
        key: String,
        body: Vec<u8>,
        /// Stored in its metadata, unless empty.
        clocks: String,
        over: Option<String>,
    },
    DeleteObject {
        key: String,
    },
    DeleteBucket,
}

impl Write {
    /// What it changes: the bucket, with the object's key; the role's name; the ARN of a provider or a policy, as far as there is one.
    #[must_use]
    pub fn resource(&self) -> String {
        let write = match self {
            Self::S3(bucket, S3Write::PutObject { key, .. } | S3Write::DeleteObject { key }) => {
                return format!("{}/{key}", bucket.name);
            }
            Self::S3(bucket, _) => return bucket.name.clone(),
            Self::Iam(write) => write,
        };
        match write {
            IamWrite::CreateProvider { url, .. } => url.clone(),
            IamWrite::AddAudience { provider, .. }
            | IamWrite::RemoveAudience { provider, .. }
            | IamWrite::DeleteProvider { provider }
            | IamWrite::TagProvider { provider, .. } => provider.clone(),
            IamWrite::CreateRole(role) => role.name.clone(),
            IamWrite::PutTrust { role, .. }
            | IamWrite::PutBoundary { role, .. }
            | IamWrite::PutSettings { role, .. }
            | IamWrite::AttachPolicy { role, .. }
            | IamWrite::DetachPolicy { role, .. }
            | IamWrite::PutInline { role, .. }
            | IamWrite::DeleteInline { role, .. }
            | IamWrite::DeleteRole { role, .. }
            | IamWrite::TagRole { role, .. }
            | IamWrite::UntagRole { role, .. } => role.clone(),
            IamWrite::CreatePolicy { name, .. } => name.clone(),
            IamWrite::PutPolicyVersion { policy, .. }
            | IamWrite::DeletePolicyVersion { policy, .. }
            | IamWrite::DeletePolicy { policy }
            | IamWrite::TagPolicy { policy, .. } => policy.clone(),
        }
    }

    /// Whether no other change may follow before AWS was read again: a bucket of that name may have been there before,
    /// and whose it is is read from its tags.
    #[must_use]
    pub const fn needs_read_back(&self) -> bool {
        matches!(self, Self::S3(_, S3Write::CreateBucket { .. }))
    }

    /// Whether the write makes a provider.
    #[must_use]
    pub const fn creates_provider(&self) -> bool {
        matches!(self, Self::Iam(IamWrite::CreateProvider { .. }))
    }

    /// The provider that the write removes, if it removes one.
    #[must_use]
    pub fn deleted_provider(&self) -> Option<&str> {
        match self {
            Self::Iam(IamWrite::DeleteProvider { provider }) => Some(provider),
            _ => None,
        }
    }

    /// Whether it removes a bucket.
    #[must_use]
    pub const fn deletes_bucket(&self) -> bool {
        matches!(self, Self::S3(_, S3Write::DeleteBucket))
    }
}

/// What a write returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The change was made, or had been made before.
    Done,
    /// The role was made; `CreateRole`'s answer is its first read-back.
    Role(Box<Role>),
}
