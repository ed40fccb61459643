//! PURE: which binding refers to which `ServiceAccount` and to which issuer, both ways. A query costs one hash look-up,
//! however many bindings there are.

use std::collections::{BTreeSet, HashMap};

/// A binding: namespace and name.
pub type Key = (String, String);

/// The index.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// What each binding refers to: `ServiceAccount` and issuer.
    of: HashMap<Key, (String, String)>,
    /// Names of bindings by namespace and `ServiceAccount`.
    by_service_account: HashMap<Key, BTreeSet<String>>,
    by_issuer: HashMap<String, BTreeSet<Key>>,
}

impl References {
    /// Takes in a binding as it is now.
    pub fn put(&mut self, (namespace, name): Key, service_account: &str, issuer: &str) {
        self.remove(&namespace, &name);
        let account = (namespace.clone(), service_account.to_owned());
        self.by_service_account.entry(account).or_default().insert(name.clone());
        let key = (namespace, name);
        self.by_issuer.entry(issuer.to_owned()).or_default().insert(key.clone());
        self.of.insert(key, (service_account.to_owned(), issuer.to_owned()));
    }

    /// Takes out a binding.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let Some((service_account, issuer)) = self.of.remove(&key) else { return };
        let account = (key.0.clone(), service_account);
        if let Some(names) = self.by_service_account.get_mut(&account) {
            names.remove(name);
            if names.is_empty() {
                self.by_service_account.remove(&account);
            }
        }
        if let Some(keys) = self.by_issuer.get_mut(&issuer) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_issuer.remove(&issuer);
            }
        }
    }

    /// Names of the bindings on a `ServiceAccount`.
    pub fn on(&self, namespace: &str, service_account: &str) -> impl Iterator<Item = &str> {
        let account = (namespace.to_owned(), service_account.to_owned());
        self.by_service_account.get(&account).into_iter().flatten().map(String::as_str)
    }

    /// The `ServiceAccount`s with a binding.
    pub fn service_accounts(&self) -> impl Iterator<Item = &Key> {
        self.by_service_account.keys()
    }

    /// The bindings that use an issuer.
    pub fn of_issuer(&self, issuer: &str) -> impl Iterator<Item = &Key> {
        self.by_issuer.get(issuer).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> Key {
        ("ns".into(), name.into())
    }

    #[test]
    fn a_binding_is_found_by_what_it_refers_to_now() {
        let mut references = References::default();
        references.put(key("a"), "app", "default");
        references.put(key("b"), "app", "second");
        references.put(("other".into(), "a".into()), "app", "default");
        assert_eq!(references.on("ns", "app").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(references.of_issuer("default").count(), 2);
        let accounts: BTreeSet<&Key> = references.service_accounts().collect();
        assert_eq!(accounts, [&key("app"), &("other".into(), "app".into())].into());
        // Deleted and made again for another ServiceAccount, while the watch saw only the end of it.
        references.put(key("a"), "web", "second");
        assert_eq!(references.on("ns", "app").collect::<Vec<_>>(), ["b"]);
        assert_eq!(references.on("ns", "web").collect::<Vec<_>>(), ["a"]);
        assert_eq!(references.of_issuer("default").count(), 1);
        assert_eq!(references.of_issuer("second").count(), 2);
    }

    proptest! {
        /// Whatever comes and goes, the index equals one that is made of what remains, and keeps nothing of the rest.
        #[test]
        fn nothing_is_left_behind(changes in proptest::collection::vec((0..6_u8, 0..3_u8, 0..3_u8, any::<bool>()), 0..60)) {
            let (mut references, mut remaining) = (References::default(), HashMap::new());
            for (name, account, issuer, put) in changes {
                let (name, account, issuer) = (name.to_string(), account.to_string(), issuer.to_string());
                if put {
                    references.put(key(&name), &account, &issuer);
                    remaining.insert(name, (account, issuer));
                } else {
                    references.remove("ns", &name);
                    remaining.remove(&name);
                }
            }
            let mut made_anew = References::default();
            for (name, (account, issuer)) in &remaining {
                made_anew.put(key(name), account, issuer);
            }
            prop_assert_eq!(references, made_anew);
        }
    }
}
