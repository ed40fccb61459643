//! What both controllers say of their watches.

use kube::runtime::controller::Error as ControllerError;

/// Logs what a controller's stream says; an object that is gone is no news.
pub fn log<E, Q>(kind: &'static str, error: &ControllerError<E, Q>)
where
    E: std::error::Error + 'static,
    Q: std::error::Error + 'static,
    ControllerError<E, Q>: std::fmt::Display,
{
    match error {
        ControllerError::ObjectNotFound(_) | ControllerError::ReconcilerFailed(..) => {}
        other => tracing::warn!(kind, error = %other, "watch failed; it is taken up again"),
    }
}
