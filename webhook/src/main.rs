//! The webhook's process.

use std::process::ExitCode;

use clap::Parser;
use webhook::cli::Args;

// One thread: it answers tens of thousands of reviews a second, and what the process takes does not grow with the node's
// cores (a worker's stack and malloc's arenas for each of them).
#[tokio::main(flavor = "local")]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.log_format.install();
    // First of all: two libraries would otherwise each look for a provider of their own.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a rustls provider was installed already");
    }
    match webhook::run::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the webhook cannot go on");
            ExitCode::FAILURE
        }
    }
}
