//! Who calls, and whether they may: IAM's evaluation of identity policies, boundary, session policy and resource policy
//! (IAM user guide, "Policy evaluation logic"). Every call goes through [`authorize`].

use serde_json::Value;

use crate::policy::{Context, Principal, Query, Verdict, evaluate};
use crate::sigv4::Authorization;
use crate::wire::{Fail, Request};
use crate::world::{Session, State};
use crate::{Credentials, Settings};

/// A caller whose signature was checked.
#[derive(Debug)]
pub(crate) enum Caller {
    Anonymous,
    /// An IAM user with `AdministratorAccess`.
    Administrator {
        arn: String,
        account: String,
    },
    Session {
        session: Box<Session>,
        arn: String,
        account: String,
    },
}

pub(crate) fn administrator() -> Credentials {
    Credentials {
        access_key_id: "AKIASIMADMINISTRATOR".into(),
        secret_access_key: "administrators-secret-of-the-stand-in".into(),
    }
}

impl Caller {
    /// Checks the signature and finds out whose it is.
    pub(crate) fn identify(state: &State, settings: &Settings, request: &Request) -> Result<Self, Fail> {
        let now = state.now();
        let Some(authorization) = Authorization::of(&request.headers)? else {
            if request.service != "s3" {
                return Err(Fail::new(
                    403,
                    "MissingAuthenticationToken",
                    "Request is missing Authentication Token",
                ));
            }
            return Ok(Self::Anonymous);
        };
        let account = settings.account.clone();
        let region = if request.service == "iam" { "us-east-1" } else { &settings.region };
        let admin = administrator();
        if authorization.access_key == admin.access_key_id {
            authorization.verify(request, &admin.secret_access_key, region, now)?;
            return Ok(Self::Administrator {
                arn: format!("arn:aws:iam::{account}:user/administrator"),
                account,
            });
        }
        let unknown = || match request.service {
            "s3" => Fail::new(
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            ),
            _ => Fail::new(
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            ),
        };
        let session = state.sessions.get(authorization.access_key).ok_or_else(unknown)?.clone();
        if request.header("x-amz-security-token") != session.token {
            return Err(unknown());
        }
        authorization.verify(request, &session.secret, region, now)?;
        if session.expires <= now {
            return Err(Fail::new(
                403,
                "ExpiredToken",
                "The security token included in the request is expired",
            ));
        }
        // A session dies with its role.
        if state.roles.get(&session.role.to_lowercase()).is_none_or(|role| role.id != session.role_id) {
            return Err(unknown());
        }
        let arn = format!("arn:aws:sts::{account}:assumed-role/{}/{}", session.role, session.name);
        Ok(Self::Session { session: Box::new(session), arn, account })
    }

    pub(crate) fn arn(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Administrator { arn, .. } | Self::Session { arn, .. } => arn,
        }
    }

    fn principal(&self) -> Principal {
        match self {
            Self::Anonymous => Principal::Anonymous,
            Self::Administrator { arn, account } => {
                Principal::Aws { arns: vec![arn.clone()], account: account.clone() }
            }
            Self::Session { session, arn, account } => {
                Principal::Aws { arns: vec![arn.clone(), session.role_arn.clone()], account: account.clone() }
            }
        }
    }

    /// Global condition keys of every request.
    fn context(&self, now: i64, extra: &[(String, String)]) -> Context {
        let mut context = Context::new();
        let mut put = |key: &str, value: String| {
            context.entry(key.to_lowercase()).or_default().push(value);
        };
        let now = jiff::Timestamp::from_second(now).unwrap_or_default();
        put("aws:CurrentTime", now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        put("aws:SecureTransport", "true".into());
        match self {
            Self::Anonymous => {}
            Self::Administrator { arn, account } => {
                put("aws:PrincipalArn", arn.clone());
                put("aws:PrincipalAccount", account.clone());
            }
            Self::Session { session, account, .. } => {
                put("aws:PrincipalArn", session.role_arn.clone());
                put("aws:PrincipalAccount", account.clone());
                if let Some(provider) = &session.provider {
                    put("aws:FederatedProvider", provider.clone());
                }
            }
        }
        for (key, value) in extra {
            put(key, value.clone());
        }
        context
    }
}

/// What a call wants to do.
pub(crate) struct Ask<'a> {
    pub action: &'a str,
    pub resource: &'a str,
    /// The resource's own policy, where it has one.
    pub resource_policy: Option<&'a Value>,
    /// Further condition keys.
    pub context: Vec<(String, String)>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(action: &'a str, resource: &'a str) -> Self {
        Self { action, resource, resource_policy: None, context: Vec::new() }
    }
}

/// Allows or refuses, with AWS's words.
pub(crate) fn authorize(state: &State, caller: &Caller, ask: &Ask<'_>) -> Result<(), Fail> {
    let Ask { action, resource, resource_policy, context } = ask;
    let (context, principal) = (caller.context(state.now(), context), caller.principal());
    let query = Query { action, resource: Some(resource), principal: None, context: &context };
    let of_resource = resource_policy
        .map_or(Verdict::Silent, |policy| evaluate(policy, Query { principal: Some(&principal), ..query }));
    let refuse = |why: &str| {
        let message = match caller {
            Caller::Anonymous => "Access Denied".to_owned(),
            _ => format!(
                "User: {} is not authorized to perform: {action} on resource: {resource} {why}",
                caller.arn()
            ),
        };
        Err(Fail::denied(message))
    };
    let silent = |kind: &str| format!("because no {kind} policy allows the {action} action");
    if of_resource == Verdict::Deny {
        return refuse("with an explicit deny in a resource-based policy");
    }
    match caller {
        Caller::Anonymous if of_resource == Verdict::Allow => Ok(()),
        Caller::Anonymous => refuse(""),
        Caller::Administrator { .. } => Ok(()),
        Caller::Session { session, .. } => {
            let Some(role) = state.roles.get(&session.role.to_lowercase()) else { return refuse("") };
            // A policy that is gone says nothing.
            let managed = |arn: &String| {
                state.policy_document(arn).map_or(Verdict::Silent, |document| evaluate(&document, query))
            };
            let inline = role.inline.values().map(|document| evaluate(document, query));
            let identity: Vec<Verdict> = role.attached.iter().map(managed).chain(inline).collect();
            let boundary = role.boundary.as_ref().map(managed);
            let session = session.policy.as_ref().map(|policy| evaluate(policy, query));
            if identity.contains(&Verdict::Deny) {
                return refuse("with an explicit deny in an identity-based policy");
            }
            if boundary == Some(Verdict::Deny) {
                return refuse("with an explicit deny in a permissions boundary");
            }
            if session == Some(Verdict::Deny) {
                return refuse("with an explicit deny in a session policy");
            }
            if !identity.contains(&Verdict::Allow) && of_resource != Verdict::Allow {
                return refuse(&silent("identity-based"));
            }
            if boundary == Some(Verdict::Silent) {
                return refuse(&format!("because no permissions boundary allows the {action} action"));
            }
            if session == Some(Verdict::Silent) {
                return refuse(&silent("session"));
            }
            Ok(())
        }
    }
}
