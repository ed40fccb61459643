//! A fake API server: lists, watches without events, single objects; with gates that delay answers, and a record of the
//! calls. Objects added after the first list do not reach the copies, as with a delayed watch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::ACCEPT;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use webhook::cluster::lookup::Lookup;
use webhook::cluster::sources::Sources;
use webhook::metrics::Metrics;
use webhook::protocol::admit::Admission;

use crate::identity;

pub const ACCOUNTS: &str = "/api/v1/serviceaccounts";
pub const BINDINGS: &str = "/apis/podidentity.dev/v1alpha1/podidentitybindings";
pub const ISSUERS: &str = "/apis/podidentity.dev/v1alpha1/oidcissuers";

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    Held,
    Failing,
}

/// How a list that is requested as a watch is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streaming {
    #[default]
    Done,
    /// As by an API server that does not support it.
    Refused,
    /// The watch's time ends before the list is complete.
    Endless,
}

pub struct Api {
    /// Objects by the path of their list.
    objects: Mutex<BTreeMap<String, Vec<Value>>>,
    calls: Mutex<Vec<String>>,
    /// Lists over all namespaces, which fill the copies.
    pub lists: watch::Sender<Gate>,
    /// Everything else.
    pub live: watch::Sender<Gate>,
    /// How lists that are requested as a watch are answered.
    pub streaming: Mutex<Streaming>,
    /// How often the watches were ended; each then lists again.
    ends: watch::Sender<u32>,
}

type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

