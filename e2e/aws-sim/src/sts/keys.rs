//! An issuer's published keys, and the signature of a token by one of them.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_sim_api::JwksCache;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::Value;

use super::{invalid, no_key};
use crate::account::Account;
use crate::model::{Fetch, lock};
use crate::wire::ApiError;

/// STS gives up on an issuer that takes longer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys of an issuer: those that STS keeps, or those that the issuer publishes now.
pub(super) async fn keys(account: &Mutex<Account>, fetch: &Fetch, issuer: &str) -> Result<JwkSet, ApiError> {
    if let Some(kept) = kept(&lock(account), issuer) {
        return Ok(kept);
    }
    let keys = published_keys(fetch, issuer).await?;
    let mut account = lock(account);
    if account.behaviour.jwks_cache != JwksCache::Off {
        account.keys.insert(issuer.to_owned(), (Instant::now(), keys.clone()));
    }
    Ok(keys)
}

fn kept(account: &Account, issuer: &str) -> Option<JwkSet> {
    let (read, keys) = account.keys.get(issuer)?;
    let valid = match account.behaviour.jwks_cache {
        JwksCache::Off => false,
        JwksCache::Milliseconds(milliseconds) => read.elapsed() < Duration::from_millis(milliseconds),
        JwksCache::ForEver => true,
    };
    valid.then(|| keys.clone())
}

/// The keys of an issuer, from its two published documents.
async fn published_keys(fetch: &Fetch, issuer: &str) -> Result<JwkSet, ApiError> {
    let discovery =
        document(fetch, format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))).await?;
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

pub(super) fn verify(token: &str, header: &Value, keys: &JwkSet) -> Result<(), ApiError> {
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
