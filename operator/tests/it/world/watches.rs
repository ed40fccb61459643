//! The events that the operator's watches get. A test loses some of them, as an API server does that is cut off from the others; then it
//! ends the watches, as that API server does once it is late: the operator lists again.

use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::client::DynBody;
use serde::Deserialize;
use serde_json::json;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;

/// The watched kinds that decide on what is in AWS, and pods.
const RESOURCES: [&str; 5] = ["oidcissuers", "podidentitybindings", "serviceaccounts", "namespaces", "pods"];

/// What is read of an event. A tenant can make an object that no value can hold.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    /// Empty in what is no event of an object.
    #[serde(default)]
    name: String,
}

/// Which events are lost.
#[derive(Debug, Clone, Default)]
pub struct Watches(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    events: Vec<String>,
    /// The event that is lost, and how many of the same text come before.
    lost: Option<(String, usize)>,
    /// The kind, or kind and name, whose events are all lost.
    silent: Option<&'static str>,
    has_lost: bool,
    /// Ends all watches.
    late: CancellationToken,
}

impl Watches {
    /// From now on events are counted, and one is lost: the text of it, and how many of the same text come before.
    pub fn lose(&self, lost: Option<(String, usize)>) {
        let mut state = self.0.lock().unwrap();
        let late = state.late.clone();
        *state = State { lost, late, ..State::default() };
    }

    /// From now on all events are lost of a kind (`namespaces`), or of one object (`namespaces app`).
    pub fn silence(&self, objects: &'static str) {
        self.0.lock().unwrap().silent = Some(objects);
    }

    /// No more events are lost. All watches end: the operator lists again.
    pub fn end(&self) {
        let mut state = self.0.lock().unwrap();
        (state.lost, state.silent) = (None, None);
        std::mem::take(&mut state.late).cancel();
    }

    /// The events since [`Self::lose`].
    pub fn events(&self) -> Vec<String> {
        self.0.lock().unwrap().events.clone()
    }

    /// Whether an event was lost since then.
    pub fn has_lost(&self) -> bool {
        self.0.lock().unwrap().has_lost
    }

    /// The kind whose watch a request begins.
    pub(super) fn watched<B>(request: &http::Request<B>) -> Option<&'static str> {
        request.uri().query().filter(|query| query.contains("watch=true"))?;
        let path = request.uri().path();
        RESOURCES.into_iter().find(|resource| path.ends_with(&format!("/{resource}")))
    }

    /// The response of a watch without the events that are lost.
    pub(super) fn received(&self, resource: &'static str, body: Box<DynBody>) -> Box<DynBody> {
        let (watches, late) = (self.clone(), self.0.lock().unwrap().late.clone());
        let bytes = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        let kept = FramedRead::new(bytes, LinesCodec::new())
            .try_filter(move |line| ready(!watches.loses(resource, line)))
            .take_until(late.clone().cancelled_owned());
        let last = stream::once(async move { late.is_cancelled().then(|| Ok(too_old())) }).filter_map(ready);
        let lines = kept.chain(last).map_ok(|line| Frame::data(Bytes::from(line + "\n")));
        Box::new(StreamBody::new(Box::pin(lines.map_err(Into::into))))
    }

    /// Counts an event, and says whether it is lost.
    fn loses(&self, resource: &str, line: &str) -> bool {
        let Event { kind, object } = serde_json::from_str(line).unwrap();
        if matches!(&*kind, "BOOKMARK" | "ERROR") {
            return false;
        }
        let mut state = self.0.lock().unwrap();
        let text = format!("{kind} {resource} {}", object.metadata.name);
        let before = state.events.iter().filter(|event| **event == text).count();
        let is_lost =
            state.silent.is_some_and(|silent| silent == resource || text.ends_with(&format!(" {silent}")))
                || state.lost.as_ref().is_some_and(|(lost, number)| *lost == text && *number == before);
        state.events.push(text);
        state.has_lost |= is_lost;
        is_lost
    }
}

/// What an API server says of a watch that it cannot go on with.
fn too_old() -> String {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version",
    });
    json!({"type": "ERROR", "object": status}).to_string()
}
