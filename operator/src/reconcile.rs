//! How a reconcile of either kind can fail; what AWS refused is a condition and no failure of the reconcile.

use std::time::Duration;

use thiserror::Error;

/// Why a reconcile failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server refused a call.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The reconcile took too long.
    #[error("the reconcile did not end within {0:?}")]
    Timeout(Duration),
}
