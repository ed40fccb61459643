//! PURE: the cluster's issuers by name, and its default issuer.
//!
//! A binding uses the issuer that it names. The default issuer gives region and account to `ServiceAccount`s that have no
//! binding: it is the `OidcIssuer` named `default`; without one, the only `OidcIssuer` of the cluster; of several others,
//! none. An issuer that cannot be read counts among them, so that another one is not taken for the default.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::names::DEFAULT_ISSUER;

use crate::identity::facts::IssuerFacts;

/// Issuers that may be asked for by name, and the default one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Issuers {
    by_name: BTreeMap<Box<str>, Arc<IssuerFacts>>,
    default: Option<Arc<IssuerFacts>>,
}

impl Issuers {
    /// All issuers of the cluster; the default one follows from them.
    #[must_use]
    pub fn all(issuers: impl IntoIterator<Item = Arc<IssuerFacts>>) -> Self {
        let by_name: BTreeMap<Box<str>, Arc<IssuerFacts>> =
            issuers.into_iter().map(|issuer| (issuer.name.clone(), issuer)).collect();
        let mut names = by_name.values();
        let only = names.next().filter(|_| names.next().is_none());
        let default = by_name.get(DEFAULT_ISSUER).or(only).filter(|issuer| !issuer.unreadable).cloned();
        Self { by_name, default }
    }

    /// The same issuers and this one, which replaces one of its name. For a set of all issuers.
    #[must_use]
    pub fn with(&self, issuer: Arc<IssuerFacts>) -> Self {
        Self::all(self.by_name.values().cloned().chain([issuer]))
    }

    /// The same issuers except the one of this name. For a set of all issuers.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        Self::all(self.by_name.values().filter(|issuer| *issuer.name != *name).cloned())
    }

    /// The issuer of this name, if it can be read.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&IssuerFacts> {
        self.by_name.get(name).map(AsRef::as_ref).filter(|issuer| !issuer.unreadable)
    }

    /// Those that can be read, by name.
    pub fn readable(&self) -> impl Iterator<Item = &IssuerFacts> {
        self.by_name.values().map(AsRef::as_ref).filter(|issuer| !issuer.unreadable)
    }

    /// The cluster's default issuer.
    #[must_use]
    pub fn default_issuer(&self) -> Option<&IssuerFacts> {
        self.default.as_deref()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(name: &str) -> Arc<IssuerFacts> {
        Arc::new(IssuerFacts { name: name.into(), ..IssuerFacts::default() })
    }

    #[test]
    fn the_default_issuer_is_the_one_of_that_name_or_else_the_only_one() {
        for (names, expected) in [
            (vec![], None),
            (vec!["b"], Some("b")),
            (vec!["b", "c"], None),
            (vec!["b", "default"], Some("default")),
            (vec!["default", "z"], Some("default")),
        ] {
            let issuers = Issuers::all(names.iter().map(|name| issuer(name)));
            assert_eq!(issuers.default_issuer().map(|issuer| &*issuer.name), expected, "{names:?}");
        }
    }

    #[test]
    fn an_unreadable_issuer_makes_no_other_one_the_default() {
        let unreadable = || Arc::new(IssuerFacts::unreadable("default"));
        for issuers in [Issuers::all([unreadable()]), Issuers::all([unreadable(), issuer("second")])] {
            assert_eq!((issuers.default_issuer(), issuers.get("default")), (None, None));
        }
        let repaired = Issuers::all([unreadable(), issuer("second")]).with(issuer("default"));
        assert_eq!(repaired.default_issuer().map(|issuer| &*issuer.name), Some("default"));
    }

    #[test]
    fn the_default_issuer_follows_every_change() {
        let one = Issuers::default().with(issuer("b"));
        assert_eq!(one.default_issuer().map(|issuer| &*issuer.name), Some("b"));
        let two = one.with(issuer("c"));
        assert_eq!((two.len(), two.default_issuer()), (2, None));
        assert_eq!(two.with(issuer("c")).len(), 2, "replaced");
        let other = two.without("b");
        assert_eq!(other.default_issuer().map(|issuer| &*issuer.name), Some("c"));
        assert!(other.without("c").is_empty());
    }
}
