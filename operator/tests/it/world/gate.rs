//! A client of one replica of the operator: its requests are recorded with their times, and it can be cut off from the API
//! server.

use std::future::{Future, pending};
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sim::Sim;
use crds::names::LEASE;
use http::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

/// Whether the API server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It does.
    Answers,
    /// Nothing ever comes back: packets are lost.
    Silent,
    /// Every request fails at once: connections are refused.
    Refused,
}

/// A request, whether it reached the API server or not.
#[derive(Debug, Clone)]
pub struct Sent {
    pub method: Method,
    pub path: String,
    /// When it was begun, by the clock of [`Sim::elapsed`].
    pub at: Duration,
    /// When its answer came.
    pub answered: Option<Duration>,
}

impl Sent {
    /// Whether it is about the lease of the leader election: also its creation and its watch, whose paths do not name it.
    pub fn is_of_lease(&self) -> bool {
        self.path.ends_with("/leases") || self.path.ends_with(&format!("/leases/{LEASE}"))
    }

    /// Whether it may change something.
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// What a replica asked of the API server, and whether it may.
#[derive(Clone)]
pub struct Gate {
    sim: Sim,
    state: Arc<Mutex<(Reach, Vec<Sent>)>>,
}

impl Gate {
    /// A gate that lets everything through. The times are those of the simulated AWS.
    pub(super) fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), state: Arc::new(Mutex::new((Reach::Answers, Vec::new()))) }
    }

    /// From now on, for requests that wait for their answer, too.
    pub fn set(&self, reach: Reach) {
        self.state.lock().unwrap().0 = reach;
    }

    /// All requests, in the order in which they were begun.
    pub fn sent(&self) -> Vec<Sent> {
        self.state.lock().unwrap().1.clone()
    }

    /// Those that are work of a leader: all but the leader election's, and the first one of any replica.
    pub fn work(&self) -> Vec<Sent> {
        let is_work = |sent: &Sent| !sent.is_of_lease() && sent.path != "/version";
        self.sent().into_iter().filter(is_work).collect()
    }

    /// A client of the cluster behind this gate.
    pub(super) fn client(&self, config: &Config) -> Client {
        let layer = GateLayer(self.clone());
        ClientBuilder::try_from(config.clone()).unwrap().with_layer(&layer).build()
    }

    fn begin(&self, request: &Request<Body>) -> usize {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let sent = Sent { method, path, at: self.sim.elapsed(), answered: None };
        let all = &mut self.state.lock().unwrap().1;
        all.push(sent);
        all.len() - 1
    }

    /// Passes if the API server answers.
    async fn pass(&self) -> Result<(), BoxError> {
        let reach = self.state.lock().unwrap().0;
        match reach {
            Reach::Answers => Ok(()),
            Reach::Silent => pending().await,
            Reach::Refused => Err(Error::from(ErrorKind::ConnectionRefused).into()),
        }
    }
}

struct GateLayer(Gate);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Gate,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (number, gate) = (self.gate.begin(&request), self.gate.clone());
        let reach = gate.state.lock().unwrap().0;
        // What is cut off never reaches the API server.
        let answer = (reach == Reach::Answers).then(|| self.inner.call(request));
        Box::pin(async move {
            gate.pass().await?;
            let answer = match answer {
                Some(answer) => answer.await,
                None => return Err(Error::from(ErrorKind::ConnectionRefused).into()),
            };
            gate.pass().await?; // it may have been cut off meanwhile
            gate.state.lock().unwrap().1[number].answered = Some(gate.sim.elapsed());
            answer
        })
    }
}
