//! IAM: roles, managed and inline policies, OIDC providers, with IAM's validation, quotas and words.

use bytes::Bytes;
use http::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::authz::{Ask, Caller, authorize};
use crate::policy::{Kind, parse};
use crate::wire::{Fail, Request, element, result};
use crate::world::{Policy, Provider, Role, State, Tags};
use crate::{Log, Settings};

const QUOTA_ATTACHED: usize = 10;
const QUOTA_TRUST: usize = 2048;
const QUOTA_PROVIDERS: usize = 100;
const QUOTA_VERSIONS: usize = 5;

struct Iam<'a> {
    state: &'a mut State,
    account: &'a str,
    caller: &'a Caller,
    request: &'a Request,
    action: &'a str,
    log: &'a mut Log,
}

pub(crate) fn dispatch(
    state: &mut State,
    settings: &Settings,
    caller: &Caller,
    request: &Request,
    action: &str,
    log: &mut Log,
) -> Result<Response<Bytes>, Fail> {
    let mut iam = Iam { state, account: &settings.account, caller, request, action, log };
    let inner = match action {
        "CreateRole" => iam.create_role(),
        "GetRole" => iam.role().map(|role| role_xml(&role)),
        "ListRoles" => iam.list_roles(),
        "DeleteRole" => iam.delete_role(),
        "UpdateAssumeRolePolicy" => iam.update_trust(),
        "PutRolePermissionsBoundary" => iam.put_boundary(),
        "AttachRolePolicy" | "DetachRolePolicy" => iam.attachment(),
        "ListAttachedRolePolicies" => iam.role().map(|role| {
            let one = |arn: &String| {
                let name = arn.rsplit('/').next().unwrap_or_default();
                format!("<member>{}{}</member>", element("PolicyName", name), element("PolicyArn", arn))
            };
            list("AttachedPolicies", &role.attached.iter().map(one).collect::<String>())
        }),
        "ListRolePolicies" => iam.role().map(|role| {
            list("PolicyNames", &role.inline.keys().map(|n| element("member", n)).collect::<String>())
        }),
        "PutRolePolicy" | "GetRolePolicy" | "DeleteRolePolicy" => iam.inline(),
        "CreatePolicy" => iam.create_policy(),
        "GetPolicy"
        | "ListPolicyVersions"
        | "GetPolicyVersion"
        | "CreatePolicyVersion"
        | "DeletePolicyVersion"
        | "DeletePolicy" => iam.policy(),
        "CreateOpenIDConnectProvider" => iam.create_provider(),
        "GetOpenIDConnectProvider"
        | "DeleteOpenIDConnectProvider"
        | "AddClientIDToOpenIDConnectProvider"
        | "RemoveClientIDFromOpenIDConnectProvider" => iam.provider(),
        "ListOpenIDConnectProviders" => iam.list_providers(),
        other => Err(Fail::new(
            400,
            "InvalidAction",
            format!("Could not find operation {other} for version 2010-05-08"),
        )),
    }?;
    Ok(result("iam", action, &inner))
}

fn list(name: &str, members: &str) -> String {
    format!("<{name}>{members}</{name}><IsTruncated>false</IsTruncated>")
}

