//! AWS IAM: providers, roles and policies. Names and ARNs are computed by the caller; only the names of roles under a path
//! are listed.

use aws_config::SdkConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::config::Builder;
use aws_sdk_iam::types::Tag;
use serde_json::Value;

use super::call::Calls;
use super::error::{AwsError, Class, optional, tolerate};
use super::model::{IamWrite, ListedRole, NewRole, Policy, Provider, Role, RoleSettings, Tags, Written};

/// IAM of the operator's partition.
#[derive(Clone)]
pub struct Iam {
    client: Client,
    calls: Calls,
}

/// Calls a client operation and classifies what comes back.
macro_rules! call {
    ($self:ident, $operation:literal, $resource:expr, $builder:expr) => {{
        $self.calls.permit(concat!("iam:", $operation)).await;
        $self.calls.record(concat!("iam:", $operation), $resource, $builder.send().await)
    }};
}

impl Iam {
    pub(super) fn new(config: &SdkConfig, calls: Calls) -> Self {
        let config = Builder::from(config).interceptor(calls.clone()).build();
        Self { client: Client::from_conf(config), calls }
    }

    /// The provider of that ARN, if it exists.
    pub async fn provider(&self, arn: &str) -> Result<Option<Provider>, AwsError> {
        let request = self.client.get_open_id_connect_provider().open_id_connect_provider_arn(arn);
        let answer = optional(call!(self, "GetOpenIDConnectProvider", arn, request))?;
        Ok(answer.map(|p| Provider { client_ids: p.client_id_list().to_vec(), tags: tags_from(p.tags()) }))
    }

    /// The role of that name, if it exists.
    pub async fn role(&self, name: &str) -> Result<Option<Role>, AwsError> {
        let answer = optional(call!(self, "GetRole", name, self.client.get_role().role_name(name)))?;
        Ok(answer.and_then(|a| a.role).map(role_from))
    }

    /// When a role was last used, by day and time in UTC; `None` where IAM knows of no use in its tracking period of 400 days.
    pub async fn role_last_used(&self, name: &str) -> Result<Option<String>, AwsError> {
        let answer = optional(call!(self, "GetRole", name, self.client.get_role().role_name(name)))?;
        let used = answer.and_then(|a| a.role?.role_last_used?.last_used_date);
        Ok(used.and_then(|date| date.fmt(aws_smithy_types::date_time::Format::DateTime).ok()))
    }

