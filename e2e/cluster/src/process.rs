//! Processes that end with their owner, and waiting for a named condition.

use std::fmt::Write as _;
use std::future::Future;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

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

/// Starts a daemon with its output in `<state>/log/<name>.log` and its pid in `<state>/pids`.
pub(crate) fn daemon(state: &Path, name: &str, mut command: Command) -> anyhow::Result<()> {
    let logs = state.join("log");
    std::fs::create_dir_all(&logs)?;
    let log = std::fs::File::create(logs.join(format!("{name}.log")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let program = command.get_program().to_owned();
    let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let mut pids = std::fs::OpenOptions::new().create(true).append(true).open(state.join("pids"))?;
    writeln!(pids, "{}", child.id())?;
    Ok(())
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
