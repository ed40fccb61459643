//! The API server gets a new signing key: first it shows it, then it signs with it. A pod that exchanges its token all the time,
//! and pods that start meanwhile, are never refused.

use std::time::Duration;

use anyhow::ensure;
use cluster::{KeyType, Tokens};
use e2e::lab::{DATA_BUCKET, Lab};

/// The operator's own settings for this test: it reads the keys of the API server that often.
pub const API_SERVER_POLL: Duration = Duration::from_secs(5);

pub async fn rotate_without_a_refused_token(lab: &Lab, flags: &Tokens) {
    let read = ["get", DATA_BUCKET, "greeting"];
    lab.start_pod("vault", "vault", "keeps-exchanging", &["exchange"]).await.unwrap();
    exchanged(lab, 3).await;
    let refused_before = refused(lab).await;

    lab.node.signing_key("next", KeyType::Rsa).unwrap();
    let shown = Tokens { accepted_keys: vec!["next".into()], ..flags.clone() };
    lab.node.restart_api_server(&shown).await.unwrap();
    let object = ["oidcissuer/default"];
    lab.until_field(&object, ".status.keys[*].state", "Active Active").await.unwrap();
    let before = exchanged(lab, 0).await;

    let signing = Tokens {
        signing_key: "next".into(),
        accepted_keys: vec![flags.signing_key.clone()],
        ..flags.clone()
    };
    lab.node.restart_api_server(&signing).await.unwrap();
    for name in ["after-rotation-1", "after-rotation-2"] {
        let new = lab.run_pod("vault", "vault", name, &read).await.unwrap();
        assert!(new.succeeded, "a pod with a token of the new key: {}", new.log);
    }
    let all = exchanged(lab, before + 5).await;
    assert_eq!(refused(lab).await, refused_before, "AWS refused tokens");
    let log = lab.kubectl(&["logs", "keeps-exchanging", "--namespace=vault"]).await.unwrap();
    assert!(!log.contains("refused"), "{log}");
    println!("a rotation with 2 restarts of the API server: {all} exchanges of one pod, 0 refused");
    lab.until_field(&object, r#".status.conditions[?(@.type=="Ready")].status"#, "True").await.unwrap();
    lab.kubectl(&["delete", "pod", "keeps-exchanging", "--namespace=vault", "--wait=false"]).await.unwrap();
}

/// Waits until the pod has exchanged its token that many times, and returns how often it has.
async fn exchanged(lab: &Lab, least: usize) -> usize {
    let count = async || {
        let log = lab.kubectl(&["logs", "keeps-exchanging", "--namespace=vault"]).await?;
        anyhow::Ok(log.lines().filter(|line| line.starts_with("exchanged")).count())
    };
    let enough = || async {
        let count = count().await?;
        ensure!(count >= least, "there were {count}");
        Ok(())
    };
    cluster::until(&format!("{least} exchanges of a token"), Duration::from_mins(1), enough).await.unwrap();
    count().await.unwrap()
}

/// How many exchanges AWS has refused so far.
async fn refused(lab: &Lab) -> usize {
    let calls = lab.calls().await.unwrap();
    calls.iter().filter(|call| call.action == "AssumeRoleWithWebIdentity" && call.status != 200).count()
}
