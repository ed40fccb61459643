//! The simulator as a process.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use aws_sim::server::{fetch_over_https, serve};
use aws_sim::{Authority, Settings, Sim, control};
use clap::{Args, Parser};
use tokio::net::TcpListener;

/// A simulator of AWS that refuses what AWS refuses.
#[derive(Debug, Parser)]
enum Command {
    /// Serve AWS's host names.
    Serve(Flags),
    /// Send a request to the control API of a running simulator, and print the response.
    Call {
        /// HTTP method.
        method: String,
        /// Path, for example `/state`.
        path: String,
        /// Body.
        #[arg(default_value = "")]
        body: String,
        /// Address of the control API.
        #[arg(long, default_value = "127.0.0.1:8080")]
        control: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct Flags {
    /// Address at which AWS's host names are served over TLS.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Address at which the control API is served over plain HTTP.
    #[arg(long = "control", default_value = "127.0.0.1:8080")]
    control_address: SocketAddr,
    /// Directory of `ca.crt` and `ca.key`, which are generated if they are missing.
    #[arg(long)]
    ca_dir: PathBuf,
    /// The account's id.
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// The region.
    #[arg(long, default_value = "eu-central-1")]
    region: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Flags { listen, control_address, ca_dir, account, region } = match Command::parse() {
        Command::Serve(flags) => flags,
        Command::Call { method, path, body, control } => {
            print!("{}", control::call(control, &method, &path, body).await?);
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
    let (tls, plain) = (bind(listen).await?, bind(control_address).await?);
    println!("serving AWS on {listen}, control API on {control_address}");
    tokio::select! {
        ended = serve(sim.clone(), tls, authority) => ended,
        ended = control::serve(sim, plain) => ended,
    }
}
