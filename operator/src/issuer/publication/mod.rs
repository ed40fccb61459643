//! PURE: what has to be changed so that bucket, documents and provider are as specified, by attribute. The reconcile,
//! `bootstrap` and `teardown` use these modules.

pub mod bucket;
pub mod documents;
pub mod provider;
pub mod target;

use crds::Finding;

use self::target::Target;
use crate::aws::model::{Bucket, Provider};
use crate::change::Change;
use crate::oidc::Documents;

/// What has to be changed; an error where something belongs to somebody else, or is not as somebody else has to keep it.
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
        bucket: bucket::check(target, bucket).map(|()| {
            // What protects the documents comes before them; what fails in the rest must not keep a new key from being published.
            let (rest, first): (Vec<Change>, Vec<Change>) =
                bucket::diff(target, bucket).into_iter().partition(bucket::can_wait);
            [first, documents::diff(target, bucket, wanted), rest].concat()
        }),
        provider: provider::check(target, provider)
            .map(|()| provider::diff(target, provider, documents_exist)),
    }
}

impl Publication {
    /// All changes, in an order in which a crash leaves no provider whose documents are missing. Nothing is changed where the
    /// bucket belongs to somebody else. A provider that does, or that somebody else has to correct, keeps no signing key from
    /// being published: pods rest on the documents meanwhile.
    pub fn changes(&self) -> Result<Vec<Change>, Finding> {
        let bucket = self.bucket.as_ref().map_err(Clone::clone)?;
        let provider = self.provider.as_ref().map_or(&[][..], Vec::as_slice);
        Ok([bucket.as_slice(), provider].concat())
    }

    /// Why something is not as specified that is not ours to change.
    #[must_use]
    pub fn refusal(&self) -> Option<&Finding> {
        self.bucket.as_ref().err().or(self.provider.as_ref().err())
    }
}
