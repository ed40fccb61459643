//! Simulated AWS in the bench's process, under AWS's own names for the operator's: a proxy that every CONNECT leads to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use aws_sim::server::serve;
use aws_sim::{Authority, Call, Settings, Sim};
use crds::names::canary_role_name;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// An AWS account.
pub struct Aws {
    pub sim: Sim,
    /// The certificate that the operator trusts in addition.
    pub ca: PathBuf,
    /// The proxy.
    pub proxy: SocketAddr,
}

impl Aws {
    /// An empty account with so many managed policies.
    pub async fn start(folder: &Path, policies: usize) -> Result<Self> {
        let sim = Sim::new(Settings::default());
        sim.behave(|behaviour| behaviour.role_quota = usize::MAX);
        let read = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"},
        ]});
        for number in 0..policies {
            sim.put_managed_policy(&format!("scale-{number}"), read.clone());
        }
        let authority = Authority::in_directory(folder)?;
        let (tls, proxy) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (to, address) = (tls.local_addr()?, proxy.local_addr()?);
        tokio::spawn(serve(sim.clone(), tls, authority));
        tokio::spawn(async move {
            while let Ok((stream, _)) = proxy.accept().await {
                tokio::spawn(connect(stream, to));
            }
        });
        Ok(Self { sim, ca: folder.join("ca.crt"), proxy: address })
    }

    /// The calls since then, by the clock of [`Sim::elapsed`].
    pub fn since(&self, begun: Duration) -> Calls {
        Calls(self.sim.calls().into_iter().filter(|call| call.at >= begun).collect())
    }

    /// Roles of bindings.
    pub fn roles(&self) -> usize {
        self.sim.state().roles.values().filter(|role| role.path.starts_with("/podidentity/")).count()
    }
}

/// Answers a CONNECT, whatever host it names, and passes everything on.
async fn connect(stream: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

/// Calls to AWS.
pub struct Calls(Vec<Call>);

impl Calls {
    /// Calls to IAM that it answered.
    pub fn iam(&self) -> usize {
        self.count(|call| call.service == "iam" && !is_throttled(call))
    }

    /// Those of them that are about the role of a binding.
    pub fn of_bindings(&self) -> usize {
        let roles = format!(":role/podidentity/{0}/{0}.", crate::CLUSTER);
        self.count(|call| call.service == "iam" && call.resource.contains(&roles) && !is_throttled(call))
    }

    /// Calls to IAM that it throttled.
    pub fn throttled(&self) -> usize {
        self.count(is_throttled)
    }

    /// Calls to any service that are to change something. The attempt to write as a pod could is none: AWS refuses it.
    pub fn writes(&self) -> usize {
        let canary = format!("assumed-role/{}/", canary_role_name(crate::CLUSTER));
        self.count(|call| call.write && !(call.denied && call.principal.contains(&canary)))
    }

    /// Calls to IAM that read, by when they were answered.
    pub fn reads(&self) -> Vec<Duration> {
        let read = |call: &&Call| call.service == "iam" && !call.write;
        self.0.iter().filter(read).map(|call| call.at).collect()
    }

    /// Calls to the other services, whatever they do.
    pub fn others(&self) -> usize {
        self.count(|call| call.service != "iam")
    }

    fn count(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        self.0.iter().filter(|call| wanted(call)).count()
    }
}

fn is_throttled(call: &Call) -> bool {
    call.code.as_deref() == Some("Throttling")
}
