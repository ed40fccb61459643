//! AWS IAM: providers, roles and policies. Names and ARNs are computed by the caller; nothing is searched for.

use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::types::Tag;

use super::error::{Class, optional, tolerate};
use super::{AwsError, Tags};
use crate::metrics::Metrics;

/// IAM of the operator's partition.
#[derive(Clone)]
pub struct Iam {
    client: Client,
    metrics: Arc<Metrics>,
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
    /// The full ARN, path included.
    pub arn: String,
    /// The trust policy, decoded.
    pub trust: String,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// Tags.
    pub tags: Tags,
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
    /// At most 1,000 characters.
    pub description: String,
    /// Tags, put in the creating call, so that a crash cannot leave it un-owned.
    pub tags: Tags,
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

/// Calls a client operation and classifies what comes back.
macro_rules! call {
    ($self:ident, $operation:literal, $resource:expr, $builder:expr) => {
        $self.metrics.aws(concat!("iam:", $operation), $resource, $builder.send().await)
    };
}

impl Iam {
    pub(super) fn new(config: &SdkConfig, metrics: Arc<Metrics>) -> Self {
        Self { client: Client::new(config), metrics }
    }

    /// The provider of that ARN, if it exists.
    pub async fn provider(&self, arn: &str) -> Result<Option<Provider>, AwsError> {
        let request = self.client.get_open_id_connect_provider().open_id_connect_provider_arn(arn);
        let answer = optional(call!(self, "GetOpenIDConnectProvider", arn, request))?;
        Ok(answer.map(|p| Provider { client_ids: p.client_id_list().to_vec(), tags: tags_from(p.tags()) }))
    }

    /// Registers an issuer. No thumbprint: AWS validates S3's certificate with its own trust store.
    pub async fn create_provider(
        &self,
        url: &str,
        client_ids: &[String],
        tags: &Tags,
    ) -> Result<(), AwsError> {
        let request = self
            .client
            .create_open_id_connect_provider()
            .url(url)
            .set_client_id_list(Some(client_ids.to_vec()))
            .set_tags(Some(tags_to(tags)));
        call!(self, "CreateOpenIDConnectProvider", url, request).map(|_| ())
    }

    /// Adds an audience; no error if it is there.
    pub async fn add_audience(&self, arn: &str, audience: &str) -> Result<(), AwsError> {
        let request = self
            .client
            .add_client_id_to_open_id_connect_provider()
            .open_id_connect_provider_arn(arn)
            .client_id(audience);
        call!(self, "AddClientIDToOpenIDConnectProvider", arn, request).map(|_| ())
    }

    /// Removes an audience; no error if it is not there.
    pub async fn remove_audience(&self, arn: &str, audience: &str) -> Result<(), AwsError> {
        let request = self
            .client
            .remove_client_id_from_open_id_connect_provider()
            .open_id_connect_provider_arn(arn)
            .client_id(audience);
        call!(self, "RemoveClientIDFromOpenIDConnectProvider", arn, request).map(|_| ())
    }

    /// Removes a provider; no error if it is gone.
    pub async fn delete_provider(&self, arn: &str) -> Result<(), AwsError> {
        let request = self.client.delete_open_id_connect_provider().open_id_connect_provider_arn(arn);
        tolerate(Class::NotFound, call!(self, "DeleteOpenIDConnectProvider", arn, request))
    }

    /// The role of that name, if it exists.
    pub async fn role(&self, name: &str) -> Result<Option<Role>, AwsError> {
        let answer = optional(call!(self, "GetRole", name, self.client.get_role().role_name(name)))?;
        Ok(answer.and_then(|a| a.role).map(role_from))
    }

