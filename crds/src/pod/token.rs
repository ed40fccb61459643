//! PURE: which volume of a pod, and which mount of a container, is the token's.

use std::borrow::Cow;

use super::{Container, Mount, Volume};

/// Appended to the volume's name, or to the mount path, where the pod uses that for something else.
pub const ALTERNATIVE_SUFFIX: &str = "-podidentity";

/// The name of the token's volume, and whether the pod already has it; `None` where both names are in use for something else. A
/// token of another audience is something else: AWS refuses it.
#[must_use]
pub fn token_volume<'a>(
    volumes: &[Volume<'_>],
    name: &'a str,
    file: &str,
    audience: &str,
) -> Option<(Cow<'a, str>, bool)> {
    // Whether it is present; `None` where it is something else.
    let state = |name: &str| match volumes.iter().find(|volume| *volume.name == *name) {
        None => Some(false),
        Some(volume) => (volume.audience_of_token(file) == Some(audience)).then_some(true),
    };
    if let Some(is_present) = state(name) {
        return Some((Cow::Borrowed(name), is_present));
    }
    let other = format!("{name}{ALTERNATIVE_SUFFIX}");
    state(&other).map(|is_present| (other.into(), is_present))
}

/// Where a container mounts the whole volume. A mount by subPath is no place for a token: it is never renewed there.
#[must_use]
pub fn token_directory<'a>(container: &'a Container<'_>, volume: &str) -> Option<&'a str> {
    let mut mounts = container.mounts().iter().filter(|mount| *mount.name == *volume);
    mounts.find(|mount| mount.is_of_whole_volume()).map(Mount::path)
}

/// What remains of an absolute path below the path of a mount; `None` where it is not there, and empty for the path itself.
pub(super) fn below<'a>(mount: &Mount<'_>, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(mount.path())?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}
