//! STS: `GetCallerIdentity`, and the exchange of a web identity token for credentials. A token is verified as AWS verifies
//! it: against the documents that the issuer publishes, read anonymously, then against the role's trust policy.

mod keys;
mod token;
mod trust;

use std::sync::Mutex;

use bytes::Bytes;
use http::Response;
use serde_json::Value;

use crate::account::{Account, Session};
use crate::authz::Caller;
use crate::constraints;
use crate::digest::sha256_hex;
use crate::model::{Fetch, LogFields, Settings, lock};
use crate::policy::{Kind, parse};
use crate::wire::{ApiError, Request, element, query_response};
use keys::{keys, verify};
use token::{parts, required_claims};
use trust::{Evaluated, check_trust};

/// Seconds of grace after `exp`, and before `iat` and `nbf` (IAM user guide, create OIDC provider).
const GRACE: i64 = 300;

pub(crate) fn dispatch(
    caller: &Caller,
    settings: &Settings,
    action: &str,
) -> Result<Response<Bytes>, ApiError> {
    if action != "GetCallerIdentity" {
        let message = format!("Could not find operation {action} for version 2011-06-15");
        return Err(ApiError::new(400, "InvalidAction", message));
    }
    let id = match caller {
        Caller::Session { session, .. } => format!("{}:{}", session.role_id, session.name),
        _ => "AIDASIMADMINISTRATOR".to_owned(),
    };
    let inner =
        element("Arn", caller.arn()) + &element("UserId", &id) + &element("Account", &settings.account);
    Ok(query_response("sts", action, &inner))
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(400, "InvalidIdentityToken", message)
}

fn no_key() -> ApiError {
    // Two spaces, as in AWS's message.
    invalid(
        "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements",
    )
}

fn not_authorized() -> ApiError {
    ApiError::new(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
}

/// The call's parameters, within STS's constraints.
struct Parameters<'a> {
    role_arn: &'a str,
    session_name: &'a str,
    token: &'a str,
    seconds: i64,
    policy: Option<Value>,
}

impl<'a> Parameters<'a> {
    fn of(request: &'a Request) -> Result<Self, ApiError> {
        constraints::check(request, "AssumeRoleWithWebIdentity")?;
        let role_arn = request.required("RoleArn")?;
        let session_name = request.required("RoleSessionName")?;
        let token = request.required("WebIdentityToken")?;
        if role_arn.split(':').count() < 6 {
            return Err(ApiError::validation("Request ARN is invalid"));
        }
        let seconds = request.parameter("DurationSeconds").and_then(|text| text.parse().ok()).unwrap_or(3600);
        let policy =
            request.parameter("Policy").map(|p| parse(p, Kind::Identity).map_err(ApiError::malformed));
        Ok(Self { role_arn, session_name, token, seconds, policy: policy.transpose()? })
    }
}

pub(crate) async fn assume_role_with_web_identity(
    account: &Mutex<Account>,
    own: &str,
    fetch: &Fetch,
    request: &Request,
    log: &mut LogFields,
) -> Result<Response<Bytes>, ApiError> {
    let parameters = Parameters::of(request)?;
    parameters.role_arn.clone_into(&mut log.resource);
    let (header, claims) = parts(parameters.token)?;
    let issuer = claims["iss"].as_str().ok_or_else(|| invalid("Missing a required claim: iss"))?.to_owned();

    let account_id = parameters.role_arn.split(':').nth(4).unwrap_or_default();
    let bare = issuer.strip_prefix("https://").unwrap_or("/").to_owned();
    let provider_arn = format!("arn:aws:iam::{account_id}:oidc-provider/{bare}");
    let (provider, role) = lock(account).within(account_id, own, |account| {
        let name = parameters.role_arn.rsplit('/').next().unwrap_or_default();
        let role = account.seen().role(name).filter(|role| role.arn == parameters.role_arn).cloned();
        (account.seen().provider(&provider_arn).cloned(), role)
    });
    let provider = provider
        .ok_or_else(|| invalid(format!("No OpenIDConnect provider found in your account for {issuer}")))?;
    let role = role.ok_or_else(not_authorized)?;
    if parameters.seconds > role.max_session_duration {
        return Err(ApiError::validation(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ));
    }
    let (now, form, age_cap) = {
        let account = lock(account);
        (account.now(), account.behaviour.federated_provider, account.behaviour.token_age_cap_seconds)
    };
    let claims = required_claims(claims, issuer, now)?;
    if !provider.client_ids.contains(&claims.audience) {
        return Err(invalid("Incorrect token audience"));
    }
    let keys = keys(account, fetch, &claims.issuer).await?;
    verify(parameters.token, &header, &keys)?;
    if now > claims.expires + GRACE {
        let message = format!(
            "Token expired: current date/time {now} must be before the expiration date/time {}",
            claims.expires
        );
        return Err(ApiError::new(400, "ExpiredTokenException", message));
    }
    let age = u64::try_from(now - claims.issued_at).unwrap_or_default();
    if age_cap.is_some_and(|cap| age > cap) {
        return Err(invalid(format!("Token too old: {age}")));
    }
    check_trust(&role.trust, &Evaluated { provider_arn: &provider_arn, url: &bare, form, now }, &claims)?;

    let mut account = lock(account);
    let number = account.next();
    let session = Session {
        account: account_id.to_owned(),
        role: role.name.clone(),
        role_arn: role.arn.clone(),
        role_id: role.id.clone(),
        name: parameters.session_name.to_owned(),
        secret: format!("session-secret-{number}-{}", sha256_hex(parameters.token.as_bytes())),
        token: format!("session-token-{number}-{}", role.id),
        issued: now,
        expires: now + parameters.seconds,
        provider: Some(provider_arn),
        policy: parameters.policy,
    };
    let key = format!("ASIASIM{number:013}");
    let expiration = jiff::Timestamp::from_second(session.expires).map(|t| t.to_string()).unwrap_or_default();
    let (id, name) = (element("AssumedRoleId", &format!("{}:{}", role.id, session.name)), &role.name);
    let arn = element("Arn", &format!("arn:aws:sts::{account_id}:assumed-role/{name}/{}", session.name));
    let credentials = [
        element("AccessKeyId", &key),
        element("SecretAccessKey", &session.secret),
        element("SessionToken", &session.token),
        element("Expiration", &expiration),
    ];
    let inner = [
        element("SubjectFromWebIdentityToken", &claims.subject),
        element("Audience", &claims.audience),
        format!("<AssumedRoleUser>{id}{arn}</AssumedRoleUser>"),
        format!("<Credentials>{}</Credentials>", credentials.concat()),
        element("Provider", &claims.issuer),
    ];
    account.last_used.insert(role.id.clone(), now);
    account.sessions.insert(key, session);
    Ok(query_response("sts", "AssumeRoleWithWebIdentity", &inner.concat()))
}
