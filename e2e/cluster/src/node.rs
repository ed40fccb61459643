//! One node with real pods, in private mount, pid and network namespaces: nothing is mounted, listening or left behind on
//! the host, and the end of one process ends all of it. Needs root, runc, busybox and dnsmasq.
//!
//! Inside: the API server at 10.0.0.1:443, which is also its `ClusterIP` (there is no kube-proxy) and its endpoint; the node at 198.18.0.1;
//! 198.18.0.2 for a server outside the cluster, with DNS names that resolve to it; pods in 10.88.0.0/24.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use data_encoding::HEXLOWER;
use nix::sched::{CloneFlags, setns};
use sha2::{Digest, Sha256};

use crate::image::Image;
use crate::process::{Reaper, daemon, output};
use crate::tokens::Tokens;
use crate::tools::Tools;

/// Addresses inside.
#[derive(Debug, Clone, Copy)]
pub struct Addresses;

impl Addresses {
    /// The node and its name server.
    pub const NODE: &str = "198.18.0.1";
    /// A server outside the cluster.
    pub const OUTSIDE: &str = "198.18.0.2";
    /// The API server: the `ClusterIP` of Service default/kubernetes, and the address in its `EndpointSlice`.
    pub const API_SERVER: &str = "10.0.0.1";
}

/// How the node is started.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Folder for everything the cluster writes; must not exist.
    pub state: PathBuf,
    /// How its API server issues tokens.
    pub tokens: Tokens,
    /// DNS suffixes that resolve to [`Addresses::OUTSIDE`].
    pub outside: Vec<String>,
}

impl NodeOptions {
    /// With the tokens of a cluster that kubeadm creates, and AWS's suffix.
    #[must_use]
    pub fn new(state: PathBuf) -> Self {
        Self { state, tokens: Tokens::kubeadm(), outside: vec!["amazonaws.com".into()] }
    }
}

/// A running node. Dropping it ends it, unless it was detached before.
pub struct Node {
    pub(crate) state: PathBuf,
    /// Process 1 of the namespaces.
    pub(crate) init: u32,
    pub(crate) tools: Tools,
    pub(crate) reaper: Option<Reaper>,
}

/// The node's network, for threads of the caller.
pub struct Network(std::fs::File);

impl Network {
    /// The calling thread is in it from now on, and so is every thread that it starts: they reach the API server and
    /// pods at their own addresses, and nothing of the host's network.
    pub fn join(&self) -> anyhow::Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("the node's network cannot be joined")
    }
}

/// Ends the namespaces, then removes cgroups and files. Safe to repeat.
pub(crate) const CLEAN_UP: &str = r#"state=$1 group=$2
read -r pid <"$state/pid"
tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$state" && kill -9 "$pid"
groups() { find /sys/fs/cgroup -type d -name "$group"; }
for try in $(seq 100); do
  left=$(for g in $(groups); do find "$g" -name cgroup.procs -exec cat {} +; done | sort -un)
  [ -n "$left" ] || break
  kill -9 $left
  sleep 0.1
done
for try in $(seq 50); do
  [ -n "$(groups)" ] || break
  for g in $(groups); do find "$g" -depth -type d -exec rmdir {} \; ; done
  sleep 0.1
done
rm -rf --one-file-system "$state"
"#;

impl Node {
    /// Lets it outlive its owner, until it is attached to and stopped.
    pub fn detach(mut self) -> anyhow::Result<()> {
        self.reaper.take().map_or(Ok(()), Reaper::disarm)
    }

    /// A detached node that runs already.
    pub fn attach(state: &Path) -> anyhow::Result<Self> {
        let pid = std::fs::read_to_string(state.join("pid")).context("nothing is running")?;
        let init = child_of(pid.trim().parse()?)?;
        let tools = Tools::node(&|line| eprintln!("{line}"))?;
        Ok(Self { state: state.to_owned(), init, tools, reaper: None })
    }

    /// Ends it and removes every trace; of a detached node, too.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if self.reaper.take().is_some() {
            return Ok(()); // dropping it removed everything
        }
        Self::remove(&self.state).await
    }

    /// Removes whatever a node of that state folder has left, running or not.
    pub async fn remove(state: &Path) -> anyhow::Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", CLEAN_UP, "clean-up"]).arg(state).arg(cgroup_of(state));
        output(command).await.map(|_| ())
    }

    /// The cluster's commands.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The folder with everything the cluster writes.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The name of the cgroup that all its pods are below. Another node on this machine has another one.
    #[must_use]
    pub fn cgroup(&self) -> String {
        cgroup_of(&self.state)
    }

    /// A kubeconfig of `system:masters`; the server it names is reachable inside only.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("admin.kubeconfig")
    }

    /// A command that runs inside the namespaces, in the caller's working folder.
    #[must_use]
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--net"]);
        if let Ok(folder) = std::env::current_dir() {
            command.arg(format!("--wdns={}", folder.display()));
        }
        command.arg("--").arg(program);
        command
    }

    /// Its network, for a client that is not a process of its own.
    pub fn network(&self) -> anyhow::Result<Network> {
        let file = format!("/proc/{}/ns/net", self.init);
        Ok(Network(std::fs::File::open(&file).context(file)?))
    }

    /// The kubeconfig of the node's own user (`system:node:…`).
    #[must_use]
    pub fn own_kubeconfig(&self) -> PathBuf {
        self.state.join("kubelet.kubeconfig")
    }

    /// Runs kubectl as administrator and returns what it printed.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.inside(self.tools.path("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        output(command).await
    }

    /// Runs a command of [`Self::inside`] to its end and returns what it printed.
    pub async fn run(&self, command: Command) -> anyhow::Result<String> {
        output(command).await
    }

    /// Starts a daemon of [`Self::inside`]; it ends with the node.
    pub fn daemon(&self, name: &str, command: Command) -> anyhow::Result<()> {
        daemon(&self.state, name, command)
    }

    /// Makes an image known to the node.
    pub async fn load(&self, image: &Image<'_>) -> anyhow::Result<()> {
        let archive = self.state.join(format!("{}.tar", image.name.replace(['/', ':'], "_")));
        image.write(&archive)?;
        let mut command = self.ctr();
        command.args(["images", "import", "--local"]).arg(&archive);
        output(command).await?;
        std::fs::remove_file(archive)?;
        Ok(())
    }

    pub(crate) fn ctr(&self) -> Command {
        let mut command = self.inside(self.tools.path("ctr"));
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]);
        command
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }

    /// A command, moved inside.
    pub(crate) fn enter(&self, command: &Command) -> Command {
        let mut entered = self.inside(command.get_program());
        entered.args(command.get_args());
        entered
    }

    /// `PATH` inside: kubectl, helm and containerd's commands first, then the system's.
    #[must_use]
    pub fn search_path(&self) -> std::ffi::OsString {
        let folders =
            ["containerd", "kubectl", "helm"].map(|tool| self.tools.path(tool).parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let all = folders.into_iter().flatten().chain(std::env::split_paths(&path)).chain(usual);
        std::env::join_paths(all).unwrap_or(path)
    }
}

/// The one child of a process that runs a program in namespaces and waits for it (`unshare --fork`, `nsenter --pid`).
pub(crate) fn child_of(pid: u32) -> anyhow::Result<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).context("it has ended")?;
    children.trim().parse().context("the process that it runs has ended")
}

/// A cgroup name that no other state folder has.
pub(crate) fn cgroup_of(state: &Path) -> String {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    format!("podidentity-{}", HEXLOWER.encode(&digest[..4]))
}
