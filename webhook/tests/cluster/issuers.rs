//! Several issuers in one cluster: each binding uses its own, and a `ServiceAccount` without a binding the default one.

use anyhow::{anyhow, ensure};
use serde_json::{Value, json};

use crate::api::{accounts, bindings, pods};
use crate::pki::Authority;
use crate::process::Webhook;
use crate::world::{ROLE, World, eventually, pod, variable};

const ISSUERS: &str = "/apis/podidentity.dev/v1alpha1/oidcissuers";

/// Name, cluster name, account, region and audience.
type Issuer = (&'static str, &'static str, &'static str, &'static str, &'static str);
const DEFAULT: Issuer = ("default", "homelab", "111122223333", "eu-central-1", "sts.amazonaws.com");
const SECOND: Issuer = ("second", "other", "444455556666", "us-west-2", "second.example");

/// Creates the issuer, and writes into its status what the operator does.
async fn create(world: &World, (name, cluster, account, region, audience): Issuer) {
    let issuer = json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": {"name": name},
        "spec": {
            "clusterName": cluster, "audiences": [audience],
            "s3": {"bucket": format!("oidc-{account}-{region}-an"), "region": region},
        },
    });
    match world.api.create(ISSUERS, &issuer).await {
        Ok(_) => {}
        // Another test has created the default one.
        Err(refusal) => assert_eq!((name, refusal.code), ("default", 409), "{refusal:?}"),
    }
    let status = json!({"status": {"accountID": account, "partition": "aws"}});
    world.api.merge(&format!("{ISSUERS}/{name}/status"), &status).await.unwrap();
}

async fn bind(world: &World, service_account: &str, issuer: &str) {
    let spec = json!({"serviceAccountName": service_account, "issuerRef": {"name": issuer}, "role": {}});
    let binding = json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding",
        "metadata": {"name": service_account}, "spec": spec,
    });
    world.api.create(&bindings(world.name), &binding).await.unwrap();
}

/// Role, region and audience that a pod of the `ServiceAccount` gets.
async fn injected(world: &World, service_account: &str) -> anyhow::Result<[String; 3]> {
    let pod: Value = world
        .api
        .create_dry(&pods(world.name), &pod(service_account))
        .await
        .map_err(|refusal| anyhow!("{refusal:?}"))?;
    let value = |name: &str| variable(&pod, name).ok_or_else(|| anyhow!("{service_account} has no {name}"));
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let token = volumes.filter(|volume| volume["name"] == "aws-iam-token").find_map(|volume| {
        volume["projected"]["sources"][0]["serviceAccountToken"]["audience"].as_str().map(str::to_owned)
    });
    Ok([value("AWS_ROLE_ARN")?, value("AWS_REGION")?, token.unwrap_or_default()])
}

#[tokio::test]
async fn each_binding_gets_account_region_and_audience_of_its_issuer() {
    let world = World::alone("issuers").await;
    let _webhook = Webhook::ready(&world, &Authority::new("webhook"), &[]).await;
    create(&world, DEFAULT).await;
    for (service_account, issuer) in [("first", "default"), ("second", "second")] {
        world.account(world.name, service_account).await;
        bind(&world, service_account, issuer).await;
    }
    let annotations = json!({crds::names::annotation::ROLE_ARN: ROLE});
    let annotated = json!({"metadata": {"name": "annotated", "annotations": annotations}});
    world.api.create(&accounts(world.name), &annotated).await.unwrap();

    // The second issuer does not exist yet: its binding gives no identity, whatever the default issuer is.
    let expect = async |service_account: &str, issuer: Issuer| {
        let (_, cluster, account, region, audience) = issuer;
        let role =
            format!("arn:aws:iam::{account}:role/podidentity/{cluster}/{cluster}.issuers.{service_account}-");
        eventually("the pod gets the identity of its issuer", || async {
            let [arn, of_region, of_audience] = injected(&world, service_account).await?;
            ensure!(arn.starts_with(&role), "{arn}");
            ensure!((&*of_region, &*of_audience) == (region, audience), "{of_region} {of_audience}");
            Ok(())
        })
        .await;
    };
    expect("first", DEFAULT).await;
    let missing = injected(&world, "second").await.unwrap_err().to_string();
    assert!(missing.contains("no AWS_ROLE_ARN"), "{missing}");

    create(&world, SECOND).await;
    expect("second", SECOND).await;
    expect("first", DEFAULT).await;
    let [role, region, _] = injected(&world, "annotated").await.unwrap();
    assert_eq!((&*role, &*region), (ROLE, "eu-central-1"), "the default issuer's");
    world.api.delete(&format!("{ISSUERS}/second")).await.unwrap();
}