    /// Makes a role. Its answer is the first read-back.
    pub async fn create_role(&self, new: &NewRole) -> Result<Role, AwsError> {
        let NewRole { name, path, trust, boundary, description, tags } = new;
        let request = self
            .client
            .create_role()
            .role_name(name)
            .path(path)
            .assume_role_policy_document(trust)
            .set_permissions_boundary(boundary.clone())
            .description(description)
            .set_tags(Some(tags_to(tags)));
        let answer = call!(self, "CreateRole", name, request)?;
        let mut role = answer.role.map(role_from).ok_or_else(|| AwsError {
            class: Class::Transient,
            operation: "iam:CreateRole",
            resource: name.clone(),
            code: String::new(),
            message: "an answer without a role".into(),
            detail: String::new(),
        })?;
        // CreateRole's answer leaves out what the call itself put.
        role.boundary.clone_from(boundary);
        role.tags.clone_from(tags);
        Ok(role)
    }

    /// Replaces a role's trust policy.
    pub async fn put_trust(&self, role: &str, document: &str) -> Result<(), AwsError> {
        let request = self.client.update_assume_role_policy().role_name(role).policy_document(document);
        call!(self, "UpdateAssumeRolePolicy", role, request).map(|_| ())
    }

    /// Sets a role's permissions boundary.
    pub async fn put_boundary(&self, role: &str, boundary: &str) -> Result<(), AwsError> {
        let request =
            self.client.put_role_permissions_boundary().role_name(role).permissions_boundary(boundary);
        call!(self, "PutRolePermissionsBoundary", role, request).map(|_| ())
    }

    /// ARNs of the managed policies attached to a role, all pages.
    pub async fn attached(&self, role: &str) -> Result<Vec<String>, AwsError> {
        let mut arns = Vec::new();
        let mut marker = None;
        loop {
            let request = self.client.list_attached_role_policies().role_name(role).set_marker(marker);
            let page = call!(self, "ListAttachedRolePolicies", role, request)?;
            arns.extend(page.attached_policies().iter().filter_map(|p| p.policy_arn.clone()));
            marker = page.marker;
            if !page.is_truncated {
                return Ok(arns);
            }
        }
    }

    /// Names of a role's inline policies, all pages.
    pub async fn inline(&self, role: &str) -> Result<Vec<String>, AwsError> {
        let mut names = Vec::new();
        let mut marker = None;
        loop {
            let request = self.client.list_role_policies().role_name(role).set_marker(marker);
            let page = call!(self, "ListRolePolicies", role, request)?;
            names.extend_from_slice(page.policy_names());
            marker = page.marker;
            if !page.is_truncated {
                return Ok(names);
            }
        }
    }

    /// Attaches a managed policy; no error if it is attached.
    pub async fn attach(&self, role: &str, policy_arn: &str) -> Result<(), AwsError> {
        let request = self.client.attach_role_policy().role_name(role).policy_arn(policy_arn);
        call!(self, "AttachRolePolicy", policy_arn, request).map(|_| ())
    }

    /// Detaches a managed policy; no error if it is not attached.
    pub async fn detach(&self, role: &str, policy_arn: &str) -> Result<(), AwsError> {
        let request = self.client.detach_role_policy().role_name(role).policy_arn(policy_arn);
        tolerate(Class::NotFound, call!(self, "DetachRolePolicy", policy_arn, request))
    }

    /// An inline policy's document, decoded, if it exists.
    pub async fn inline_document(&self, role: &str, name: &str) -> Result<Option<String>, AwsError> {
        let request = self.client.get_role_policy().role_name(role).policy_name(name);
        let answer = optional(call!(self, "GetRolePolicy", role, request))?;
        Ok(answer.map(|a| decode(&a.policy_document)))
    }

    /// Puts an inline policy.
    pub async fn put_inline(&self, role: &str, name: &str, document: &str) -> Result<(), AwsError> {
        let request =
            self.client.put_role_policy().role_name(role).policy_name(name).policy_document(document);
        call!(self, "PutRolePolicy", role, request).map(|_| ())
    }

    /// Removes an inline policy; no error if it is gone.
    pub async fn delete_inline(&self, role: &str, name: &str) -> Result<(), AwsError> {
        let request = self.client.delete_role_policy().role_name(role).policy_name(name);
        tolerate(Class::NotFound, call!(self, "DeleteRolePolicy", role, request))
    }

    /// Removes a role; no error if it is gone.
    pub async fn delete_role(&self, role: &str) -> Result<(), AwsError> {
        tolerate(Class::NotFound, call!(self, "DeleteRole", role, self.client.delete_role().role_name(role)))
    }

