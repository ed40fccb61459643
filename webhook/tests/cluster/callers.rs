//! A webhook that accepts only the API server, which sends a client certificate because its `AdmissionConfiguration` says so.

use anyhow::{bail, ensure};
use serde_json::Value;

use crate::api::pods;
use crate::pki::{Authority, Pair};
use crate::process::Webhook;
use crate::world::{CALLER, ROLE, World, eventually, pod, required, variable};

/// Whether the webhook answers a review that comes with this certificate.
async fn answers(webhook: &Webhook, authority: &Authority, client: Option<&Pair>) -> bool {
    match webhook.call(authority, client).await {
        Ok((_, answer)) => {
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200"), "{answer}");
            !answer.is_empty()
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn only_the_api_server_is_accepted() {
    let world = World::new("callers").await;
    let (serving, callers) = (Authority::new("webhook"), &world.cluster.callers);
    let file = world.folder.path().join("ca.crt");
    std::fs::write(&file, &callers.certificate).unwrap();
    let flags = [format!("--client-ca-file={}", file.display()), format!("--client-name={CALLER}")];
    let webhook = Webhook::ready(&world, &serving, &flags.each_ref().map(String::as_str)).await;
    world.account(world.name, "app").await;
    world.bind(world.name, "app").await;

    let made = world.api.create(&pods(world.name), &required(pod("app"))).await.unwrap();
    assert_eq!(variable(&made, "AWS_ROLE_ARN").as_deref(), Some(ROLE));

    assert!(answers(&webhook, &serving, Some(&callers.client(CALLER))).await);
    assert!(!answers(&webhook, &serving, None).await, "without a certificate");
    let other_name = callers.client("another");
    assert!(!answers(&webhook, &serving, Some(&other_name)).await, "with another name");
    let other_ca = Authority::new("callers").client(CALLER);
    assert!(!answers(&webhook, &serving, Some(&other_ca)).await, "of another CA");
}

#[tokio::test]
async fn the_client_ca_may_change_while_it_serves() {
    let world = World::new("client-ca").await;
    let (serving, callers, former) =
        (Authority::new("webhook"), &world.cluster.callers, Authority::new("former"));
    let file = world.folder.path().join("ca.crt");
    let replace = |pem: &str| {
        let new = file.with_extension("new");
        std::fs::write(&new, pem).unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    replace(&former.certificate);
    let flag = format!("--client-ca-file={}", file.display());
    let webhook = Webhook::ready(&world, &serving, &[&flag]).await;
    world.account(world.name, "app").await;
    world.bind(world.name, "app").await;
    let (api, list) = (&world.api, &pods(world.name));
    let dry = |pod: Value| async move { api.create_dry(list, &pod).await.map_err(|refusal| refusal.message) };
    let (old, new) = (former.client(CALLER), callers.client(CALLER));
    assert!(answers(&webhook, &serving, Some(&old)).await);

    // The API server sends a certificate of the new CA: it is not accepted, and each entry's failure policy decides.
    let lenient = dry(pod("app")).await.unwrap();
    assert_eq!(variable(&lenient, "AWS_ROLE_ARN"), None);
    let refused = dry(required(pod("app"))).await.unwrap_err();
    assert!(refused.contains("failed calling webhook"), "{refused}");

    replace(&format!("{}{}", former.certificate, callers.certificate));
    eventually("the new CA is accepted", || async {
        match dry(required(pod("app"))).await {
            Ok(made) if variable(&made, "AWS_ROLE_ARN").is_some() => Ok(()),
            other => bail!("{other:?}"),
        }
    })
    .await;
    assert!(answers(&webhook, &serving, Some(&old)).await, "the former beside it");

    replace(&callers.certificate);
    eventually("the former CA is no longer accepted", || async {
        ensure!(!answers(&webhook, &serving, Some(&old)).await, "it is");
        Ok(())
    })
    .await;
    assert!(answers(&webhook, &serving, Some(&new)).await);

    for (broken, garbage) in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        .into_iter()
        .enumerate()
    {
        replace(garbage);
        eventually("the webhook has read it", || async {
            let refused = webhook.logged("this client CA is not usable").len();
            ensure!(refused == broken + 1, "refused {refused} times");
            Ok(())
        })
        .await;
        assert!(answers(&webhook, &serving, Some(&new)).await);
        assert!(!answers(&webhook, &serving, Some(&old)).await);
        assert!(!answers(&webhook, &serving, None).await);
    }
    let made = dry(required(pod("app"))).await.unwrap();
    assert_eq!(variable(&made, "AWS_ROLE_ARN").as_deref(), Some(ROLE));
}
