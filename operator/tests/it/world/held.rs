//! A client of the operator whose n-th write to the cluster is held: before the API server gets it, or before its response arrives.
//! There the operator is killed. And one that sees an old list of objects, and no event after it, no list of namespaces yet, or not every
//! event.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kube::client::{Body, ClientBuilder, DynBody};
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

use super::watches::Watches;

/// Where a write is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It has no effect.
    Before,
    /// It has its effect, and the operator does not know.
    After,
}

/// All bindings of the cluster.
pub const BINDINGS: &str = "/apis/podidentity.dev/v1alpha1/podidentitybindings";
/// All issuers.
pub const ISSUERS: &str = "/apis/podidentity.dev/v1alpha1/oidcissuers";
/// All namespaces.
pub const NAMESPACES: &str = "/api/v1/namespaces";

/// What is held, and what was written.
#[derive(Debug, Clone, Default)]
pub struct Hold {
    state: Arc<Mutex<State>>,
    /// The events that it gets.
    pub watches: Watches,
}

#[derive(Debug, Default)]
struct State {
    writes: Vec<String>,
    pod_lists: Vec<String>,
    /// What lists are answered with, by path.
    lists: BTreeMap<&'static str, String>,
    /// Until when no list of namespaces is answered.
    namespaces: Option<CancellationToken>,
    at: Option<(usize, Side)>,
    is_reached: bool,
}

impl Hold {
    /// From now on writes are counted, and the one of that number is held.
    pub fn arm(&self, at: Option<(usize, Side)>) {
        *self.state.lock().unwrap() = State { at, ..State::default() };
        self.watches.lose(None);
    }

    /// From now on lists of all objects of a kind are answered with this, and their watches show nothing.
    pub fn show(&self, path: &'static str, list: Option<String>) {
        let lists = &mut self.state.lock().unwrap().lists;
        match list {
            Some(list) => drop(lists.insert(path, list)),
            None => drop(lists.remove(path)),
        }
    }

    /// From now on lists of namespaces are answered only once `until` is cancelled.
    pub fn hold_namespaces(&self, until: CancellationToken) {
        self.state.lock().unwrap().namespaces = Some(until);
    }

    /// Until when a request is not answered.
    fn unanswered(&self, request: &Request<Body>) -> Option<CancellationToken> {
        let is_of_namespaces = request.uri().path() == NAMESPACES;
        self.state.lock().unwrap().namespaces.clone().filter(|_| is_of_namespaces)
    }

    /// The old answer to a request, if it gets one.
    fn old(&self, request: &Request<Body>) -> Option<Old> {
        if request.method() != Method::GET {
            return None;
        }
        let list = self.state.lock().unwrap().lists.get(request.uri().path()).cloned()?;
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        Some(if is_watch { Old::Silence } else { Old::List(list) })
    }

    /// The writes since then: method and path.
    pub fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.clone()
    }

    /// The reads of pods since then: path and query.
    pub fn pod_lists(&self) -> Vec<String> {
        self.state.lock().unwrap().pod_lists.clone()
    }

    /// Whether a write is held.
    pub fn is_reached(&self) -> bool {
        self.state.lock().unwrap().is_reached
    }

    /// A client of the cluster.
    pub fn client(&self, config: &Config) -> Client {
        let layer = HoldLayer(self.clone());
        ClientBuilder::try_from(config.clone()).unwrap().with_layer(&layer).build()
    }

    /// Counts a write of our objects, or of annotations, and says whether it is held.
    fn side(&self, request: &Request<Body>) -> Option<Side> {
        let path = request.uri().path();
        if path.ends_with("/pods") {
            let read = request.uri().path_and_query().map(ToString::to_string);
            self.state.lock().unwrap().pod_lists.extend(read);
        }
        let is_ours = path.contains("/podidentity.dev/")
            || (path.contains("/serviceaccounts/") && !path.ends_with("/token"));
        if request.method() == Method::GET || !is_ours {
            return None;
        }
        let mut state = self.state.lock().unwrap();
        let number = state.writes.len();
        state.writes.push(format!("{} {path}", request.method()));
        state.at.filter(|(at, _)| *at == number).map(|(_, side)| side)
    }

    async fn hold(&self) {
        self.state.lock().unwrap().is_reached = true;
        pending::<()>().await;
    }
}

/// What an API server answers whose own copy is late.
enum Old {
    List(String),
    /// No event.
    Silence,
}

struct HoldLayer(Hold);

impl<S> Layer<S> for HoldLayer {
    type Service = Held<S>;

    fn layer(&self, inner: S) -> Held<S> {
        Held { inner, hold: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct Held<S> {
    inner: S,
    hold: Hold,
}

impl<S> Service<Request<Body>> for Held<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>>,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (side, hold) = (self.hold.side(&request), self.hold.clone());
        if let Some(old) = self.hold.old(&request) {
            return Box::pin(async move {
                let Old::List(list) = old else { return pending().await };
                let body = Full::new(Bytes::from(list)).map_err(Into::into);
                Ok(Response::new(Box::new(body) as Box<DynBody>))
            });
        }
        if side == Some(Side::Before) {
            return Box::pin(async move {
                hold.hold().await;
                unreachable!("a held write never goes on")
            });
        }
        let (unanswered, watched) = (self.hold.unanswered(&request), Watches::watched(&request));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if let Some(until) = unanswered {
                until.cancelled().await;
            }
            if side == Some(Side::After) {
                hold.hold().await;
            }
            answer.map(|answer| match watched.filter(|_| answer.status().is_success()) {
                Some(resource) => answer.map(|body| hold.watches.received(resource, body)),
                None => answer,
            })
        })
    }
}
