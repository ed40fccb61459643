//! One call to IAM: its parameters, its authorisation, and the account it reads and changes.

use aws_sim_api::{MissingRole, Role};

use crate::account::Account;
use crate::authz::{AccessRequest, Caller, authorize, tag_context};
use crate::history::Seen;
use crate::model::LogFields;
use crate::wire::{ApiError, Request, element};

/// The call. Each resource's file adds the operations on that resource; they return the inner XML of the response.
pub(super) struct IamCall<'a> {
    pub account: &'a mut Account,
    pub account_id: &'a str,
    pub caller: &'a Caller,
    pub request: &'a Request,
    /// Whether the host of the provider's URL answers.
    pub contacted: bool,
    pub action: &'a str,
    pub log: &'a mut LogFields,
}

/// Whether an operation only reads.
pub(super) fn is_read(action: &str) -> bool {
    action.starts_with("Get") || action.starts_with("List")
}

impl IamCall<'_> {
    pub(super) fn authorize(
        &mut self,
        action: &str,
        resource: &str,
        context: Vec<(String, String)>,
    ) -> Result<(), ApiError> {
        resource.clone_into(&mut self.log.resource);
        let action = format!("iam:{action}");
        authorize(
            self.account,
            self.caller,
            &AccessRequest { context, ..AccessRequest::new(&action, resource) },
        )
    }

    /// What the call sees: a read may see entities as they were a while ago.
    pub(super) fn seen(&self) -> Seen<'_> {
        if is_read(self.action) { self.account.seen() } else { self.account.present() }
    }

    /// Authorises the action on the role that the request names, and returns the role.
    pub(super) fn role(&mut self) -> Result<Role, ApiError> {
        let name = self.request.required("RoleName")?.to_owned();
        let found = self.seen().role(&name).cloned();
        // The path of a role that does not exist is unknown.
        let arn = match (&found, self.account.behaviour.missing_role) {
            (Some(role), _) => role.arn.clone(),
            (None, MissingRole::Name) => format!("arn:aws:iam::{}:role/{name}", self.account_id),
            (None, MissingRole::Any) => "*".to_owned(),
        };
        let mut context = Vec::new();
        let boundary = found.as_ref().and_then(|r| r.boundary.clone());
        if let Some(boundary) = boundary.filter(|_| self.has_boundary_key()) {
            context.push(("iam:PermissionsBoundary".to_owned(), boundary));
        }
        if let Some(boundary) = self.request.parameter("PermissionsBoundary") {
            context = vec![("iam:PermissionsBoundary".to_owned(), boundary.to_owned())];
        }
        if let Some(policy) = self.request.parameter("PolicyArn") {
            context.push(("iam:PolicyARN".to_owned(), policy.to_owned()));
        }
        context.extend(tag_context(&self.request.tags().into_iter().collect()));
        let untagged = self.request.members("TagKeys").into_iter();
        context.extend(untagged.map(|key| ("aws:TagKeys".to_owned(), key)));
        for (key, value) in found.iter().flat_map(|r| &r.tags) {
            context.push((format!("aws:ResourceTag/{key}"), value.clone()));
        }
        self.authorize(self.action, &arn, context)?;
        found.ok_or_else(|| ApiError::no_such("role", &name))
    }

    /// Whether the condition key of the role's present boundary exists. Sources disagree about three operations.
    fn has_boundary_key(&self) -> bool {
        let doubtful = ["UpdateAssumeRolePolicy", "UpdateRole", "DeleteRole"].contains(&self.action);
        self.account.behaviour.boundary_key || !doubtful
    }

    /// One page of a list, in the order of the items' keys. Its marker is the key of its last item.
    pub(super) fn page(&self, name: &str, mut items: Vec<(String, String)>) -> String {
        let asked = self.request.parameter("MaxItems").and_then(|text| text.parse().ok()).unwrap_or(100);
        let max = asked.min(self.account.behaviour.page_size.unwrap_or(asked));
        let marker = self.request.parameter("Marker").unwrap_or_default();
        items.sort();
        items.retain(|(key, _)| key.as_str() > marker);
        let more = items.len() > max;
        items.truncate(max);
        let marker = items.last().filter(|_| more).map(|(key, _)| element("Marker", key));
        let members: String = items.iter().map(|(_, item)| format!("<member>{item}</member>")).collect();
        format!("<{name}>{members}</{name}><IsTruncated>{more}</IsTruncated>{}", marker.unwrap_or_default())
    }

    pub(super) fn change_role(&mut self, name: &str, change: impl FnOnce(&mut Role)) {
        if let Some(role) = self.account.state.roles.get_mut(&name.to_lowercase()) {
            change(role);
        }
    }

    pub(super) fn boundary_must_exist(&self, arn: &str) -> Result<(), ApiError> {
        self.policy_must_exist(arn, &format!("Scope ARN: {arn}"))
    }

    /// A managed policy that can be attached. `what` begins AWS's message.
    pub(super) fn policy_must_exist(&self, arn: &str, what: &str) -> Result<(), ApiError> {
        let Some((account, name)) = arn
            .strip_prefix("arn:aws:iam::")
            .and_then(|rest| rest.split_once(":policy/"))
            .filter(|(account, name)| !account.is_empty() && !name.is_empty())
        else {
            return Err(ApiError::new(400, "InvalidInput", format!("ARN {arn} is not valid.")));
        };
        // CreateRole's model declares no such error.
        let declared = self.action != "CreateRole";
        if declared && account == "aws" && name.starts_with("aws-service-role/") {
            return Err(ApiError::new(
                400,
                "PolicyNotAttachable",
                "Cannot attach a Service Role Policy to a Customer Role.",
            ));
        }
        let ours = ["aws", self.account_id].contains(&account);
        if ours && self.account.policy_document(arn).is_some() {
            return Ok(());
        }
        Err(ApiError::new(404, "NoSuchEntity", format!("{what} does not exist or is not attachable.")))
    }
}
