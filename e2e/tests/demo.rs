//! The demo as a person meets it when something is not as it should be.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the demo keeps a cluster: one at a time.
const STATE: &str = "/tmp/podidentity-demo";

#[test]
fn without_root_it_says_so_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = folder.path().join("demo");
    std::fs::copy(env!("CARGO_BIN_EXE_demo"), &program).unwrap();
    let output = Command::new(&program).current_dir("/").uid(65534).gid(65534).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("needs root"), "{said}");
}

#[test]
fn nothing_to_attach_to_is_said() {
    assert!(!Path::new(STATE).exists(), "a demo is running: end it with `cargo demo -- down`");
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["exec", "--", "kubectl", "get", "pods"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cargo demo -- up"), "{said}");
}

#[test]
fn interrupted_it_leaves_nothing() {
    assert!(!Path::new(STATE).exists(), "a demo is running: end it with `cargo demo -- down`");
    let mut child = Command::new(env!("CARGO_BIN_EXE_demo"))
        .arg("--no-build")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("API server ready")), "it ended by itself");
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let last = lines.last().unwrap_or_default();
    assert!(!child.wait().unwrap().success());
    assert!(last.contains("nothing is left"), "{last}");

    assert!(!Path::new(STATE).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(STATE));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(STATE), "{line}");
    }
}
