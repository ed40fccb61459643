//! The HTTPS listener: TLS 1.3, one path for each entry of the webhook configuration, and limits on size, time and number of
//! everything that a caller sends.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioTimer;
use process::acceptor::LimitingAcceptor;
use process::limiter::{CapacityLimiter, Permit};
use tower::service_fn;

use crate::metrics::Metrics;
use crate::model::{MissingIdentityReason, Outcome, WebhookEntry};
use crate::protocol::admit::Admission;
use crate::protocol::respond::{Answer, failure};

/// The longest time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be idle, before its first review or between two. The API server closes its own after 90 s
/// (client-go's `IdleConnTimeout`), some of them never used: Go sends a request on whichever connection comes free first. If
/// this listener closed one earlier, a review that is just being sent on it would be lost, since a POST is not retried. At
/// the limit of connections idle ones are evicted long before.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// The limits of a request's headers; those of a review are a few hundred bytes.
const HEADER_BYTES: u32 = 16 << 10;
const HEADERS: usize = 64;
/// Reviews at once on one connection. The API server calls a Service over HTTP/1.1, so as to reach all replicas
/// (kubernetes#75791), and only a URL on its own host over HTTP/2.
const STREAMS: u32 = 1000;
/// How much a caller may send before it is read: more costs memory for each connection, less costs round trips.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// The memory a request takes in addition to its body: that of a stream and its headers.
const REQUEST_BYTES: usize = 4 << 10;
/// The largest frame: larger frames mean fewer for a body that needs several.
const FRAME: u32 = 64 << 10;
/// HTTP/2 pings find connections whose other end vanished without closing them.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The service behind the listener.
#[derive(Clone)]
pub struct ReviewService {
    /// Answers reviews.
    pub admission: Admission,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// How long a review may take, from its headers to the answer.
    pub request_timeout: Duration,
    /// Longest review accepted, in bytes.
    pub max_body_bytes: usize,
    /// Limits the bytes of all reviews that are still arriving; at least one of the longest fits.
    pub bodies: Arc<CapacityLimiter>,
    /// Limits the connections.
    pub connections: Arc<CapacityLimiter>,
    /// Set when the process is to stop: HTTP/1.1 connections are then closed with the answer, so that none is closed while
    /// the next review is being sent on it.
    pub stopping: Arc<AtomicBool>,
}

/// Serves reviews until `handle` stops it and all calls in progress are answered.
pub async fn serve(
    listener: TcpListener,
    tls: RustlsConfig,
    service: ReviewService,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let connections = Arc::clone(&service.connections);
    let service = Arc::new(service);
    let answer = move |request| {
        let service = Arc::clone(&service);
        async move { service.call(request).await }
    };
    listen(listener, tls, connections, handle, answer).await
}

/// Answers requests with `answer`, within the limits of this listener.
pub async fn listen<F>(
    listener: TcpListener,
    tls: RustlsConfig,
    connections: Arc<CapacityLimiter>,
    handle: Handle<SocketAddr>,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> io::Result<()>
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let acceptor = LimitingAcceptor(connections);
    let mut server = axum_server::from_tcp(listener)?
        .map(|_| {
            axum_server::tls_rustls::RustlsAcceptor::new(tls)
                .handshake_timeout(HANDSHAKE_TIMEOUT)
                .acceptor(acceptor)
        })
        .first_request_timeout(IDLE_TIMEOUT)
        .handle(handle);
    let http = server.http_builder();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEADER_BYTES as usize)
        .max_headers(HEADERS);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    // Each request has its connection's permit among its extensions. Boxed: the future is large, and is moved several times.
    let of_connection = service_fn(move |request| Box::pin(answer(request).map(Ok::<_, Infallible>)));
    let connection = service_fn(move |_: SocketAddr| ready(Ok::<_, Infallible>(of_connection.clone())));
    server.serve(connection).await
}

