//! PURE: which bindings refer to which `ServiceAccount`. A query looks at the bindings of that `ServiceAccount` only, however many there
//! are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A binding, or a `ServiceAccount`: namespace and name.
pub type Key = (String, String);

/// The index, by namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References(HashMap<Box<str>, Namespace>);

/// The bindings of a namespace. Both collections share the names: there may be tens of thousands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Namespace {
    /// The `ServiceAccount` of each binding.
    of: BTreeMap<Arc<str>, Arc<str>>,
    /// `ServiceAccount` and binding.
    on: BTreeSet<(Arc<str>, Arc<str>)>,
}

impl References {
    /// Takes in a binding as it is now.
    pub fn put(&mut self, namespace: &str, name: &str, service_account: &str) {
        if self.0.get(namespace).and_then(|all| all.of.get(name)).is_some_and(|of| &**of == service_account) {
            return;
        }
        self.remove(namespace, name);
        let (name, account): (Arc<str>, Arc<str>) = (name.into(), service_account.into());
        let all = self.0.entry(namespace.into()).or_default();
        all.on.insert((account.clone(), name.clone()));
        all.of.insert(name, account);
    }

    /// Takes out a binding.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        let Some(all) = self.0.get_mut(namespace) else { return };
        let Some((name, account)) = all.of.remove_entry(name) else { return };
        all.on.remove(&(account, name));
        if all.of.is_empty() {
            self.0.remove(namespace);
        }
    }

    /// Names of the bindings on a `ServiceAccount`.
    pub fn on(&self, namespace: &str, service_account: &str) -> impl Iterator<Item = &str> {
        let first = (Arc::from(service_account), Arc::from(""));
        let from_first = self.0.get(namespace).into_iter().flat_map(move |all| all.on.range(first.clone()..));
        from_first.take_while(move |(account, _)| **account == *service_account).map(|(_, name)| &**name)
    }

    /// The `ServiceAccount` of each binding.
    pub fn service_accounts(&self) -> impl Iterator<Item = Key> {
        self.0.iter().flat_map(|(namespace, all)| {
            all.on.iter().map(|(account, _)| (namespace.to_string(), account.to_string()))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_binding_is_found_by_what_it_refers_to_now() {
        let mut references = References::default();
        references.put("ns", "a", "app");
        references.put("ns", "b", "app");
        references.put("ns", "c", "app2");
        references.put("other", "a", "app");
        assert_eq!(references.on("ns", "app").collect::<Vec<_>>(), ["a", "b"]);
        let accounts: BTreeSet<Key> = references.service_accounts().collect();
        let expected = [("ns", "app"), ("ns", "app2"), ("other", "app")];
        assert_eq!(accounts, expected.map(|(namespace, name)| (namespace.into(), name.into())).into());
        // Deleted and made again for another ServiceAccount, while the watch saw only the end of it.
        references.put("ns", "a", "web");
        assert_eq!(references.on("ns", "app").collect::<Vec<_>>(), ["b"]);
        assert_eq!(references.on("ns", "web").collect::<Vec<_>>(), ["a"]);
        assert_eq!(references.on("ns", "we").count(), 0);
    }

    proptest! {
        /// Whatever comes and goes, the index equals one that is made of what remains, and keeps nothing of the rest.
        #[test]
        fn nothing_is_left_behind(changes in proptest::collection::vec((0..6_u8, 0..3_u8, any::<bool>()), 0..60)) {
            let (mut references, mut remaining) = (References::default(), HashMap::new());
            for (name, account, put) in changes {
                let (name, account) = (name.to_string(), account.to_string());
                if put {
                    references.put("ns", &name, &account);
                    remaining.insert(name, account);
                } else {
                    references.remove("ns", &name);
                    remaining.remove(&name);
                }
            }
            let mut made_anew = References::default();
            for (name, account) in &remaining {
                made_anew.put("ns", name, account);
            }
            prop_assert_eq!(references, made_anew);
        }
    }
}
