//! Objects that this program cannot decode: an API server may have stored them without the rules of the CRD. One of them must not hide
//! all others.

use std::future::ready;

use futures::{Stream, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{Event, Result};
use kube::{Resource, ResourceExt};

/// The events of objects that can be decoded. Of an object that could be before, the last version that could be is kept: an edit that
/// makes it undecodable breaks nothing.
pub fn readable<K>(
    store: Store<K>,
    events: impl Stream<Item = Result<Event<DeserializeGuard<K>>>>,
) -> impl Stream<Item = Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    events.filter_map(move |event| ready(decoded(&store, event)))
}

fn decoded<K>(store: &Store<K>, event: Result<Event<DeserializeGuard<K>>>) -> Option<Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let event = match event {
        Ok(event) => event,
        Err(error) => return Some(Err(error)),
    };
    let last = |metadata: &DeserializeGuard<K>| {
        let (name, namespace) = (metadata.name_any(), metadata.namespace());
        let mut reference = ObjectRef::new(&name);
        reference.namespace.clone_from(&namespace);
        tracing::warn!(kind = %K::kind(&()), object = name, namespace, "an object cannot be decoded and is ignored");
        let last = store.get(&reference).filter(|last| last.uid() == metadata.uid());
        last.map(|last| (*last).clone())
    };
    let event = match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(DeserializeGuard(Ok(object))) => Event::InitApply(object),
        Event::Apply(DeserializeGuard(Ok(object))) => Event::Apply(object),
        Event::Delete(DeserializeGuard(Ok(object))) => Event::Delete(object),
        Event::InitApply(object) => Event::InitApply(last(&object)?),
        Event::Apply(object) => {
            last(&object);
            return None;
        }
        Event::Delete(object) => Event::Delete(last(&object)?),
    };
    Some(Ok(event))
}
