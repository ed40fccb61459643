//! The stand-in as a process.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use aws_sim::server::{Authority, control, fetch_over_https, serve};
use aws_sim::{Settings, Sim};
use clap::{Args, Parser};
use tokio::net::TcpListener;

/// An AWS stand-in that refuses what AWS refuses.
#[derive(Debug, Parser)]
enum Command {
    /// Serve AWS's names.
    Serve(Flags),
    /// Knock at the control door of one that runs, and print what it answers.
    Call {
        /// HTTP method.
        method: String,
        /// Path, for example `/state`.
        path: String,
        /// Body.
        #[arg(default_value = "")]
        body: String,
        /// The door.
        #[arg(long, default_value = "127.0.0.1:8080")]
        control: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct Flags {
    /// Where AWS's host names are served over TLS.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Where the control door is served over plain HTTP.
    #[arg(long, default_value = "127.0.0.1:8080")]
    control: SocketAddr,
    /// Directory of `ca.crt` and `ca.key`, made if they are missing.
    #[arg(long)]
    ca_dir: PathBuf,
    /// The account.
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// The region.
    #[arg(long, default_value = "eu-central-1")]
    region: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Flags { listen, control: door, ca_dir, account, region } = match Command::parse() {
        Command::Serve(flags) => flags,
        Command::Call { method, path, body, control } => {
            print!("{}", aws_sim::server::call(control, &method, &path, body).await?);
            return Ok(());
        }
    };
    let authority =
        Authority::in_directory(&ca_dir).with_context(|| format!("no CA in {}", ca_dir.display()))?;
    let sim = Sim::new(Settings { account, region });
    fetch_over_https(&sim, &authority)?;
    let bind = async |address| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let (tls, console) = (bind(listen).await?, bind(door).await?);
    println!("serving AWS on {listen}, control on {door}");
    tokio::select! {
        ended = serve(sim.clone(), tls, authority) => ended,
        ended = control(sim, console) => ended,
    }
}
