//! The binary itself: it comes up without an API server, says that it is not ready, and stops in the right order.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

const KUBECONFIG: &str = r#"{
    "apiVersion": "v1", "kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
}"#;

/// Ends the process when a test fails.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_stops_being_ready_before_it_stops_listening() {
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&kubeconfig, KUBECONFIG).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_webhook"))
        .args(["--port", "0", "--health-port", "0", "--shutdown-delay", "2s"])
        .env("KUBECONFIG", kubeconfig.path())
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut child = Guard(child);
    let mut logged = |message: &str| -> Value {
        lines
            .by_ref()
            .map(|line| serde_json::from_str(&line.unwrap()).expect("every line is JSON"))
            .find(|line: &Value| line["message"].as_str().unwrap().starts_with(message))
            .unwrap_or_else(|| panic!("never logged: {message}"))
    };

    let listening = logged("listening");
    let port = |key: &str| -> SocketAddr {
        let port = listening[key].as_str().unwrap().parse::<SocketAddr>().unwrap().port();
        ([127, 0, 0, 1], port).into()
    };
    let (https, health) = (port("address"), port("health_address"));
    assert!(get(health, "/healthz").starts_with("HTTP/1.1 200"));
    let ready = get(health, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("not complete"), "{ready}");

    let id = child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    logged("stopping");
    assert!(get(health, "/readyz").contains("stopping"));
    TcpStream::connect(https).expect("still listening");
    logged("stopped");
    assert!(child.0.wait().unwrap().success());
}
