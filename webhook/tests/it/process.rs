//! The binary itself: it starts without an API server, reports that it is not ready, stops in the right order, and never runs
//! out of files.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

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

/// A webhook with an API server that does not answer.
struct Webhook {
    child: Guard,
    lines: Lines<BufReader<ChildStderr>>,
    https: SocketAddr,
    health: SocketAddr,
}

impl Webhook {
    /// Starts it from a shell that runs `first` before.
    fn start(first: &str, flags: &[&str]) -> Self {
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&kubeconfig, KUBECONFIG).unwrap();
        let mut child = Command::new("bash")
            .args(["-c", &format!("{first}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_webhook")])
            .args(["--port", "0", "--health-port", "0"])
            .args(flags)
            .env("KUBECONFIG", kubeconfig.path())
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut webhook = Self { child: Guard(child), lines, https: nowhere, health: nowhere };
        let listening = webhook.logged("listening");
        let port = |key: &str| listening[key].as_str().unwrap().parse::<SocketAddr>().unwrap().port();
        webhook.https.set_port(port("address"));
        webhook.health.set_port(port("health_address"));
        webhook
    }

    /// The next line of its log whose message starts with this.
    fn logged(&mut self, message: &str) -> Value {
        self.lines
            .by_ref()
            .map(|line| serde_json::from_str(&line.unwrap()).expect("every line is JSON"))
            .find(|line: &Value| line["message"].as_str().unwrap().starts_with(message))
            .unwrap_or_else(|| panic!("never logged: {message}"))
    }
}

#[test]
fn it_stops_being_ready_before_it_stops_listening() {
    let mut webhook = Webhook::start(":", &["--shutdown-delay", "2s"]);
    let health = webhook.health;
    assert!(get(health, "/healthz").starts_with("HTTP/1.1 200"));
    let ready = get(health, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("not complete"), "{ready}");

    let id = webhook.child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    webhook.logged("stopping");
    assert!(get(health, "/readyz").contains("stopping"));
    TcpStream::connect(webhook.https).expect("still listening");
    webhook.logged("stopped");
    assert!(webhook.child.0.wait().unwrap().success());
}

/// More idle connections than the process may have open files: it keeps as many as it can, and continues to accept.
#[tokio::test]
async fn open_files_do_not_run_out() {
    for (limit, flags, connections) in [
        // The soft limit is raised to what is needed.
        ("ulimit -Sn 64", ["--max-connections=200"], 200),
        // The hard one cannot be: 128 of them are for other things.
        ("ulimit -n 192", ["--max-connections=1024"], 64),
    ] {
        let webhook = Webhook::start(limit, &flags);
        let mut held = Vec::new();
        for address in [webhook.health, webhook.https].into_iter().flat_map(|address| [address; 300]) {
            held.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        // All were accepted, and the oldest were evicted.
        let evicted = format!("podidentity_webhook_connections_evicted_total {}", 300 - connections);
        cluster::until("all of them to be accepted", Duration::from_secs(30), || async {
            let metrics = get(webhook.health, "/metrics");
            anyhow::ensure!(metrics.contains(&evicted), "{limit}: {metrics}");
            Ok(())
        })
        .await
        .unwrap();
    }
}
