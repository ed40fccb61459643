//! Certificates rotate unseen: while pods are created all the time, leaf and CA are made anew again and again, and every
//! pod gets its identity. These pods' entry fails open, so a call that failed shows as a pod without one.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::lab::{Lab, SYSTEM};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use crate::client::inside;
use crate::load;

const LEAVES: usize = 100;
const CAS: usize = 5;

pub async fn loses_no_admission(lab: &Lab) {
    let rotate = inside(lab, async |client| {
        let begun = Instant::now();
        for _ in 0..LEAVES {
            renewed(&client, crds::names::TLS_SECRET, "tls.crt").await?;
        }
        let (leaves, begun) = (begun.elapsed(), Instant::now());
        for _ in 0..CAS {
            renewed(&client, crds::names::CA_SECRET, "ca.crt").await?;
        }
        anyhow::Ok((leaves, begun.elapsed()))
    });
    let pod = load::pod("vault", "vault", &json!({}));
    let (rotated, outcome) = load::during(lab, pod, rotate).await;
    let (leaves, cas) = match rotated {
        Ok(took) => took,
        Err(error) => {
            let log = ["logs", "deployment/podidentity-operator", "--namespace", SYSTEM, "--tail=30"];
            panic!("{error:#}, {outcome}\n{}", lab.kubectl(&log).await.unwrap_or_default());
        }
    };
    println!("{LEAVES} leaves in {leaves:.1?}, {CAS} CAs in {cas:.1?}: {outcome}");
    outcome.assert_nothing_lost();
}

/// Deletes a Secret and waits until the leaf's Secret shows another certificate (of itself, or of its CA).
async fn renewed(client: &Client, secret: &str, key: &str) -> anyhow::Result<()> {
    let secrets = Api::<Secret>::namespaced(client.clone(), SYSTEM);
    let shown = || async {
        let leaf = secrets.get_opt(crds::names::TLS_SECRET).await?;
        anyhow::Ok(leaf.and_then(|leaf| leaf.data?.remove(key)))
    };
    let before = shown().await?;
    secrets.delete(secret, &DeleteParams::default()).await?;
    let another = || async {
        let now = shown().await?;
        ensure!(now.is_some() && now != before, "it is still the same");
        Ok(())
    };
    // The operator gives up a request that nobody answers after a minute (its reconcile timeout), and tries again.
    cluster::until(&format!("{secret} to be made anew"), Duration::from_mins(3), another).await
}
