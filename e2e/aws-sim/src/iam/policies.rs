//! Managed policies and their versions.

use aws_sim_api::Policy;
use serde_json::Value;

use super::call::IamCall;
use super::validate::{checked, limit, put_tags};
use super::xml::{CREATE_DATE, encoded, tags_xml};
use crate::authz::tag_context;
use crate::policy::{Kind, date_time, parse, size};
use crate::wire::{ApiError, element};

const QUOTA_VERSIONS: usize = 5;
/// Characters without white space.
const QUOTA_SIZE: usize = 6144;

impl IamCall<'_> {
    pub(super) fn create_policy(&mut self) -> Result<String, ApiError> {
        let request = self.request;
        let name = request.required("PolicyName")?;
        let path = request.parameter("Path").unwrap_or("/");
        let arn = format!("arn:aws:iam::{}:policy{path}{name}", self.account_id);
        let tags = checked(request.tags())?;
        self.authorize("CreatePolicy", &arn, tag_context(&tags))?;
        if !tags.is_empty() {
            self.authorize("TagPolicy", &arn, tag_context(&tags))?;
        }
        let document = parse_managed(request.required("PolicyDocument")?)?;
        // Names are unique per account, whatever their path.
        if self.account.state.policies.values().any(|policy| policy.name.eq_ignore_ascii_case(name)) {
            return Err(ApiError::new(
                409,
                "EntityAlreadyExists",
                format!("A policy called {name} already exists. Duplicate names are not allowed."),
            ));
        }
        let policy = Policy::new(name, path, tags, document, self.account.now());
        let xml = policy_xml(&arn, &policy);
        self.account.state.policies.insert(arn, policy);
        Ok(xml)
    }

    /// Every read of an existing policy.
    pub(super) fn read_policy(&mut self) -> Result<String, ApiError> {
        let arn = self.request.required("PolicyArn")?.to_owned();
        self.authorize(self.action, &arn, Vec::new())?;
        let policy = self.seen().policy(&arn).ok_or_else(|| missing(&arn))?;
        match self.action {
            "GetPolicy" => Ok(policy_xml(&arn, policy)),
            "ListPolicyVersions" => {
                let newest_first = policy.versions.iter().rev().enumerate();
                let item = |(at, (id, _)): (usize, &(String, _))| (format!("{at:03}"), version(policy, id));
                Ok(self.page("Versions", newest_first.map(item).collect()))
            }
            _ => {
                let id = self.request.required("VersionId")?;
                let (id, document) =
                    policy.versions.iter().find(|(v, _)| v == id).ok_or_else(|| missing(&arn))?;
                let document = element("Document", &encoded(document));
                Ok(format!("<PolicyVersion>{}{document}</PolicyVersion>", version(policy, id)))
            }
        }
    }

    /// Every change of an existing policy.
    pub(super) fn change_policy(&mut self) -> Result<String, ApiError> {
        let arn = self.request.required("PolicyArn")?.to_owned();
        self.authorize(self.action, &arn, Vec::new())?;
        let now = self.account.now();
        let attached = self
            .account
            .state
            .roles
            .values()
            .any(|r| r.attached.contains(&arn) || r.boundary.as_ref() == Some(&arn));
        let policy = self.account.state.policies.get_mut(&arn).ok_or_else(|| missing(&arn))?;
        match self.action {
            "TagPolicy" => {
                put_tags(&mut policy.tags, checked(self.request.tags())?)?;
                Ok(String::new())
            }
            "CreatePolicyVersion" => {
                let document = parse_managed(self.request.required("PolicyDocument")?)?;
                if policy.versions.len() >= QUOTA_VERSIONS {
                    return Err(ApiError::new(
                        409,
                        "LimitExceeded",
                        "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.",
                    ));
                }
                let id = policy.add(document, now);
                if self.request.parameter("SetAsDefault") == Some("true") {
                    policy.default.clone_from(&id);
                }
                Ok(format!("<PolicyVersion>{}</PolicyVersion>", version(policy, &id)))
            }
            "DeletePolicyVersion" => {
                let id = self.request.required("VersionId")?;
                if policy.default == id {
                    return Err(ApiError::new(
                        409,
                        "DeleteConflict",
                        "Cannot delete the default version of a policy.",
                    ));
                }
                policy.versions.retain(|(v, _)| v != id);
                Ok(String::new())
            }
            _ if attached => {
                Err(ApiError::new(409, "DeleteConflict", "Cannot delete a policy attached to entities."))
            }
            _ if policy.versions.len() > 1 => Err(ApiError::new(
                409,
                "DeleteConflict",
                "This policy has more than one version. Before you delete a policy, you must delete the policy's versions.",
            )),
            _ => {
                self.account.state.policies.remove(&arn);
                Ok(String::new())
            }
        }
    }
}

fn missing(arn: &str) -> ApiError {
    ApiError::new(404, "NoSuchEntity", format!("Policy {arn} was not found."))
}

/// A managed policy's document, within IAM's limit.
fn parse_managed(document: &str) -> Result<Value, ApiError> {
    let parsed = parse(document, Kind::Identity).map_err(ApiError::malformed)?;
    if size(document) > QUOTA_SIZE {
        return Err(limit("PolicySize", QUOTA_SIZE));
    }
    Ok(parsed)
}

fn version(policy: &Policy, id: &str) -> String {
    element("VersionId", id)
        + &element("IsDefaultVersion", &(policy.default == id).to_string())
        + &element("CreateDate", &created(policy, id))
}

fn created(policy: &Policy, id: &str) -> String {
    policy.created.get(id).map_or_else(|| CREATE_DATE.to_owned(), |seconds| date_time(*seconds))
}

fn policy_xml(arn: &str, policy: &Policy) -> String {
    let members = [
        element("PolicyName", &policy.name),
        element("Arn", arn),
        element("Path", &policy.path),
        element("DefaultVersionId", &policy.default),
        element("CreateDate", &created(policy, "v1")),
        tags_xml(&policy.tags),
    ];
    format!("<Policy>{}</Policy>", members.concat())
}
