//! The roles that exist under a path, found by listing. `ListRoles` shows no tags, so ownership is not known here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::error::{AwsError, Class};
use super::iam::Iam;
use super::model::{Listed, ListedRole, Role};

/// All roles under a path, all pages.
pub async fn roles_under(iam: &Iam, path: &str) -> Result<Vec<ListedRole>, AwsError> {
    let (mut roles, mut next) = iam.roles_page(path, None).await?;
    while next.is_some() {
        let (page, after) = iam.roles_page(path, next).await?;
        roles.extend(page);
        next = after;
    }
    Ok(roles)
}

/// The role of that name under a path, if it exists. It is not known on which resource IAM authorises a question about a role
/// that does not exist (it cannot know the path): where it refuses to answer, the list under the path says whether there is
/// one.
pub async fn role(iam: &Iam, path: &str, name: &str) -> Result<Option<Role>, AwsError> {
    match iam.role(name).await {
        Err(denied) if denied.class == Class::Denied => {
            let Ok(roles) = roles_under(iam, path).await else { return Err(denied) };
            if roles.iter().any(|known| known.name.eq_ignore_ascii_case(name)) {
                Err(denied)
            } else {
                Ok(None)
            }
        }
        answer => answer,
    }
}

/// A path in an account: `spec.operatorRoleARN` of its issuers, and the path.
pub type Place = (Option<String>, String);

/// What the last lists have shown: of each role, a digest. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Listings {
    places: Arc<Mutex<HashMap<Place, Listing>>>,
    /// Cancelled once all places were listed, or could not be.
    begun: CancellationToken,
}

#[derive(Debug)]
struct Listing {
    at: Instant,
    roles: HashMap<Box<str>, u64>,
}

impl Listings {
    /// What the last list of a place shows of a role; `None` where there is no list.
    #[must_use]
    pub fn get(&self, place: &Place, role: &str) -> Option<Listed> {
        let places = self.places();
        let listing = places.get(place)?;
        Some(Listed { at: listing.at, digest: listing.roles.get(role).copied() })
    }

    /// Takes in a list that began `at`. Returns the names of the roles that differ from the list before, or are in one of both only; none
    /// for the first one.
    pub fn put(&self, place: Place, at: Instant, roles: &[ListedRole]) -> Vec<String> {
        let roles: HashMap<Box<str>, u64> =
            roles.iter().map(|role| (role.name.clone(), role.digest)).collect();
        let mut places = self.places();
        let before = places.remove(&place).map(|listing| listing.roles);
        let changed = before.map_or_else(Vec::new, |before| {
            let appeared = roles.iter().filter(|(name, digest)| before.get(*name) != Some(digest));
            let gone = before.iter().filter(|(name, _)| !roles.contains_key(*name));
            appeared.chain(gone).map(|(name, _)| name.to_string()).collect()
        });
        places.insert(place, Listing { at, roles });
        changed
    }

    /// Says that all places were listed, or could not be.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Returns once they were.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Place, Listing>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