impl Iam<'_> {
    fn authorize(
        &mut self,
        action: &str,
        resource: &str,
        context: Vec<(String, String)>,
    ) -> Result<(), Fail> {
        resource.clone_into(&mut self.log.resource);
        let action = format!("iam:{action}");
        authorize(self.state, self.caller, &Ask { context, ..Ask::new(&action, resource) })
    }

    /// The role that is named, once the caller may do the action on it.
    fn role(&mut self) -> Result<Role, Fail> {
        let name = self.request.required("RoleName")?.to_owned();
        let found = self.state.role(&name).cloned();
        // IAM cannot know the path of a role that does not exist.
        let arn =
            found.as_ref().map_or(format!("arn:aws:iam::{}:role/{name}", self.account), |r| r.arn.clone());
        let mut context = Vec::new();
        if let Some(boundary) = found.as_ref().and_then(|r| r.boundary.clone()) {
            context.push(("iam:PermissionsBoundary".to_owned(), boundary));
        }
        if let Some(boundary) = self.request.parameter("PermissionsBoundary") {
            context = vec![("iam:PermissionsBoundary".to_owned(), boundary.to_owned())];
        }
        if let Some(policy) = self.request.parameter("PolicyArn") {
            context.push(("iam:PolicyARN".to_owned(), policy.to_owned()));
        }
        for (key, value) in found.iter().flat_map(|r| &r.tags) {
            context.push((format!("aws:ResourceTag/{key}"), value.clone()));
        }
        self.authorize(self.action, &arn, context)?;
        found.ok_or_else(|| Fail::no_such("role", &name))
    }

    fn change_role(&mut self, name: &str, change: impl FnOnce(&mut Role)) {
        if let Some(role) = self.state.roles.get_mut(&name.to_lowercase()) {
            change(role);
        }
    }

    fn create_role(&mut self) -> Result<String, Fail> {
        let request = self.request;
        let name = request.required("RoleName")?;
        let path = request.parameter("Path").unwrap_or("/");
        check_name("roleName", name, 64)?;
        check_path(path)?;
        let (arn, tags) = (format!("arn:aws:iam::{}:role{path}{name}", self.account), request.tags());
        let boundary = request.parameter("PermissionsBoundary").map(str::to_owned);
        let mut context = tag_context(&tags);
        context.extend(boundary.iter().map(|b| ("iam:PermissionsBoundary".to_owned(), b.clone())));
        self.authorize("CreateRole", &arn, context.clone())?;
        if !tags.is_empty() {
            self.authorize("TagRole", &arn, context)?;
        }
        let trust = Self::trust(request.required("AssumeRolePolicyDocument")?)?;
        let description = request.parameter("Description").unwrap_or_default();
        if description.len() > 1000 {
            return Err(Fail::validation(
                "1 validation error detected: Value at 'description' failed to satisfy constraint: Member must have length less than or equal to 1000",
            ));
        }
        check_tags(&tags)?;
        if self.state.role(name).is_some() {
            return Err(Fail::new(
                409,
                "EntityAlreadyExists",
                format!("Role with name {name} already exists."),
            ));
        }
        if let Some(boundary) = &boundary {
            self.must_exist(boundary)?;
        }
        let role = Role {
            name: name.to_owned(),
            path: path.to_owned(),
            arn,
            id: format!("AROASIM{:013}", self.state.next()),
            trust,
            tags,
            attached: Vec::new(),
            inline: std::collections::BTreeMap::new(),
            boundary,
            description: description.to_owned(),
            max_session_duration: 3600,
        };
        let xml = role_xml(&Role { tags: Tags::new(), boundary: None, ..role.clone() });
        self.state.roles.insert(name.to_lowercase(), role);
        Ok(xml)
    }

    fn trust(document: &str) -> Result<Value, Fail> {
        let length = document.chars().filter(|c| !c.is_whitespace()).count();
        if length > QUOTA_TRUST {
            return Err(Fail::new(
                409,
                "LimitExceeded",
                format!("Cannot exceed quota for ACLSizePerRole: {QUOTA_TRUST}"),
            ));
        }
        parse(document, Kind::Trust).map_err(Fail::malformed)
    }

    fn must_exist(&self, arn: &str) -> Result<(), Fail> {
        if self.state.policy_document(arn).is_some() {
            return Ok(());
        }
        Err(Fail::new(404, "NoSuchEntity", format!("Policy {arn} does not exist or is not attachable.")))
    }

    fn list_roles(&mut self) -> Result<String, Fail> {
        let prefix = self.request.parameter("PathPrefix").unwrap_or("/").to_owned();
        self.authorize("ListRoles", &format!("arn:aws:iam::{}:role{prefix}", self.account), Vec::new())?;
        let max: usize = self.request.parameter("MaxItems").and_then(|m| m.parse().ok()).unwrap_or(100);
        let marker = self.request.parameter("Marker").unwrap_or_default();
        let mut found =
            self.state.roles.values().filter(|r| r.path.starts_with(&prefix) && r.name.as_str() > marker);
        let page: Vec<&Role> = found.by_ref().take(max).collect();
        let more = found.next().is_some();
        let members: String = page
            .iter()
            .map(|role| {
                let bare = Role { tags: Tags::new(), boundary: None, ..(*role).clone() }; // as IAM's list leaves out
                format!("<member>{}</member>", role_members(&bare))
            })
            .collect();
        let marker = page.last().filter(|_| more).map_or(String::new(), |role| element("Marker", &role.name));
        Ok(format!("<Roles>{members}</Roles><IsTruncated>{more}</IsTruncated>{marker}"))
    }

    fn delete_role(&mut self) -> Result<String, Fail> {
        let role = self.role()?;
        if !role.attached.is_empty() {
            return Err(Fail::new(
                409,
                "DeleteConflict",
                "Cannot delete entity, must detach all policies first.",
            ));
        }
        if !role.inline.is_empty() {
            return Err(Fail::new(
                409,
                "DeleteConflict",
                "Cannot delete entity, must delete policies first.",
            ));
        }
        self.state.roles.remove(&role.name.to_lowercase());
        Ok(String::new())
    }

    fn update_trust(&mut self) -> Result<String, Fail> {
        let role = self.role()?;
        let trust = Self::trust(self.request.required("PolicyDocument")?)?;
        self.change_role(&role.name, |role| role.trust = trust);
        Ok(String::new())
    }

    fn put_boundary(&mut self) -> Result<String, Fail> {
        let role = self.role()?;
        let boundary = self.request.required("PermissionsBoundary")?.to_owned();
        self.must_exist(&boundary)?;
        self.change_role(&role.name, |role| role.boundary = Some(boundary));
        Ok(String::new())
    }

    fn attachment(&mut self) -> Result<String, Fail> {
        let role = self.role()?;
        let arn = self.request.required("PolicyArn")?.to_owned();
        let attached = role.attached.contains(&arn);
        if self.action == "DetachRolePolicy" {
            if !attached {
                return Err(Fail::new(404, "NoSuchEntity", format!("Policy {arn} was not found.")));
            }
            self.change_role(&role.name, |role| role.attached.retain(|a| *a != arn));
            return Ok(String::new());
        }
        self.must_exist(&arn)?;
        if !attached && role.attached.len() >= QUOTA_ATTACHED {
            return Err(Fail::new(
                409,
                "LimitExceeded",
                format!("Cannot exceed quota for PoliciesPerRole: {QUOTA_ATTACHED}"),
            ));
        }
        if !attached {
            self.change_role(&role.name, |role| role.attached.push(arn));
        }
        Ok(String::new())
    }

    fn inline(&mut self) -> Result<String, Fail> {
        let role = self.role()?;
        let name = self.request.required("PolicyName")?.to_owned();
        let missing = || Fail::no_such("role policy", &name);
        match self.action {
            "PutRolePolicy" => {
                check_name("policyName", &name, 128)?;
                let document = parse(self.request.required("PolicyDocument")?, Kind::Identity)
                    .map_err(Fail::malformed)?;
                if document.to_string().len() > 10_240 {
                    return Err(Fail::new(
                        409,
                        "LimitExceeded",
                        "Maximum policy size of 10240 bytes exceeded for role",
                    ));
                }
                self.change_role(&role.name, |role| {
                    role.inline.insert(name, document);
                });
                Ok(String::new())
            }
            "DeleteRolePolicy" => {
                role.inline.get(&name).ok_or_else(missing)?;
                self.change_role(&role.name, |role| {
                    role.inline.remove(&name);
                });
                Ok(String::new())
            }
            _ => {
                let document = role.inline.get(&name).ok_or_else(missing)?;
                Ok(element("RoleName", &role.name)
                    + &element("PolicyName", &name)
                    + &element("PolicyDocument", &encoded(document)))
            }
        }
    }

    fn create_policy(&mut self) -> Result<String, Fail> {
        let request = self.request;
        let name = request.required("PolicyName")?;
        let path = request.parameter("Path").unwrap_or("/");
        check_name("policyName", name, 128)?;
        check_path(path)?;
        let (arn, tags) = (format!("arn:aws:iam::{}:policy{path}{name}", self.account), request.tags());
        self.authorize("CreatePolicy", &arn, tag_context(&tags))?;
        check_tags(&tags)?;
        let document = parse(request.required("PolicyDocument")?, Kind::Identity).map_err(Fail::malformed)?;
        // Names are unique per account, whatever their path.
        if self.state.policies.values().any(|policy| policy.name.eq_ignore_ascii_case(name)) {
            return Err(Fail::new(
                409,
                "EntityAlreadyExists",
                format!("A policy called {name} already exists. Duplicate names are not allowed."),
            ));
        }
        let policy = Policy {
            name: name.to_owned(),
            path: path.to_owned(),
            tags,
            versions: vec![("v1".into(), document)],
            default: "v1".into(),
        };
        let xml = policy_xml(&arn, &policy);
        self.state.policies.insert(arn, policy);
        Ok(xml)
    }

    fn policy(&mut self) -> Result<String, Fail> {
        let arn = self.request.required("PolicyArn")?.to_owned();
        self.authorize(self.action, &arn, Vec::new())?;
        let missing = || Fail::new(404, "NoSuchEntity", format!("Policy {arn} was not found."));
        let attached =
            self.state.roles.values().any(|r| r.attached.contains(&arn) || r.boundary.as_ref() == Some(&arn));
        let policy = self.state.policies.get_mut(&arn).ok_or_else(missing)?;
        let version = |policy: &Policy, id: &str| {
            element("VersionId", id)
                + &element("IsDefaultVersion", &(policy.default == id).to_string())
                + &element("CreateDate", "2026-01-01T00:00:00Z")
        };
        match self.action {
            "GetPolicy" => Ok(policy_xml(&arn, policy)),
            "ListPolicyVersions" => Ok(list(
                "Versions",
                &policy
                    .versions
                    .iter()
                    .rev()
                    .map(|(id, _)| format!("<member>{}</member>", version(policy, id)))
                    .collect::<String>(),
            )),
            "GetPolicyVersion" => {
                let id = self.request.required("VersionId")?;
                let (id, document) = policy.versions.iter().find(|(v, _)| v == id).ok_or_else(missing)?;
                Ok(format!(
                    "<PolicyVersion>{}{}</PolicyVersion>",
                    version(policy, id),
                    element("Document", &encoded(document))
                ))
            }
            "CreatePolicyVersion" => {
                let document = parse(self.request.required("PolicyDocument")?, Kind::Identity)
                    .map_err(Fail::malformed)?;
                if policy.versions.len() >= QUOTA_VERSIONS {
                    return Err(Fail::new(
                        409,
                        "LimitExceeded",
                        "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.",
                    ));
                }
                let last =
                    policy.versions.last().and_then(|(v, _)| v[1..].parse::<u32>().ok()).unwrap_or_default();
                let id = format!("v{}", last + 1);
                policy.versions.push((id.clone(), document));
                if self.request.parameter("SetAsDefault") == Some("true") {
                    policy.default.clone_from(&id);
                }
                Ok(format!("<PolicyVersion>{}</PolicyVersion>", version(policy, &id)))
            }
            "DeletePolicyVersion" => {
                let id = self.request.required("VersionId")?;
                if policy.default == id {
                    return Err(Fail::new(
                        409,
                        "DeleteConflict",
                        "Cannot delete the default version of a policy.",
                    ));
                }
                policy.versions.retain(|(v, _)| v != id);
                Ok(String::new())
            }
            _ if attached => {
                Err(Fail::new(409, "DeleteConflict", "Cannot delete a policy attached to entities."))
            }
            _ if policy.versions.len() > 1 => Err(Fail::new(
                409,
                "DeleteConflict",
                "This policy has more than one version. Before you delete a policy, you must delete the policy's versions.",
            )),
            _ => {
                self.state.policies.remove(&arn);
                Ok(String::new())
            }
        }
    }

    fn create_provider(&mut self) -> Result<String, Fail> {
        let request = self.request;
        let url = request.required("Url")?;
        let bare = url.strip_prefix("https://").unwrap_or_default();
        let (arn, tags) = (format!("arn:aws:iam::{}:oidc-provider/{bare}", self.account), request.tags());
        self.authorize("CreateOpenIDConnectProvider", &arn, tag_context(&tags))?;
        if !tags.is_empty() {
            self.authorize("TagOpenIDConnectProvider", &arn, tag_context(&tags))?;
        }
        let host = bare.split('/').next().unwrap_or_default();
        if bare.is_empty() || url.len() > 255 || url.contains('?') || host.contains(':') || url.ends_with('/')
        {
            return Err(Fail::new(400, "InvalidInput", "Invalid Open ID Connect Provider URL"));
        }
        check_tags(&tags)?;
        if self.state.providers.contains_key(&arn) {
            return Err(Fail::new(
                409,
                "EntityAlreadyExists",
                format!("Provider with url {url} already exists."),
            ));
        }
        if self.state.providers.len() >= QUOTA_PROVIDERS {
            return Err(Fail::new(
                409,
                "LimitExceeded",
                format!("Cannot exceed quota for OpenIdConnectProvidersPerAccount: {QUOTA_PROVIDERS}"),
            ));
        }
        let provider = Provider { url: bare.to_owned(), client_ids: request.members("ClientIDList"), tags };
        self.state.providers.insert(arn.clone(), provider);
        Ok(element("OpenIDConnectProviderArn", &arn))
    }

    fn provider(&mut self) -> Result<String, Fail> {
        let arn = self.request.required("OpenIDConnectProviderArn")?.to_owned();
        self.authorize(self.action, &arn, Vec::new())?;
        if self.action == "DeleteOpenIDConnectProvider" {
            self.state.providers.remove(&arn);
            return Ok(String::new());
        }
        let missing =
            || Fail::new(404, "NoSuchEntity", format!("OpenIDConnect Provider not found for arn {arn}"));
        let provider = self.state.providers.get_mut(&arn).ok_or_else(missing)?;
        if self.action == "GetOpenIDConnectProvider" {
            let ids: String = provider.client_ids.iter().map(|id| element("member", id)).collect();
            return Ok(format!(
                "{}<ClientIDList>{ids}</ClientIDList><ThumbprintList/>{}",
                element("Url", &provider.url),
                tags_xml(&provider.tags)
            ));
        }
        let id = self.request.required("ClientID")?.to_owned();
        provider.client_ids.retain(|have| *have != id);
        if self.action == "AddClientIDToOpenIDConnectProvider" {
            provider.client_ids.push(id);
        }
        Ok(String::new())
    }

    fn list_providers(&mut self) -> Result<String, Fail> {
        self.authorize("ListOpenIDConnectProviders", "*", Vec::new())?;
        let one = |arn: &String| format!("<member>{}</member>", element("Arn", arn));
        let members: String = self.state.providers.keys().map(one).collect();
        Ok(format!("<OpenIDConnectProviderList>{members}</OpenIDConnectProviderList>"))
    }
}

