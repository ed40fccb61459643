//! PURE: the error of every AWS call. Its class decides requeue, reason and metric label; the message for users and the
//! details for the log are separate.

use crds::{Finding, Reason};
use thiserror::Error;

/// The class of a failure. Requeue, reason and metric label depend on it alone; where one code has two meanings (a role and
/// a policy that do not exist), the caller looks at operation and message, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The resource does not exist.
    NotFound,
    /// The resource exists already.
    AlreadyExists,
    /// A concurrent change, or a precondition that does not hold: the resource has to be read again.
    Conflict,
    /// AWS throttles the calls.
    Throttled,
    /// The operator's policy does not allow the call.
    Denied,
    /// AWS refuses the request, or answers a code that is not known here; the specification has to be changed.
    Invalid,
    /// A quota of the account is exceeded.
    Quota,
    /// The operator has no working credentials.
    Credentials,
    /// STS refuses the operator's own token: the key that signed it is not published, or the provider is gone.
    LockedOut,
    /// The bucket belongs to another account.
    NotOwned,
    /// AWS answered, but could not reach the issuer's host itself.
    Unreachable,
    /// The credentials are of another account than the specification names.
    OtherAccount,
    /// A network failure, a timeout or a 5xx status.
    Transient,
}

impl Class {
    /// The reason of a condition that reports it.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotFound | Self::AlreadyExists | Self::Conflict => Reason::Progressing,
            Self::Throttled => Reason::Throttled,
            Self::Denied => Reason::OperatorPermissionMissing,
            Self::Invalid | Self::OtherAccount => Reason::InvalidSpec,
            Self::Quota => Reason::QuotaExceeded,
            Self::Credentials => Reason::CredentialsUnavailable,
            Self::LockedOut => Reason::OperatorLockedOut,
            Self::NotOwned => Reason::NotOwned,
            Self::Unreachable => Reason::IssuerUnreachable,
            Self::Transient => Reason::AWSUnavailable,
        }
    }

    /// Whether AWS answered, and its answer passes: calls to AWS do not fail as such.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::NotFound | Self::AlreadyExists | Self::Conflict | Self::Unreachable)
    }

    /// Whether there are no credentials for any call.
    #[must_use]
    pub const fn is_of_credentials(self) -> bool {
        matches!(self, Self::Credentials | Self::LockedOut)
    }

    /// Whether the object becomes Stalled. The call is retried even then, with the longest delay: the cause may be removed
    /// outside the cluster.
    #[must_use]
    pub const fn stalls(self) -> bool {
        matches!(self, Self::Invalid | Self::Quota | Self::NotOwned | Self::OtherAccount)
    }

    /// The value of the metric label `outcome`.
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
            Self::LockedOut => "locked_out",
            Self::NotOwned => "not_owned",
            Self::Unreachable => "unreachable",
            Self::OtherAccount => "other_account",
            Self::Transient => "transient",
        }
    }
}

/// Why there was no response, as far as a user can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Cause {
    /// The name could not be resolved.
    #[error("DNS lookup failed")]
    Dns,
    /// Nothing listens there, or a firewall refuses.
    #[error("the connection was refused")]
    Refused,
    /// The certificate is of an unknown authority, for another name, or not valid now.
    #[error("its certificate is not valid or not trusted")]
    Certificate,
    /// A time limit was reached.
    #[error("no response in time")]
    TimedOut,
    /// The connection was established and then broke.
    #[error("the connection was reset")]
    Reset,
    /// The proxy that the environment names did not let the connection through.
    #[error("the proxy refused the connection")]
    Proxy,
}

/// What to do if a public-access block other than the bucket's own forbids the public policy.
pub const PUBLIC_POLICY_BLOCKED: &str = "S3 refuses the public bucket policy although the bucket allows it: turn off \
    BlockPublicPolicy in the account's (or organisation's) S3 Block Public Access settings";

/// The same where S3 says no more than "Access Denied", as it does for an account-wide block, too.
pub const PUBLIC_POLICY_REFUSED: &str = "S3 refuses the bucket policy and does not say why. The most probable cause is S3 Block \
    Public Access of the account (or organisation): see whether BlockPublicPolicy is on there, and turn it off. If it is off, see \
    whether s3:PutBucketPolicy is denied by a service control policy";

