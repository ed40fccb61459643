//! The roles that exist under a path, found by listing. Names only: `ListRoles` shows no tags, so ownership is not known
//! here.

use super::error::{AwsError, Class};
use super::iam::Iam;
use super::model::Role;

/// Names of all roles under a path, all pages.
pub async fn roles_under(iam: &Iam, path: &str) -> Result<Vec<String>, AwsError> {
    let (mut names, mut next) = iam.role_names(path, None).await?;
    while next.is_some() {
        let (page, after) = iam.role_names(path, next).await?;
        names.extend(page);
        next = after;
    }
    Ok(names)
}

/// The role of that name under a path, if it exists. It is not known on which resource IAM authorises a question about a role
/// that does not exist (it cannot know the path): where it refuses to answer, the list under the path says whether there is
/// one.
pub async fn role(iam: &Iam, path: &str, name: &str) -> Result<Option<Role>, AwsError> {
    match iam.role(name).await {
        Err(denied) if denied.class == Class::Denied => {
            let Ok(names) = roles_under(iam, path).await else { return Err(denied) };
            if names.iter().any(|known| known.eq_ignore_ascii_case(name)) { Err(denied) } else { Ok(None) }
        }
        answer => answer,
    }
}
