//! Roles with their trust policy and boundary.

use std::collections::BTreeMap;

use aws_sim_api::{ListRolesOn, Role, Tags};
use serde_json::Value;

use super::call::IamCall;
use super::validate::{checked, limit, put_tags};
use super::xml::{CREATE_DATE, encoded, tags_xml};
use crate::authz::tag_context;
use crate::policy::{Kind, allows, parse, size};
use crate::wire::{ApiError, element};

const QUOTA_TRUST: usize = 2048;
/// Seconds a session of a role lasts at most where nothing else was set.
const DEFAULT_SESSION: i64 = 3600;

impl IamCall<'_> {
    pub(super) fn create_role(&mut self) -> Result<String, ApiError> {
        let request = self.request;
        let name = request.required("RoleName")?;
        let path = request.parameter("Path").unwrap_or("/");
        let arn = format!("arn:aws:iam::{}:role{path}{name}", self.account_id);
        let tags = checked(request.tags())?;
        let boundary = request.parameter("PermissionsBoundary").map(str::to_owned);
        let mut context = tag_context(&tags);
        context.extend(boundary.iter().map(|b| ("iam:PermissionsBoundary".to_owned(), b.clone())));
        self.authorize("CreateRole", &arn, context.clone())?;
        if !tags.is_empty() {
            self.authorize("TagRole", &arn, context)?;
        }
        let trust = self.parse_trust(request.required("AssumeRolePolicyDocument")?)?;
        let (max_session_duration, description) = self.settings();
        if self.account.state.role(name).is_some() {
            return Err(ApiError::new(
                409,
                "EntityAlreadyExists",
                format!("Role with name {name} already exists."),
            ));
        }
        if let Some(boundary) = &boundary {
            self.boundary_must_exist(boundary)?;
        }
        let quota = self.account.behaviour.role_quota;
        if self.account.state.roles.len() >= quota {
            return Err(limit("RolesPerAccount", quota));
        }
        let role = Role {
            name: name.to_owned(),
            path: path.to_owned(),
            arn,
            id: format!("AROASIM{:013}", self.account.next()),
            trust,
            tags,
            attached: Vec::new(),
            inline: BTreeMap::new(),
            boundary,
            description: description.unwrap_or_default(),
            max_session_duration: max_session_duration.unwrap_or(DEFAULT_SESSION),
            instance_profiles: Vec::new(),
        };
        let xml = role_xml(&Role { tags: Tags::new(), boundary: None, ..role.clone() });
        self.account.state.roles.insert(name.to_lowercase(), role);
        Ok(xml)
    }

    pub(super) fn get_role(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let used = self.account.last_used.get(&role.id).and_then(|at| jiff::Timestamp::from_second(*at).ok());
        let used = used.map_or(String::new(), |at| element("LastUsedDate", &at.to_string()));
        let members = role_members(&role);
        Ok(format!("<Role>{members}<RoleLastUsed>{used}</RoleLastUsed></Role>"))
    }

    pub(super) fn list_roles(&mut self) -> Result<String, ApiError> {
        let prefix = self.request.parameter("PathPrefix").unwrap_or("/").to_owned();
        let resource = match self.account.behaviour.list_roles {
            ListRolesOn::Path => format!("arn:aws:iam::{}:role{prefix}", self.account_id),
            ListRolesOn::Any => "*".to_owned(),
        };
        self.authorize("ListRoles", &resource, Vec::new())?;
        let found = self.seen().roles().filter(|role| role.path.starts_with(&prefix));
        let item = |role: &Role| {
            let bare = Role { tags: Tags::new(), boundary: None, ..role.clone() }; // which IAM's list leaves out
            (role.name.to_lowercase(), role_members(&bare))
        };
        Ok(self.page("Roles", found.map(item).collect()))
    }

    /// `ListInstanceProfilesForRole`.
    pub(super) fn list_profiles(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let account = self.account_id;
        let item = |name: &String| {
            let members = [
                ("Path", "/".to_owned()),
                ("InstanceProfileName", name.clone()),
                ("InstanceProfileId", format!("AIPA{name}")),
                ("Arn", format!("arn:aws:iam::{account}:instance-profile/{name}")),
                ("CreateDate", "2026-01-01T00:00:00Z".to_owned()),
                ("Roles", String::new()),
            ];
            (name.clone(), members.map(|(member, text)| element(member, &text)).concat())
        };
        Ok(self.page("InstanceProfiles", role.instance_profiles.iter().map(item).collect()))
    }

    pub(super) fn delete_role(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        if !role.instance_profiles.is_empty() {
            return Err(ApiError::new(
                409,
                "DeleteConflict",
                "Cannot delete entity, must remove roles from instance profile first.",
            ));
        }
        if !role.attached.is_empty() {
            return Err(ApiError::new(
                409,
                "DeleteConflict",
                "Cannot delete entity, must detach all policies first.",
            ));
        }
        if !role.inline.is_empty() {
            return Err(ApiError::new(
                409,
                "DeleteConflict",
                "Cannot delete entity, must delete policies first.",
            ));
        }
        self.account.state.roles.remove(&role.name.to_lowercase());
        Ok(String::new())
    }

    pub(super) fn update_trust(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let trust = self.parse_trust(self.request.required("PolicyDocument")?)?;
        self.change_role(&role.name, |role| role.trust = trust);
        Ok(String::new())
    }

    fn parse_trust(&self, document: &str) -> Result<Value, ApiError> {
        if size(document) > QUOTA_TRUST {
            return Err(limit("ACLSizePerRole", QUOTA_TRUST));
        }
        let trust = parse(document, Kind::Trust).map_err(ApiError::malformed)?;
        if !self.account.behaviour.deny_only_trust && !allows(&trust) {
            return Err(ApiError::malformed("AssumeRole policy must contain a statement that allows."));
        }
        Ok(trust)
    }

    pub(super) fn tag_role(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let mut tags = role.tags;
        put_tags(&mut tags, checked(self.request.tags())?)?;
        self.change_role(&role.name, |role| role.tags = tags);
        Ok(String::new())
    }

    pub(super) fn untag_role(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let keys = self.request.members("TagKeys");
        self.change_role(&role.name, |role| role.tags.retain(|key, _| !keys.contains(key)));
        Ok(String::new())
    }

    /// A request without `MaxSessionDuration` sets the default; a request without `Description` does not change it.
    pub(super) fn update_role(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let (max_session_duration, description) = self.settings();
        self.change_role(&role.name, |role| {
            role.max_session_duration = max_session_duration.unwrap_or(DEFAULT_SESSION);
            if let Some(description) = description {
                role.description = description;
            }
        });
        Ok(String::new())
    }

    fn settings(&self) -> (Option<i64>, Option<String>) {
        let seconds = self.request.parameter("MaxSessionDuration").and_then(|text| text.parse().ok());
        (seconds, self.request.parameter("Description").map(str::to_owned))
    }

    pub(super) fn put_boundary(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let boundary = self.request.required("PermissionsBoundary")?.to_owned();
        self.boundary_must_exist(&boundary)?;
        self.change_role(&role.name, |role| role.boundary = Some(boundary));
        Ok(String::new())
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
        element("CreateDate", CREATE_DATE),
        element("AssumeRolePolicyDocument", &encoded(&role.trust)),
        element("Description", &role.description),
        element("MaxSessionDuration", &role.max_session_duration.to_string()),
        boundary,
        tags_xml(&role.tags),
    ]
    .concat()
}
