//! How the reconcile of the certificates fails.

use thiserror::Error;

/// Why the certificates are not as wanted.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The API server refused a call.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The API server did not answer in time, or something else undoes what is written.
    #[error(
        "the certificates are not as wanted after all steps: the API server does not answer in time, or something else \
         writes them, too"
    )]
    NotConverged,
    /// A life span beyond what a calendar holds.
    #[error("a certificate's end lies outside the calendar")]
    Calendar,
}
