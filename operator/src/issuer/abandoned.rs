//! PURE: an issuer whose AWS account is lost, by an administrator's annotation: its deletion asks AWS nothing.

use crds::names::ABANDON_ANNOTATION;
use crds::{Finding, OidcIssuer, Reason};

/// That the deletion of an abandoned issuer leaves everything in AWS, with its names.
#[must_use]
pub fn abandoned(issuer: &OidcIssuer) -> Option<Finding> {
    if !issuer.is_abandoned() || issuer.metadata.deletion_timestamp.is_none() {
        return None;
    }
    let provider = issuer.status.as_ref().and_then(|status| status.provider_arn.clone());
    let bucket = issuer.spec.managed_bucket().map(|s3| format!("bucket {}", s3.bucket));
    let left: Vec<String> =
        provider.map(|arn| format!("OIDC provider {arn}")).into_iter().chain(bucket).collect();
    let message = format!(
        "annotation {ABANDON_ANNOTATION} is true: AWS is not asked, and this stays there: {}",
        if left.is_empty() { "nothing that is known".into() } else { left.join(", ") }
    );
    Some(Finding::new(Reason::Abandoned, message))
}

/// Its account, as far as it is known without a question.
#[must_use]
pub fn account(issuer: &OidcIssuer) -> Option<&str> {
    let registered = || issuer.status.as_ref()?.account_id.as_deref();
    let specified = issuer.spec.role_account().or(issuer.spec.account_id.as_deref());
    specified.or_else(registered)
}
