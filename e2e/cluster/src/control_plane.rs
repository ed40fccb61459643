//! etcd and one or more kube-apiservers: no root, ready in about three seconds. Without a controller-manager, which is an
//! option, nothing is garbage-collected, and namespaces do not finish deleting.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use crate::api_server::{API_SERVER, api_server};
use crate::endpoints::{LISTED, ReservedPort, endpoint_slices, host_address};
use crate::pki::{KeyType, Pki, signing_key};
use crate::process::{Daemon, Reaper, daemon, kill_children, log_tails, output, until};
use crate::tokens::Tokens;
use crate::tools::Tools;

/// How the control plane is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// How its API servers issue tokens.
    pub tokens: Tokens,
    /// How many API servers share the etcd. One is listed in the `EndpointSlice` of Service default/kubernetes by Kubernetes
    /// itself while it runs. Of several, each has an `EndpointSlice` that stays when its server is stopped: Kubernetes' own
    /// reconciler assumes that all have one port.
    pub servers: usize,
    /// Further flags of kube-apiserver.
    pub flags: Vec<String>,
    /// Folder for everything it writes, with files that its flags name possibly in it already. It is removed at the end.
    /// Default: a new one.
    pub state: Option<PathBuf>,
    /// kube-controller-manager beside it, and with that the `ServiceAccount` admission plugin.
    pub controllers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { tokens: Tokens::default(), servers: 1, flags: Vec::new(), state: None, controllers: false }
    }
}

/// A running control plane; dropping it ends it and removes its files, and so does the owner's end.
///
/// API servers are numbered from 0. The kubeconfig names server 0.
pub struct ControlPlane {
    state: PathBuf,
    tools: Tools,
    /// etcd's port for clients.
    etcd: u16,
    /// This machine's address, at which the API servers are reached beside loopback.
    host: IpAddr,
    servers: Vec<Server>,
    /// The flags that all API servers have, however they issue tokens.
    flags: Vec<String>,
    _reaper: Reaper,
}

/// What of an API server stays while it does not run.
struct Server {
    port: ReservedPort,
    kubeconfig: PathBuf,
}

/// Ends the daemons and removes the state folder.
const CLEAN_UP: &str = r#"for pid in $(cat "$1"/pids/*); do kill -9 "$pid"; done; rm -rf "$1""#;

/// Waiting for a part of it; starts take seconds, but a loaded machine may take its time.
const TIMEOUT: Duration = Duration::from_mins(1);

