//! Why a call got no response, from the errors below the SDK's own.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::error::metadata::ErrorMetadata;

use super::error::Cause;

/// Which of the known causes a chain of errors has. Equal states have equal causes: no addresses, ports or request ids.
pub(super) fn cause(error: &(dyn Error + 'static)) -> Option<Cause> {
    chain(error).find_map(of_one)
}

/// The last error of a chain: the others say only through which layers it came.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(text).unwrap_or_default()
}

/// The same for a condition: the cause where it is known.
pub fn stable_cause(error: &(dyn Error + 'static)) -> String {
    cause(error).map_or_else(|| root_cause(error), |cause| cause.to_string())
}

/// An error and all its sources. The source of an I/O error is that of the error in it, which would be left out.
pub(super) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// What an error says itself. That of AWS's answers shows its request id, too.
fn text(error: &(dyn Error + 'static)) -> String {
    let Some(answer) = error.downcast_ref::<ErrorMetadata>() else { return error.to_string() };
    let (code, message) = (answer.code().unwrap_or_default(), answer.message().unwrap_or_default());
    if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") }
}

fn of_one(error: &(dyn Error + 'static)) -> Option<Cause> {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        return of_kind(io.kind());
    }
    if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
        return Some(Cause::Certificate);
    }
    let timed_out = error.downcast_ref::<ConnectorError>().is_some_and(ConnectorError::is_timeout)
        || matches!(error.downcast_ref(), Some(CredentialsError::ProviderTimedOut(_)));
    if timed_out {
        return Some(Cause::TimedOut);
    }
    // The types of these are private to hyper and hyper-util.
    match error.to_string().as_str() {
        "dns error" => Some(Cause::Dns),
        "connection closed before message completed" => Some(Cause::Reset),
        "tunnel error: unsuccessful" | "tunnel error: proxy authorization required" => Some(Cause::Proxy),
        _ => None,
    }
}

fn of_kind(kind: io::ErrorKind) -> Option<Cause> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some(Cause::Refused),
        io::ErrorKind::TimedOut => Some(Cause::TimedOut),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(Cause::Reset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;
    use thiserror::Error;

    use super::*;

    /// An error of a layer above.
    #[derive(Debug, Error)]
    #[error("{0}")]
    struct Above(&'static str, #[source] Box<dyn Error + Send + Sync>);

    fn above(text: &'static str, below: impl Into<Box<dyn Error + Send + Sync>>) -> Above {
        Above(text, below.into())
    }

    #[test]
    fn the_cause_is_found_below_the_layers_and_stays_the_same_text() {
        let untrusted = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let connect = |kind: io::ErrorKind| {
            above("client error (Connect)", above("tcp connect error", io::Error::from(kind)))
        };
        for (error, expected, at_the_terminal) in [
            (
                above(
                    "client error (Connect)",
                    above("dns error", io::Error::other("Name or service not known")),
                ),
                "DNS lookup failed",
                "Name or service not known",
            ),
            (connect(io::ErrorKind::ConnectionRefused), "the connection was refused", "connection refused"),
            (connect(io::ErrorKind::TimedOut), "no response in time", "timed out"),
            (connect(io::ErrorKind::ConnectionReset), "the connection was reset", "connection reset"),
            (
                above("client error (Connect)", io::Error::other(io::Error::other(untrusted))),
                "its certificate is not valid or not trusted",
                "invalid peer certificate: UnknownIssuer",
            ),
            (
                above("dispatch failure", ConnectorError::timeout("after 3.1 s".into())),
                "no response in time",
                "after 3.1 s",
            ),
            (
                above("client error (Connect)", above("tunnel error: unsuccessful", "403")),
                "the proxy refused the connection",
                "403",
            ),
            (above("dispatch failure", "an unknown cause"), "an unknown cause", "an unknown cause"),
        ] {
            assert_eq!(stable_cause(&error), expected);
            assert_eq!(root_cause(&error), at_the_terminal);
        }
    }

    #[test]
    fn an_answer_of_aws_is_shown_without_its_request_id() {
        let answer = ErrorMetadata::builder()
            .code("AccessDenied")
            .message("Not authorized to perform sts:AssumeRoleWithWebIdentity")
            .custom("aws_request_id", "8f3c")
            .build();
        let error = CredentialsError::provider_error(above("service error", answer));
        assert_eq!(
            stable_cause(&error),
            "AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity"
        );
    }
}