fn check_name(field: &str, name: &str, max: usize) -> Result<(), Fail> {
    let valid = name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c));
    if valid && name.len() <= max {
        return Ok(());
    }
    Err(Fail::validation(format!(
        "1 validation error detected: Value at '{field}' failed to satisfy constraint: Member must satisfy regular \
         expression pattern: [\\w+=,.@-]+ and have length less than or equal to {max}"
    )))
}

fn check_path(path: &str) -> Result<(), Fail> {
    if path.starts_with('/') && path.ends_with('/') && path.len() <= 512 {
        return Ok(());
    }
    Err(Fail::validation(
        "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.",
    ))
}

fn check_tags(tags: &Tags) -> Result<(), Fail> {
    let fits =
        |(key, value): (&String, &String)| key.len() <= 128 && value.len() <= 256 && !key.starts_with("aws:");
    if tags.len() <= 50 && tags.iter().all(fits) {
        return Ok(());
    }
    Err(Fail::validation("1 validation error detected: Value at 'tags' failed to satisfy constraint"))
}

fn tag_context(tags: &Tags) -> Vec<(String, String)> {
    let keys = tags.keys().map(|key| ("aws:TagKeys".to_owned(), key.clone()));
    tags.iter().map(|(key, value)| (format!("aws:RequestTag/{key}"), value.clone())).chain(keys).collect()
}

