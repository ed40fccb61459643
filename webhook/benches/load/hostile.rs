//! What a pod can do to the webhook's open port, and what that does to the API server's reviews meanwhile: their latency,
//! and the webhook's memory. Every attack is bounded in count and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::bodies::SIZES;
use crate::client;
use crate::process::Webhook;

/// Legitimate reviews a second, and for how long under each attack.
const RATE: u32 = 100;
const TIME: Duration = Duration::from_secs(8);
/// The bars: quality-bars B12.
const MEMORY: u64 = 64 << 20;
const P99: Duration = Duration::from_millis(50);

/// What is tried, and how often it was.
type Tried = Arc<AtomicUsize>;

/// Runs every attack in turn beside legitimate reviews, and prints what came of it.
pub async fn run(webhook: &Webhook) -> Result<()> {
    println!("\nHostile clients, beside {RATE} legitimate reviews a second on one connection");
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>9} {:>9}",
        "attack", "tried", "p50 ms", "p99 ms", "RSS MiB", "peak MiB"
    );
    let body = Bytes::from(SIZES[0].review("bench-0", "account-00000"));
    let connection = webhook.connect().await?;
    let mut kept = true;
    for attack in [
        Attack::None,
        Attack::IdleTcp,
        Attack::IdleTls,
        Attack::SlowBodies,
        Attack::LargeBodies,
        Attack::Garbage,
        Attack::Resets,
    ] {
        let tried = Tried::default();
        let attackers = attack.begin(webhook, &tried).await?;
        let latency = client::open_loop(&connection, &body, RATE, TIME).await?;
        let (now, peak) = webhook.memory()?;
        drop(attackers);
        let at = |share: f64| latency[((latency.len() - 1) as f64 * share) as usize];
        println!(
            "{:<34} {:>8} {:>8.2} {:>8.2} {:>9.1} {:>9.1}",
            attack.name(),
            tried.load(Ordering::Relaxed),
            at(0.5).as_secs_f64() * 1e3,
            at(0.99).as_secs_f64() * 1e3,
            now as f64 / f64::from(1 << 20),
            peak as f64 / f64::from(1 << 20),
        );
        kept &= peak <= MEMORY && at(0.99) <= P99;
    }
    ensure!(kept, "a bar was missed: {} MiB, p99 {P99:?}", MEMORY >> 20);
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Attack {
    None,
    IdleTcp,
    IdleTls,
    SlowBodies,
    LargeBodies,
    Garbage,
    Resets,
}

impl Attack {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::IdleTcp => "10,000 idle connections",
            Self::IdleTls => "1,000 idle connections after TLS",
            Self::SlowBodies => "1,000 bodies that never end",
            Self::LargeBodies => "bodies of 3 MiB, 4 at a time",
            Self::Garbage => "garbage, in TCP and in TLS",
            Self::Resets => "HTTP/2 streams begun and reset",
        }
    }

    /// Begins it; it ends when what is returned is dropped.
    #[allow(clippy::too_many_lines, reason = "one arm an attack, each a page of its own")]
    async fn begin(self, webhook: &Webhook, tried: &Tried) -> Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        let address = webhook.address();
        let count = Arc::clone(tried);
        match self {
            Self::None => {}
            Self::IdleTcp => {
                tasks.spawn(async move {
                    let mut held = Vec::new();
                    for _ in 0..10_000 {
                        held.extend(TcpStream::connect(address).await.ok());
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    std::future::pending::<()>().await;
                });
            }
            Self::IdleTls => {
                let certificate = webhook.certificate();
                tasks.spawn(async move {
                    let mut held = Vec::new();
                    for _ in 0..1_000 {
                        held.extend(client::connect(address, certificate.clone()).await.ok());
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    std::future::pending::<()>().await;
                });
            }
            Self::SlowBodies => {
                for _ in 0..10 {
                    let connection = webhook.raw_connect().await?;
                    for _ in 0..100 {
                        let (mut connection, count) = (connection.clone(), Arc::clone(&count));
                        tasks.spawn(async move {
                            let begun = stream::once(async {
                                Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![
                                    b' ';
                                    16 << 10
                                ])))
                            });
                            let body = StreamBody::new(begun.chain(stream::pending())).boxed_unsync();
                            let request = Request::post("https://localhost/mutate")
                                .header("content-type", "application/json")
                                .body(body);
                            if let Ok(request) = request {
                                count.fetch_add(1, Ordering::Relaxed);
                                let _ = connection.send_request(request).await;
                            }
                        });
                    }
                }
            }
            Self::LargeBodies => {
                let large = large();
                for _ in 0..4 {
                    let (connection, body, count) =
                        (webhook.connect().await?, large.clone(), Arc::clone(&count));
                    tasks.spawn(async move {
                        let mut connection = connection;
                        // Bounded: the bench ends it long before.
                        for _ in 0..10_000 {
                            let _ = client::call(&mut connection, &body).await;
                            count.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    });
                }
            }
            Self::Garbage => {
                let certificate = webhook.certificate();
                tasks.spawn(async move {
                    for number in 0..2_000_u32 {
                        if let Ok(mut tcp) = TcpStream::connect(address).await {
                            let _ = tcp.write_all(&number.to_le_bytes().repeat(400)).await;
                        }
                        if number % 10 == 0
                            && let Ok(mut connection) = client::connect(address, certificate.clone()).await
                        {
                            let body = Bytes::from(number.to_le_bytes().repeat(1000));
                            let _ = client::call(&mut connection, &body).await;
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            Self::Resets => {
                for _ in 0..4 {
                    let certificate = webhook.certificate();
                    let count = Arc::clone(&count);
                    tasks.spawn(async move {
                        for _ in 0..200 {
                            let Ok(mut connection) = client::connect(address, certificate.clone()).await
                            else {
                                continue;
                            };
                            for _ in 0..100 {
                                let request = Request::post("https://localhost/mutate")
                                    .header("content-type", "application/json")
                                    .header("content-length", "1000")
                                    .body(Full::new(Bytes::from_static(b"{}")));
                                let Ok(request) = request else { continue };
                                let answer = connection.send_request(request);
                                tokio::task::yield_now().await;
                                drop(answer); // RST_STREAM
                                count.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
            }
        }
        Ok(tasks)
    }
}

/// A pod of 3 MiB that has an identity.
fn large() -> Bytes {
    let mut review: serde_json::Value =
        serde_json::from_slice(&SIZES[0].review("bench-0", "account-00000")).expect("a review");
    let containers = &mut review["request"]["object"]["spec"]["containers"];
    let one = containers[0].clone();
    let size = one.to_string().len();
    let many = (0..(3 << 20) / size).map(|number| {
        let mut container = one.clone();
        container["name"] = serde_json::json!(format!("container-{number}"));
        container
    });
    *containers = many.collect();
    Bytes::from(review.to_string())
}

/// A connection whose bodies may be anything.
pub type RawConnection = hyper::client::conn::http2::SendRequest<
    http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>,
>;

/// As [`client::connect`], for bodies that are streams.
pub async fn raw(
    address: std::net::SocketAddr,
    certificate: rustls::pki_types::CertificateDer<'static>,
) -> Result<RawConnection> {
    let tls = client::handshake(address, certificate).await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
