//! What the webhook costs: CPU per request, requests a second, latency, memory and time to the first answer, over TLS and
//! HTTP/2 against a real API server. The webhook is pinned to one core and the caller to another.
//!
//! `cargo bench -p webhook --bench load` prints both tables; `-- requests` or `-- memory` one of them. On a machine with other
//! work the figures mean little.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people, rounded when they are printed"
)]

mod bodies;
mod client;
mod process;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::Value;

use crate::bodies::{SIZES, Size};
use crate::process::{Webhook, accounts};

/// Time for each measurement; half of it again to warm up.
const TIME: Duration = Duration::from_secs(4);
const IN_FLIGHT: usize = 8;

fn main() -> Result<()> {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |what: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == what);
    process::pin_caller()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if wants("requests") {
            requests().await?;
        }
        if wants("memory") {
            memory().await?;
        }
        Ok(())
    })
}

async fn requests() -> Result<()> {
    let server = process::control_plane().await?;
    accounts(&server, 0..10_000).await?;
    let webhook = Webhook::start(&server)?;
    webhook.until_ready().await?;
    println!("\nRequests: 10,000 ServiceAccounts, one HTTP/2 connection, {IN_FLIGHT} in flight");
    println!(
        "{:<8} {:<12} {:>8} {:>9} {:>10} {:>12} {:>9} {:>8} {:>8}",
        "body", "case", "bytes", "CPU µs", "reference", "share", "req/s", "p50 ms", "p99 ms"
    );
    for size in SIZES {
        for (case, account) in
            [("mutated", "account-00000"), ("no identity", "account-00001"), ("unknown", "never-made")]
        {
            measure(&webhook, &size, case, account).await?;
        }
    }
    Ok(())
}

async fn measure(webhook: &Webhook, size: &Size, case: &str, account: &str) -> Result<()> {
    let body = Bytes::from(size.review("bench-0", account));
    let mut connection = webhook.connect().await?;
    let answer: Value = serde_json::from_slice(&client::call(&mut connection, &body).await?)?;
    let patched = answer["response"]["patch"].as_str();
    ensure!(patched.is_some() == (case == "mutated"), "{case}: {answer}");
    if let Some(patch) = patched {
        let patch: Value = serde_json::from_slice(&BASE64_STANDARD.decode(patch)?)?;
        ensure!(patch.to_string().contains("AWS_ROLE_ARN"), "{patch}");
    }

    client::closed_loop(&connection, &body, IN_FLIGHT, TIME / 2).await?;
    let (begun, cpu) = (Instant::now(), webhook.cpu()?);
    let count = client::closed_loop(&connection, &body, IN_FLIGHT, TIME).await?;
    let (took, cpu) = (begun.elapsed(), webhook.cpu()?.saturating_sub(cpu));
    let each = cpu.as_secs_f64() * 1e6 / count as f64;
    let latency = client::open_loop(&connection, &body, size.rate, TIME).await?;
    let at = |share: f64| latency[((latency.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let compared = match case {
        "mutated" => Some((size.reference[0], size.aims[0])),
        "no identity" => Some((size.reference[1], size.aims[1])),
        _ => None,
    };
    let (reference, share) = compared.map_or((String::new(), String::new()), |(reference, aim)| {
        (format!("{reference:.0}"), format!("1/{:.1} (1/{aim:.0})", reference / each))
    });
    println!(
        "{:<8} {:<12} {:>8} {:>9.1} {:>10} {:>12} {:>9.0} {:>8.2} {:>8.2}",
        size.name,
        case,
        body.len(),
        each,
        reference,
        share,
        count as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99)
    );
    Ok(())
}

async fn memory() -> Result<()> {
    println!("\nMemory: a fifth of the ServiceAccounts annotated, 1 kB of JSON each");
    println!(
        "{:>16} {:>10} {:>10} {:>26}",
        "ServiceAccounts", "RSS MB", "peak MB", "exec to first mutation s"
    );
    let server = process::control_plane().await?;
    let mut made = 0;
    for count in [0, 10_000, 100_000] {
        accounts(&server, made..count).await?;
        made = count;
        let webhook = Webhook::start(&server)?;
        // An annotated account of the last namespace, so that the answer needs the whole list, or a live look.
        let last = count.saturating_sub(1) / 5 * 5;
        let first = match count {
            0 => None,
            _ => Some(webhook.first_mutation(&process::namespace(last), &process::name(last)).await?),
        };
        webhook.until_ready().await?;
        let (now, peak) = webhook.memory()?;
        let first = first.map_or_else(|| "-".into(), |first| format!("{:.2}", first.as_secs_f64()));
        println!("{count:>16} {:>10.1} {:>10.1} {first:>26}", now as f64 / 1e6, peak as f64 / 1e6);
    }
    Ok(())
}
