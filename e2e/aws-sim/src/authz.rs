//! Authentication and authorisation: IAM's evaluation of identity policies, boundary, session policy and resource policy
//! (IAM user guide, "Policy evaluation logic"). Every call to IAM and S3 passes [`authorize`].

use aws_sim_api::{Credentials, FederatedProviderForm, Tags};
use serde_json::Value;

use crate::account::{Account, Session};
use crate::model::Settings;
use crate::policy::{Context, Principal, Query, Verdict, date_time, evaluate};
use crate::sigv4::Authorization;
use crate::wire::{ApiError, Request};

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

/// Begins the access keys of administrators; the account's id follows.
const ADMINISTRATOR: &str = "AKIASIM0";

pub(crate) fn administrator(account: &str) -> Credentials {
    Credentials {
        access_key_id: format!("{ADMINISTRATOR}{account}"),
        secret_access_key: format!("administrators-secret-of-aws-sim-{account}"),
    }
}

/// The account of the access key that signs a request, if there is such a key.
pub(crate) fn account_of(known: &Account, request: &Request) -> Result<Option<String>, ApiError> {
    let Some(authorization) = Authorization::of(&request.headers)? else { return Ok(None) };
    let administrator = authorization.access_key.strip_prefix(ADMINISTRATOR).map(str::to_owned);
    let session = || known.sessions.get(authorization.access_key).map(|session| session.account.clone());
    Ok(administrator.or_else(session))
}

impl Caller {
    /// Finds the principal of the access key and checks the signature.
    pub(crate) fn identify(
        known: &Account,
        settings: &Settings,
        request: &Request,
    ) -> Result<Self, ApiError> {
        let now = known.now();
        let Some(authorization) = Authorization::of(&request.headers)? else {
            if request.service != "s3" {
                return Err(ApiError::new(
                    403,
                    "MissingAuthenticationToken",
                    "Request is missing Authentication Token",
                ));
            }
            return Ok(Self::Anonymous);
        };
        let account = settings.account.clone();
        let region = if request.service == "iam" { "us-east-1" } else { &settings.region };
        let admin = administrator(&account);
        if authorization.access_key == admin.access_key_id {
            authorization.verify(request, &admin.secret_access_key, region, now)?;
            return Ok(Self::Administrator {
                arn: format!("arn:aws:iam::{account}:user/administrator"),
                account,
            });
        }
        let unknown = || match request.service {
            "s3" => ApiError::new(
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            ),
            _ => ApiError::new(
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            ),
        };
        let session = known.sessions.get(authorization.access_key).ok_or_else(unknown)?.clone();
        if request.header("x-amz-security-token") != session.token {
            return Err(unknown());
        }
        authorization.verify(request, &session.secret, region, now)?;
        if session.expires <= now {
            return Err(ApiError::new(
                403,
                "ExpiredToken",
                "The security token included in the request is expired",
            ));
        }
        // A session ends when its role is deleted.
        if known.state.role(&session.role).is_none_or(|role| role.id != session.role_id) {
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
    fn context(&self, now: i64, provider_form: FederatedProviderForm, extra: &[(String, String)]) -> Context {
        let mut context = Context::new();
        let mut put = |key: &str, value: String| {
            context.entry(key.to_lowercase()).or_default().push(value);
        };
        put("aws:CurrentTime", date_time(now));
        put("aws:EpochTime", now.to_string());
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
                put("aws:TokenIssueTime", date_time(session.issued));
                if let Some(provider) = session.provider.as_ref().and_then(|arn| provider_form.value(arn)) {
                    put("aws:FederatedProvider", provider);
                }
            }
        }
        for (key, value) in extra {
            put(key, value.clone());
        }
        context
    }
}

/// One action on one resource.
pub(crate) struct AccessRequest<'a> {
    pub action: &'a str,
    pub resource: &'a str,
    /// The resource's policy, where it has one.
    pub resource_policy: Option<&'a Value>,
    /// Whether the resource belongs to another account: then both sides must allow.
    pub foreign: bool,
    /// Further condition keys.
    pub context: Vec<(String, String)>,
}

impl<'a> AccessRequest<'a> {
    pub(crate) fn new(action: &'a str, resource: &'a str) -> Self {
        Self { action, resource, resource_policy: None, foreign: false, context: Vec::new() }
    }
}

/// Condition keys of a call that creates something with these tags.
pub(crate) fn tag_context(tags: &Tags) -> Vec<(String, String)> {
    let keys = tags.keys().map(|key| ("aws:TagKeys".to_owned(), key.clone()));
    tags.iter().map(|(key, value)| (format!("aws:RequestTag/{key}"), value.clone())).chain(keys).collect()
}

/// Allows, or refuses with AWS's message.
pub(crate) fn authorize(
    account: &Account,
    caller: &Caller,
    access: &AccessRequest<'_>,
) -> Result<(), ApiError> {
    let AccessRequest { action, resource, resource_policy, foreign, context } = access;
    let context = caller.context(account.now(), account.behaviour.federated_provider, context);
    let principal = caller.principal();
    let query = Query { action, resource: Some(resource), principal: None, context: &context };
    let by_resource = resource_policy
        .map_or(Verdict::NoMatch, |policy| evaluate(policy, Query { principal: Some(&principal), ..query }));
    let refuse = |why: &str| {
        let message = match caller {
            Caller::Anonymous => "Access Denied".to_owned(),
            _ => format!(
                "User: {} is not authorized to perform: {action} on resource: {resource} {why}",
                caller.arn()
            ),
        };
        Err(ApiError::denied(message))
    };
    let no_policy = |kind: &str| format!("because no {kind} policy allows the {action} action");
    if by_resource == Verdict::Deny {
        return refuse("with an explicit deny in a resource-based policy");
    }
    if *foreign && by_resource != Verdict::Allow {
        return refuse(&no_policy("resource-based"));
    }
    match caller {
        Caller::Anonymous if by_resource == Verdict::Allow => Ok(()),
        Caller::Anonymous => refuse(""),
        Caller::Administrator { .. } => Ok(()),
        Caller::Session { session, .. } => {
            let Some(role) = account.state.role(&session.role) else { return refuse("") };
            // A deleted policy has no statement that applies.
            let managed = |arn: &String| {
                account.policy_document(arn).map_or(Verdict::NoMatch, |document| evaluate(&document, query))
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
            if !identity.contains(&Verdict::Allow) && (*foreign || by_resource != Verdict::Allow) {
                return refuse(&no_policy("identity-based"));
            }
            if boundary == Some(Verdict::NoMatch) {
                return refuse(&format!("because no permissions boundary allows the {action} action"));
            }
            if session == Some(Verdict::NoMatch) {
                return refuse(&no_policy("session"));
            }
            Ok(())
        }
    }
}
