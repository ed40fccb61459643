//! The probe of a bucket's policy: does it keep a session of this issuer from writing? A role whose own policy allows to read
//! and write one object is assumed with a token of the cluster, as a pod would assume its own.

use super::model::Fence;
use super::publication::documents::CONTENT;
use super::publication::target::Target;
use crate::aws::accounts::Account;
use crate::aws::error::{AwsError, Class};

/// Assumes the role with the token, reads the object (the control: without it a denied write proves nothing), and writes it
/// with the same content.
pub async fn try_write(account: &Account, target: &Target, token: &str) -> Fence {
    let Some(location) = target.managed() else { return Fence::NotManaged };
    let session = match account.sts.session(&target.canary_role_arn, token).await {
        Ok(session) => session,
        // STS does not say whether a role is missing or does not trust the caller.
        Err(error) if is_denied(&error) => return Fence::NoCanary,
        Err(error) => return not_proved(&error),
    };
    let (s3, key) = (account.s3_as(session, &location.bucket), &location.canary_key);
    match s3.object(key).await {
        Ok(Some(_)) => {}
        // To a caller that may not list the bucket, S3 answers that a missing object is forbidden.
        Ok(None) => return Fence::NoCanary,
        Err(error) if is_denied(&error) => return Fence::NoCanary,
        Err(error) => return not_proved(&error),
    }
    match s3.overwrite(key, CONTENT).await {
        Ok(()) => Fence::Ineffective,
        Err(error) if is_denied(&error) => Fence::Holds,
        Err(error) => not_proved(&error),
    }
}

fn is_denied(error: &AwsError) -> bool {
    matches!(error.class, Class::Denied | Class::NotOwned)
}

fn not_proved(error: &AwsError) -> Fence {
    Fence::NotProved(error.for_user())
}
