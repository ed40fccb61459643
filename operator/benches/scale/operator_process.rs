//! The operator as it is released, in a process of its own.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args as _, CommandFactory};
use crds::names::{OPERATOR_SERVICE_ACCOUNT, operator_role_arn};
use operator::cli::Cli;
use operator::timings::Timings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::aws::Aws;
use crate::common::{PROGRESS, cpu_seconds, memory_kib, reconciles};

/// It is quiet once no binding was reconciled for so long.
const QUIET: Duration = Duration::from_secs(3);
/// How often its metrics are read meanwhile.
const SAMPLE: Duration = Duration::from_millis(100);
const MEGABYTE: f64 = 1e6;

/// A running operator. Dropping it kills it.
pub struct RunningOperator {
    child: Child,
    process: String,
    health: u16,
}

/// What a process uses.
#[derive(Clone, Copy)]
pub struct Memory {
    pub settled_mb: f64,
    pub peak_mb: f64,
}

/// `operator` with that subcommand, at that cluster and that AWS.
pub fn command(subcommand: &str, kubeconfig: &Path, aws: &Aws) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
    command
        .arg(subcommand)
        .arg("--extra-ca")
        .arg(&aws.ca)
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .env("HTTPS_PROXY", format!("http://{}", aws.proxy))
        .env("AWS_REGION", &aws.sim.settings().region)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(std::env::var("RUST_LOG").ok().map(|filter| ("RUST_LOG", filter)))
        .kill_on_drop(true);
    command
}

/// The flags of its own limit of calls to AWS, if it has one.
pub fn rate_flags(per_second: u32, burst: u32) -> Vec<String> {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").into_iter().flat_map(clap::Command::get_arguments);
    let longs: Vec<&str> = run.filter_map(clap::Arg::get_long).collect();
    let values = [("aws-rate", per_second), ("aws-burst", burst)];
    let known = values.iter().filter(|(flag, _)| longs.contains(flag));
    known.map(|(flag, value)| format!("--{flag}={value}")).collect()
}

/// The flags of a limit that is never reached.
pub fn no_limit() -> Vec<String> {
    rate_flags(1_000_000, 1_000_000)
}

/// The flags of every wait and period divided by one factor. Limits of single requests, the lease and certificates keep theirs:
/// they are no part of what is measured.
pub fn compressed(factor: u32) -> Vec<String> {
    let kept = |flag: &str| {
        ["-timeout", "-life"].iter().any(|end| flag.ends_with(end))
            || flag.starts_with("lease-")
            || ["shutdown-grace", "certificate-check"].contains(&flag)
    };
    let timings = Timings::augment_args(clap::Command::new("operator"));
    let flag = |argument: &clap::Arg| {
        let long = argument.get_long().filter(|long| !kept(long))?;
        let default = argument.get_default_values().first()?.to_str()?;
        let period = humantime::parse_duration(default).ok()? / factor;
        Some(format!("--{long}={}", humantime::format_duration(period)))
    };
    timings.get_arguments().filter_map(flag).collect()
}

impl RunningOperator {
    /// Starts it with the token of its own `ServiceAccount`.
    pub async fn start(kubeconfig: &Path, aws: &Aws, token: &Path, flags: &[String]) -> Result<Self> {
        // Free a moment ago; the operator binds it at once.
        let health = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let role = operator_role_arn("aws", &aws.sim.settings().account, crate::CLUSTER);
        let logs = || if std::env::var_os("RUST_LOG").is_some() { Stdio::inherit() } else { Stdio::null() };
        let child = command("run", kubeconfig, aws)
            .arg(format!("--health-address=127.0.0.1:{health}"))
            .arg(format!("--identity={OPERATOR_SERVICE_ACCOUNT}"))
            .args(flags)
            .env("AWS_ROLE_ARN", role)
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", token)
            .stdout(logs())
            .stderr(logs())
            .spawn()?;
        let process = child.id().context("it has ended")?.to_string();
        let mut operator = Self { child, process, health };
        let begun = Instant::now();
        while operator.metrics().await.is_err() {
            operator.check()?;
            ensure!(begun.elapsed() < Duration::from_mins(1), "the operator's health port does not answer");
            tokio::time::sleep(SAMPLE).await;
        }
        Ok(operator)
    }

    /// As SIGTERM: it gives the lease back.
    pub async fn stop(mut self) -> Result<()> {
        let sent = Command::new("kill").args(["-TERM", &self.process]).status().await?;
        ensure!(sent.success(), "kill: {sent}");
        let ended = self.child.wait().await?;
        ensure!(ended.success(), "the operator ended with {ended}");
        Ok(())
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the operator ended with {ended:?}; RUST_LOG=info shows its log");
        Ok(())
    }

    /// Waits until it has reconciled so many times, and none for a while. Returns how long the reconciles took.
    pub async fn until_quiet(&mut self, at_least: u64) -> Result<Duration> {
        let begun = Instant::now();
        let (mut last, mut changed, mut reported) = (0, begun, begun);
        loop {
            let count = reconciles(&self.metrics().await?);
            if count != last {
                (last, changed) = (count, Instant::now());
            } else if count >= at_least && changed.elapsed() >= QUIET {
                return Ok(changed.duration_since(begun));
            }
            if reported.elapsed() >= PROGRESS {
                reported = Instant::now();
                eprintln!("  {count} reconciles after {:.0?}", begun.elapsed());
            }
            self.check()?;
            tokio::time::sleep(SAMPLE).await;
        }
    }

    /// CPU time until now, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(&self.process)
    }

    /// What it uses now, and at most until now.
    pub fn memory(&self) -> Result<Memory> {
        let megabytes = |field| anyhow::Ok(memory_kib(&self.process, field)? * 1024.0 / MEGABYTE);
        Ok(Memory { settled_mb: megabytes("VmRSS")?, peak_mb: megabytes("VmHWM")? })
    }

    /// The text of its metrics.
    async fn metrics(&self) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.health)).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP response")?;
        ensure!(head.contains(" 200 "), "{head}");
        Ok(body.to_owned())
    }
}
