//! Processes of pods, as the host sees them.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;

/// A process in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its pid on the host.
    pub pid: u32,
    /// Its cgroups; their names contain the pod's uid.
    pub cgroups: String,
    /// Its resident memory in KiB.
    pub memory: u64,
    /// Its highest resident memory so far, in KiB.
    pub peak: u64,
}

impl Process {
    /// Ends it with SIGKILL.
    pub fn kill(&self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-KILL", &self.pid.to_string()]).status()?;
        ensure!(status.success(), "kill ended with {status}");
        Ok(())
    }
}

/// Every process of a program in a node's pods. All of them are below the node's own cgroup ([`cluster::Node::cgroup`]):
/// other nodes on this machine run the same programs in other cgroups.
pub fn processes(node_cgroup: &str, program: &str) -> anyhow::Result<Vec<Process>> {
    processes_in(Path::new("/proc"), node_cgroup, program)
}

fn processes_in(proc: &Path, node_cgroup: &str, program: &str) -> anyhow::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(proc)?.flatten() {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if read("comm").trim() != program {
            continue;
        }
        let (cgroups, status) = (read("cgroup"), read("status"));
        if !is_below(&cgroups, node_cgroup) {
            continue;
        }
        let kib = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let pid = entry.file_name().to_string_lossy().parse().ok();
        if let (Some(pid), Some(memory), Some(peak)) = (pid, kib("VmRSS:"), kib("VmHWM:")) {
            found.push(Process { pid, cgroups, memory, peak });
        }
    }
    Ok(found)
}

/// Whether one of the paths (`hierarchy:controllers:path`, one a line) has a cgroup as a component.
fn is_below(cgroups: &str, cgroup: &str) -> bool {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.split('/')).any(|component| component == cgroup)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn write_process(proc: &Path, pid: u32, comm: &str, cgroup: &str) {
        let folder = proc.join(pid.to_string());
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("comm"), format!("{comm}\n")).unwrap();
        std::fs::write(folder.join("cgroup"), cgroup).unwrap();
        std::fs::write(folder.join("status"), format!("Name:\t{comm}\nVmHWM:\t{pid} kB\nVmRSS:\t7 kB\n"))
            .unwrap();
    }

    #[test]
    fn each_of_two_nodes_sees_the_processes_of_its_own_pods() {
        let proc = tempfile::tempdir().unwrap();
        // Two demos in different temporary folders, as `Node` names their cgroups; the second on cgroups of version 1.
        let (one, two) = ("podidentity-0a0a0a0a", "podidentity-0b0b0b0b");
        for (pid, comm, cgroup) in [
            (10, "webhook", format!("0::/{one}/kubepods/burstable/podaaaa/bbbb\n")),
            (11, "webhook", format!("0::/docker/cccc/{one}/kubepods/burstable/poddddd/eeee\n")),
            (12, "operator", format!("0::/{one}/kubepods/burstable/podffff/aaaa\n")),
            (20, "webhook", format!("2:cpu,cpuacct:/{two}/kubepods/podaaaa/bbbb\n1:name=systemd:/\n")),
            (30, "webhook", format!("0::/{one}0/kubepods/podaaaa/bbbb\n")), // another name with the same start
            (31, "webhook", "0::/user.slice/session-1.scope\n".to_owned()), // not in a pod
        ] {
            write_process(proc.path(), pid, comm, &cgroup);
        }
        std::fs::create_dir(proc.path().join("32")).unwrap(); // it ended meanwhile
        std::fs::write(proc.path().join("uptime"), "1 1\n").unwrap();

        let pids = |node: &str, program: &str| {
            let mut pids: Vec<u32> =
                processes_in(proc.path(), node, program).unwrap().iter().map(|one| one.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(one, "webhook"), [10, 11]);
        assert_eq!(pids(one, "operator"), [12]);
        assert_eq!(pids(two, "webhook"), [20]);
        assert_eq!(pids(two, "operator"), [0; 0]);
        let operator = &processes_in(proc.path(), one, "operator").unwrap()[0];
        assert_eq!((operator.memory, operator.peak), (7, 12));
    }
}
