//! IAM: roles, managed and inline policies, OIDC providers, with IAM's validation, quotas and messages.

mod call;
mod policies;
mod providers;
mod role_policies;
mod roles;
mod validate;
mod xml;

use bytes::Bytes;
use http::Response;

use crate::account::Account;
use crate::authz::Caller;
use crate::model::{LogFields, Settings};
use crate::wire::{ApiError, Request, query_response};
use call::IamCall;

pub(crate) fn dispatch(
    account: &mut Account,
    settings: &Settings,
    caller: &Caller,
    request: &Request,
    action: &str,
    log: &mut LogFields,
) -> Result<Response<Bytes>, ApiError> {
    let mut call = IamCall { account, account_id: &settings.account, caller, request, action, log };
    let inner = match action {
        "CreateRole" => call.create_role(),
        "GetRole" => call.get_role(),
        "ListRoles" => call.list_roles(),
        "DeleteRole" => call.delete_role(),
        "UpdateAssumeRolePolicy" => call.update_trust(),
        "UpdateRole" => call.update_role(),
        "TagRole" => call.tag_role(),
        "PutRolePermissionsBoundary" => call.put_boundary(),
        "AttachRolePolicy" | "DetachRolePolicy" => call.attachment(),
        "ListAttachedRolePolicies" => call.list_attached(),
        "ListRolePolicies" => call.list_inline(),
        "PutRolePolicy" | "GetRolePolicy" | "DeleteRolePolicy" => call.inline(),
        "CreatePolicy" => call.create_policy(),
        "GetPolicy"
        | "TagPolicy"
        | "ListPolicyVersions"
        | "GetPolicyVersion"
        | "CreatePolicyVersion"
        | "DeletePolicyVersion"
        | "DeletePolicy" => call.policy(),
        "CreateOpenIDConnectProvider" => call.create_provider(),
        "GetOpenIDConnectProvider"
        | "DeleteOpenIDConnectProvider"
        | "AddClientIDToOpenIDConnectProvider"
        | "RemoveClientIDFromOpenIDConnectProvider" => call.provider(),
        "ListOpenIDConnectProviders" => call.list_providers(),
        other => Err(ApiError::new(
            400,
            "InvalidAction",
            format!("Could not find operation {other} for version 2010-05-08"),
        )),
    }?;
    Ok(query_response("iam", action, &inner))
}
