//! The events of a watch that never ends.

use std::fmt::Debug;
use std::future::ready;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// The events. A failure is logged here and the watch begun again after a wait, so that no other watch of the same controller waits, too:
/// no item is an error.
pub fn events<K>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource<DynamicType: Default> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    watcher(api, process::watch::config())
        .backoff(process::watch::backoff())
        .inspect_err(move |error| tracing::warn!(kind, %error, "the watch failed and is started again"))
        .filter(|event| ready(event.is_ok()))
}
