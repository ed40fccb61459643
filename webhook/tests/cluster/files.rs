//! Files and the `ConfigMap` change while the webhook serves, and may be replaced in any way.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::ensure;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::api::{Refusal, pods};
use crate::pki::{Authority, Pair};
use crate::process::Webhook;
use crate::world::{ROLE, World, eventually, pod, required, variable};

/// Writes files into a volume as the kubelet does: into a new folder, to which a symlink is then switched.
fn mount(volume: &Path, version: &str, files: &[(&str, &str)]) {
    let (folder, data) = (volume.join(version), volume.join("..data"));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, content) in files {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let former = std::fs::read_link(&data);
    symlink(version, volume.join("..data_tmp")).unwrap();
    std::fs::rename(volume.join("..data_tmp"), &data).unwrap();
    match former {
        Ok(former) => std::fs::remove_dir_all(volume.join(former)).unwrap(),
        Err(_) => {
            for (name, _) in files {
                symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
            }
        }
    }
}

impl World {
    async fn dry(&self, pod: Value) -> Result<Value, Refusal> {
        self.api.create_dry(&pods(self.name), &pod).await
    }

    /// The role that a pod of this `ServiceAccount` gets.
    async fn role(&self, account: &str) -> Option<String> {
        variable(&self.dry(pod(account)).await.unwrap(), "AWS_ROLE_ARN")
    }
}

