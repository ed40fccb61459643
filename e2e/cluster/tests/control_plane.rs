//! The control plane alone: real tokens under the issuer it was given, and API servers that end and start again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cluster::{ControlPlane, KeyType, Options, Tokens};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

const NEW: &str = "https://issuer.example.com/one";
const OLD: &str = "https://kubernetes.default.svc";
const LIMIT: Duration = Duration::from_mins(1);

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The processes whose command line contains the folder, by pid.
fn processes(folder: &Path) -> BTreeMap<String, String> {
    let folder = folder.display().to_string();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some((entry.file_name().display().to_string(), String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.filter(|(_, line)| line.contains(&folder)).collect()
}

/// Those of the processes that have not ended, or are not reaped.
fn left(processes: &BTreeMap<String, String>) -> Vec<&String> {
    processes.iter().filter(|(pid, _)| Path::new("/proc").join(pid).exists()).map(|(_, line)| line).collect()
}

#[tokio::test]
async fn tokens_are_issued_under_the_given_issuer() {
    let tokens = Tokens { issuers: vec![NEW.into(), OLD.into()], ..Tokens::default() };
    let cluster = ControlPlane::start(&Options { tokens, ..Options::default() }).await.unwrap();
    let kubectl = |arguments: &[&str]| run(cluster.kubectl(arguments));
    assert!(kubectl(&["version"]).contains("Server Version: v1.37.2"));
    let discovery = kubectl(&["get", "--raw", "/.well-known/openid-configuration"]);
    assert!(discovery.contains(r#""issuer":"https://issuer.example.com/one""#), "{discovery}");
    kubectl(&["create", "serviceaccount", "app"]);
    assert_eq!(kubectl(&["create", "token", "app"]).split('.').count(), 3);
    let folder = cluster.kubeconfig().parent().unwrap().to_owned();
    drop(cluster);
    assert!(!folder.exists(), "its files are removed");
}

/// What the tests read of a control plane, by the number of the API server.
struct Servers {
    cluster: ControlPlane,
    folder: tempfile::TempDir,
}

impl Servers {
    async fn start(servers: usize) -> Self {
        let cluster = ControlPlane::start(&Options { servers, ..Options::default() }).await.unwrap();
        Self { cluster, folder: tempfile::tempdir().unwrap() }
    }

    fn kubectl(&self, index: usize, arguments: &[&str]) -> String {
        run(self.cluster.kubectl_of(index, arguments))
    }

    fn issuer(&self, index: usize) -> String {
        let discovery = self.kubectl(index, &["get", "--raw", "/.well-known/openid-configuration"]);
        serde_json::from_str::<Value>(&discovery).unwrap()["issuer"].as_str().unwrap().to_owned()
    }

    /// The type of each key in the JWKS, by its id.
    fn keys(&self, index: usize) -> BTreeSet<(String, String)> {
        let jwks: Value =
            serde_json::from_str(&self.kubectl(index, &["get", "--raw", "/openid/v1/jwks"])).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        jwks["keys"].as_array().unwrap().iter().map(|key| (text(&key["kid"]), text(&key["kty"]))).collect()
    }

    fn token(&self, index: usize) -> String {
        self.kubectl(index, &["create", "token", "app"]).trim().to_owned()
    }

    /// Whether an API server accepts a token.
    fn accepts(&self, index: usize, token: &str) -> bool {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
        });
        let file = self.folder.path().join("review.json");
        std::fs::write(&file, review.to_string()).unwrap();
        let path = "-o=jsonpath={.status.authenticated}";
        self.kubectl(index, &["create", "--filename", file.to_str().unwrap(), path]) == "true"
    }

    /// The addresses in the `EndpointSlice`s of Service default/kubernetes.
    fn endpoints(&self) -> BTreeSet<String> {
        let label = "--selector=kubernetes.io/service-name=kubernetes";
        let list = self.kubectl(0, &["get", "endpointslices", label, "--output=json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let slices = list["items"].as_array().unwrap();
        let address = |slice: &Value| {
            assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true, "{slice}");
            let address = slice["endpoints"][0]["addresses"][0].as_str().unwrap();
            format!("{address}:{}", slice["ports"][0]["port"])
        };
        slices.iter().map(address).collect()
    }

    /// The address of an API server, at which it serves under the Service's name.
    fn address(&self, index: usize) -> String {
        let address = self.cluster.address_of(index);
        assert!(!address.ip().is_loopback(), "{address}");
        let server = format!("--server=https://{address}");
        let name = "--tls-server-name=kubernetes.default.svc";
        assert_eq!(self.kubectl(index, &[&server, name, "get", "--raw", "/readyz"]), "ok");
        address.to_string()
    }
}

/// Header and claims of a token.
fn parts(token: &str) -> (Value, Value) {
    let parts: Vec<Value> = token
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap())
        .collect();
    (parts[0].clone(), parts[1].clone())
}

#[tokio::test]
async fn of_two_api_servers_one_gets_another_key_and_issuer_and_is_stopped_for_a_while() {
    let servers = Servers::start(2).await;
    let state = servers.cluster.kubeconfig().parent().unwrap().to_owned();
    assert_eq!(servers.endpoints(), BTreeSet::from([servers.address(0), servers.address(1)]));
    servers.kubectl(0, &["create", "serviceaccount", "app"]);
    let first = servers.keys(0);
    assert_eq!((first.len(), servers.keys(1)), (1, first.clone()));
    let before = servers.token(0);

    servers.cluster.signing_key("new", KeyType::EcP256).unwrap();
    servers.cluster.signing_key("new", KeyType::Rsa).unwrap_err(); // the name is in use
    let tokens = Tokens {
        issuers: vec![NEW.into(), servers.issuer(0)],
        signing_key: "new".into(),
        accepted_keys: vec!["sa".into()],
        ..Tokens::default()
    };
    servers.cluster.restart_api_server(1, &tokens).await.unwrap();
    let both = servers.keys(1);
    assert!(both.len() == 2 && both.is_superset(&first), "{both:?}");
    assert_eq!(servers.keys(0), first, "the other server is as it was");
    assert_eq!(servers.issuer(1), NEW);

    let (from_first, from_second) = (servers.token(0), servers.token(1));
    let ((old_header, old_claims), (new_header, new_claims)) = (parts(&from_first), parts(&from_second));
    assert_eq!((&old_claims["iss"], &old_header["alg"]), (&json!(servers.issuer(0)), &json!("RS256")));
    assert_eq!((&new_claims["iss"], &new_header["alg"]), (&json!(NEW), &json!("ES256")));
    assert_eq!(new_claims["aud"], json!([OLD]));
    let key = |header: &Value, kty: &str| (header["kid"].as_str().unwrap().to_owned(), kty.to_owned());
    assert_eq!(both, BTreeSet::from([key(&old_header, "RSA"), key(&new_header, "EC")]));
    for token in [&before, &from_first, &from_second] {
        assert!(servers.accepts(1, token));
    }
    assert!(servers.accepts(0, &from_first) && !servers.accepts(0, &from_second));

    let all = processes(&state);
    let of_second = format!("--secure-port={}", servers.cluster.address_of(1).port());
    let second: BTreeMap<_, _> =
        all.clone().into_iter().filter(|(_, line)| line.contains(&of_second)).collect();
    assert_eq!(left(&second).len(), 1, "{all:?}");
    servers.cluster.stop_api_server(1).await.unwrap();
    assert_eq!(left(&second), Vec::<&String>::new());
    assert_eq!(left(&all).len(), all.len() - 1, "nothing else has ended");
    assert!(TcpStream::connect(servers.cluster.address_of(1)).is_err(), "nothing listens on its port");
    assert!(!servers.cluster.kubectl_of(1, &["get", "--raw", "/readyz"]).output().unwrap().status.success());
    servers.cluster.stop_api_server(1).await.unwrap_err(); // it does not run
    assert_eq!(servers.endpoints().len(), 2, "it is still listed");
    servers.cluster.start_api_server(1, &Tokens::default()).await.unwrap();
    assert_eq!((servers.issuer(1), servers.keys(1)), (servers.issuer(0), first));
    assert_eq!(servers.endpoints(), BTreeSet::from([servers.address(0), servers.address(1)]));

    let all = processes(&state);
    assert_eq!(all.values().filter(|line| line.contains("--secure-port")).count(), 2, "{all:?}");
    drop(servers);
    assert!(!state.exists(), "its files are removed");
    assert_eq!(left(&all), Vec::<&String>::new());
}

/// One server: Kubernetes' own reconciler lists it.
#[tokio::test]
async fn the_endpoint_of_a_single_api_server_can_be_connected_to_also_after_a_restart() {
    let servers = Servers::start(1).await;
    assert_eq!(servers.endpoints(), BTreeSet::from([servers.address(0)]));
    servers.cluster.restart_api_server(0, &Tokens::kubeadm()).await.unwrap();
    assert_eq!(servers.issuer(0), Tokens::KUBEADM_ISSUER);
    assert_eq!(servers.endpoints(), BTreeSet::from([servers.address(0)]));
}

/// The owner is this test in another process, which starts the control plane and then waits.
#[tokio::test]
async fn if_the_owner_is_killed_everything_ends() {
    const TEST: &str = "if_the_owner_is_killed_everything_ends";
    const STATE: &str = "CONTROL_PLANE_STATE";
    if let Some(state) = std::env::var_os(STATE) {
        let options = Options { state: Some(state.into()), ..Options::default() };
        let cluster = ControlPlane::start(&options).await.unwrap();
        cluster.restart_api_server(0, &Tokens::kubeadm()).await.unwrap();
        std::fs::write(cluster.kubeconfig().with_file_name("restarted"), "").unwrap();
        return std::future::pending().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap());
    let mut owner = owner.args(["--exact", TEST, "--nocapture"]).env(STATE, &state).spawn().unwrap();
    let restarted = || async {
        anyhow::ensure!(state.join("restarted").exists(), "there is no file that says so");
        Ok(())
    };
    let started = cluster::until("the owner to restart the API server", LIMIT, restarted).await;
    let all = processes(&state);
    owner.kill().unwrap();
    owner.wait().unwrap();
    started.unwrap();
    assert_eq!(all.values().filter(|line| !line.starts_with("sh ")).count(), 2, "{all:?}");
    let ended = || async {
        let left = processes(&state);
        anyhow::ensure!(left.is_empty() && !state.exists(), "{left:?}");
        Ok(())
    };
    cluster::until("the end of all processes and files", LIMIT, ended).await.unwrap();
}
