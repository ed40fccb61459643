//! STS: `GetCallerIdentity`, and the exchange of a web identity token for credentials. A token is verified as AWS verifies
//! it: against the documents that the issuer publishes, read anonymously, then against the role's trust policy.

use std::sync::Mutex;

use aws_sim_api::FederatedProviderForm;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Response;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::Value;

use crate::account::{Account, Session};
use crate::authz::{Caller, date_time};
use crate::digest::sha256_hex;
use crate::model::{Fetch, LogFields, Settings, lock};
use crate::policy::{Context, Kind, Principal, Query, Verdict, evaluate, parse};
use crate::wire::{ApiError, Request, element, query_response};

/// Seconds of grace after `exp`, and before `iat` and `nbf` (IAM user guide, create OIDC provider).
const GRACE: i64 = 300;
/// STS gives up on an issuer that takes longer.
const FETCH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

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

fn constraint(field: &str, rule: &str) -> ApiError {
    ApiError::validation(format!(
        "1 validation error detected: Value at '{field}' failed to satisfy constraint: Member must {rule}"
    ))
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
        let role_arn = request.required("RoleArn")?;
        let session_name = request.required("RoleSessionName")?;
        let token = request.required("WebIdentityToken")?;
        if !(20..=2048).contains(&role_arn.len()) || role_arn.split(':').count() < 6 {
            return Err(constraint("roleArn", "have length greater than or equal to 20"));
        }
        let name = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if !(2..=64).contains(&session_name.len()) || !session_name.chars().all(name) {
            return Err(constraint("roleSessionName", "satisfy regular expression pattern: [\\w+=,.@-]*"));
        }
        if !(4..=20_000).contains(&token.len()) {
            return Err(constraint("webIdentityToken", "have length less than or equal to 20000"));
        }
        let seconds = request.parameter("DurationSeconds").map_or(Ok(3600), str::parse);
        let seconds = seconds.ok().filter(|s| (900..=43_200).contains(s));
        let seconds = seconds
            .ok_or_else(|| constraint("durationSeconds", "have value greater than or equal to 900"))?;
        let policy =
            request.parameter("Policy").map(|p| parse(p, Kind::Identity).map_err(ApiError::malformed));
        Ok(Self { role_arn, session_name, token, seconds, policy: policy.transpose()? })
    }
}

/// The claims that STS reads.
struct Claims {
    issuer: String,
    subject: String,
    audience: String,
    expires: i64,
    all: Value,
}

pub(crate) async fn assume_role_with_web_identity(
    account: &Mutex<Account>,
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
    let (provider, role) = {
        let account = lock(account);
        let name = parameters.role_arn.rsplit('/').next().unwrap_or_default();
        let role = account.seen().role(name).filter(|role| role.arn == parameters.role_arn).cloned();
        (account.seen().provider(&provider_arn).cloned(), role)
    };
    let provider = provider
        .ok_or_else(|| invalid(format!("No OpenIDConnect provider found in your account for {issuer}")))?;
    let role = role.ok_or_else(not_authorized)?;
    if parameters.seconds > role.max_session_duration {
        return Err(ApiError::validation(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ));
    }
    let (now, form) = {
        let account = lock(account);
        (account.now(), account.behaviour.federated_provider)
    };
    let claims = required_claims(claims, issuer, now)?;
    if !provider.client_ids.contains(&claims.audience) {
        return Err(invalid("Incorrect token audience"));
    }
    let keys = published_keys(fetch, &claims.issuer).await?;
    verify(parameters.token, &header, &keys)?;
    if now > claims.expires + GRACE {
        let message = format!(
            "Token expired: current date/time {now} must be before the expiration date/time {}",
            claims.expires
        );
        return Err(ApiError::new(400, "ExpiredTokenException", message));
    }
    check_trust(&role.trust, &Evaluated { provider_arn: &provider_arn, url: &bare, form, now }, &claims)?;

    let mut account = lock(account);
    let number = account.next();
    let session = Session {
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
    account.sessions.insert(key, session);
    Ok(query_response("sts", "AssumeRoleWithWebIdentity", &inner.concat()))
}

/// Header and claims, unverified.
fn parts(token: &str) -> Result<(Value, Value), ApiError> {
    let no_jwt = || {
        invalid(
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)",
        )
    };
    let json = |part: &str| -> Option<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok().filter(Value::is_object)
    };
    let mut split = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (split.next(), split.next(), split.next(), split.next())
    else {
        return Err(no_jwt());
    };
    Ok((json(header).ok_or_else(no_jwt)?, json(claims).ok_or_else(no_jwt)?))
}

