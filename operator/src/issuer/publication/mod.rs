//! PURE: what has to be changed so that bucket, documents and provider are as specified, by attribute. The reconcile,
//! `bootstrap` and `teardown` use these modules.

pub mod bucket;
pub mod documents;
pub mod provider;
pub mod tags;
pub mod target;

use crds::Finding;

use self::target::Target;
use crate::aws::model::{Bucket, Provider};
use crate::change::Change;
use crate::oidc::Documents;

/// What has to be changed; an error where something belongs to somebody else. Nothing is changed unless both are `Ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Bucket and documents.
    pub bucket: Result<Vec<Change>, Finding>,
    /// The provider.
    pub provider: Result<Vec<Change>, Finding>,
}

/// Compares what is in AWS with what is specified.
#[must_use]
pub fn diff(
    target: &Target,
    bucket: Option<&Bucket>,
    provider: Option<&Provider>,
    wanted: Option<&Documents>,
) -> Publication {
    let elsewhere = target.location.is_none();
    let documents_exist =
        elsewhere || wanted.is_some() || bucket.is_some_and(|bucket| bucket.discovery.is_some());
    Publication {
        bucket: bucket::check(target, bucket)
            .map(|()| [bucket::diff(target, bucket), documents::diff(target, bucket, wanted)].concat()),
        provider: provider::check(target, provider)
            .map(|()| provider::diff(target, provider, documents_exist)),
    }
}

impl Publication {
    /// All changes, in an order in which a crash leaves no provider whose documents are missing.
    pub fn changes(&self) -> Result<Vec<Change>, Finding> {
        let (bucket, provider) = (self.bucket.as_ref(), self.provider.as_ref());
        Ok([bucket.map_err(Clone::clone)?.as_slice(), provider.map_err(Clone::clone)?].concat())
    }
}