#[tokio::test]
async fn the_serving_certificate_may_be_replaced_in_any_way() {
    let world = World::new("certificate").await;
    let authority = Authority::new("webhook");
    let volume = world.folder.path().join("tls");
    let (certificate, key) = (volume.join("tls.crt"), volume.join("tls.key"));
    let put = |version: &str, pair: &Pair| {
        mount(&volume, version, &[("tls.crt", &pair.certificate), ("tls.key", &pair.key)]);
    };
    let first = authority.server();
    put("..1", &first);
    let flags = [
        format!("--tls-cert-file={}", certificate.display()),
        format!("--tls-private-key-file={}", key.display()),
        // Whether this configuration trusts the files' certificate is checked.
        format!("--webhook-configuration={}", world.name),
    ];
    let webhook = Webhook::start(&world, &flags.each_ref().map(String::as_str)).await;
    world.configured(webhook.address, &authority.certificate).await;
    webhook.until_ready().await;
    eventually("the webhook has seen the configuration", || async {
        ensure!(webhook.metric("ca_bundle_trusts_certificate", &[]) == 1, "not yet");
        Ok(())
    })
    .await;
    world.account(world.name, "app").await;
    world.bind(world.name, "app").await;

    let serves = async |pair: &Pair| {
        let wanted = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        eventually("the certificate is served", || async {
            let (served, answer) = webhook.call(&authority, None).await?;
            ensure!(served == *wanted && answer.starts_with("HTTP/1.1 200"), "another one is");
            Ok(())
        })
        .await;
        let made = world.dry(required(pod("app"))).await.unwrap();
        assert_eq!(variable(&made, "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    };
    serves(&first).await;

    let second = authority.server();
    put("..2", &second);
    serves(&second).await;

    // Deleted and written again, at first with an invalid certificate.
    std::fs::remove_file(&certificate).unwrap();
    std::fs::remove_file(&key).unwrap();
    let third = authority.server();
    std::fs::write(&certificate, "no PEM").unwrap();
    std::fs::write(&key, &third.key).unwrap();
    eventually("the webhook has read it", || async {
        ensure!(webhook.metric("certificate_loads_total", &[r#"result="refused""#]) > 0, "not yet");
        Ok(())
    })
    .await;
    serves(&second).await;
    std::fs::write(&certificate, &third.certificate).unwrap();
    serves(&third).await;

    assert_eq!(webhook.metric("certificate_loads_total", &[r#"result="ok""#]), 3);
    assert_eq!(webhook.logged("listening").len(), 1, "one process all the time");
}

#[tokio::test]
async fn roles_come_from_the_config_map() {
    let world = World::new("config-map").await;
    let namespace = format!("--namespace={}", world.name);
    let flags = ["--watch-config-map", &namespace];
    let webhook = Webhook::ready(&world, &Authority::new("webhook"), &flags).await;
    for account in ["app", "any", "broken"] {
        world.account(world.name, account).await;
    }
    assert_eq!(world.role("app").await, None);

    let arn = |name: &str| format!("arn:aws:iam::111122223333:role/{name}");
    let entry = |account: &str| format!("{}/{account}", world.name);
    let config = json!({
        entry("app"): {"RoleARN": arn("app"), "Audience": "other", "UseRegionalSTS": true, "TokenExpiration": 3600},
        "*/any": {"RoleARN": arn("any")},
        entry("broken"): {"RoleARN": 7},
        "no-slash": {"RoleARN": arn("app")},
        entry("null"): null,
    });
    let maps = format!("/api/v1/namespaces/{}/configmaps", world.name);
    let map = format!("{maps}/{}", crds::names::ROLE_MAP);
    let content = |config: &Value| json!({"data": {"config": config.to_string()}});
    let mut made = content(&config);
    made["metadata"] = json!({"name": crds::names::ROLE_MAP});
    world.api.create(&maps, &made).await.unwrap();
    let entries = async |ok: u64, refused: u64| {
        eventually("the ConfigMap has been read", || async {
            let count = |result: &str| webhook.metric("config_map_entries", &[&format!("result={result:?}")]);
            ensure!((count("ok"), count("refused")) == (ok, refused), "{} {}", count("ok"), count("refused"));
            Ok(())
        })
        .await;
    };
    entries(2, 3).await;
    let roles = async || [world.role("app").await, world.role("any").await, world.role("broken").await];
    assert_eq!(roles().await, [Some(arn("app")), Some(arn("any")), None]);

    let made = world.api.create(&pods(world.name), &required(pod("app"))).await.unwrap();
    let token = &last_volume(&made)["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(*token, json!({"audience": "other", "expirationSeconds": 3600, "path": "token"}));
    assert_eq!(variable(&made, "AWS_STS_REGIONAL_ENDPOINTS").as_deref(), Some("regional"));

    // An entry that becomes invalid keeps its last valid version; the valid entries count at once.
    let config = json!({
        entry("app"): {"RoleARN": ""},
        "*/any": {"RoleARN": arn("changed")},
        entry("broken"): {"rolearn": arn("mended")},
    });
    world.api.merge(&map, &content(&config)).await.unwrap();
    entries(3, 1).await;
    assert_eq!(roles().await, [Some(arn("app")), Some(arn("changed")), Some(arn("mended"))]);

    world.api.merge(&map, &json!({"data": {"config": "{"}})).await.unwrap();
    entries(3, 1).await;
    eventually("the webhook has read it", || async {
        ensure!(webhook.logged("roles read from the ConfigMap").len() == 3, "not yet");
        Ok(())
    })
    .await;
    assert_eq!(roles().await, [Some(arn("app")), Some(arn("changed")), Some(arn("mended"))]);

    world.api.delete(&map).await.unwrap();
    entries(0, 0).await;
    assert_eq!(roles().await, [None, None, None]);
}

#[tokio::test]
async fn container_credentials_come_from_a_file() {
    let world = World::new("credentials").await;
    let volume = world.folder.path().join("credentials");
    let put = |version: &str, content: &str| mount(&volume, version, &[("identities.json", content)]);
    let of = |account: &str| {
        json!({"identities": [{"namespace": world.name, "serviceAccount": account}]}).to_string()
    };
    put("..1", &of("app"));
    let flag = format!("--watch-container-credentials-config={}", volume.join("identities.json").display());
    let webhook = Webhook::ready(&world, &Authority::new("webhook"), &[&flag]).await;
    for account in ["app", "other"] {
        world.account(world.name, account).await;
    }
    world.bind(world.name, "app").await;

    let made = world.api.create(&pods(world.name), &required(pod("app"))).await.unwrap();
    assert_eq!(made["metadata"]["labels"]["eks.amazonaws.com/pod-identity"], "enabled");
    assert_eq!(
        variable(&made, "AWS_CONTAINER_CREDENTIALS_FULL_URI").as_deref(),
        Some("http://169.254.170.23/v1/credentials")
    );
    assert_eq!(
        variable(&made, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").as_deref(),
        Some("/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token")
    );
    assert_eq!(variable(&made, "AWS_ROLE_ARN"), None, "the file counts before the binding");
    let token_volume = last_volume(&made);
    assert_eq!(token_volume["name"], "eks-pod-identity-token");
    let token = &token_volume["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["audience"], "pods.eks.amazonaws.com");

    let has = async |account: &str| {
        let made = world.dry(pod(account)).await.unwrap();
        variable(&made, "AWS_CONTAINER_CREDENTIALS_FULL_URI").is_some()
    };
    put("..2", &of("other"));
    eventually("the new file counts", || async {
        ensure!(has("other").await, "not yet");
        Ok(())
    })
    .await;
    assert_eq!(world.role("app").await.as_deref(), Some(ROLE), "the binding counts where the file does not");

    for (refused, garbage) in ["{", r#"{"identities": [{"namespace": 1}]}"#, ""].into_iter().enumerate() {
        put(&format!("..broken{refused}"), garbage);
        eventually("the webhook has read it", || async {
            let count = webhook.metric("container_credentials_refused_total", &[]);
            ensure!(count == refused as u64 + 1, "{count}");
            Ok(())
        })
        .await;
        assert!(has("other").await && !has("app").await, "{garbage:?} changes nothing");
    }

    std::fs::remove_dir_all(&volume).unwrap();
    eventually("a deleted file no longer counts", || async {
        ensure!(!has("other").await, "it still counts");
        Ok(())
    })
    .await;
}

/// After those of the pod and that of the API server's own token: other programs find volumes by their position.
fn last_volume(pod: &Value) -> &Value {
    pod["spec"]["volumes"].as_array().and_then(|volumes| volumes.last()).unwrap()
}
