//! `/healthz`, `/readyz` and `/metrics` over plain HTTP: nothing here is secret. The port is open to every pod; so what is
//! held here is bounded, and nobody keeps kubelets out by sitting there.

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

use crate::crowd::{Crowd, Guest};
use crate::door::Doorkeeper;

/// What the endpoints tell.
pub trait Health: Send + Sync + 'static {
    /// Why no calls should be sent here; `Ok` if they should.
    fn ready(&self) -> Result<(), String>;
    /// The text that Prometheus scrapes.
    fn metrics(&self) -> String;
}

/// Connections at once: kubelets' probes and those who scrape metrics.
pub const CONNECTIONS: usize = 64;
/// Between two scrapes.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// The requests are one line each.
const HEADER_BYTES: u32 = 16 << 10;
const STREAMS: u32 = 16;
const WINDOW: u32 = 64 << 10;

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, health: Arc<impl Health>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(from_fn(of_use))
        .with_state(health);
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(Doorkeeper(Crowd::new(CONNECTIONS)))
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

/// Who asks for anything is no idler.
async fn of_use(Extension(guest): Extension<Arc<Guest>>, request: Request, next: Next) -> Response {
    let _work = guest.work();
    let response = next.run(request).await;
    guest.useful();
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

    struct Told;

    impl Health for Told {
        fn ready(&self) -> Result<(), String> {
            Err("not yet".into())
        }

        fn metrics(&self) -> String {
            "# EOF\n".into()
        }
    }

    async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
        ask(TcpStream::connect(address).await?, path).await
    }

    async fn ask(mut connection: TcpStream, path: &str) -> io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn idle_connections_keep_no_probe_out_and_are_bounded() -> io::Result<()> {
        const IDLE: usize = 300;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener, Arc::new(Told)));
        let mut idle = Vec::new();
        for _ in 0..IDLE {
            idle.push(TcpStream::connect(address).await?);
        }
        let healthy = get(address, "/healthz").await?;
        assert!(healthy.starts_with("HTTP/1.1 200") && healthy.ends_with("\r\n\r\nok"), "{healthy}");

        // The oldest made room for the youngest and for the probe.
        let (gone, staying) = idle.split_at_mut(IDLE + 1 - CONNECTIONS);
        for connection in gone {
            assert!(connection.read_u8().await.is_err(), "closed");
        }
        for connection in staying {
            let seen = connection.try_read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(seen, Err(io::ErrorKind::WouldBlock), "open, and silent");
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
    async fn who_was_known_before_a_flood_is_let_in_during_it() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener, Arc::new(Told)));
        assert!(get(address, "/healthz").await?.starts_with("HTTP/1.1 200"));

        // New, and silent as yet. From another address come many that talk.
        let slow = TcpStream::connect(address).await?;
        let mut flood = Vec::new();
        for _ in 0..4 * CONNECTIONS {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into())?;
            let mut connection = socket.connect(address).await?;
            connection.write_all(b"G").await?;
            flood.push(connection);
        }
        for connection in &mut flood[..3 * CONNECTIONS] {
            assert!(connection.read_u8().await.is_err(), "closed");
        }
        assert!(ask(slow, "/healthz").await?.starts_with("HTTP/1.1 200"));
        Ok(())
    }
}