/// A failed AWS call.
#[derive(Debug, Clone, Error)]
#[error("{operation} on {resource}: {message}")]
pub struct AwsError {
    /// The class of the failure.
    pub class: Class,
    /// The API operation, for example `iam:CreateRole`.
    pub operation: &'static str,
    /// Name or ARN of the resource.
    pub resource: String,
    /// AWS's error code, or the HTTP status of an answer without one; empty where there was no response.
    pub code: String,
    /// Why there was no response, where that is known.
    pub cause: Option<Cause>,
    /// For users: AWS's message without request ids.
    pub message: String,
    /// For the log: all details.
    pub detail: String,
}

impl AwsError {
    /// Reason and message of a condition that reports it.
    #[must_use]
    pub fn finding(&self) -> Finding {
        Finding::new(self.class.reason(), self.for_user())
    }

    /// The message at the terminal, where the credentials are the administrator's and not the operator's.
    #[must_use]
    pub fn for_administrator(&self) -> String {
        let Self { operation, resource, message, .. } = self;
        match self.class {
            _ if self.public_policy_blocked() => self.public_policy_advice().into(),
            Class::Denied => {
                format!("your AWS credentials do not allow {operation} on {resource}: {message}")
            }
            Class::Credentials => format!("your AWS credentials do not work: {message}"),
            // A command ends with the error: nothing retries it.
            Class::Transient | Class::Throttled => format!("{operation} failed: {message}"),
            Class::NotFound | Class::AlreadyExists | Class::Conflict => {
                format!("AWS refused {operation} on {resource}: {message}")
            }
            _ => self.for_user(),
        }
    }

    /// Whether S3 refused a public policy because of a public-access block: the bucket's own, which takes effect some seconds
    /// after a change (S3 user guide), or the account's or organisation's. S3 names the block only in some of its answers; a
    /// policy is put only into a bucket whose tags are ours, so that a bare "Access Denied" does not mean another owner.
    #[must_use]
    pub fn public_policy_blocked(&self) -> bool {
        self.names_the_block() || (self.operation == "s3:PutBucketPolicy" && self.class == Class::NotOwned)
    }

    /// What to do about it. It claims no more than S3 said.
    #[must_use]
    pub fn public_policy_advice(&self) -> &'static str {
        if self.names_the_block() { PUBLIC_POLICY_BLOCKED } else { PUBLIC_POLICY_REFUSED }
    }

    fn names_the_block(&self) -> bool {
        self.message.contains("BlockPublicPolicy")
    }

    /// The message of a condition: what is wrong and, where it is known, what to do.
    #[must_use]
    pub fn for_user(&self) -> String {
        let Self { operation, resource, message, .. } = self;
        match self.class {
            Class::Denied => format!(
                "AWS denied {operation} on {resource}: {message}. The operator's role needs the policy that `operator \
                 iam-policy` prints; `operator bootstrap` updates it"
            ),
            Class::Credentials => format!(
                "{message}. Check the operator's AWS_ROLE_ARN and projected token, and that the issuer's documents are \
                 public; `operator bootstrap` republishes them"
            ),
            // The chart sets the audience of the token in the operator's pod.
            Class::LockedOut if message.contains("audience") => format!(
                "AWS STS refuses the operator's own token ({message}): the OIDC provider does not have its audience. Set the chart \
                 value aws.audience to the first of spec.audiences"
            ),
            Class::LockedOut => format!(
                "AWS STS refuses the operator's own token ({message}). On a new installation: the API server does not issue \
                 tokens under this issuer yet, or the operator has to be restarted after that was set. Otherwise its signing \
                 key was replaced while the operator could not publish the new one, or the OIDC provider is gone: run `operator \
                 bootstrap` again with the issuer's file. It publishes the keys of the API servers and registers the provider, \
                 and is safe to repeat"
            ),
            Class::OtherAccount => message.clone(),
            Class::Quota => format!("{operation}: {message}. Ask AWS to raise the quota"),
            Class::Throttled => format!("AWS throttles {operation}; the operator retries it"),
            // Of the cause only what is the same at each try: equal states have equal messages.
            Class::Transient => match self.cause {
                Some(cause) => {
                    format!("{operation} got no response from AWS: {cause}; the operator retries it")
                }
                None if self.code.is_empty() => {
                    format!("{operation} got no response from AWS; the operator retries it")
                }
                None => format!("AWS answered {operation} with an error of its own; the operator retries it"),
            },
            Class::NotOwned if operation.starts_with("s3:") => format!(
                "{resource} belongs to another AWS account, or this account is not allowed to read it: choose another \
                 spec.s3.bucket, preferably one that ends in -<account>-<region>-an"
            ),
            Class::NotOwned => format!("AWS refused {operation} on {resource}: {message}"),
            Class::Unreachable => format!(
                "AWS IAM could not reach {resource}: check DNS, certificate and that the host is reachable from the internet"
            ),
            Class::NotFound | Class::AlreadyExists | Class::Conflict => {
                format!(
                    "AWS refused {operation} on {resource}: {message}; the operator reads it again and retries"
                )
            }
            Class::Invalid => format!(
                "AWS refused {operation} on {resource}: {message}. Change the field of spec that this names"
            ),
        }
    }
}

