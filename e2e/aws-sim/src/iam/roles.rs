//! Roles with their trust policy and boundary.

use std::collections::BTreeMap;

use aws_sim_api::{Role, Tags};
use serde_json::Value;

use super::call::IamCall;
use super::validate::{check_name, check_path, check_tags};
use super::xml::{CREATE_DATE, encoded, tags_xml};
use crate::authz::tag_context;
use crate::policy::{Kind, parse};
use crate::wire::{ApiError, element};

const QUOTA_TRUST: usize = 2048;
/// Seconds a session of a role lasts at most where nothing else was set.
const DEFAULT_SESSION: i64 = 3600;

impl IamCall<'_> {
    pub(super) fn create_role(&mut self) -> Result<String, ApiError> {
        let request = self.request;
        let name = request.required("RoleName")?;
        let path = request.parameter("Path").unwrap_or("/");
        check_name("roleName", name, 64)?;
        check_path(path)?;
        let (arn, tags) = (format!("arn:aws:iam::{}:role{path}{name}", self.account_id), request.tags());
        let boundary = request.parameter("PermissionsBoundary").map(str::to_owned);
        let mut context = tag_context(&tags);
        context.extend(boundary.iter().map(|b| ("iam:PermissionsBoundary".to_owned(), b.clone())));
        self.authorize("CreateRole", &arn, context.clone())?;
        if !tags.is_empty() {
            self.authorize("TagRole", &arn, context)?;
        }
        let trust = parse_trust(request.required("AssumeRolePolicyDocument")?)?;
        let (max_session_duration, description) = self.settings()?;
        check_tags(&tags)?;
        if self.account.state.role(name).is_some() {
            return Err(ApiError::new(
                409,
                "EntityAlreadyExists",
                format!("Role with name {name} already exists."),
            ));
        }
        if let Some(boundary) = &boundary {
            self.policy_must_exist(boundary)?;
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
        };
        let xml = role_xml(&Role { tags: Tags::new(), boundary: None, ..role.clone() });
        self.account.state.roles.insert(name.to_lowercase(), role);
        Ok(xml)
    }

    pub(super) fn get_role(&mut self) -> Result<String, ApiError> {
        self.role().map(|role| role_xml(&role))
    }

    pub(super) fn list_roles(&mut self) -> Result<String, ApiError> {
        let prefix = self.request.parameter("PathPrefix").unwrap_or("/").to_owned();
        self.authorize("ListRoles", &format!("arn:aws:iam::{}:role{prefix}", self.account_id), Vec::new())?;
        let max: usize = self.request.parameter("MaxItems").and_then(|m| m.parse().ok()).unwrap_or(100);
        let marker = self.request.parameter("Marker").unwrap_or_default();
        let mut found =
            self.seen().roles().filter(|r| r.path.starts_with(&prefix) && r.name.as_str() > marker);
        let page: Vec<&Role> = found.by_ref().take(max).collect();
        let more = found.next().is_some();
        let members: String = page
            .iter()
            .map(|role| {
                let bare = Role { tags: Tags::new(), boundary: None, ..(*role).clone() }; // which IAM's list leaves out
                format!("<member>{}</member>", role_members(&bare))
            })
            .collect();
        let marker = page.last().filter(|_| more).map_or(String::new(), |role| element("Marker", &role.name));
        Ok(format!("<Roles>{members}</Roles><IsTruncated>{more}</IsTruncated>{marker}"))
    }

    pub(super) fn delete_role(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
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
        let trust = parse_trust(self.request.required("PolicyDocument")?)?;
        self.change_role(&role.name, |role| role.trust = trust);
        Ok(String::new())
    }

    pub(super) fn tag_role(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let tags = self.request.tags();
        check_tags(&tags)?;
        self.change_role(&role.name, |role| role.tags.extend(tags));
        Ok(String::new())
    }

    /// A request without `MaxSessionDuration` sets the default; a request without `Description` does not change it.
    pub(super) fn update_role(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let (max_session_duration, description) = self.settings()?;
        self.change_role(&role.name, |role| {
            role.max_session_duration = max_session_duration.unwrap_or(DEFAULT_SESSION);
            if let Some(description) = description {
                role.description = description;
            }
        });
        Ok(String::new())
    }

    fn settings(&self) -> Result<(Option<i64>, Option<String>), ApiError> {
        let constraint =
            |what: &str| ApiError::validation(format!("1 validation error detected: Value at {what}"));
        let seconds = self.request.parameter("MaxSessionDuration").map(str::parse::<i64>).transpose();
        let seconds = seconds.ok().filter(|seconds| seconds.is_none_or(|s| (3600..=43_200).contains(&s)));
        let seconds = seconds.ok_or_else(|| {
            constraint("'maxSessionDuration' failed to satisfy constraint: Member must have value between 3600 and 43200")
        })?;
        let description = self.request.parameter("Description");
        if description.is_some_and(|description| description.chars().count() > 1000) {
            return Err(constraint(
                "'description' failed to satisfy constraint: Member must have length less than or equal to 1000",
            ));
        }
        Ok((seconds, description.map(str::to_owned)))
    }

    pub(super) fn put_boundary(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let boundary = self.request.required("PermissionsBoundary")?.to_owned();
        self.policy_must_exist(&boundary)?;
        self.change_role(&role.name, |role| role.boundary = Some(boundary));
        Ok(String::new())
    }
}

fn parse_trust(document: &str) -> Result<Value, ApiError> {
    let length = document.chars().filter(|c| !c.is_whitespace()).count();
    if length > QUOTA_TRUST {
        return Err(ApiError::new(
            409,
            "LimitExceeded",
            format!("Cannot exceed quota for ACLSizePerRole: {QUOTA_TRUST}"),
        ));
    }
    parse(document, Kind::Trust).map_err(ApiError::malformed)
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
