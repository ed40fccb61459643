//! `cargo demo`: the main job on one machine.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use cluster::{Node, preflight};
use e2e::binaries::Binaries;
use e2e::lab::Lab;
use e2e::story;
use e2e::terminal::{Terminal, progress};

/// From nothing to a pod with AWS credentials: a real Kubernetes, a simulated AWS that verifies, no Docker, no AWS account.
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Use our programs as they were last built.
    #[arg(long)]
    no_build: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Leave it running after the workload has its credentials.
    Up,
    /// Run a command inside: KUBECONFIG, AWS keys and CA of the administrator are set.
    Exec {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Remove every trace of what `up` left running.
    Down,
}

/// The folder of the one running demo, which `exec` and `down` find. A second demo runs beside it under another `TMPDIR`.
fn state() -> PathBuf {
    std::env::temp_dir().join("podidentity-demo")
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let Cli { command, no_build } = Cli::parse();
    match command {
        Some(Command::Exec { command }) => exec(&command).await,
        Some(Command::Down) => {
            Node::remove(&state()).await?;
            println!("nothing is left running");
            Ok(())
        }
        command => {
            let up = command.is_some();
            // Dropping the future ends everything that it has started.
            tokio::select! {
                ended = demo(up, no_build) => ended,
                _ = tokio::signal::ctrl_c() => anyhow::bail!("stopped; nothing is left running"),
            }
        }
    }
}

async fn demo(up: bool, no_build: bool) -> anyhow::Result<()> {
    let mut terminal = Terminal::default();
    preflight()?;
    if state().exists() {
        anyhow::bail!(
            "a demo is running: play with it by `cargo demo -- exec -- CMD`, end it by `cargo demo -- down`"
        );
    }
    terminal.step("Build our programs, and Kubernetes from its Go modules (kept for the next run)");
    let binaries = if no_build { Binaries::built()? } else { Binaries::build()? };
    cluster::Tools::node(&progress)?;
    terminal.done();

    terminal.step("Start a one-node Kubernetes and an AWS that verifies, in private namespaces");
    let lab = Lab::start(state(), binaries, &progress).await?;
    terminal.shown(&lab.kubectl(&["get", "nodes", "-o", "wide"]).await?);
    terminal.done();

    let flags = story::bootstrap(&lab, &mut terminal).await?;
    story::switch_issuer(&lab, &flags, &mut terminal).await?;
    story::install(&lab, &[], &mut terminal).await?;
    story::apply(&lab, &mut terminal).await?;
    story::workloads(&lab, &mut terminal).await?;
    story::look(&lab, &mut terminal).await?;
    if up {
        lab.node.detach()?;
        terminal.end(
            "It is running. Try: cargo demo -- exec -- kubectl get pods -A    End it: cargo demo -- down",
        );
        return Ok(());
    }
    story::leave(&lab, &mut terminal).await?;
    lab.node.stop().await?;
    terminal.end("From nothing to a pod with AWS credentials, and back to nothing.");
    Ok(())
}

async fn exec(command: &[String]) -> anyhow::Result<()> {
    let lab = Lab::attach(&state()).context("no demo is running: start one with `cargo demo -- up`")?;
    let mut inside = lab.administrator(&command[0]).await?;
    inside.args(&command[1..]);
    Err(inside.exec().into())
}
