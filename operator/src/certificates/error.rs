//! Errors of the certificates' reconcile.

use thiserror::Error;

/// Why the certificates are not as specified.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A call to the API server failed.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// A certificate could not be created.
    #[error("a certificate could not be created: {0}")]
    Create(#[from] rcgen::Error),
    /// The API server did not respond in time, or another program reverts what is written.
    #[error(
        "the certificates are not as specified after all steps: the API server does not respond in time, or another \
         program changes them"
    )]
    NotConverged,
    /// A validity that a certificate cannot represent.
    #[error("the validity of a certificate is out of range")]
    ValidityOutOfRange,
}
