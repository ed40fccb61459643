//! One node with real pods, in private mount, pid and network namespaces: nothing is mounted, listening or left behind on
//! the host, and the end of one process ends all of it. Needs root, runc, busybox and dnsmasq.
//!
//! Inside: the API server at 10.0.0.1:443, which is also its `ClusterIP` (there is no kube-proxy); the node at 198.18.0.1;
//! 198.18.0.2 for whoever plays the world outside, with DNS names pointing there; pods in 10.88.0.0/24.

mod boot;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use nix::sched::{CloneFlags, setns};
use sha2::{Digest, Sha256};

use crate::image::Image;
use crate::process::{Reaper, daemon, log_tails, output};
use crate::tools::Tools;

/// The issuer of the demo: computable before anything exists.
pub(crate) const ISSUER: &str =
    "https://oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com/homelab";

/// Where things are inside.
#[derive(Debug, Clone, Copy)]
pub struct Addresses;

impl Addresses {
    /// The node and its name server.
    pub const NODE: &str = "198.18.0.1";
    /// The world outside.
    pub const OUTSIDE: &str = "198.18.0.2";
    /// The API server.
    pub const API_SERVER: &str = "10.0.0.1";
}

/// How the node is started.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Folder for everything the cluster writes; must not exist.
    pub state: PathBuf,
    /// The first `--service-account-issuer`.
    pub issuer: String,
    /// DNS suffixes that lead to [`Addresses::OUTSIDE`].
    pub outside: Vec<String>,
}

impl NodeOptions {
    /// The demo's issuer, AWS's suffixes, ends with its owner.
    #[must_use]
    pub fn new(state: PathBuf) -> Self {
        Self { state, issuer: ISSUER.into(), outside: vec!["amazonaws.com".into()] }
    }
}

/// A running node. Dropping it ends it, unless it was detached before.
pub struct Node {
    state: PathBuf,
    /// Process 1 of the namespaces.
    init: u32,
    tools: Tools,
    reaper: Option<Reaper>,
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

/// One clear line where this machine cannot run a node; on Debian, what is missing is installed.
pub fn preflight() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "a node with real pods needs root (containerd, kubelet and network namespaces): run this as root"
        );
    }
    let programs = [
        ("runc", "runc"),
        ("busybox", "busybox-static"),
        ("dnsmasq", "dnsmasq-base"),
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
    ];
    let missing =
        || programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package);
    if missing().next().is_some() {
        install(&missing().collect::<Vec<_>>());
    }
    let still: Vec<&str> = missing().collect();
    if !still.is_empty() {
        bail!(
            "a node with real pods needs these packages, which could not be installed: {}",
            still.join(" ")
        );
    }
    let unshare = Command::new("unshare").args(["--mount", "--pid", "--net", "--fork", "true"]).output();
    match unshare {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!(
            "a node with real pods needs private namespaces (CAP_SYS_ADMIN, CAP_NET_ADMIN): {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => bail!("a node with real pods needs unshare: {error}"),
    }
}

fn install(packages: &[&str]) {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    };
    apt(&["update", "-qq"]);
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages].concat());
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Ends the namespaces, then removes cgroups and files. Safe to repeat.
const CLEAN_UP: &str = r#"state=$1 group=$2
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
    /// Starts it and returns once the node is Ready. `progress` is told each part.
    pub async fn start(options: &NodeOptions, progress: &dyn Fn(&str)) -> anyhow::Result<Self> {
        preflight()?;
        let tools = Tools::node(progress)?;
        let state = options.state.clone();
        std::fs::create_dir(&state)
            .with_context(|| format!("{} must not exist: is another one running?", state.display()))?;
        let group = cgroup(&state);
        let mut node = Self { state, init: 0, tools, reaper: None };
        node.reaper = Some(Reaper::new(CLEAN_UP, &[&node.state.display().to_string(), &group])?);
        let started = node.boot(options, &group, progress).await;
        if let Err(error) = started {
            let error = error.context(format!("the node did not start\n{}", log_tails(&node.state)));
            node.stop().await?;
            return Err(error);
        }
        Ok(node)
    }

    /// Lets it outlive its owner, until somebody attaches to it and stops it.
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
            return Ok(()); // dropping it did all that
        }
        Self::remove(&self.state).await
    }

    /// Removes whatever a node of that state folder has left, running or not.
    pub async fn remove(state: &Path) -> anyhow::Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", CLEAN_UP, "clean-up"]).arg(state).arg(cgroup(state));
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

    fn ctr(&self) -> Command {
        let mut command = self.inside(self.tools.path("ctr"));
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]);
        command
    }

    fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }

    /// A command, moved inside.
    fn enter(&self, command: &Command) -> Command {
        let mut entered = self.inside(command.get_program());
        entered.args(command.get_args());
        entered
    }

    /// The tools first, then the system's.
    fn path(&self) -> std::ffi::OsString {
        let folders =
            ["containerd", "kubectl", "helm"].map(|tool| self.tools.path(tool).parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let all = folders.into_iter().flatten().chain(std::env::split_paths(&path)).chain(usual);
        std::env::join_paths(all).unwrap_or(path)
    }

    /// `PATH` for a person inside: kubectl and helm are found.
    #[must_use]
    pub fn search_path(&self) -> std::ffi::OsString {
        self.path()
    }
}

/// The one child of `unshare --fork`.
fn child_of(pid: u32) -> anyhow::Result<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).context("it has ended")?;
    children.trim().parse().context("the namespaces have no first process: it has ended")
}

/// A cgroup of our own, told from others by the state folder.
fn cgroup(state: &Path) -> String {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    format!("podidentity-{}", HEXLOWER.encode(&digest[..4]))
}
