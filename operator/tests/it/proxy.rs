//! Proxies of the environment: real `operator` processes with a real API server, and a proxy that lets nothing through.

use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use operator::aws::accounts::Accounts;
use operator::aws::setup::Settings;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::world::{self, REGION, World};

const FILE: &str = "apiVersion: podidentity.dev/v1alpha1\nkind: OidcIssuer\nmetadata: {name: default}\nspec:\n  \
                    clusterName: homelab\n  s3: {bucket: oidc-111122223333-eu-central-1-an, region: eu-central-1}\n";

/// A proxy, and the first lines of the requests to it.
struct Proxy {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                let _ = stream.read_line(&mut line).await;
                seen.lock().unwrap().push(line.trim_end().to_owned());
                let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Runs `operator teardown --dry-run`, which asks the API server first and AWS then.
async fn teardown(world: &World, environment: &[(&str, &str)]) -> Output {
    let file = std::env::temp_dir().join(format!("{}-{}.yaml", world.namespace, std::process::id()));
    std::fs::write(&file, FILE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
    command
        .args(["teardown", "--dry-run", "-f"])
        .arg(&file)
        .env_clear()
        .env("KUBECONFIG", world::kubeconfig())
        .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied());
    let output = command.output().await.unwrap();
    std::fs::remove_file(&file).unwrap();
    output
}

fn kubeconfig() -> Value {
    serde_json::from_str(&std::fs::read_to_string(world::kubeconfig()).unwrap()).unwrap()
}

/// The API server's URL.
fn api_server() -> String {
    kubeconfig()["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn https_proxy_is_used_for_aws_and_never_for_the_api_server() {
    let world = World::new().await;
    let proxy = Proxy::start().await;
    let api_server = api_server();
    let (aws, local) =
        (("AWS_ENDPOINT_URL", "https://aws.test"), ("AWS_ENDPOINT_URL", "https://localhost:9"));
    for (environment, says, asked) in [
        // NO_PROXY is absent: the API server is reached directly all the same.
        (
            vec![("HTTPS_PROXY", proxy.url.as_str()), aws],
            "sts:GetCallerIdentity failed: tunnel error",
            Some("CONNECT aws.test:443 HTTP/1.1"),
        ),
        // What NO_PROXY covers is reached directly.
        (
            vec![("HTTPS_PROXY", &proxy.url), ("NO_PROXY", "10.0.0.0/8,localhost"), local],
            "sts:GetCallerIdentity failed: Connection refused",
            None,
        ),
        // Somebody else's certificate.
        (
            vec![("AWS_ENDPOINT_URL", api_server.as_str())],
            "sts:GetCallerIdentity failed: invalid peer certificate: UnknownIssuer",
            None,
        ),
        // A proxy that does not exist.
        (
            vec![("https_proxy", "http://127.0.0.1:9"), aws],
            "sts:GetCallerIdentity failed: Connection refused",
            None,
        ),
    ] {
        let before = proxy.asked().len();
        let output = teardown(&world, &environment).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(says), "{environment:?}: {errors}");
        assert!(!errors.contains("retries"), "{errors}");
        let asked_now = proxy.asked().split_off(before);
        assert!(asked_now.iter().all(|line| Some(line.as_str()) == asked), "{environment:?}: {asked_now:?}");
        assert_eq!(asked_now.is_empty(), asked.is_none(), "{environment:?}: {asked_now:?}");
    }
}

#[tokio::test]
async fn the_kubeconfig_s_own_proxy_is_used_for_the_api_server() {
    let world = World::new().await;
    let proxy = Proxy::start().await;
    let mut with_proxy = kubeconfig();
    with_proxy["clusters"][0]["cluster"]["proxy-url"] = json!(proxy.url);
    let file = std::env::temp_dir().join(format!("{}-kubeconfig-{}", world.namespace, std::process::id()));
    std::fs::write(&file, with_proxy.to_string()).unwrap();
    let output = teardown(&world, &[("KUBECONFIG", file.to_str().unwrap())]).await;
    std::fs::remove_file(&file).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && errors.contains("nothing was changed"), "{errors}");
    let asked = proxy.asked();
    assert!(
        !asked.is_empty() && asked.iter().all(|line| line.starts_with("CONNECT 127.0.0.1:")),
        "{asked:?}"
    );
}

/// As conditions show it: the same text for the same state, without addresses and ports.
#[tokio::test]
async fn why_there_was_no_response_is_one_of_a_few_texts() {
    let _world = World::new().await; // starts the API server
    let settings = Settings {
        region: Some(REGION.into()),
        public_timeout: Duration::from_secs(10),
        call_timeout: Duration::from_secs(10),
        ..Settings::default()
    };
    let public = Accounts::connect(&settings, Arc::default()).await.unwrap().public;
    for (url, why) in [
        (api_server().as_str(), "its certificate is not valid or not trusted"),
        ("https://localhost:9", "the connection was refused"),
        ("https://aws.invalid", "DNS lookup failed"),
        ("http://localhost:9", "it is not an https URL"),
    ] {
        assert_eq!(public.get(url).await, Err(why.to_owned()), "{url}");
    }
}
