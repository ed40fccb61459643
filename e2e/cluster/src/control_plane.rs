//! etcd and kube-apiserver on loopback: no root, ready in about three seconds. Without a controller-manager, which is an
//! option, nothing is garbage-collected, and namespaces do not finish deleting.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::pki::Pki;
use crate::process::{Reaper, daemon, log_tails, output, until};
use crate::tools::Tools;

/// The issuer of the demo: known before its bucket exists.
pub(crate) const ISSUER: &str =
    "https://oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com/homelab";

/// How the API server is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The first `--service-account-issuer`.
    pub issuer: String,
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
        Self { issuer: ISSUER.into(), flags: Vec::new(), state: None, controllers: false }
    }
}

/// A running control plane; dropping it ends it and removes its files, and so does the owner's end.
pub struct ControlPlane {
    kubeconfig: PathBuf,
    tools: Tools,
    _reaper: Reaper,
}

/// Ends the daemons and removes the state folder.
const CLEAN_UP: &str = r#"for pid in $(cat "$1/pids"); do kill -9 "$pid"; done; rm -rf "$1""#;

impl ControlPlane {
    /// Starts it, and returns once it is ready.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let progress = |line: &str| eprintln!("{line}");
        let tools =
            if options.controllers { Tools::node(&progress) } else { Tools::control_plane(&progress) }?;
        let state = match &options.state {
            Some(state) => state.clone(),
            None => tempfile::Builder::new().prefix("podidentity-").tempdir()?.keep(),
        };
        let reaper = Reaper::new(CLEAN_UP, &[&state.display().to_string()])?;
        let pki_directory = state.join("pki");
        let pki = Pki::new(&pki_directory)?;
        pki.server("apiserver", "kube-apiserver", "", &["127.0.0.1", "localhost"])?;
        pki.client("admin", "admin", "system:masters")?;
        let [client, peer, port] = free_ports()?;
        let kubeconfig = state.join("kubeconfig");
        std::fs::write(&kubeconfig, pki.kubeconfig(&format!("https://127.0.0.1:{port}"), "admin")?)?;

        daemon(&state, "etcd", etcd(&tools, &state, client, peer))?;
        let mut server = api_server(&tools, &state, &options.issuer, client);
        server.args(["--bind-address=127.0.0.1", &format!("--secure-port={port}")]).args(&options.flags);
        if !options.controllers {
            // Without a controller-manager no default ServiceAccount appears, which pods would wait for.
            server.arg("--disable-admission-plugins=ServiceAccount");
        }
        daemon(&state, "kube-apiserver", server)?;
        let this = Self { kubeconfig, tools, _reaper: reaper };
        let ready = || async { output(this.kubectl(&["get", "--raw", "/readyz"])).await.map(|_| ()) };
        let started = until("the API server", Duration::from_mins(1), ready).await;
        started.map_err(|error| error.context(log_tails(&state)))?;
        if options.controllers {
            daemon(&state, "kube-controller-manager", controller_manager(&this.tools, &state))?;
            let account =
                || async { output(this.kubectl(&["get", "serviceaccount/default"])).await.map(|_| ()) };
            let started = until("the default ServiceAccount", Duration::from_mins(1), account).await;
            started.map_err(|error| error.context(log_tails(&state)))?;
        }
        Ok(this)
    }

    /// The commands it was started from.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// A kubeconfig of `system:masters`.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// kubectl, as administrator.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.tools.path("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }
}

fn free_ports() -> anyhow::Result<[u16; 3]> {
    let mut ports = [0; 3];
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

/// What the API servers of both tiers share: real tokens under the given issuer, RBAC, client certificates.
pub(crate) fn api_server(tools: &Tools, state: &Path, issuer: &str, etcd: u16) -> Command {
    let pki = |file: &str| state.join("pki").join(file).display().to_string();
    let mut command = Command::new(tools.path("kube-apiserver"));
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd}"))
        .arg(format!("--tls-cert-file={}", pki("apiserver.crt")))
        .arg(format!("--tls-private-key-file={}", pki("apiserver.key")))
        .arg(format!("--client-ca-file={}", pki("ca.crt")))
        .arg(format!("--service-account-key-file={}", pki("sa.pub")))
        .arg(format!("--service-account-signing-key-file={}", pki("sa.key")))
        // As in docs/issuer-flags.md: tokens are issued under the first, and those of the second stay accepted.
        .arg(format!("--service-account-issuer={issuer}"))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg("--api-audiences=https://kubernetes.default.svc")
        .args([
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged",
        ])
        .args(["--anonymous-auth=false", "--profiling=false"]);
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
