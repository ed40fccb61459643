//! PURE: `bootstrap --output terraform`: what `bootstrap` makes, as a file for Terraform and `OpenTofu` in their JSON syntax. It is
//! made of the very writes that `bootstrap` would do in an empty account, so that both always say the same.
//!
//! What the operator keeps as specified later (documents, the bucket's configuration, the provider's audiences) is in
//! `ignore_changes`: Terraform makes it once, and the two never change it in turn.

use crds::names::account_of_bucket;
use serde_json::{Map, Value, json};

use crate::aws::model::{
    BucketRef, CACHE_CONTROL, CLOCKS, CONTENT_TYPE, IamWrite, NewRole, PublicAccess, S3Write, Write,
};
use crate::change::Change;

/// The first version of the provider `hashicorp/aws` with `bucket_namespace`; a resource's own `region` came earlier.
const PROVIDER_VERSION: &str = ">= 6.37";

/// The resources of a file, by type and name.
#[derive(Debug, Default)]
pub struct File {
    resources: Map<String, Value>,
}

impl File {
    /// Adds what these changes make. `name` is that of the `OidcIssuer`, or of the role.
    pub fn add<'a>(&mut self, name: &str, changes: impl IntoIterator<Item = &'a Change>) {
        // Names have letters, digits, hyphens and underscores, and do not begin with a digit; those of Kubernetes have dots, and no
        // underscores.
        let digit = name.starts_with(|first: char| first.is_ascii_digit());
        let name = format!("{}{}", if digit { "_" } else { "" }, name.replace('.', "_"));
        for change in changes {
            match &change.write {
                Write::S3(bucket, write) => self.add_s3(&name, bucket, change.attribute, write),
                Write::Iam(write) => self.add_iam(&name, write),
            }
        }
    }

    fn add_s3(&mut self, name: &str, bucket: &BucketRef, attribute: &str, write: &S3Write) {
        let BucketRef { name: bucket_name, region, .. } = bucket;
        let public_access = format!("aws_s3_bucket_public_access_block.{name}");
        match write {
            S3Write::CreateBucket { tags } => {
                let namespace = account_of_bucket(bucket_name, region).map(|_| "account-regional");
                let mut created = json!({"bucket": bucket_name, "region": region, "tags": tags});
                if let Some(namespace) = namespace {
                    created["bucket_namespace"] = json!(namespace);
                }
                self.put("aws_s3_bucket", name, created, &[], &["tags"]);
                let ownership = json!({"bucket": bucket_name, "region": region, "rule": {"object_ownership": "BucketOwnerEnforced"}});
                self.put(
                    "aws_s3_bucket_ownership_controls",
                    name,
                    ownership,
                    &[format!("aws_s3_bucket.{name}")],
                    &["rule"],
                );
            }
            S3Write::PutPublicAccess(PublicAccess {
                block_acls,
                ignore_acls,
                block_policy,
                restrict_buckets,
            }) => {
                let block = json!({
                    "bucket": bucket_name, "region": region, "block_public_acls": block_acls, "ignore_public_acls": ignore_acls,
                    "block_public_policy": block_policy, "restrict_public_buckets": restrict_buckets,
                });
                let kept = [
                    "block_public_acls",
                    "ignore_public_acls",
                    "block_public_policy",
                    "restrict_public_buckets",
                ];
                self.put(
                    "aws_s3_bucket_public_access_block",
                    name,
                    block,
                    &[format!("aws_s3_bucket.{name}")],
                    &kept,
                );
            }
            // The last one counts: before it `bootstrap` puts the statements that only deny.
            S3Write::PutPolicy(document) => {
                let policy = json!({"bucket": bucket_name, "region": region, "policy": document.to_string()});
                self.put("aws_s3_bucket_policy", name, policy, &[public_access], &["policy"]);
            }
            S3Write::PutObject { key, body, clocks, .. } => {
                let mut object = json!({
                    "bucket": bucket_name, "region": region, "key": key, "content": String::from_utf8_lossy(body),
                    "content_type": CONTENT_TYPE, "cache_control": CACHE_CONTROL, "server_side_encryption": "AES256",
                });
                if !clocks.is_empty() {
                    object["metadata"] = json!({CLOCKS: clocks});
                }
                let after = self.existing("aws_s3_bucket_policy", name);
                let name = format!("{name}_{}", attribute.to_lowercase().replace(' ', "_"));
                self.put("aws_s3_object", &name, object, &after, &["content", "metadata"]);
            }
            S3Write::PutTags(_)
            | S3Write::EnforceOwner
            | S3Write::DeleteObject { .. }
            | S3Write::DeleteBucket => {}
        }
    }

    fn add_iam(&mut self, name: &str, write: &IamWrite) {
        match write {
            IamWrite::CreateProvider { url, audiences, tags } => {
                let provider = json!({"url": url, "client_id_list": audiences, "tags": tags});
                // IAM reads the documents.
                let documents = ["discovery_document", "jwks"].map(|document| format!("{name}_{document}"));
                let after = documents.map(|document| self.existing("aws_s3_object", &document)).concat();
                self.put(
                    "aws_iam_openid_connect_provider",
                    name,
                    provider,
                    &after,
                    &["client_id_list", "tags"],
                );
            }
            IamWrite::CreatePolicy { name: policy, path, document, tags } => {
                let policy =
                    json!({"name": policy, "path": path, "policy": document.to_string(), "tags": tags});
                self.put("aws_iam_policy", name, policy, &[], &[]);
            }
            IamWrite::CreateRole(new) => {
                let NewRole { name: role, path, trust, boundary, settings, tags } = &**new;
                let mut created = json!({
                    "name": role, "path": path, "assume_role_policy": trust, "max_session_duration": settings.max_session_seconds,
                    "description": settings.description, "tags": tags,
                });
                if let Some(boundary) = boundary {
                    created["permissions_boundary"] = json!(boundary);
                }
                self.put("aws_iam_role", name, created, &[], &[]);
            }
            IamWrite::PutInline { role, name: policy, document } => {
                let inline = json!({"role": role, "name": policy, "policy": document.to_string()});
                self.put("aws_iam_role_policy", name, inline, &[format!("aws_iam_role.{name}")], &[]);
            }
            _ => {}
        }
    }

    /// A resource's address, if the file has it.
    fn existing(&self, kind: &str, name: &str) -> Vec<String> {
        let resource = self.resources.get(kind).and_then(|resources| resources.get(name));
        resource.map(|_| format!("{kind}.{name}")).into_iter().collect()
    }

    fn put(&mut self, kind: &str, name: &str, attributes: Value, after: &[String], ignored: &[&str]) {
        let mut resource = literal(attributes);
        if !after.is_empty() {
            resource["depends_on"] = json!(after);
        }
        if !ignored.is_empty() {
            resource["lifecycle"] = json!({"ignore_changes": ignored});
        }
        let resources = self.resources.entry(kind).or_insert_with(|| json!({}));
        resources[name] = resource;
    }

    /// The file.
    #[must_use]
    pub fn json(self) -> Value {
        json!({
            "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws", "version": PROVIDER_VERSION}}},
            "resource": self.resources,
        })
    }
}

/// Terraform reads `${` and `%{` in texts as the beginning of a template, and policies have variables of that form.
fn literal(value: Value) -> Value {
    match value {
        Value::String(text) => json!(text.replace("${", "$${").replace("%{", "%%{")),
        Value::Array(items) => items.into_iter().map(literal).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, literal(value))).collect(),
        other => other,
    }
}