    /// The document of a managed policy's default version; `None` where the policy does not exist.
    pub async fn policy_document(&self, arn: &str) -> Result<Option<String>, AwsError> {
        let answer = optional(call!(self, "GetPolicy", arn, self.client.get_policy().policy_arn(arn)))?;
        let Some(version) = answer.and_then(|a| a.policy?.default_version_id) else { return Ok(None) };
        let request = self.client.get_policy_version().policy_arn(arn).version_id(version);
        let answer = optional(call!(self, "GetPolicyVersion", arn, request))?;
        Ok(answer.and_then(|a| a.policy_version?.document).as_deref().map(decode))
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

    /// An inline policy's document, decoded, if it exists.
    pub async fn inline_document(&self, role: &str, name: &str) -> Result<Option<String>, AwsError> {
        let request = self.client.get_role_policy().role_name(role).policy_name(name);
        let answer = optional(call!(self, "GetRolePolicy", role, request))?;
        Ok(answer.map(|a| decode(&a.policy_document)))
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

    /// Names of the instance profiles that a role is in. A role is in a few at most: one page has all.
    async fn instance_profiles(&self, role: &str) -> Result<Vec<String>, AwsError> {
        let request = self.client.list_instance_profiles_for_role().role_name(role);
        let page = call!(self, "ListInstanceProfilesForRole", role, request)?;
        Ok(page.instance_profiles.into_iter().map(|profile| profile.instance_profile_name).collect())
    }

    /// Carries out one change. Creating a provider that exists and deleting what does not exist both succeed, but for a role. Creating a role
    /// or policy that exists is an error: it may have another owner.
    #[allow(clippy::too_many_lines, reason = "one arm for each operation")]
    pub async fn apply(&self, write: &IamWrite) -> Result<Written, AwsError> {
        let client = &self.client;
        match write {
            IamWrite::CreateRole(new) => return Ok(Written::Role(Box::new(self.create_role(new).await?))),
            // No thumbprint: AWS validates S3's certificate with its own trust store.
            IamWrite::CreateProvider { url, audiences, tags } => {
                let request = client
                    .create_open_id_connect_provider()
                    .url(url)
                    .set_client_id_list(Some(audiences.clone()))
                    .set_tags(Some(tags_to(tags)));
                tolerate(Class::AlreadyExists, call!(self, "CreateOpenIDConnectProvider", url, request))?;
            }
            IamWrite::AddAudience { provider, audience } => {
                let request = client.add_client_id_to_open_id_connect_provider();
                let request = request.open_id_connect_provider_arn(provider).client_id(audience);
                call!(self, "AddClientIDToOpenIDConnectProvider", provider, request)?;
            }
            IamWrite::RemoveAudience { provider, audience } => {
                let request = client.remove_client_id_from_open_id_connect_provider();
                let request = request.open_id_connect_provider_arn(provider).client_id(audience);
                call!(self, "RemoveClientIDFromOpenIDConnectProvider", provider, request)?;
            }
            IamWrite::DeleteProvider { provider } => {
                let request = client.delete_open_id_connect_provider().open_id_connect_provider_arn(provider);
                tolerate(Class::NotFound, call!(self, "DeleteOpenIDConnectProvider", provider, request))?;
            }
            IamWrite::TagProvider { provider, tags } => {
                let request = client.tag_open_id_connect_provider().open_id_connect_provider_arn(provider);
                call!(self, "TagOpenIDConnectProvider", provider, request.set_tags(Some(tags_to(tags))))?;
            }
            IamWrite::PutTrust { role, document, otherwise } => {
                match (self.put_trust(role, document).await, otherwise) {
                    (Err(error), Some(otherwise)) if error.code.starts_with("MalformedPolicyDocument") => {
                        self.put_trust(role, otherwise).await?;
                    }
                    (put, _) => put?,
                }
            }
            IamWrite::PutBoundary { role, boundary } => {
                let request =
                    client.put_role_permissions_boundary().role_name(role).permissions_boundary(boundary);
                call!(self, "PutRolePermissionsBoundary", role, request)?;
            }
            IamWrite::PutSettings { role, settings } => {
                let request = client
                    .update_role()
                    .role_name(role)
                    .max_session_duration(settings.max_session_seconds)
                    .description(&settings.description);
                call!(self, "UpdateRole", role, request)?;
            }
            IamWrite::AttachPolicy { role, policy } => {
                let request = client.attach_role_policy().role_name(role).policy_arn(policy);
                call!(self, "AttachRolePolicy", policy, request)?;
            }
            IamWrite::DetachPolicy { role, policy } => {
                let request = client.detach_role_policy().role_name(role).policy_arn(policy);
                tolerate(Class::NotFound, call!(self, "DetachRolePolicy", policy, request))?;
            }
            IamWrite::PutInline { role, name, document } => {
                let request = client.put_role_policy().role_name(role).policy_name(name);
                call!(self, "PutRolePolicy", role, request.policy_document(document.to_string()))?;
            }
            IamWrite::DeleteInline { role, name } => {
                let request = client.delete_role_policy().role_name(role).policy_name(name);
                tolerate(Class::NotFound, call!(self, "DeleteRolePolicy", role, request))?;
            }
            // "No such role" is an error here. IAM may answer it for a role that was created a moment ago; as a success it would end
            // the binding, and nothing would read the role again.
            IamWrite::DeleteRole { role, .. } => {
                let answer = call!(self, "DeleteRole", role, client.delete_role().role_name(role));
                if let Err(mut error) = answer {
                    // IAM says only that the role is in one.
                    if error.class == Class::Conflict
                        && error.message.contains("instance profile")
                        && let Ok(profiles) = self.instance_profiles(role).await
                    {
                        error.message =
                            format!("{} Instance profiles: {}", error.message, profiles.join(", "));
                    }
                    return Err(error);
                }
            }
            IamWrite::TagRole { role, tags } => {
                let request = client.tag_role().role_name(role).set_tags(Some(tags_to(tags)));
                call!(self, "TagRole", role, request)?;
            }
            IamWrite::UntagRole { role, keys } => {
                let request = client.untag_role().role_name(role).set_tag_keys(Some(keys.clone()));
                call!(self, "UntagRole", role, request)?;
            }
            IamWrite::TagPolicy { policy, tags } => {
                let request = client.tag_policy().policy_arn(policy).set_tags(Some(tags_to(tags)));
                call!(self, "TagPolicy", policy, request)?;
            }
            IamWrite::CreatePolicy { name, path, document, tags } => {
                let request = client
                    .create_policy()
                    .policy_name(name)
                    .path(path)
                    .policy_document(document.to_string())
                    .set_tags(Some(tags_to(tags)));
                call!(self, "CreatePolicy", name, request)?;
            }
            IamWrite::PutPolicyVersion { policy, document } => {
                let request = client
                    .create_policy_version()
                    .policy_arn(policy)
                    .policy_document(document.to_string())
                    .set_as_default(true);
                call!(self, "CreatePolicyVersion", policy, request)?;
            }
            IamWrite::DeletePolicyVersion { policy, version } => {
                let request = client.delete_policy_version().policy_arn(policy).version_id(version);
                tolerate(Class::NotFound, call!(self, "DeletePolicyVersion", policy, request))?;
            }
            IamWrite::DeletePolicy { policy } => {
                let request = client.delete_policy().policy_arn(policy);
                tolerate(Class::NotFound, call!(self, "DeletePolicy", policy, request))?;
            }
        }
        Ok(Written::Done)
    }

    async fn put_trust(&self, role: &str, document: &Value) -> Result<(), AwsError> {
        let request = self.client.update_assume_role_policy().role_name(role);
        let request = request.policy_document(document.to_string());
        call!(self, "UpdateAssumeRolePolicy", role, request).map(|_| ())
    }

    async fn create_role(&self, new: &NewRole) -> Result<Role, AwsError> {
        let NewRole { name, path, trust, boundary, settings, tags } = new;
        let request = self
            .client
            .create_role()
            .role_name(name)
            .path(path)
            .assume_role_policy_document(trust)
            .set_permissions_boundary(boundary.clone())
            .max_session_duration(settings.max_session_seconds)
            .description(&settings.description)
            .set_tags(Some(tags_to(tags)));
        let answer = call!(self, "CreateRole", name, request)?;
        let mut role = answer.role.map(role_from).ok_or_else(|| AwsError {
            class: Class::Transient,
            operation: "iam:CreateRole",
            resource: name.clone(),
            code: String::new(),
            cause: None,
            message: "an answer without a role".into(),
            detail: String::new(),
        })?;
        // CreateRole's answer leaves out what the call itself put.
        role.boundary.clone_from(boundary);
        role.settings.clone_from(settings);
        role.tags.clone_from(tags);
        Ok(role)
    }

    /// One page of the roles under a path, and where the next page begins.
    pub(super) async fn roles_page(
        &self,
        path: &str,
        marker: Option<String>,
    ) -> Result<(Vec<ListedRole>, Option<String>), AwsError> {
        let request = self.client.list_roles().path_prefix(path).max_items(1000).set_marker(marker);
        let page = call!(self, "ListRoles", path, request)?;
        let marker = page.marker.filter(|_| page.is_truncated);
        let listed = page.roles.into_iter().map(|role| {
            let name = role.role_name.as_str().into();
            let Role { trust, settings, .. } = role_from(role);
            ListedRole { name, digest: ListedRole::digest_of_text(&trust, &settings) }
        });
        Ok((listed.collect(), marker))
    }
}

fn role_from(role: aws_sdk_iam::types::Role) -> Role {
    Role {
        tags: tags_from(role.tags()),
        id: role.role_id,
        arn: role.arn,
        trust: role.assume_role_policy_document.as_deref().map(decode).unwrap_or_default(),
        settings: RoleSettings {
            // IAM's default, where an answer leaves it out.
            max_session_seconds: role.max_session_duration.unwrap_or(3600),
            description: role.description.unwrap_or_default(),
        },
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
