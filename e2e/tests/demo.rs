//! The demo when something is wrong. Every test has its own `TMPDIR`, so that another demo may be running.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn without_root_the_demo_prints_one_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = folder.path().join("demo");
    std::fs::copy(env!("CARGO_BIN_EXE_demo"), &program).unwrap();
    let output = Command::new(&program).current_dir("/").uid(65534).gid(65534).output().unwrap();
    assert!(!output.status.success());
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(printed.contains("needs root"), "{printed}");
}

#[test]
fn without_a_running_demo_exec_names_the_command_that_starts_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .env("TMPDIR", folder.path())
        .args(["exec", "--", "kubectl", "get", "pods"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(printed.contains("cargo demo -- up"), "{printed}");
}

#[test]
fn an_interrupted_demo_leaves_no_files_mounts_or_processes() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_demo"))
        .env("TMPDIR", folder.path())
        .arg("--no-build")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("API server ready")), "the demo ended without an interrupt");
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let last = lines.last().unwrap_or_default();
    assert!(!child.wait().unwrap().success());
    assert!(last.contains("nothing is left"), "{last}");

    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let folder = folder.path().to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(folder));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(folder), "{line}");
    }
}
