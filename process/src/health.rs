//! `/healthz`, `/readyz` and `/metrics` over plain HTTP: nothing here is secret. The port is open to every pod, so memory and
//! connections are limited, and idle clients cannot exclude the kubelets' probes.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use hyper_util::rt::TokioTimer;

use crate::acceptor::LimitingAcceptor;
use crate::limiter::{CapacityLimiter, Permit};

/// What the endpoints answer.
pub trait Health: Send + Sync + 'static {
    /// Whether the process is ready for calls; the reason where it is not.
    fn ready(&self) -> Result<(), String>;
    /// The text that Prometheus scrapes.
    fn metrics(&self) -> String;
}

/// The most connections at once: kubelets' probes and scrapes of metrics.
pub const MAX_CONNECTIONS: usize = 64;
/// Longer than the time between two scrapes.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// The requests are one line each.
const HEADER_BYTES: u32 = 16 << 10;
const STREAMS: u32 = 16;
const WINDOW: u32 = 64 << 10;

/// Serves the endpoints for as long as the future is polled.
pub async fn serve(listener: TcpListener, health: Arc<impl Health>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(from_fn(note_request))
        .with_state(health);
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(LimitingAcceptor(CapacityLimiter::new(MAX_CONNECTIONS)))
        .first_request_timeout(IDLE_TIMEOUT);
    let http = server.http_builder();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEADER_BYTES as usize);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    server.serve(app.into_make_service()).await
}

/// A connection that sends requests is kept before those that send none.
async fn note_request(Extension(permit): Extension<Arc<Permit>>, request: Request, next: Next) -> Response {
    let _active = permit.begin_request();
    let response = next.run(request).await;
    permit.note_answer();
    response
}

async fn ready<H: Health>(State(health): State<Arc<H>>) -> (StatusCode, String) {
    match health.ready() {
        Ok(()) => (StatusCode::OK, "ok".into()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn metrics<H: Health>(State(health): State<Arc<H>>) -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], health.metrics())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    struct NeverReady;

    impl Health for NeverReady {
        fn ready(&self) -> Result<(), String> {
            Err("not yet".into())
        }

        fn metrics(&self) -> String {
            "# EOF\n".into()
        }
    }

    async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
        send(TcpStream::connect(address).await?, path).await
    }

    async fn send(mut connection: TcpStream, path: &str) -> io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn idle_connections_exclude_no_probe_and_are_limited() -> io::Result<()> {
        const IDLE: usize = 300;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener, Arc::new(NeverReady)));
        let mut idle = Vec::new();
        for _ in 0..IDLE {
            idle.push(TcpStream::connect(address).await?);
        }
        let healthy = get(address, "/healthz").await?;
        assert!(healthy.starts_with("HTTP/1.1 200") && healthy.ends_with("\r\n\r\nok"), "{healthy}");

        // The oldest were evicted for the newest and for the probe.
        let (evicted, kept) = idle.split_at_mut(IDLE + 1 - MAX_CONNECTIONS);
        for connection in evicted {
            assert!(connection.read_u8().await.is_err(), "closed");
        }
        for connection in kept {
            let seen = connection.try_read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(seen, Err(io::ErrorKind::WouldBlock), "open, without data");
        }

        let unready = get(address, "/readyz").await?;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("\r\n\r\nnot yet"), "{unready}");
        let metrics = get(address, "/metrics").await?;
        assert!(
            metrics.contains("application/openmetrics-text") && metrics.ends_with("# EOF\n"),
            "{metrics}"
        );
        Ok(())
    }

    #[tokio::test]
    async fn an_address_that_had_an_answer_before_a_flood_is_served_during_it() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener, Arc::new(NeverReady)));
        assert!(get(address, "/healthz").await?.starts_with("HTTP/1.1 200"));

        // New, without data so far. From another address come many connections that send data.
        let slow = TcpStream::connect(address).await?;
        let mut flood = Vec::new();
        for _ in 0..4 * MAX_CONNECTIONS {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into())?;
            let mut connection = socket.connect(address).await?;
            connection.write_all(b"G").await?;
            flood.push(connection);
        }
        for connection in &mut flood[..3 * MAX_CONNECTIONS] {
            assert!(connection.read_u8().await.is_err(), "closed");
        }
        assert!(send(slow, "/healthz").await?.starts_with("HTTP/1.1 200"));
        Ok(())
    }
}