impl Api {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            calls: Mutex::default(),
            lists: watch::Sender::new(Gate::Open),
            live: watch::Sender::new(Gate::Open),
            streaming: Mutex::default(),
            ends: watch::Sender::new(0),
        })
    }

    pub fn put(&self, list: &str, object: Value) {
        self.objects.lock().unwrap().entry(list.to_owned()).or_default().push(object);
    }

    /// A `ServiceAccount`, with a role of its own if one is given.
    pub fn put_account(&self, namespace: &str, name: &str, role: Option<&str>) {
        let annotations: Vec<_> = role
            .into_iter()
            .flat_map(|role| [("eks.amazonaws.com/role-arn", role), ("other", "x")])
            .collect();
        self.put_annotated(namespace, name, &annotations);
    }

    pub fn put_annotated(&self, namespace: &str, name: &str, annotations: &[(&str, &str)]) {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
        self.put(ACCOUNTS, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
    }

    /// Ends every watch as too old, so that it starts again with a new list.
    pub fn end_watches(&self) {
        self.ends.send_modify(|ends| *ends += 1);
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub fn client(self: &Arc<Self>) -> Client {
        let api = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = Arc::clone(&api);
            let (head, _) = request.into_parts();
            async move { Ok::<_, Infallible>(api.answer(&head).await) }
        });
        Client::new(service, "default")
    }

    /// A webhook's admission with this API server; its copies are updated for as long as the runtime exists.
    pub fn admission(self: &Arc<Self>, metrics: &Arc<Metrics>) -> Admission {
        self.admission_with(Sources::new(false, Arc::clone(metrics)), metrics)
    }

    pub fn admission_with(self: &Arc<Self>, sources: Sources, metrics: &Arc<Metrics>) -> Admission {
        let timeout = Duration::from_secs(5);
        let lookup = Arc::new(Lookup::new(
            self.client(),
            "eks.amazonaws.com",
            timeout,
            Arc::new(sources),
            Arc::clone(metrics),
        ));
        let follower = Arc::clone(&lookup);
        tokio::spawn(async move { follower.follow().await });
        Admission { lookup, settings: Arc::new(identity::settings()), metrics: Arc::clone(metrics) }
    }

    async fn answer(&self, request: &Parts) -> Response<AnyBody> {
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        let accept = request.headers.get(ACCEPT).map(|accept| accept.to_str().unwrap()).unwrap_or_default();
        let metadata = if accept.contains("PartialObjectMetadata") { " metadata only" } else { "" };
        self.calls.lock().unwrap().push(format!("{} {path}?{query}{metadata}", request.method));
        if query.contains("watch=true") {
            return self.watch(path, query).await;
        }
        // A list in pages of a hundred is a live lookup, too.
        let fills_copy = [ACCOUNTS, BINDINGS, ISSUERS].contains(&path) && !query.ends_with("limit=100");
        let gate = if fills_copy { &self.lists } else { &self.live };
        let gate = *gate.subscribe().wait_for(|gate| *gate != Gate::Held).await.unwrap();
        let (code, body) = match self.found(path) {
            _ if gate == Gate::Failing => failure(500, "set to fail"),
            Some(body) => (200, body),
            None => failure(404, "not found"),
        };
        let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
        Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
    }

    /// A watch: the existing objects if they are requested, and then no event until it is ended.
    async fn watch(&self, path: &str, query: &str) -> Response<AnyBody> {
        let mut ends = self.ends.subscribe();
        let mut events = Vec::new();
        if query.contains("sendInitialEvents=true") {
            let streaming = *self.streaming.lock().unwrap();
            let gate = *self.lists.subscribe().wait_for(|gate| *gate != Gate::Held).await.unwrap();
            let refusal = match (gate, streaming) {
                (Gate::Failing, _) => Some(failure(500, "set to fail")),
                (_, Streaming::Refused) => Some(failure(422, "sendInitialEvents is forbidden")),
                _ => None,
            };
            if let Some((code, body)) = refusal {
                let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
                return Response::builder().status(code).body(body).unwrap();
            }
            let all = self.objects.lock().unwrap().get(path).cloned().unwrap_or_default();
            events.extend(all.into_iter().map(|object| json!({"type": "ADDED", "object": object})));
            if streaming == Streaming::Endless {
                let events = stream::iter(events).map(|event| Ok::<_, Infallible>(line(&event)));
                return Response::new(StreamBody::new(events).boxed_unsync());
            }
            let end = json!({"k8s.io/initial-events-end": "true"});
            let mark = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"resourceVersion": "1", "annotations": end}});
            events.push(json!({"type": "BOOKMARK", "object": mark}));
        }
        let silence = stream::once(async move {
            let _ = ends.changed().await;
            let (_, gone) = failure(410, "too old");
            line(&json!({"type": "ERROR", "object": gone}))
        });
        let events = stream::iter(events).map(|event| line(&event)).chain(silence).map(Ok::<_, Infallible>);
        Response::new(StreamBody::new(events).boxed_unsync())
    }

    fn found(&self, path: &str) -> Option<Value> {
        let objects = self.objects.lock().unwrap();
        let list = |items: Vec<&Value>| {
            Some(
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}),
            )
        };
        let Some((group, rest)) = path.split_once("/namespaces/") else {
            if let Some(name) = path.strip_prefix(ISSUERS).and_then(|rest| rest.strip_prefix('/')) {
                let mut all = objects.get(ISSUERS).into_iter().flatten();
                return all.find(|object| object["metadata"]["name"] == name).cloned();
            }
            return list(objects.get(path).into_iter().flatten().collect());
        };
        let mut rest = rest.split('/');
        let (namespace, plural, name) = (rest.next()?, rest.next()?, rest.next());
        let mut inside = objects
            .get(&format!("{group}/{plural}"))
            .into_iter()
            .flatten()
            .filter(|object| object["metadata"]["namespace"] == namespace);
        match name {
            None => list(inside.collect()),
            Some(name) => inside.find(|object| object["metadata"]["name"] == name).cloned(),
        }
    }
}

fn line(event: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(event.to_string() + "\n"))
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        410 => "Expired",
        _ => "InternalError",
    };
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    (code, status)
}

/// Lets other tasks run until the condition holds. Limited, so that a test fails instead of hanging.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let turns = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    within(what, turns).await;
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap_or_else(|_| panic!("never: {what}"))
}