/// Turns [`Class::NotFound`] into `None`; other errors stay errors.
pub fn optional<T>(result: Result<T, AwsError>) -> Result<Option<T>, AwsError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.class == Class::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Turns errors of one class into success: those that mean that the wanted state exists already.
pub fn tolerate<T>(class: Class, result: Result<T, AwsError>) -> Result<(), AwsError> {
    match result {
        Err(error) if error.class != class => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::classify::classify;
    use super::*;

    fn error(operation: &'static str, resource: &str, code: &str, message: &str) -> AwsError {
        AwsError {
            class: classify(code, message, 403),
            operation,
            resource: resource.into(),
            code: code.into(),
            cause: None,
            message: message.into(),
            detail: String::new(),
        }
    }

    #[test]
    fn a_refused_public_policy_is_told_from_a_bucket_of_another_account() {
        let put = |message| error("s3:PutBucketPolicy", "oidc", "AccessDenied", message);
        let named = put(
            "User is not authorized to perform: s3:PutBucketPolicy because public policies are blocked by the \
            BlockPublicPolicy block public access setting.",
        );
        assert!(named.public_policy_blocked());
        assert_eq!(named.for_administrator(), PUBLIC_POLICY_BLOCKED);
        let bare = put("Access Denied");
        assert!(bare.public_policy_blocked());
        assert_eq!(bare.for_administrator(), PUBLIC_POLICY_REFUSED);
        assert!(PUBLIC_POLICY_REFUSED.contains("most probable cause"));
        for other in [
            put(
                "User: x is not authorized to perform: s3:PutBucketPolicy because no identity-based policy allows it",
            ),
            error("s3:GetBucketPolicy", "oidc", "AccessDenied", "Access Denied"),
        ] {
            assert!(!other.public_policy_blocked(), "{other}");
        }
    }

    #[test]
    fn a_host_that_iam_cannot_reach_is_named_and_does_not_stall() {
        let url = "https://oidc.example.com";
        let error = error("iam:CreateOpenIDConnectProvider", url, "OpenIdIdpCommunicationError", "IO error");
        assert!(!error.class.stalls());
        let finding = error.finding();
        assert_eq!(finding.reason, Reason::IssuerUnreachable);
        for message in [finding.message, error.for_administrator()] {
            assert!(message.contains("could not reach https://oidc.example.com: check DNS"), "{message}");
        }
    }

    #[test]
    fn the_message_of_a_missing_response_names_its_cause_and_a_command_promises_no_retry() {
        let refused = AwsError {
            class: Class::Transient,
            code: String::new(),
            cause: Some(Cause::Refused),
            ..error("iam:GetRole", "app", "", "Connection refused (os error 111)")
        };
        let retried = "; the operator retries it";
        assert_eq!(
            refused.for_user(),
            format!("iam:GetRole got no response from AWS: the connection was refused{retried}")
        );
        assert_eq!(refused.for_administrator(), "iam:GetRole failed: Connection refused (os error 111)");
        let unknown = AwsError { cause: None, ..refused.clone() };
        assert_eq!(unknown.for_user(), format!("iam:GetRole got no response from AWS{retried}"));
        let outage = AwsError { code: "InternalFailure".into(), ..unknown };
        assert_eq!(outage.for_user(), format!("AWS answered iam:GetRole with an error of its own{retried}"));
        for (code, message) in [
            ("NoSuchEntity", ""),
            ("EntityAlreadyExists", ""),
            ("ConcurrentModification", ""),
            ("Throttling", "Rate exceeded"),
            ("InternalFailure", ""),
            ("LimitExceeded", ""),
            ("ExpiredToken", ""),
            ("BucketAlreadyExists", ""),
            ("MalformedPolicyDocument", ""),
            ("OpenIdIdpCommunicationError", ""),
        ] {
            let message = error("iam:CreateRole", "app", code, message).for_administrator();
            assert!(!message.contains("operator re") && !message.contains("retries"), "{code}: {message}");
        }
    }
}
