//! A watch that is begun again after a failure.

use std::fmt::Debug;
use std::future::ready;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// The events of a watch. After a failure, which is logged here, the watch is begun again. No item of the stream is an error: kube's
/// controller would stop reading all its watches for a while.
pub fn retried_watch<K>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource<DynamicType: Default> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    watcher(api, process::watch::config())
        .backoff(process::watch::backoff())
        .inspect_err(move |error| tracing::warn!(kind, %error, "the watch failed and is started again"))
        .filter(|event| ready(event.is_ok()))
}
