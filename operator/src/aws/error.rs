//! PURE: one error for every AWS call. Its class decides requeue, reason and metric label; the text for the user and the
//! details for the log are apart.

use crds::{Finding, Reason};
use thiserror::Error;

/// What kind of failure a call met; decisions look at nothing else of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The thing does not exist.
    NotFound,
    /// The thing exists already.
    AlreadyExists,
    /// A concurrent change or a precondition; read again.
    Conflict,
    /// AWS asks for fewer calls.
    Throttled,
    /// The operator's policy does not allow the call.
    Denied,
    /// AWS refuses what was asked; a person has to change it.
    Invalid,
    /// A quota of the account is used up.
    Quota,
    /// The operator has no working credentials.
    Credentials,
    /// The bucket belongs to another account.
    NotOwned,
    /// Network, time-out, 5xx.
    Transient,
}

impl Class {
    /// The reason a condition carries for it.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotFound | Self::AlreadyExists | Self::Conflict => Reason::Progressing,
            Self::Throttled => Reason::Throttled,
            Self::Denied => Reason::OperatorPermissionMissing,
            Self::Invalid => Reason::InvalidSpec,
            Self::Quota => Reason::QuotaExceeded,
            Self::Credentials => Reason::CredentialsUnavailable,
            Self::NotOwned => Reason::NotOwned,
            Self::Transient => Reason::AWSUnavailable,
        }
    }

    /// Whether only a person can help. Even then the call is tried again, slowly: the outside world may be mended.
    #[must_use]
    pub const fn needs_a_person(self) -> bool {
        matches!(self, Self::Invalid | Self::Quota | Self::NotOwned)
    }

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Quota => "quota",
            Self::Credentials => "credentials",
            Self::NotOwned => "not_owned",
            Self::Transient => "transient",
        }
    }
}

/// What to do about a public-access block beyond the bucket's own.
pub const PUBLIC_POLICY_BLOCKED: &str = "S3 refuses the public bucket policy although the bucket allows it: turn off \
    BlockPublicPolicy in the account's (or organisation's) S3 Block Public Access settings";

/// A failed AWS call.
#[derive(Debug, Clone, Error)]
#[error("{operation} on {resource}: {message}")]
pub struct AwsError {
    /// What kind of failure.
    pub class: Class,
    /// The API operation, for example `iam:CreateRole`.
    pub operation: &'static str,
    /// What it was asked of: a name or an ARN.
    pub resource: String,
    /// AWS's error code, empty where there was no answer.
    pub code: String,
    /// For the user: AWS's words without request ids.
    pub message: String,
    /// For the log: everything there is.
    pub detail: String,
}

impl AwsError {
    /// What a condition says of the failure.
    #[must_use]
    pub fn finding(&self) -> Finding {
        Finding::new(self.class.reason(), self.for_user())
    }

    /// What an administrator reads at the terminal: the session is a person's, not the operator's.
    #[must_use]
    pub fn for_administrator(&self) -> String {
        let Self { operation, resource, message, .. } = self;
        match self.class {
            _ if self.public_policy_blocked() => PUBLIC_POLICY_BLOCKED.into(),
            Class::Denied => format!("your AWS session may not do {operation} on {resource}: {message}"),
            Class::Credentials => format!("your AWS session does not work: {message}"),
            _ => self.for_user(),
        }
    }

    /// Whether S3 refused a public policy because of a public-access block: the bucket's own takes some seconds to open
    /// (S3 user guide), the account's or organisation's stays.
    #[must_use]
    pub fn public_policy_blocked(&self) -> bool {
        self.message.contains("BlockPublicPolicy")
    }

    /// What a condition says: what is the matter and, where it is known, what to do.
    #[must_use]
    pub fn for_user(&self) -> String {
        let Self { operation, resource, message, .. } = self;
        match self.class {
            Class::Denied => format!(
                "AWS denied {operation} on {resource}: {message}. The operator's role needs what `operator iam-policy` \
                 prints; run `operator bootstrap` again to put it"
            ),
            Class::Credentials => format!(
                "{message}. Check the operator's AWS_ROLE_ARN and projected token, and that the issuer's documents are \
                 public; `operator bootstrap` republishes them"
            ),
            Class::Quota => format!("{operation}: {message}. Ask AWS to raise the quota"),
            Class::Throttled => format!("AWS throttles {operation}; it is tried again by itself"),
            Class::Transient => format!("{operation} got no answer from AWS; it is tried again by itself"),
            Class::NotOwned => format!(
                "{resource} belongs to another AWS account or may not be read by this one: choose another \
                 spec.s3.bucket, best one that ends in -<account>-<region>-an"
            ),
            Class::NotFound | Class::AlreadyExists | Class::Conflict | Class::Invalid => {
                format!("AWS refused {operation} on {resource}: {message}")
            }
        }
    }
}

/// Codes of IAM, STS and S3 (API references; S3 error responses) by what they ask of us.
pub(super) fn classify(code: &str, message: &str) -> Class {
    match code {
        "NoSuchEntity"
        | "NoSuchEntityException"
        | "NoSuchBucket"
        | "NoSuchKey"
        | "NotFound"
        | "NoSuchBucketPolicy"
        | "NoSuchTagSet"
        | "OwnershipControlsNotFoundError"
        | "NoSuchPublicAccessBlockConfiguration" => Class::NotFound,
        "EntityAlreadyExists" | "EntityAlreadyExistsException" | "BucketAlreadyOwnedByYou" => {
            Class::AlreadyExists
        }
        "ConcurrentModification"
        | "ConcurrentModificationException"
        | "EntityTemporarilyUnmodifiable"
        | "ConditionalRequestConflict"
        | "PreconditionFailed"
        | "OperationAborted"
        | "DeleteConflict"
        | "BucketNotEmpty" => Class::Conflict,
        "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "SlowDown" => Class::Throttled,
        "LimitExceeded" | "LimitExceededException" | "TooManyBuckets" => Class::Quota,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed" => Class::Credentials,
        // S3 names the missing permission to callers of the bucket's own account only; others read "Access Denied".
        "AccessDenied" | "AccessDeniedException" if message.contains("not authorized") => Class::Denied,
        "AccessDenied" | "AccessDeniedException" | "BucketAlreadyExists" => Class::NotOwned,
        "ServiceFailure"
        | "InternalError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "IDPCommunicationError"
        | "OpenIdIdpCommunicationError"
        | "" => Class::Transient,
        _ => Class::Invalid,
    }
}

/// Turns "it does not exist" into `None` and lets every other failure be one.
pub fn optional<T>(result: Result<T, AwsError>) -> Result<Option<T>, AwsError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.class == Class::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Turns a class that means "nothing left to do" into success.
pub fn tolerate<T>(class: Class, result: Result<T, AwsError>) -> Result<(), AwsError> {
    match result {
        Err(error) if error.class != class => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ask_for_different_things() {
        for (code, message, class) in [
            ("NoSuchEntity", "", Class::NotFound),
            ("EntityAlreadyExists", "", Class::AlreadyExists),
            ("BucketAlreadyExists", "", Class::NotOwned),
            ("AccessDenied", "Access Denied", Class::NotOwned),
            ("AccessDenied", "User: x is not authorized to perform: iam:CreateRole", Class::Denied),
            ("Throttling", "Rate exceeded", Class::Throttled),
            ("LimitExceeded", "", Class::Quota),
            ("MalformedPolicyDocument", "", Class::Invalid),
            ("", "", Class::Transient),
        ] {
            assert_eq!(classify(code, message), class, "{code}");
        }
    }
}