fn required_claims(claims: Value, issuer: String, now: i64) -> Result<Claims, ApiError> {
    let missing = |name: &str| invalid(format!("Missing a required claim: {name}"));
    let time = |name: &str| claims[name].as_i64().ok_or_else(|| missing(name));
    let subject = claims["sub"].as_str().filter(|s| !s.is_empty()).ok_or_else(|| missing("sub"))?.to_owned();
    let (expires, issued_at) = (time("exp")?, time("iat")?);
    let early = |at: i64| at > now + GRACE;
    if early(issued_at) || claims["nbf"].as_i64().is_some_and(early) {
        return Err(invalid("The web identity token provided could not be validated: it is not valid yet"));
    }
    let audiences: Vec<&str> = match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let audience = match (claims["azp"].as_str(), audiences.as_slice()) {
        (_, []) => return Err(missing("aud")),
        (Some(azp), _) => azp.to_owned(),
        (None, [one]) => (*one).to_owned(),
        (None, _) => {
            return Err(invalid(
                "Token audience contains more than one audience while authorized party is not present",
            ));
        }
    };
    Ok(Claims { issuer, subject, audience, expires, all: claims })
}

/// The keys of an issuer, from its two published documents.
async fn published_keys(fetch: &Fetch, issuer: &str) -> Result<JwkSet, ApiError> {
    let discovery = document(fetch, format!("{issuer}/.well-known/openid-configuration")).await?;
    let members =
        ["response_types_supported", "subject_types_supported", "id_token_signing_alg_values_supported"];
    if discovery["issuer"] != issuer || members.iter().any(|m| discovery[*m].is_null()) {
        return Err(no_key());
    }
    let jwks = document(fetch, discovery["jwks_uri"].as_str().unwrap_or_default().to_owned()).await?;
    let keys: JwkSet = serde_json::from_value(jwks).map_err(|_| no_key())?;
    let rsa = keys.keys.iter().filter(|k| matches!(k.algorithm, AlgorithmParameters::RSA(_))).count();
    let elliptic =
        keys.keys.iter().filter(|k| matches!(k.algorithm, AlgorithmParameters::EllipticCurve(_))).count();
    if rsa + elliptic == 0 || rsa > 100 || elliptic > 100 {
        return Err(no_key());
    }
    Ok(keys)
}

async fn document(fetch: &Fetch, url: String) -> Result<Value, ApiError> {
    if !url.starts_with("https://") {
        return Err(no_key());
    }
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(url)).await.map_err(|_| no_key())?;
    let (200, body) = fetched.map_err(|_| no_key())? else { return Err(no_key()) };
    serde_json::from_slice(&body).map_err(|_| no_key())
}

fn verify(token: &str, header: &Value, keys: &JwkSet) -> Result<(), ApiError> {
    let refused = || invalid("The web identity token provided could not be validated");
    let algorithm = match header["alg"].as_str().unwrap_or_default() {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        _ => return Err(refused()),
    };
    let jwk = header["kid"].as_str().and_then(|kid| keys.find(kid)).ok_or_else(no_key)?;
    let fits = match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512) => true,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => key.curve == EllipticCurve::P384,
        _ => false,
    };
    if !fits {
        return Err(refused());
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|_| no_key())?;
    let mut validation = Validation::new(algorithm);
    // Times and audience are checked already, with AWS's grace and messages.
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    validation.required_spec_claims.clear();
    decode::<Value>(token, &key, &validation).map(|_| ()).map_err(|_| refused())
}

/// What a trust policy is evaluated with, beside the token's claims.
struct Evaluated<'a> {
    provider_arn: &'a str,
    url: &'a str,
    form: FederatedProviderForm,
    now: i64,
}

/// Evaluates the trust policy, with the condition keys of a generic OIDC issuer and no others.
fn check_trust(trust: &Value, by: &Evaluated<'_>, claims: &Claims) -> Result<(), ApiError> {
    let key = |name: &str| format!("{}:{name}", by.url).to_lowercase();
    let mut context = Context::from([
        (key("sub"), vec![claims.subject.clone()]),
        (key("aud"), vec![claims.audience.clone()]),
        ("aws:currenttime".to_owned(), vec![date_time(by.now)]),
    ]);
    if let Some(provider) = by.form.value(by.provider_arn) {
        context.insert("aws:federatedprovider".to_owned(), vec![provider]);
    }
    if claims.all["azp"].is_string() {
        let original = claims.all["aud"].as_str().unwrap_or_default().to_owned();
        context.insert(key("oaud"), vec![original]);
    }
    let principal = Principal::Federated(by.provider_arn.to_owned());
    let query = Query {
        action: "sts:AssumeRoleWithWebIdentity",
        resource: None,
        principal: Some(&principal),
        context: &context,
    };
    match evaluate(trust, query) {
        Verdict::Allow => Ok(()),
        Verdict::Deny | Verdict::NoMatch => Err(not_authorized()),
    }
}
