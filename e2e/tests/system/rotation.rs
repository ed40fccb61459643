//! Rotation of certificates does not affect admission: while pods are created, leaf and CA are renewed many times, and every pod
//! gets its identity. The entry of these pods fails open, so that a failed call shows as a pod without identity.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::lab::{Lab, SYSTEM};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, DeleteParams};

use crate::client::inside;
use crate::load;

const LEAVES: usize = 100;
const CAS: usize = 5;

pub async fn loses_no_admission(lab: &Lab) {
    let rotate = inside(lab, async |client| {
        let begun = Instant::now();
        for _ in 0..LEAVES {
            renew(&client, crds::names::TLS_SECRET, "tls.crt").await?;
        }
        let (leaves, begun) = (begun.elapsed(), Instant::now());
        for _ in 0..CAS {
            renew(&client, crds::names::CA_SECRET, "ca.crt").await?;
        }
        anyhow::Ok((leaves, begun.elapsed()))
    });
    let (rotated, outcome) = load::during(lab, None, rotate).await;
    let (leaves, cas) = match rotated {
        Ok(durations) => durations,
        Err(error) => {
            let log = ["logs", "deployment/podidentity-operator", "--namespace", SYSTEM, "--tail=30"];
            panic!("{error:#}, {outcome}\n{}", lab.kubectl(&log).await.unwrap_or_default());
        }
    };
    println!("{LEAVES} leaves in {leaves:.1?}, {CAS} CAs in {cas:.1?}: {outcome}");
    outcome.assert_nothing_lost();
}

/// Deletes a Secret and waits until that key in the leaf's Secret has another certificate.
async fn renew(client: &Client, secret: &str, key: &str) -> anyhow::Result<()> {
    let secrets = Api::<Secret>::namespaced(client.clone(), SYSTEM);
    let certificate = || async {
        let leaf = secrets.get_opt(crds::names::TLS_SECRET).await?;
        anyhow::Ok(leaf.and_then(|leaf| leaf.data?.remove(key)))
    };
    let before = certificate().await?;
    secrets.delete(secret, &DeleteParams::default()).await?;
    let check = || async {
        let now = certificate().await?;
        ensure!(now.is_some() && now != before, "the certificate has not changed");
        Ok(())
    };
    // The operator retries a request without response only after its timeout.
    cluster::until(
        &format!("a new certificate after the deletion of {secret}"),
        Duration::from_mins(3),
        check,
    )
    .await
}
