//! The control plane alone: real tokens under the issuer it was given.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cluster::{ControlPlane, Options};

#[tokio::test]
async fn tokens_are_issued_under_the_given_issuer() {
    let options = Options { issuer: "https://issuer.example.com/one".into(), ..Options::default() };
    let cluster = ControlPlane::start(&options).await.unwrap();
    let kubectl = |arguments: &[&str]| {
        let output = cluster.kubectl(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(kubectl(&["version"]).contains("Server Version: v1.37.2"));
    let discovery = kubectl(&["get", "--raw", "/.well-known/openid-configuration"]);
    assert!(discovery.contains(r#""issuer":"https://issuer.example.com/one""#), "{discovery}");
    kubectl(&["create", "serviceaccount", "app"]);
    assert_eq!(kubectl(&["create", "token", "app"]).split('.').count(), 3);
    let folder = cluster.kubeconfig().parent().unwrap().to_owned();
    drop(cluster);
    assert!(!folder.exists(), "its files are removed");
}