impl ControlPlane {
    /// Starts it, and returns once all its API servers are ready and endpoints of Service default/kubernetes.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        ensure!(options.servers > 0, "a control plane has at least one API server");
        let progress = |line: &str| eprintln!("{line}");
        let tools =
            if options.controllers { Tools::node(&progress) } else { Tools::control_plane(&progress) }?;
        let state = match &options.state {
            Some(state) => state.clone(),
            None => tempfile::Builder::new().prefix("podidentity-").tempdir()?.keep(),
        };
        let reaper = Reaper::new(CLEAN_UP, &[&state.display().to_string()])?;
        let [etcd, peer] = free_ports()?;
        let servers: anyhow::Result<_> =
            (0..options.servers).map(|index| Server::new(&state, index)).collect();
        let (host, flags) = (host_address()?, flags(options));
        let this = Self { state, tools, etcd, host, servers: servers?, flags, _reaper: reaper };
        this.keys()?;
        let started = this.start_daemons(options, peer).await;
        started.map_err(|error| error.context(log_tails(&this.state)))?;
        Ok(this)
    }

    async fn start_daemons(&self, options: &Options, peer: u16) -> anyhow::Result<()> {
        daemon(&self.state, "etcd", etcd(&self.tools, &self.state, self.etcd, peer))?;
        for index in 0..self.servers.len() {
            self.spawn_api_server(index, &options.tokens)?;
        }
        for index in 0..self.servers.len() {
            self.is_ready(index).await?;
        }
        if self.servers.len() > 1 {
            self.write_endpoints().await?;
        }
        if options.controllers {
            daemon(&self.state, "kube-controller-manager", controller_manager(&self.tools, &self.state))?;
            let account =
                || async { output(self.kubectl(&["get", "serviceaccount/default"])).await.map(|_| ()) };
            until("the default ServiceAccount", TIMEOUT, account).await?;
        }
        Ok(())
    }

    /// The commands it was started from.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// A kubeconfig of `system:masters` for API server 0.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.servers[0].kubeconfig
    }

    /// kubectl, as administrator, for API server 0.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        self.kubectl_of(0, arguments)
    }

    /// A kubeconfig of `system:masters` for one API server.
    #[must_use]
    pub fn kubeconfig_of(&self, index: usize) -> &Path {
        &self.servers[index].kubeconfig
    }

    /// kubectl, as administrator, for one API server.
    #[must_use]
    pub fn kubectl_of(&self, index: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.tools.path("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig_of(index)).args(arguments);
        command
    }

    /// The address of one API server that is in its `EndpointSlice`. Its certificate is valid for this address, and for the
    /// Service's name `kubernetes.default.svc`.
    #[must_use]
    pub fn address_of(&self, index: usize) -> SocketAddr {
        SocketAddr::new(self.host, self.servers[index].port.number)
    }

    /// Makes another key pair that can sign tokens, for [`Tokens::signing_key`] and [`Tokens::accepted_keys`].
    pub fn signing_key(&self, name: &str, key_type: KeyType) -> anyhow::Result<()> {
        signing_key(&self.state.join("pki"), name, key_type)
    }

    /// Ends one API server and starts it again on its port, with other flags about tokens. Returns once it is ready and an
    /// endpoint of Service default/kubernetes. All objects are in etcd and stay.
    pub async fn restart_api_server(&self, index: usize, tokens: &Tokens) -> anyhow::Result<()> {
        self.stop_api_server(index).await?;
        self.start_api_server(index, tokens).await
    }

    /// Ends one API server. With several, its `EndpointSlice` stays, as that of a server that crashed does for a while.
    pub async fn stop_api_server(&self, index: usize) -> anyhow::Result<()> {
        let server = Daemon::find(&self.state, &daemon_name(index))?;
        let process = server.pid;
        server.end(process).await
    }

    /// Starts an API server that was stopped. Returns once it is ready and an endpoint of Service default/kubernetes.
    pub async fn start_api_server(&self, index: usize, tokens: &Tokens) -> anyhow::Result<()> {
        self.spawn_api_server(index, tokens)?;
        self.is_ready(index).await.map_err(|error| error.context(log_tails(&self.state)))
    }

    fn spawn_api_server(&self, index: usize, tokens: &Tokens) -> anyhow::Result<()> {
        let mut server = api_server(&self.tools, &self.state, tokens, self.etcd);
        server
            // All addresses: the kubeconfig names loopback, and the EndpointSlice this machine's own.
            .args(["--bind-address=0.0.0.0", &format!("--advertise-address={}", self.host)])
            .args([&format!("--secure-port={}", self.servers[index].port.number), "--permit-port-sharing"])
            .args(&self.flags);
        daemon(&self.state, &daemon_name(index), server)
    }

    async fn is_ready(&self, index: usize) -> anyhow::Result<()> {
        let ready =
            || async { output(self.kubectl_of(index, &["get", "--raw", "/readyz"])).await.map(|_| ()) };
        until(&format!("API server {index}"), TIMEOUT, ready).await?;
        if self.servers.len() > 1 {
            return Ok(());
        }
        let listed = || async {
            let found = output(self.kubectl(&LISTED)).await?;
            ensure!(found == self.host.to_string(), "its addresses are {found:?}");
            Ok(())
        };
        until("the EndpointSlice of Service default/kubernetes", TIMEOUT, listed).await
    }

    fn keys(&self) -> anyhow::Result<()> {
        let directory = self.state.join("pki");
        let pki = Pki::new(&directory)?;
        let names = [
            "127.0.0.1",
            &self.host.to_string(),
            "localhost",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        pki.server("apiserver", "kube-apiserver", "", &names)?;
        pki.client("admin", "admin", "system:masters")?;
        for Server { port, kubeconfig } in &self.servers {
            let address = format!("https://127.0.0.1:{}", port.number);
            std::fs::write(kubeconfig, pki.kubeconfig(&address, "admin")?)?;
        }
        Ok(())
    }

    async fn write_endpoints(&self) -> anyhow::Result<()> {
        let slices = endpoint_slices((0..self.servers.len()).map(|index| self.address_of(index)));
        let file = self.state.join("endpoints.json");
        std::fs::write(&file, slices.to_string())?;
        // The API server creates the namespace after it is ready.
        let applied = || async {
            output(self.kubectl(&["apply", "--filename", &file.display().to_string()])).await.map(|_| ())
        };
        until("the namespace default", TIMEOUT, applied).await
    }
}

impl Server {
    fn new(state: &Path, index: usize) -> anyhow::Result<Self> {
        let file = if index == 0 { "kubeconfig".into() } else { format!("kubeconfig-{index}") };
        Ok(Self { port: ReservedPort::new()?, kubeconfig: state.join(file) })
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        kill_children(&self.state);
    }
}

/// The name of an API server's daemon.
fn daemon_name(index: usize) -> String {
    if index == 0 { API_SERVER.into() } else { format!("{API_SERVER}-{index}") }
}

/// The flags that all API servers have, however they issue tokens.
fn flags(options: &Options) -> Vec<String> {
    let mut flags = options.flags.clone();
    if options.servers > 1 {
        flags.push("--endpoint-reconciler-type=none".into());
    }
    if !options.controllers {
        // Without a controller-manager no default ServiceAccount appears, which pods would wait for.
        flags.push("--disable-admission-plugins=ServiceAccount".into());
    }
    flags
}

fn free_ports() -> anyhow::Result<[u16; 2]> {
    let mut ports = [0; 2];
    let mut listeners = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// etcd without fsync: its data need not outlive a crash.
pub(crate) fn etcd(tools: &Tools, state: &Path, client: u16, peer: u16) -> Command {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new(tools.path("etcd"));
    command
        .arg("--data-dir")
        .arg(state.join("etcd"))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
        .args(["--unsafe-no-fsync", "--log-level=warn"]);
    command
}

/// It runs as administrator, the only user here.
fn controller_manager(tools: &Tools, state: &Path) -> Command {
    let path = |file: &str| state.join(file).display().to_string();
    let mut command = Command::new(tools.path("kube-controller-manager"));
    command
        .arg(format!("--kubeconfig={}", path("kubeconfig")))
        .arg(format!("--service-account-private-key-file={}", path("pki/sa.key")))
        .arg(format!("--root-ca-file={}", path("pki/ca.crt")))
        // No port: nothing connects to it.
        .args(["--secure-port=0", "--leader-elect=false", "--use-service-account-credentials"])
        .args(["--kube-api-qps=1000", "--kube-api-burst=1000"]);
    command
}
