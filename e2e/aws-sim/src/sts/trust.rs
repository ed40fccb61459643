//! Evaluation of a role's trust policy for a token.

use aws_sim_api::FederatedProviderForm;
use serde_json::Value;

use super::not_authorized;
use super::token::Claims;
use crate::policy::{Context, Principal, Query, Verdict, date_time, evaluate};
use crate::wire::ApiError;

/// What a trust policy is evaluated with, beside the token's claims.
pub(super) struct Evaluated<'a> {
    pub provider_arn: &'a str,
    pub url: &'a str,
    pub form: FederatedProviderForm,
    pub now: i64,
}

/// Evaluates the trust policy, with the condition keys of a generic OIDC issuer and no others.
pub(super) fn check_trust(trust: &Value, by: &Evaluated<'_>, claims: &Claims) -> Result<(), ApiError> {
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