/// IAM returns documents percent-encoded (RFC 3986).
fn encoded(document: &Value) -> String {
    utf8_percent_encode(&document.to_string(), NON_ALPHANUMERIC).to_string()
}

fn tags_xml(tags: &Tags) -> String {
    let one = |(key, value): (&String, &String)| {
        format!("<member>{}{}</member>", element("Key", key), element("Value", value))
    };
    if tags.is_empty() {
        String::new()
    } else {
        format!("<Tags>{}</Tags>", tags.iter().map(one).collect::<String>())
    }
}

fn role_xml(role: &Role) -> String {
    format!("<Role>{}</Role>", role_members(role))
}

fn role_members(role: &Role) -> String {
    let boundary = role.boundary.as_ref().map_or(String::new(), |arn| {
        format!(
            "<PermissionsBoundary><PermissionsBoundaryType>Policy</PermissionsBoundaryType>{}</PermissionsBoundary>",
            element("PermissionsBoundaryArn", arn)
        )
    });
    [
        element("Path", &role.path),
        element("RoleName", &role.name),
        element("RoleId", &role.id),
        element("Arn", &role.arn),
        element("CreateDate", "2026-01-01T00:00:00Z"),
        element("AssumeRolePolicyDocument", &encoded(&role.trust)),
        element("Description", &role.description),
        element("MaxSessionDuration", &role.max_session_duration.to_string()),
        boundary,
        tags_xml(&role.tags),
    ]
    .concat()
}

fn policy_xml(arn: &str, policy: &Policy) -> String {
    let members = [
        element("PolicyName", &policy.name),
        element("Arn", arn),
        element("Path", &policy.path),
        element("DefaultVersionId", &policy.default),
        element("CreateDate", "2026-01-01T00:00:00Z"),
        tags_xml(&policy.tags),
    ];
    format!("<Policy>{}</Policy>", members.concat())
}
