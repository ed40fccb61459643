//! PURE: lists of a pod, read within bounds: a review of 3 MiB may have a million items `{}`, which are far larger in memory.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The most containers of a list; a kubelet runs far fewer.
const MOST_CONTAINERS: usize = 4096;

/// A list whose items keep their places. An error where it is longer than any list of containers.
pub(super) fn containers<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    read(deserializer, MOST_CONTAINERS, |_| true)
}

/// A list without items that have no known field: nothing refers to their places.
pub(super) fn without_empty_items<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default + PartialEq,
{
    let empty = T::default();
    read(deserializer, usize::MAX, |item| *item != empty)
}

/// Whether there is a list; what is in it is not read.
pub(super) fn is_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(deserializer).map(|list| list.is_some())
}

fn read<'de, D, T>(
    deserializer: D,
    most: usize,
    is_kept: impl Fn(&T) -> bool,
) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_option(ListVisitor { most, is_kept, item: PhantomData })
}

struct ListVisitor<T, F> {
    most: usize,
    is_kept: F,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, F: Fn(&T) -> bool> Visitor<'de> for ListVisitor<T, F> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} items", self.most)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut items, mut number) = (Vec::new(), 0);
        while let Some(item) = list.next_element()? {
            number += 1;
            if number > self.most {
                return Err(Error::invalid_length(number, &self));
            }
            if (self.is_kept)(&item) {
                items.push(item);
            }
        }
        Ok(Some(items))
    }
}