    /// Names of all roles under a path, all pages.
    pub async fn roles_under(&self, path: &str) -> Result<Vec<String>, AwsError> {
        let mut names = Vec::new();
        let mut marker = None;
        loop {
            let request = self.client.list_roles().path_prefix(path).max_items(1000).set_marker(marker);
            let page = call!(self, "ListRoles", path, request)?;
            names.extend(page.roles().iter().map(|role| role.role_name.clone()));
            marker = page.marker;
            if !page.is_truncated {
                return Ok(names);
            }
        }
    }

    /// The managed policy of that ARN with its default document, if it exists.
    pub async fn policy(&self, arn: &str) -> Result<Option<Policy>, AwsError> {
        let answer = optional(call!(self, "GetPolicy", arn, self.client.get_policy().policy_arn(arn)))?;
        let Some(policy) = answer.and_then(|a| a.policy) else { return Ok(None) };
        let versions =
            call!(self, "ListPolicyVersions", arn, self.client.list_policy_versions().policy_arn(arn))?;
        let mut old: Vec<_> = versions.versions().iter().filter(|v| !v.is_default_version).collect();
        old.sort_by_key(|v| v.create_date.map(|date| date.as_nanos()));
        let old_versions = old.into_iter().filter_map(|v| v.version_id.clone()).collect();
        let default = policy.default_version_id.clone().unwrap_or_default();
        let request = self.client.get_policy_version().policy_arn(arn).version_id(default);
        let version = call!(self, "GetPolicyVersion", arn, request)?.policy_version;
        let document = version.and_then(|v| v.document).unwrap_or_default();
        Ok(Some(Policy { document: decode(&document), tags: tags_from(policy.tags()), old_versions }))
    }

    /// Makes a managed policy.
    pub async fn create_policy(
        &self,
        name: &str,
        path: &str,
        document: &str,
        tags: &Tags,
    ) -> Result<(), AwsError> {
        let request = self
            .client
            .create_policy()
            .policy_name(name)
            .path(path)
            .policy_document(document)
            .set_tags(Some(tags_to(tags)));
        call!(self, "CreatePolicy", name, request).map(|_| ())
    }

    /// Gives a managed policy a new default document.
    pub async fn put_policy_version(&self, arn: &str, document: &str) -> Result<(), AwsError> {
        let request = self
            .client
            .create_policy_version()
            .policy_arn(arn)
            .policy_document(document)
            .set_as_default(true);
        call!(self, "CreatePolicyVersion", arn, request).map(|_| ())
    }

    /// Removes a version that is not the default; no error if it is gone.
    pub async fn delete_policy_version(&self, arn: &str, version: &str) -> Result<(), AwsError> {
        let request = self.client.delete_policy_version().policy_arn(arn).version_id(version);
        tolerate(Class::NotFound, call!(self, "DeletePolicyVersion", arn, request))
    }

    /// Removes a managed policy; no error if it is gone.
    pub async fn delete_policy(&self, arn: &str) -> Result<(), AwsError> {
        tolerate(
            Class::NotFound,
            call!(self, "DeletePolicy", arn, self.client.delete_policy().policy_arn(arn)),
        )
    }
}

fn role_from(role: aws_sdk_iam::types::Role) -> Role {
    Role {
        tags: tags_from(role.tags()),
        arn: role.arn,
        trust: role.assume_role_policy_document.as_deref().map(decode).unwrap_or_default(),
        boundary: role.permissions_boundary.and_then(|b| b.permissions_boundary_arn),
    }
}

fn tags_from(tags: &[Tag]) -> Tags {
    tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()
}

fn tags_to(tags: &Tags) -> Vec<Tag> {
    // Key and value are set, which is all that build() asks for.
    tags.iter().filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok()).collect()
}

/// IAM returns policy documents percent-encoded (RFC 3986), and the Rust SDK leaves them so.
fn decode(document: &str) -> String {
    percent_encoding::percent_decode_str(document).decode_utf8_lossy().into_owned()
}
