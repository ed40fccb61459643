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
use call::{IamCall, is_read};

pub(crate) fn dispatch(
    account: &mut Account,
    settings: &Settings,
    caller: &Caller,
    request: &Request,
    contacted: bool,
    action: &str,
    log: &mut LogFields,
) -> Result<Response<Bytes>, ApiError> {
    let account_id = settings.account.as_str();
    let mut answer = |account: &mut Account| {
        perform(&mut IamCall { account, account_id, caller, request, contacted, action, log })
    };
    let inner = if is_read(action) { answer(account) } else { account.record(answer) }?;
    Ok(query_response("iam", action, &inner))
}

/// The operation. Returns the inner XML of the response.
fn perform(call: &mut IamCall<'_>) -> Result<String, ApiError> {
    match call.action {
        "CreateRole" => call.create_role(),
        "GetRole" => call.get_role(),
        "ListRoles" => call.list_roles(),
        "DeleteRole" => call.delete_role(),
        "ListInstanceProfilesForRole" => call.list_profiles(),
        "UpdateAssumeRolePolicy" => call.update_trust(),
        "UpdateRole" => call.update_role(),
        "TagRole" => call.tag_role(),
        "UntagRole" => call.untag_role(),
        "PutRolePermissionsBoundary" => call.put_boundary(),
        "AttachRolePolicy" | "DetachRolePolicy" => call.attachment(),
        "ListAttachedRolePolicies" => call.list_attached(),
        "ListRolePolicies" => call.list_inline(),
        "PutRolePolicy" | "GetRolePolicy" | "DeleteRolePolicy" => call.inline(),
        "CreatePolicy" => call.create_policy(),
        "GetPolicy" | "ListPolicyVersions" | "GetPolicyVersion" => call.read_policy(),
        "TagPolicy" | "CreatePolicyVersion" | "DeletePolicyVersion" | "DeletePolicy" => call.change_policy(),
        "CreateOpenIDConnectProvider" => call.create_provider(),
        "GetOpenIDConnectProvider" => call.get_provider(),
        "DeleteOpenIDConnectProvider"
        | "TagOpenIDConnectProvider"
        | "AddClientIDToOpenIDConnectProvider"
        | "RemoveClientIDFromOpenIDConnectProvider" => call.change_provider(),
        "ListOpenIDConnectProviders" => call.list_providers(),
        other => Err(ApiError::new(
            400,
            "InvalidAction",
            format!("Could not find operation {other} for version 2010-05-08"),
        )),
    }
}
