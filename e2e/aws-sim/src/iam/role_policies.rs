//! Policies of a role: attached managed ones, and inline ones.

use quick_xml::escape::escape;

use super::call::IamCall;
use super::validate::limit;
use super::xml::encoded;
use crate::policy::{Kind, parse, size};
use crate::wire::{ApiError, element};

const QUOTA_ATTACHED: usize = 10;
/// Characters of all inline policies of a role, without white space.
const QUOTA_INLINE: usize = 10_240;

impl IamCall<'_> {
    /// `ListAttachedRolePolicies`.
    pub(super) fn list_attached(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let item = |arn: &String| {
            let name = arn.rsplit('/').next().unwrap_or_default();
            (arn.clone(), element("PolicyName", name) + &element("PolicyArn", arn))
        };
        let prefix = format!(":policy{}", self.request.parameter("PathPrefix").unwrap_or("/"));
        let attached = role.attached.iter().filter(|arn| arn.contains(&prefix));
        Ok(self.page("AttachedPolicies", attached.map(item).collect()))
    }

    /// `AttachRolePolicy` and `DetachRolePolicy`.
    pub(super) fn attachment(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let arn = self.request.required("PolicyArn")?.to_owned();
        let attached = role.attached.contains(&arn);
        if self.action == "DetachRolePolicy" {
            if !attached {
                return Err(ApiError::new(404, "NoSuchEntity", format!("Policy {arn} was not found.")));
            }
            self.change_role(&role.name, |role| role.attached.retain(|a| *a != arn));
            return Ok(String::new());
        }
        self.policy_must_exist(&arn, &format!("Policy {arn}"))?;
        if !attached && role.attached.len() >= QUOTA_ATTACHED {
            return Err(limit("PoliciesPerRole", QUOTA_ATTACHED));
        }
        if !attached {
            self.change_role(&role.name, |role| role.attached.push(arn));
        }
        Ok(String::new())
    }

    /// `ListRolePolicies`.
    pub(super) fn list_inline(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let names = role.inline.keys().map(|name| (name.clone(), escape(name).into_owned()));
        Ok(self.page("PolicyNames", names.collect()))
    }

    /// `PutRolePolicy`, `GetRolePolicy` and `DeleteRolePolicy`.
    pub(super) fn inline(&mut self) -> Result<String, ApiError> {
        let role = self.role()?;
        let name = self.request.required("PolicyName")?.to_owned();
        let missing = || ApiError::no_such("role policy", &name);
        match self.action {
            "PutRolePolicy" => {
                let text = self.request.required("PolicyDocument")?;
                let document = parse(text, Kind::Identity).map_err(ApiError::malformed)?;
                let others = role.inline.iter().filter(|(other, _)| **other != name);
                let all = others.map(|(_, document)| size(&document.to_string())).sum::<usize>() + size(text);
                if all > QUOTA_INLINE {
                    return Err(ApiError::new(
                        409,
                        "LimitExceeded",
                        format!(
                            "Maximum policy size of {QUOTA_INLINE} bytes exceeded for role {}",
                            role.name
                        ),
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
}
