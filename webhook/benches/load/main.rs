//! What the webhook costs: CPU per request, requests a second, latency, what it adds to the creation of a pod, what hostile
//! clients can do, memory and time to the first answer; over TLS, with a real API server behind it. The webhook is pinned to
//! one core and the caller to another.
//!
//! `cargo bench -p webhook --bench load` prints all tables; `-- requests`, `-- creation`, `-- hostile` or `-- memory` one of
//! them, and names of a protocol, body or case only those rows. On a machine with other work the figures mean little.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people, rounded when they are printed"
)]

mod bodies;
mod client;
mod constant;
mod creation;
mod hostile;
mod process;
mod table;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cluster::ControlPlane;
use serde_json::Value;

use crate::bodies::{SIZES, Size};
use crate::client::Protocol;
use crate::process::{Webhook, accounts};
use crate::table::{median, megabytes, milliseconds, quantile};

/// Time for each measurement; half of it again to warm up.
const TIME: Duration = Duration::from_secs(4);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, certificate, key, answer] = &arguments[..]
        && mode == constant::ARGUMENT
    {
        return constant::serve([certificate, key, answer].map(Path::new));
    }
    let wanted = Wanted(arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect());
    process::pin_caller()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tables = ["requests", "creation", "hostile", "memory"];
        let [requested, creation, hostile, memory] = tables.map(|table| wanted.among(&tables, table));
        if requested || creation || hostile {
            let server = process::control_plane().await?;
            accounts(&server, 0..10_000).await?;
            if requested {
                requests(&server, &wanted).await?;
            }
            if creation {
                creation::table(&server).await?;
            }
            if hostile {
                hostile::table(&server).await?;
            }
        }
        if memory {
            footprint(&wanted).await?;
        }
        Ok(())
    })
}

/// What the command line names.
struct Wanted(Vec<String>);

impl Wanted {
    /// Whether `one` of `all` is wanted: it is named, or none of them is.
    fn among(&self, all: &[&str], one: &str) -> bool {
        self.names(one) || !all.iter().any(|other| self.names(other))
    }

    fn names(&self, what: &str) -> bool {
        self.0.iter().any(|wanted| wanted == what)
    }
}

async fn requests(server: &ControlPlane, wanted: &Wanted) -> Result<()> {
    let webhook = Webhook::start(server)?;
    webhook.until_ready().await?;
    let answer = webhook.answer(&Bytes::from(SIZES[0].review("bench-0", CASES[0].1))).await?;
    let constant = Webhook::with_constant_answer(&answer)?;
    // A process's first seconds under load cost more than all that come after; without this they were the first row's.
    let [(_, annotated), ..] = CASES;
    let connections = webhook.connect(Protocol::Http2, Protocol::Http2.in_flight()).await?;
    client::closed_loop(connections, &Bytes::from(SIZES[0].review("bench-0", annotated)), 2 * TIME).await?;
    println!(
        "\nRequests: 10,000 ServiceAccounts. Limit: the same listener that gives always the same answer"
    );
    println!(
        "{:<13} {:<7} {:<12} {:>8} {:>8} {:>8} {:>10} {:>13} {:>9} {:>8} {:>8}",
        "in flight",
        "body",
        "case",
        "bytes",
        "CPU µs",
        "× limit",
        "reference",
        "share",
        "req/s",
        "p50 ms",
        "p99 ms"
    );
    for protocol in Protocol::ALL {
        for size in SIZES {
            if !wanted.among(&Protocol::ALL.map(Protocol::name), protocol.name())
                || !wanted.among(&SIZES.map(|size| size.name), size.name)
            {
                continue;
            }
            let limit = measure(&constant, protocol, &size, LIMIT, None).await?;
            for case in CASES {
                if wanted.among(&CASES.map(|(case, _)| case), case.0) {
                    measure(&webhook, protocol, &size, case, Some(limit)).await?;
                }
            }
        }
    }
    Ok(())
}

/// What becomes of a review, and the `ServiceAccount` it is about.
const CASES: [(&str, &str); 3] =
    [("mutated", "account-00000"), ("no identity", "account-00001"), ("unknown", "never-made")];

/// What the constant answer is about.
const LIMIT: (&str, &str) = ("limit", CASES[0].1);

