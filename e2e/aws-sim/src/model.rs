//! Types that several modules share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;

/// Id and region of the simulated account.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Twelve digits.
    pub account: String,
    /// The one region of STS and of the buckets. Requests to IAM are signed for `us-east-1`, as on AWS.
    pub region: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { account: "111122223333".into(), region: "eu-central-1".into() }
    }
}

/// The connection broke before a response arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLost;

/// Reads a URL anonymously: how STS gets an issuer's documents. The result is status and body, or an error.
pub type Fetch = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(u16, Bytes), String>> + Send + Sync>;

/// Those fields of a [`crate::Call`] that are known only while the call is answered.
pub(crate) struct LogFields {
    pub principal: String,
    pub resource: String,
}

/// Locks, also after a panic of another holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
