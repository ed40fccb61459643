//! The webhook as a process on a core of its own, and the `ServiceAccount`s it finds.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cluster::{ControlPlane, Options};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::bodies::SIZES;
use crate::client::{self, Connection, Protocol, Target};
use crate::constant;

/// Core of the webhook, and of the caller.
const CORES: [&str; 2] = ["0", "1"];
/// Files of the serving certificate.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const ACCOUNTS_A_NAMESPACE: usize = 1000;

/// Moves this process to its core.
pub fn pin_caller() -> Result<()> {
    let own = std::process::id().to_string();
    let status = Command::new("taskset").args(["-acp", CORES[1], &own]).stdout(Stdio::null()).status()?;
    if !status.success() {
        bail!("taskset ended with {status}");
    }
    Ok(())
}

/// A running webhook; ends when dropped.
pub struct Webhook {
    child: Child,
    target: Target,
    health: SocketAddr,
    /// What to trust, as a webhook configuration says it.
    ca_bundle: String,
    started: Instant,
    _files: tempfile::TempDir,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A control plane with our two kinds, which the webhook watches.
pub async fn control_plane() -> Result<ControlPlane> {
    let server = ControlPlane::start(&Options::default()).await?;
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/pod-identity-operator/crd-manifests");
    let kubectl = |arguments: &[&str]| -> Result<()> {
        let output = server.kubectl(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    kubectl(&["create", "--filename", &charts.display().to_string()])?;
    kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
    Ok(server)
}

impl Webhook {
    pub fn start(server: &ControlPlane) -> Result<Self> {
        Self::spawn(|files| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_webhook"));
            command.args(["--port=0", "--health-port=0", "--kubeconfig"]).arg(server.kubeconfig());
            command.arg("--tls-cert-file").arg(files.join(CERTIFICATE));
            command.arg("--tls-private-key-file").arg(files.join(KEY));
            Ok(command)
        })
    }

    /// The webhook's listener alone, with always this answer.
    pub fn with_constant_answer(answer: &[u8]) -> Result<Self> {
        Self::spawn(|files| {
            let file = files.join("answer");
            std::fs::write(&file, answer)?;
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(constant::ARGUMENT).args([files.join(CERTIFICATE), files.join(KEY), file]);
            Ok(command)
        })
    }

    /// Starts a program that serves with the certificate and key in the folder.
    fn spawn(program: impl FnOnce(&Path) -> Result<Command>) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
        std::fs::write(files.path().join(CERTIFICATE), certificate.pem())?;
        std::fs::write(files.path().join(KEY), key.serialize_pem())?;
        let program = program(files.path())?;
        let started = Instant::now();
        let mut child = Command::new("taskset")
            .args(["-c", CORES[0]])
            .arg(program.get_program())
            .args(program.get_args())
            .stderr(Stdio::piped())
            .spawn()
            .context("taskset")?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines();
        let listening = loop {
            let line: Value = serde_json::from_str(&lines.next().context("it ended")??)?;
            if line["message"] == "listening" {
                break line;
            }
        };
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let local = |key: &str| -> Result<SocketAddr> {
            let address: SocketAddr = listening[key].as_str().context("no address")?.parse()?;
            Ok(([127, 0, 0, 1], address.port()).into())
        };
        let (address, health) = (local("address")?, local("health_address")?);
        let target = Target::new(address, certificate.der().clone());
        let ca_bundle = BASE64_STANDARD.encode(certificate.pem());
        Ok(Self { child, target, health, ca_bundle, started, _files: files })
    }

    pub async fn connect(&self, protocol: Protocol, in_flight: usize) -> Result<Vec<Connection>> {
        self.target.connect(protocol, in_flight).await
    }

    /// Where it listens.
    pub fn target(&self) -> Target {
        self.target.clone()
    }

    /// For a webhook configuration.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/mutate", self.target.address.port())
    }

    /// For a webhook configuration.
    pub fn ca_bundle(&self) -> &str {
        &self.ca_bundle
    }

    /// One review, on a connection of its own.
    pub async fn review(&self, body: &Bytes) -> Result<Value> {
        Ok(serde_json::from_slice(&self.answer(body).await?)?)
    }

    /// The same, as the bytes of its answer.
    pub async fn answer(&self, body: &Bytes) -> Result<Bytes> {
        let mut connections = self.connect(Protocol::Http2, 1).await?;
        client::call(connections.first_mut().context("no connection")?, body).await
    }

    pub async fn until_ready(&self) -> Result<()> {
        let ready = || async {
            let answer = tokio::task::spawn_blocking({
                let health = self.health;
                move || get(health, "/readyz")
            });
            match answer.await?? {
                answer if answer.starts_with("HTTP/1.1 200") => Ok(()),
                answer => bail!("{answer}"),
            }
        };
        cluster::until("the webhook to be ready", Duration::from_mins(2), ready).await
    }

    /// From exec to the first answer that mutates a pod of this account as it must be.
    pub async fn first_mutation(&self, namespace: &str, account: &str) -> Result<Duration> {
        let body = Bytes::from(SIZES[0].review(namespace, account));
        let mutated = || async {
            let answer = self.review(&body).await?;
            answer["response"]["patch"].as_str().context("no patch")?;
            Ok(())
        };
        cluster::until("the first mutation", Duration::from_mins(1), mutated).await?;
        Ok(self.age())
    }

    /// Time since exec.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // Nanoseconds on a CPU: finer than the ticks of `stat`.
            let times = std::fs::read_to_string(task?.path().join("schedstat"))?;
            total += Duration::from_nanos(times.split(' ').next().context("schedstat")?.parse()?);
        }
        Ok(total)
    }

    /// Resident memory now, and its peak, in bytes.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status =
            std::fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join("status"))?;
        let of = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
            Ok(line.split_whitespace().next().context("no number")?.parse::<u64>()? * 1024)
        };
        Ok((of("VmRSS:")?, of("VmHWM:")?))
    }
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub fn namespace(number: usize) -> String {
    format!("bench-{}", number / ACCOUNTS_A_NAMESPACE)
}

pub fn name(number: usize) -> String {
    format!("account-{number:05}")
}

/// An administrator's client.
pub async fn client(server: &ControlPlane) -> Result<Client> {
    let file = Kubeconfig::read_from(server.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Makes `ServiceAccount`s of about 1 kB of JSON, every fifth annotated with a role.
pub async fn accounts(server: &ControlPlane, numbers: Range<usize>) -> Result<()> {
    let client = client(server).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for number in numbers.clone().step_by(ACCOUNTS_A_NAMESPACE) {
        let namespace = json!({"metadata": {"name": namespace(number)}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    }
    let begun = Instant::now();
    let count = numbers.len();
    stream::iter(numbers)
        .map(|number| {
            let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace(number));
            async move {
                let mut annotations = json!({"team.example.com/owner": "somebody ".repeat(30)});
                if number % 5 == 0 {
                    annotations["eks.amazonaws.com/role-arn"] =
                        json!(format!("arn:aws:iam::111122223333:role/team/application-{number:05}"));
                }
                let account = json!({"metadata": {
                    "name": name(number), "annotations": annotations,
                    "labels": {"app.kubernetes.io/name": "application", "app.kubernetes.io/managed-by": "Helm"},
                }});
                api.create(&PostParams::default(), &serde_json::from_value(account)?).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(32)
        .try_collect::<()>()
        .await?;
    if count > 0 {
        eprintln!("{count} ServiceAccounts made in {:.0?}", begun.elapsed());
    }
    Ok(())
}
