//! What the operator costs in time, calls and memory with many bindings: the released program in a process of its own, with a
//! real API server, and simulated AWS in the bench's process, which the operator reaches under AWS's names over TLS.
//!
//! `cargo bench -p operator --bench scale` measures all; `-- --only NAME` one measurement, `--bindings N` with another number.
//! API server, etcd and simulated AWS share the machine with the operator.

mod aws;
#[path = "../common/mod.rs"]
mod common;
mod measurements;
mod operator_process;
mod pods;
mod setup;
mod table;
mod watched;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

/// The name of the cluster.
const CLUSTER: &str = "homelab";

#[derive(Parser)]
struct Arguments {
    /// Bindings. Where several numbers are measured: five times and ten times as many, too.
    #[arg(long, default_value_t = 1_000)]
    bindings: usize,
    /// Managed policies of each.
    #[arg(long, default_value_t = 1)]
    managed: usize,
    /// Inline policies of each.
    #[arg(long, default_value_t = 0)]
    inline: usize,
    /// Only these measurements.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<Measurement>,
    /// Throttled: calls a second that IAM answers.
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// Throttled: calls at once that it answers after a pause, and the operator makes.
    #[arg(long, default_value_t = 20)]
    burst: u32,
    /// Steady: every period is divided by this.
    #[arg(long, default_value_t = 120)]
    factor: u32,
    /// Steady: hours, of the divided periods.
    #[arg(long, default_value_t = 6)]
    hours: u32,
    /// Restart: seconds that are looked at.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Latency: bindings that are applied one after the other.
    #[arg(long, default_value_t = 200)]
    samples: usize,
    /// Pods: of each kind, for every binding.
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// What cargo says.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// All bindings at once, with IAM held to a rate.
    Throttled,
    /// All bindings at once, without a limit; then five times as many.
    Burst,
    /// Calls an hour while nothing changes, with time compressed.
    Steady,
    /// A restart of the operator with everything Ready.
    Restart,
    /// From apply to Ready of one binding at a time.
    Latency,
    /// Memory with no bindings, with some, five times and ten times as many.
    Memory,
    /// Memory with pods: of other `ServiceAccount`s, with their identity, and without.
    Pods,
    /// All bindings deleted at once.
    Deletion,
}

#[tokio::main]
async fn main() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    ensure!(arguments.bindings > 0 && arguments.factor > 0 && arguments.samples > 0, "numbers must not be 0");
    ensure!(arguments.managed <= 10, "a role has at most 10 managed policies");
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for measurement in Measurement::value_variants() {
        if arguments.only.is_empty() || arguments.only.contains(measurement) {
            eprintln!("\n{measurement:?}");
            match measurements::measure(*measurement, &arguments).await {
                Ok(measured) => rows.extend(measured),
                Err(error) => failures.push(format!("{measurement:?}: {error:#}")),
            }
        }
    }
    table::print(&rows);
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}