/// Measures one row and prints it; the CPU time of a request in microseconds.
async fn measure(
    webhook: &Webhook,
    protocol: Protocol,
    size: &Size,
    (case, account): (&str, &str),
    limit: Option<f64>,
) -> Result<f64> {
    let body = Bytes::from(size.review("bench-0", account));
    let answer = webhook.review(&body).await?;
    let patched = answer["response"]["patch"].as_str();
    ensure!(patched.is_some() == ["mutated", LIMIT.0].contains(&case), "{case}: {answer}");
    if let Some(patch) = patched {
        let patch: Value = serde_json::from_slice(&BASE64_STANDARD.decode(patch)?)?;
        ensure!(patch.to_string().contains("AWS_ROLE_ARN"), "{patch}");
    }

    let (name, in_flight) = (protocol.name(), protocol.in_flight());
    let connect = || webhook.connect(protocol, in_flight);
    client::closed_loop(connect().await?, &body, TIME / 2).await?;
    let connections = connect().await?;
    let (begun, cpu) = (Instant::now(), webhook.cpu()?);
    let count = client::closed_loop(connections, &body, TIME).await?;
    let (took, cpu) = (begun.elapsed(), webhook.cpu()?.saturating_sub(cpu));
    let each = cpu.as_secs_f64() * 1e6 / count as f64;
    let latency = client::open_loop(connect().await?, &body, size.rate, TIME).await?;
    let compared = match (protocol, case) {
        (Protocol::Http2, "mutated") => Some((size.reference.mutated, size.aims.mutated)),
        (Protocol::Http2, "no identity") => Some((size.reference.no_identity, size.aims.no_identity)),
        (Protocol::Http1, "mutated") => Some((size.reference.mutated_http1, size.aims.mutated)),
        _ => None,
    };
    let (reference, share) = compared.map_or((String::new(), String::new()), |(reference, aim)| {
        (format!("{reference:.0}"), format!("1/{:.1} (1/{aim:.0})", reference / each))
    });
    println!(
        "{:<13} {:<7} {:<12} {:>8} {:>8.1} {:>8} {:>10} {:>13} {:>9.0} {:>8} {:>8}",
        format!("{name} × {in_flight}"),
        size.name,
        case,
        body.len(),
        each,
        limit.map_or(String::new(), |limit| format!("{:.2}", each / limit)),
        reference,
        share,
        count as f64 / took.as_secs_f64(),
        milliseconds(quantile(&latency, 0.5)),
        milliseconds(quantile(&latency, 0.99)),
    );
    Ok(each)
}

async fn footprint(wanted: &Wanted) -> Result<()> {
    println!(
        "\nMemory: a fifth of the ServiceAccounts annotated, 1 kB of JSON each; medians of {STARTS} starts"
    );
    println!(
        "{:>16} {:>10} {:>10} {:>26} {:>16}",
        "ServiceAccounts", "RSS MB", "peak MB", "exec to first mutation s", "exec to ready s"
    );
    let server = process::control_plane().await?;
    let mut made = 0;
    let counts = [0, 10_000, 100_000].map(|count| (count, count.to_string()));
    let names = counts.each_ref().map(|(_, name)| name.as_str());
    for (count, name) in &counts {
        if !wanted.among(&names, name) {
            continue;
        }
        accounts(&server, made..*count).await?;
        made = *count;
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            starts.push(start(&server, *count).await?);
        }
        let first = match count {
            0 => "-".to_owned(),
            _ => format!("{:.2}", median(&starts, |start| start.first_mutation).as_secs_f64()),
        };
        println!(
            "{count:>16} {:>10} {:>10} {first:>26} {:>16.2}",
            megabytes(median(&starts, |start| start.resident), 1_000_000),
            megabytes(median(&starts, |start| start.peak), 1_000_000),
            median(&starts, |start| start.ready).as_secs_f64(),
        );
    }
    Ok(())
}

/// How often the webhook is started for each row.
const STARTS: usize = 3;

/// What one start took: times since exec, and bytes.
struct Start {
    first_mutation: Duration,
    ready: Duration,
    resident: u64,
    peak: u64,
}

async fn start(server: &ControlPlane, count: usize) -> Result<Start> {
    let webhook = Webhook::start(server)?;
    // An annotated account of the last namespace, so that the answer needs the complete list, or a live lookup.
    let last = count.saturating_sub(1) / 5 * 5;
    let first_mutation = match count {
        0 => Duration::ZERO,
        _ => webhook.first_mutation(&process::namespace(last), &process::name(last)).await?,
    };
    webhook.until_ready().await?;
    let ready = webhook.age();
    let (resident, peak) = webhook.memory()?;
    Ok(Start { first_mutation, ready, resident, peak })
}
