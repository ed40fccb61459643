//! PURE: the class of an answer of AWS that is an error.

use super::error::Class;

const TOO_MANY_REQUESTS: u16 = 429;

/// The class of an error of IAM, STS or S3 (API references; "Error responses" of S3), by its code. Where the code is not known
/// here, the HTTP status decides: with 5xx AWS says that the fault is its own (RFC 9110), whatever the code.
pub(super) fn classify(code: &str, message: &str, status: u16) -> Class {
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
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "MissingAuthenticationToken"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed" => Class::Credentials,
        // S3 names the missing permission only to callers in the bucket's account; to others it says "Access Denied".
        // IAM begins with "User: … is not authorized", STS with "Not authorized".
        "AccessDenied" | "AccessDeniedException"
            if message.to_ascii_lowercase().contains("not authorized") =>
        {
            Class::Denied
        }
        "AccessDenied" | "AccessDeniedException" | "BucketAlreadyExists" => Class::NotOwned,
        "OpenIdIdpCommunicationError" | "OpenIdIdpCommunicationErrorException" => Class::Unreachable,
        "ServiceFailure"
        | "InternalError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "IDPCommunicationError"
        | "" if status != TOO_MANY_REQUESTS => Class::Transient,
        _ if status == TOO_MANY_REQUESTS => Class::Throttled,
        _ if status >= 500 => Class::Transient,
        _ => Class::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_are_classified() {
        for (code, message, status, class) in [
            ("NoSuchEntity", "", 404, Class::NotFound),
            ("EntityAlreadyExists", "", 409, Class::AlreadyExists),
            ("BucketAlreadyExists", "", 409, Class::NotOwned),
            ("AccessDenied", "Access Denied", 403, Class::NotOwned),
            ("AccessDenied", "User: x is not authorized to perform: iam:CreateRole", 403, Class::Denied),
            ("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity", 403, Class::Denied),
            ("OpenIdIdpCommunicationError", "Unable to connect", 400, Class::Unreachable),
            ("Throttling", "Rate exceeded", 400, Class::Throttled),
            ("LimitExceeded", "", 409, Class::Quota),
            ("MalformedPolicyDocument", "", 400, Class::Invalid),
            ("InvalidClientTokenId", "", 403, Class::Credentials),
            ("ExpiredToken", "", 400, Class::Credentials),
            ("InvalidToken", "", 400, Class::Credentials),
            ("", "", 0, Class::Transient),
            ("InternalFailure", "", 500, Class::Transient),
            // Codes that are not known here.
            ("ServiceOutage", "", 500, Class::Transient),
            ("ServiceOutage", "", 503, Class::Transient),
            ("TooFast", "", 429, Class::Throttled),
            ("", "", 429, Class::Throttled),
            ("NewRule", "", 400, Class::Invalid),
            ("NewRule", "", 409, Class::Invalid),
            // A known code counts more than the status.
            ("NoSuchEntity", "", 500, Class::NotFound),
            ("SlowDown", "", 503, Class::Throttled),
        ] {
            assert_eq!(classify(code, message, status), class, "{code} {status}");
        }
    }
}
