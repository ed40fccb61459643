//! The HTTPS listener: `POST /mutate`, TLS 1.3, with a limit on everything a caller can make big or slow.

use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use futures::FutureExt;
use hyper_util::rt::TokioTimer;
use rustls::ServerConfig;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::admit::{Admission, Answer, failure};
use crate::metrics::{Metrics, Outcome};

/// A TLS handshake, and then the first request's headers, may take this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A review's headers are a few hundred bytes.
const HEADER_BYTES: u32 = 16 << 10;
const HEADERS: usize = 64;
/// The API server sends its calls over one HTTP/2 connection, as many at once as pods are being made.
const STREAMS: u32 = 1000;
/// A connection whose other end is gone without a word is found and closed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the listener serves.
#[derive(Clone)]
pub struct Service {
    /// Answers reviews.
    pub admission: Admission,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// How long a review may take, from its headers to the answer.
    pub request_timeout: Duration,
    /// Longest review accepted, in bytes.
    pub max_body_bytes: usize,
    /// What all reviews under way may take together.
    pub budget: Budget,
}

/// Memory for reviews: whoever sends many large ones waits, and takes nobody's life. A review takes several times its
/// bytes while it is parsed.
#[derive(Clone)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    const UNIT: usize = 1 << 10;

    /// So many bytes; must not be less than the longest review, or that one waits for ever.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.div_ceil(Self::UNIT).min(Semaphore::MAX_PERMITS))))
    }

    /// Waits for that many bytes; they are given back when what is returned is dropped. Nobody closes the semaphore, so
    /// this never fails; were it to, the review would only go uncounted.
    pub async fn claim(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let units = u32::try_from(bytes.div_ceil(Self::UNIT)).unwrap_or(u32::MAX);
        self.0.acquire_many(units).await.ok()
    }
}

/// Serves until `handle` says otherwise and the calls under way are answered.
pub async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    service: Service,
    handle: Handle<SocketAddr>,
) -> std::io::Result<()> {
    let config = RustlsConfig::from_config(Arc::new(tls));
    let mut server = axum_server::from_tcp(listener)?
        .map(|_| axum_server::tls_rustls::RustlsAcceptor::new(config).handshake_timeout(HANDSHAKE_TIMEOUT))
        .first_request_timeout(HEADER_TIMEOUT)
        .handle(handle);
    let http = server.http_builder();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES as usize)
        .max_headers(HEADERS);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    server.serve(router(service).into_make_service()).await
}

fn router(service: Service) -> Router {
    let limit = DefaultBodyLimit::max(service.max_body_bytes);
    Router::new().route("/mutate", post(mutate)).layer(limit).with_state(Arc::new(service))
}

async fn mutate(State(service): State<Arc<Service>>, request: Request) -> Response {
    let started = Instant::now();
    let answering = AssertUnwindSafe(service.answer(request)).catch_unwind();
    let answer = match tokio::time::timeout(service.request_timeout, answering).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            tracing::error!("a defect of the webhook: answering a review panicked");
            failure(500, "InternalError", "the webhook failed; its log says where", Outcome::Panicked)
        }
        Err(_) => {
            tracing::warn!(timeout = ?service.request_timeout, "review not answered in time");
            failure(504, "Timeout", "the review was not answered in time", Outcome::Unavailable)
        }
    };
    service.metrics.reviewed(answer.outcome, answer.source, answer.lookup, started.elapsed());
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], answer.body).into_response()
}

impl Service {
    async fn answer(&self, request: Request) -> Answer {
        if !is_json(request.headers()) {
            let message = "Content-Type must be application/json";
            return failure(415, "UnsupportedMediaType", message, Outcome::Malformed);
        }
        let too_long = || {
            let message = format!("the review is longer than {} bytes", self.max_body_bytes);
            tracing::warn!(message, "review refused");
            failure(413, "RequestEntityTooLarge", &message, Outcome::Malformed)
        };
        // The API server says how much it sends; who does not is counted as the longest.
        let length =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length = length.unwrap_or(self.max_body_bytes);
        if length > self.max_body_bytes {
            return too_long();
        }
        let _held = self.budget.claim(length).await;
        match Bytes::from_request(request, &()).await {
            Ok(body) => self.admission.answer(&body).await,
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => too_long(),
            Err(_) => failure(400, "BadRequest", "the review did not arrive whole", Outcome::Malformed),
        }
    }
}

/// Parameters such as `charset` are let pass: JSON is UTF-8 whatever they say.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}
