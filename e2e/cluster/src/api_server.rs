//! kube-apiserver: what it has in common in both tiers, and its restart on a node.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use nix::unistd::Pid;

use crate::boot::{NODE_NAME, TIMEOUT};
use crate::endpoints::LISTED;
use crate::node::{Addresses, Node, child_of};
use crate::pki::{KeyType, signing_key};
use crate::process::{Daemon, until};
use crate::tokens::Tokens;
use crate::tools::Tools;

/// The name of the daemon.
pub(crate) const API_SERVER: &str = "kube-apiserver";

/// What the API servers of both tiers share: real tokens, RBAC, client certificates.
pub(crate) fn api_server(tools: &Tools, state: &Path, tokens: &Tokens, etcd: u16) -> Command {
    let directory = state.join("pki");
    let pki = |file: &str| directory.join(file).display().to_string();
    let mut command = Command::new(tools.path(API_SERVER));
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd}"))
        .arg(format!("--tls-cert-file={}", pki("apiserver.crt")))
        .arg(format!("--tls-private-key-file={}", pki("apiserver.key")))
        .arg(format!("--client-ca-file={}", pki("ca.crt")))
        .args(tokens.flags(&directory))
        .args([
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged",
        ])
        .args(["--anonymous-auth=false", "--profiling=false"]);
    command
}

impl Node {
    /// Ends the API server and starts it again with other flags about tokens, as an edit of its static pod
    /// does: all its objects stay, and so do all pods. Returns once it is ready, and the node's kubelet has renewed its Lease
    /// there with the node still Ready. A node that was attached to, too.
    pub async fn restart_api_server(&self, tokens: &Tokens) -> anyhow::Result<()> {
        let daemon = Daemon::find(&self.state, API_SERVER)?;
        let process = self.api_server_process(&daemon)?;
        daemon.end(process).await?;
        self.start_api_server(tokens)?;
        self.api_server_is_ready().await?;
        let before = self.renewed().await?;
        let renewed = || async {
            ensure!(self.renewed().await? != before, "it was renewed before: {before:?}");
            Ok(())
        };
        until("the kubelet to renew the node's Lease", TIMEOUT, renewed).await?;
        self.is_ready().await
    }

    /// Makes another key pair that can sign tokens, for [`Tokens::signing_key`] and [`Tokens::accepted_keys`].
    pub fn signing_key(&self, name: &str, key_type: KeyType) -> anyhow::Result<()> {
        signing_key(&self.state.join("pki"), name, key_type)
    }

    pub(crate) fn start_api_server(&self, tokens: &Tokens) -> anyhow::Result<()> {
        let pki = |file: &str| self.state.join("pki").join(file).display().to_string();
        let mut server = api_server(&self.tools, &self.state, tokens, 2379);
        server
            // A specific address, so that others can serve 443 beside it. It is also the endpoint of Service
            // default/kubernetes: one that it does not listen at could not be connected to.
            .args([&format!("--bind-address={}", Addresses::API_SERVER), "--secure-port=443"])
            .arg(format!("--advertise-address={}", Addresses::API_SERVER))
            .args([
                "--enable-admission-plugins=NodeRestriction",
                "--kubelet-preferred-address-types=InternalIP",
            ])
            // Dials a webhook's Service at its pods, since there is no kube-proxy.
            .arg("--enable-aggregator-routing=true")
            .arg(format!("--kubelet-client-certificate={}", pki("apiserver-kubelet-client.crt")))
            .arg(format!("--kubelet-client-key={}", pki("apiserver-kubelet-client.key")))
            .arg(format!("--kubelet-certificate-authority={}", pki("ca.crt")));
        self.daemon(API_SERVER, self.enter(&server))
    }

    pub(crate) async fn api_server_is_ready(&self) -> anyhow::Result<()> {
        until("the API server", TIMEOUT, || async {
            self.kubectl(&["get", "--raw", "/readyz"]).await.map(|_| ())
        })
        .await?;
        let listed = || async {
            let found = self.kubectl(&LISTED).await?;
            ensure!(found == Addresses::API_SERVER, "its addresses are {found:?}");
            Ok(())
        };
        until("the EndpointSlice of Service default/kubernetes", TIMEOUT, listed).await
    }

    /// Waits until the node is Ready.
    pub(crate) async fn is_ready(&self) -> anyhow::Result<()> {
        let ready = || async {
            let conditions = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            let found = self.kubectl(&["get", "node", NODE_NAME, "-o", conditions]).await?;
            ensure!(found == "True", "its Ready condition is {found:?}");
            Ok(())
        };
        until("the node to be Ready", TIMEOUT, ready).await
    }

    /// When the kubelet has renewed the node's Lease, which it does every ten seconds; nothing if it has not created it yet.
    async fn renewed(&self) -> anyhow::Result<String> {
        let lease = ["get", "lease", NODE_NAME, "--namespace=kube-node-lease", "--ignore-not-found"];
        self.kubectl(&[&lease[..], &["--output=jsonpath={.spec.renewTime}"]].concat()).await
    }

    /// The daemon is `nsenter`, which waits for the process that it has started inside. Only that one gets the signal.
    fn api_server_process(&self, daemon: &Daemon) -> anyhow::Result<Pid> {
        let pid = child_of(daemon.pid.as_raw().cast_unsigned()).context("kube-apiserver")?;
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        let certificate = format!("--tls-cert-file={}", self.state.join("pki/apiserver.crt").display());
        let mut arguments = line.split('\0');
        let program = arguments.next().is_some_and(|program| Path::new(program).ends_with(API_SERVER));
        ensure!(program && arguments.any(|argument| argument == certificate), "{pid} is another process");
        Ok(Pid::from_raw(pid.cast_signed()))
    }
}
