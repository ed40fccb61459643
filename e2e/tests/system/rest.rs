//! A system at rest: nothing is written, and AWS is asked only what its periods ask for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::lab::Lab;

/// How long it is watched.
const REST: Duration = Duration::from_mins(3);
/// `operator.timings.issuerResync` of this installation; the only period with AWS calls that ends while it is watched.
pub const ISSUER_RESYNC: Duration = Duration::from_secs(40);
/// What one resync of the issuer reads.
const READS: [(&str, usize); 6] = [
    ("GetBucketTagging", 1),
    ("GetBucketOwnershipControls", 1),
    ("GetPublicAccessBlock", 1),
    ("GetBucketPolicy", 1),
    ("GetObject", 2),
    ("GetOpenIDConnectProvider", 1),
];
/// The kinds that are compared before and after; the leader's Lease is written all the time.
const KINDS: &str = "oidcissuers,podidentitybindings,serviceaccounts,secrets,mutatingwebhookconfigurations,\
                     customresourcedefinitions,deployments,pods,events.events.k8s.io";

/// Every object and its version.
async fn versions(lab: &Lab) -> BTreeMap<String, String> {
    let row = "{range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}={.metadata.resourceVersion}{\"\\n\"}{end}";
    let listed = lab.kubectl(&["get", KINDS, "-A", &format!("-o=jsonpath={row}")]).await.unwrap();
    listed.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

/// Watches the system for three minutes once no deadline is left that would end in them.
pub async fn changes_nothing(lab: &Lab) {
    // A binding without a grant is Stalled after `grantGrace`; that is a change.
    lab.until_field(
        &["podidentitybinding/shop", "--namespace=shop"],
        &e2e::lab::condition("Ready", "reason"),
        "NotGranted",
    )
    .await
    .unwrap();
    let (before, calls, begun) = (versions(lab).await, lab.calls().await.unwrap().len(), Instant::now());
    let three_minutes = || async {
        anyhow::ensure!(begun.elapsed() >= REST, "{:?} have passed", begun.elapsed());
        Ok(())
    };
    cluster::until("three minutes of rest", 2 * REST, three_minutes).await.unwrap();

    // Events expire (`--event-ttl`), so only new and changed objects count.
    let after = versions(lab).await;
    let changed: Vec<&String> =
        after.iter().filter(|(key, version)| before.get(*key) != Some(version)).map(|(key, _)| key).collect();
    assert!(changed.is_empty(), "changed in {REST:?} of rest: {changed:?}");

    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    for call in &lab.calls().await.unwrap()[calls..] {
        assert!(!call.write, "{call:?}");
        *made.entry(call.action.clone()).or_default() += 1;
    }
    // Periods are spread by up to a fifth.
    let most = usize::try_from(REST.as_secs() / ISSUER_RESYNC.as_secs()).unwrap() + 1;
    println!("{REST:?} at rest: 0 of {} objects changed, AWS calls {made:?}", after.len());
    for (action, times) in READS {
        let count = made.remove(action).unwrap_or_default();
        assert!((1..=most * times).contains(&count), "{action} was called {count} times");
    }
    assert!(made.is_empty(), "calls beyond the periods: {made:?}");
}
