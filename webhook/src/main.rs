//! The webhook's executable.

use std::process::ExitCode;

use clap::Parser;
use webhook::cli::Args;

// One thread: it answers tens of thousands of reviews a second, and memory does not grow with the number of the node's cores
// (each worker has a stack and arenas of malloc).
#[tokio::main(flavor = "local")]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.log_format.install();
    // Before everything else: two libraries would otherwise each choose a provider of their own.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a rustls provider was installed already");
    }
    match webhook::run::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the webhook failed");
            ExitCode::FAILURE
        }
    }
}