impl ReviewService {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let is_http1 = request.version() < Version::HTTP_2;
        let stopping = self.stopping.load(Ordering::Relaxed);
        let (mut response, body_read) = self.respond(request).await;
        // hyper closes a connection if a request's body was not read to its end. Without this header the client would send its
        // next review on that connection, and lose it.
        if is_http1 && (stopping || !body_read) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The response, and whether the request's body was read to its end.
    async fn respond(&self, request: Request<Incoming>) -> (Response<Full<Bytes>>, bool) {
        let started = Instant::now();
        let path = request.uri().path();
        let no_body = request.body().is_end_stream();
        let text = |status, text: &'static str| {
            (respond(status, "text/plain", Bytes::from_static(text.as_bytes())), no_body)
        };
        if path == "/healthz" {
            return text(StatusCode::OK, "ok");
        }
        let Some(entry) = WebhookEntry::ALL.into_iter().find(|entry| entry.path() == path) else {
            return text(StatusCode::NOT_FOUND, "not found");
        };
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "POST only");
        }
        let body_read = AtomicBool::new(no_body);
        let permit = request.extensions().get::<Arc<Permit>>().cloned();
        let answering =
            AssertUnwindSafe(self.answer(entry, request, permit.as_ref(), &body_read)).catch_unwind();
        let answer = match tokio::time::timeout(self.request_timeout, answering).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                tracing::error!("a defect of the webhook: answering a review panicked");
                failure(500, "InternalError", "the webhook failed; its log has the place", Outcome::Panicked)
            }
            Err(_) => {
                tracing::warn!(timeout = ?self.request_timeout, "review not answered in time");
                failure(504, "Timeout", "the review was not answered in time", Outcome::Unavailable)
            }
        };
        if let Some(permit) = permit.filter(|_| answer.status == 200) {
            permit.note_answer();
        }
        // The review was not read, so the pod's name is not known; the log of the failure is all there is.
        if entry == WebhookEntry::Pods && matches!(answer.status, 429 | 500 | 504) {
            self.metrics.without_identity(MissingIdentityReason::Unknown);
        }
        let Answer { outcome, source, lookup, .. } = answer;
        self.metrics.reviewed(entry, outcome, source, lookup, started.elapsed());
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (respond(status, "application/json", answer.body.into()), body_read.into_inner())
    }

    async fn answer(
        &self,
        entry: WebhookEntry,
        request: Request<Incoming>,
        permit: Option<&Arc<Permit>>,
        body_read: &AtomicBool,
    ) -> Answer {
        if !is_json(request.headers()) {
            let message = "Content-Type must be application/json";
            return failure(415, "UnsupportedMediaType", message, Outcome::Malformed);
        }
        let peer = permit.map_or(Ipv6Addr::UNSPECIFIED.into(), |permit| permit.peer());
        match self.body(request, peer).await {
            // The body's permit is held until the answer, which may take as long as a live lookup.
            Ok((body, _body_permit)) => {
                body_read.store(true, Ordering::Relaxed);
                let _active = permit.map(Permit::begin_request);
                self.admission.answer(entry, &body, peer).await
            }
            Err(answer) => answer,
        }
    }

    /// The whole body. The bytes received so far count against the limit of all bodies: at the limit slow ones are evicted
    /// in favour of others, which do not wait.
    async fn body(&self, request: Request<Incoming>, peer: IpAddr) -> Result<(Bytes, Permit), Answer> {
        let permit = self.bodies.acquire(REQUEST_BYTES, peer);
        if permit.evicted().is_cancelled() {
            return Err(busy());
        }
        let mut permitted = REQUEST_BYTES;
        let length =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: usize| length > self.max_body_bytes) {
            return Err(self.too_long());
        }
        let mut body = request.into_body();
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        loop {
            let frame = tokio::select! {
                biased;
                () = permit.evicted().cancelled() => return Err(busy()),
                frame = body.frame() => frame,
            };
            let data = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(_)) => {
                    return Err(failure(
                        400,
                        "BadRequest",
                        "the review did not arrive completely",
                        Outcome::Malformed,
                    ));
                }
                // Most reviews arrive in one frame, which needs no copy.
                None if all.is_empty() => return Ok((first, permit)),
                None => return Ok((all.freeze(), permit)),
            };
            let arrived = first.len().max(all.len()) + data.len();
            if arrived > self.max_body_bytes {
                return Err(self.too_long());
            }
            if !permit.grow(arrived.saturating_sub(permitted)) {
                return Err(busy());
            }
            permitted = permitted.max(arrived);
            if first.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.reserve(length.unwrap_or(arrived).max(arrived).min(4 * arrived));
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&data);
            }
        }
    }

    fn too_long(&self) -> Answer {
        let message = format!("the review is longer than {} bytes", self.max_body_bytes);
        tracing::warn!(message, "review refused");
        failure(413, "RequestEntityTooLarge", &message, Outcome::Malformed)
    }
}

fn busy() -> Answer {
    let message = "too many reviews are arriving: this one was evicted in favour of others";
    tracing::warn!(message, "review refused");
    failure(429, "TooManyRequests", message, Outcome::Unavailable)
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Whether the content type is JSON. Parameters such as `charset` are ignored: JSON is UTF-8 in any case.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}
