//! Hostile clients, as any pod of the cluster could be, while the API server's reviews continue: the webhook's memory, and the
//! latency of reviews. Each attack has a webhook of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use cluster::ControlPlane;
use futures::future::{pending, try_join_all};
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bodies::{SIZES, Size};
use crate::client::{self, Protocol, Target};
use crate::process::Webhook;
use crate::table::{megabytes, milliseconds, quantile};

const TIME: Duration = Duration::from_secs(12);
/// Reviews a second during an attack.
const RATE: u32 = 200;
const IDLE: usize = 10_000;

#[derive(Debug, Clone, Copy)]
enum Attack {
    None,
    Idle,
    SlowBodies,
    LongBodies,
    Garbage,
    Resets,
}

impl Attack {
    const ALL: [Self; 6] =
        [Self::None, Self::Idle, Self::SlowBodies, Self::LongBodies, Self::Garbage, Self::Resets];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "(none)",
            Self::Idle => "10,000 idle connections",
            Self::SlowBodies => "1,000 slow bodies",
            Self::LongBodies => "8 × 3 MiB bodies, continuously",
            Self::Garbage => "garbage for TLS, HTTP and JSON",
            Self::Resets => "HTTP/2 requests reset at once",
        }
    }

    /// Runs until it is dropped. `done` counts connections or requests.
    async fn run(self, target: &Target, done: &AtomicUsize) -> Result<()> {
        match self {
            Self::None => pending().await,
            Self::Idle => {
                try_join_all((0..50).map(|_| idle(target, IDLE / 50, done))).await?;
            }
            Self::SlowBodies => {
                try_join_all((0..1000).map(|_| slow_bodies(target, done))).await?;
            }
            Self::LongBodies => {
                let size = Size { containers: 12, variables: 1565, ..SIZES[2] };
                let body = Bytes::from(size.review("bench-0", "account-00000"));
                try_join_all((0..8).map(|_| long_bodies(target, &body, done))).await?;
            }
            Self::Garbage => {
                try_join_all((0..16).map(|number| garbage(target, number, done))).await?;
            }
            Self::Resets => {
                try_join_all((0..4).map(|_| resets(target, done))).await?;
            }
        }
        Ok(())
    }
}

/// Runs all of them, one after the other.
pub async fn table(server: &ControlPlane) -> Result<()> {
    println!("\nHostile clients, for {TIME:?} each, with {RATE} regular reviews a second over HTTP/1.1 × 16");
    println!(
        "{:<32} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "attack", "times", "peak MiB", "reviews", "p50 ms", "p99 ms", "max ms"
    );
    let body = Bytes::from(SIZES[0].review("bench-0", "account-00000"));
    for attack in Attack::ALL {
        let webhook = Webhook::start(server)?;
        webhook.until_ready().await?;
        let connections = webhook.connect(Protocol::Http1, Protocol::Http1.in_flight()).await?;
        let done = Arc::new(AtomicUsize::new(0));
        let attacker = {
            let (target, done) = (webhook.target(), Arc::clone(&done));
            move || -> Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let attack = async { tokio::time::timeout(TIME, attack.run(&target, &done)).await };
                runtime.block_on(attack).map_or(Ok(()), |ended| ended.context("the attack ended by itself"))
            }
        };
        // A thread of its own: what is slow here must be the webhook.
        let attacker = std::thread::spawn(attacker);
        let latency = client::open_loop(connections, &body, RATE, TIME).await?;
        attacker.join().map_err(|_| anyhow::anyhow!("the attacker panicked"))??;
        let (_, peak) = webhook.memory()?;
        println!(
            "{:<32} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
            attack.name(),
            done.load(Ordering::Relaxed),
            megabytes(peak, 1 << 20),
            latency.len(),
            milliseconds(quantile(&latency, 0.5)),
            milliseconds(quantile(&latency, 0.99)),
            milliseconds(quantile(&latency, 1.0)),
        );
    }
    Ok(())
}

/// Opens connections, TLS and all, and keeps them.
async fn idle(target: &Target, count: usize, done: &AtomicUsize) -> Result<()> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        // The webhook may evict it.
        held.extend(target.handshake(Protocol::Http1).await.ok());
        done.fetch_add(1, Ordering::Relaxed);
    }
    pending().await
}

/// Announces 3 MiB, sends 64 KiB of it and then a byte a second.
async fn slow_bodies(target: &Target, done: &AtomicUsize) -> Result<()> {
    let head = format!(
        "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        3 << 20
    );
    loop {
        let Ok(mut stream) = target.handshake(Protocol::Http1).await else { continue };
        done.fetch_add(1, Ordering::Relaxed);
        let mut piece = [head.as_bytes(), &vec![b' '; 64 << 10]].concat();
        while stream.write_all(&piece).await.is_ok() && stream.flush().await.is_ok() {
            piece = vec![b' '];
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Sends reviews as long as the API server's longest, one after the other.
async fn long_bodies(target: &Target, body: &Bytes, done: &AtomicUsize) -> Result<()> {
    loop {
        let Ok(mut connections) = target.connect(Protocol::Http1, 1).await else { continue };
        let connection = connections.first_mut().context("no connection")?;
        while client::call(connection, body).await.is_ok() {
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends what is no TLS, no HTTP and no JSON, in turn, and reads whatever comes back.
async fn garbage(target: &Target, number: usize, done: &AtomicUsize) -> Result<()> {
    let noise: Vec<u8> =
        (0..64 << 10).map(|at: usize| (at.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()[0]).collect();
    let head = format!(
        "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        noise.len()
    );
    let mut answer = vec![0; 4 << 10];
    for round in number.. {
        done.fetch_add(1, Ordering::Relaxed);
        let noise = &noise[round % 1000..];
        // The webhook may close it before all of it is sent.
        if round % 3 == 0 {
            let mut stream = TcpStream::connect(target.address).await?;
            let _ = stream.write_all(noise).await;
            let _ = stream.read(&mut answer).await;
        } else if let Ok(mut stream) = target.handshake(Protocol::ALL[round % 2]).await {
            if round % 3 == 1 {
                let _ = stream.write_all(head.as_bytes()).await;
            }
            let _ = stream.write_all(noise).await;
            let _ = stream.flush().await;
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
        }
    }
    Ok(())
}

/// Begins requests and takes them back at once ("rapid reset", CVE-2023-44487).
async fn resets(target: &Target, done: &AtomicUsize) -> Result<()> {
    loop {
        let Ok(mut connections) = target.connect(Protocol::Http2, 1).await else { continue };
        let Some(client::Connection::Http2(connection)) = connections.first_mut() else { continue };
        while connection.ready().await.is_ok() {
            let request = Request::post("https://localhost/mutate")
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from_static(b"{}")))?;
            let mut response = Box::pin(connection.send_request(request));
            // Asked once, so that it is on its way; then dropped.
            let _ = futures::poll!(&mut response);
            tokio::task::yield_now().await;
            drop(response);
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}
