//! Processes that end with their owner, and waiting for a named condition.

use std::fmt::Write as _;
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Polls until the condition holds. The error names the condition, and why it did not hold the last time.
pub async fn until<F>(what: &str, limit: Duration, mut holds: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    const EVERY: Duration = Duration::from_millis(50);
    let begun = Instant::now();
    loop {
        match holds().await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > limit => {
                return Err(error.context(format!("waited {} s for {what}", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(EVERY).await,
        }
    }
}

/// Runs a clean-up script when it is dropped, or when its owner ends in any way: it waits for the end of a pipe that only
/// the owner has open.
pub(crate) struct Reaper {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Reaper {
    /// `script` is `sh`, with `arguments` as `$1`….
    pub(crate) fn new(script: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", &format!("cat >/dev/null\n{script}"), "reaper"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C ends the owner first
            .spawn()
            .context("sh")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }
}

impl Reaper {
    /// The script will not run.
    pub(crate) fn disarm(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill()?)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}

/// Starts a daemon with its output in `<state>/log/<name>.log`, after what an earlier one of that name has written there, and
/// its pid in `<state>/pids/<name>`.
pub(crate) fn daemon(state: &Path, name: &str, mut command: Command) -> anyhow::Result<()> {
    let (logs, pids) = (state.join("log"), state.join("pids"));
    std::fs::create_dir_all(&logs)?;
    std::fs::create_dir_all(&pids)?;
    let pid = pids.join(name);
    ensure!(!pid.exists(), "{name} is running");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(logs.join(format!("{name}.log")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let program = command.get_program().to_owned();
    let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    // With a line end: the clean-up script puts all files together.
    Ok(std::fs::write(pid, format!("{}\n", child.id()))?)
}

/// A daemon that was started and not ended since.
pub(crate) struct Daemon {
    name: String,
    file: PathBuf,
    /// Its pid.
    pub(crate) pid: Pid,
}

impl Daemon {
    /// The one of that name.
    pub(crate) fn find(state: &Path, name: &str) -> anyhow::Result<Self> {
        Self::read(state.join("pids").join(name)).with_context(|| format!("{name} is not running"))
    }

    fn read(file: PathBuf) -> anyhow::Result<Self> {
        let pid = Pid::from_raw(std::fs::read_to_string(&file)?.trim().parse()?);
        let name = file.file_name().unwrap_or_default().display().to_string();
        Ok(Self { name, file, pid })
    }

    /// Sends SIGTERM to a process, which is the daemon itself or one whose end it waits for, and waits until the daemon has
    /// ended; SIGKILL if that takes long.
    pub(crate) async fn end(self, process: Pid) -> anyhow::Result<()> {
        // kube-apiserver waits for requests that run, up to a minute for watches.
        const GRACE: Duration = Duration::from_secs(5);
        let what = format!("the end of {}", self.name);
        let ended = || async {
            ensure!(has_ended(self.pid), "it is running");
            Ok(())
        };
        send(process, Signal::SIGTERM)?;
        if until(&what, GRACE, ended).await.is_err() {
            send(process, Signal::SIGKILL)?;
            until(&what, GRACE, ended).await?;
        }
        Ok(std::fs::remove_file(self.file)?)
    }
}

/// Ends all daemons of a state folder, which are children of this process, with SIGKILL, and reaps them.
pub(crate) fn kill_children(state: &Path) {
    for entry in std::fs::read_dir(state.join("pids")).into_iter().flatten().flatten() {
        let Ok(daemon) = Daemon::read(entry.path()) else { continue };
        // It is not reaped before: no other process has its pid.
        if kill(daemon.pid, Signal::SIGKILL).is_ok() {
            let _ = waitpid(daemon.pid, None);
        }
        let _ = std::fs::remove_file(daemon.file);
    }
}

/// Whether a process has ended. A child of this process is reaped with that.
fn has_ended(pid: Pid) -> bool {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => false,
        Ok(_) => true,
        // Not a child: that of an attached node, which its parent reaps; or it was reaped before.
        Err(_) => {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
            matches!(state, None | Some("Z" | "X"))
        }
    }
}

/// A process that has ended meanwhile is no error.
fn send(process: Pid, signal: Signal) -> anyhow::Result<()> {
    match kill(process, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{signal} to process {process}")),
    }
}
/// Runs a command to its end. The error contains its output.
pub(crate) async fn output(command: Command) -> anyhow::Result<String> {
    let name = command.get_program().display().to_string();
    let mut command = tokio::process::Command::from(command);
    let output =
        command.stdin(Stdio::null()).kill_on_drop(true).output().await.with_context(|| name.clone())?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name} ended with {}: {}{printed}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

/// The last lines of a cluster's logs, for errors.
pub(crate) fn log_tails(state: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(state.join("log")).into_iter().flatten().flatten() {
        let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(3)..].join("\n    ");
        let _ = writeln!(text, "  {}:\n    {tail}", entry.file_name().display());
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    /// Waits until something holds of a process.
    async fn until_of(pid: Pid, what: &str, holds: impl Fn(Pid) -> bool) {
        let check = || async {
            ensure!(holds(pid), "it does not hold of process {pid}");
            Ok(())
        };
        until(what, Duration::from_secs(5), check).await.unwrap();
    }

    fn exists(pid: Pid) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    /// As the API server of a node that was attached to: its parent is another process.
    #[tokio::test]
    async fn a_process_that_its_parent_has_not_reaped_has_ended() {
        // A shell reaps its children, and sleep does not.
        let mut parent = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let is_sleep =
            |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
        let parent_pid = Pid::from_raw(parent.id().cast_signed());
        let pid = Pid::from_raw(line.trim().parse().unwrap());
        until_of(parent_pid, "the parent to be sleep", is_sleep).await;
        assert!(!has_ended(pid));
        kill(pid, Signal::SIGTERM).unwrap();
        until_of(pid, "the end of the child", has_ended).await;
        assert!(exists(pid), "it is a zombie");
        assert!(!has_ended(parent_pid));
        parent.kill().unwrap();
        until_of(parent_pid, "the end of the parent", has_ended).await;
        assert!(!exists(parent_pid), "a child is reaped");
        parent.wait().unwrap_err(); // for that reason
    }

    #[tokio::test]
    async fn a_daemon_ends_also_if_it_ignores_the_first_signal_and_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log/it.log");
        for (number, script) in ["exec sleep 60", "trap '' TERM; echo; exec sleep 60"].iter().enumerate() {
            let command = || {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("echo started; {script}")]);
                command
            };
            daemon(folder.path(), "it", command()).unwrap();
            daemon(folder.path(), "it", command()).unwrap_err(); // it is running
            let found = Daemon::find(folder.path(), "it").unwrap();
            let pid = found.pid;
            let lines = |_| std::fs::read_to_string(&log).unwrap().lines().count() == 2 * number + 1;
            until_of(pid, "the log to have all lines, those of the earlier one, too", lines).await;
            found.end(pid).await.unwrap();
            assert!(!exists(pid));
            assert!(Daemon::find(folder.path(), "it").is_err());
        }
    }
}
