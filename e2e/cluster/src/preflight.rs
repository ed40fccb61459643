//! What a node needs of this machine.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::bail;

/// An error of one line where this machine cannot run a node. On Debian, missing packages are installed.
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

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|file| file.is_file())
}
