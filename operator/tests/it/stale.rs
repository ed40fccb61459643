//! An operator that starts with an old copy of the bindings, as an API server may give it whose own copy is late, and gets no event after
//! it: nothing is changed in AWS for a specification that is not the newest.

use std::time::Duration;

use cluster::until;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::world::{ACCOUNT, BINDINGS, QUEUE, STORAGE, World};

impl World {
    /// The list of all bindings, as the API server answers it now.
    async fn list(&self) -> String {
        let request = http::Request::get(BINDINGS).body(Vec::new()).unwrap();
        self.client.request_text(request).await.unwrap()
    }

    /// The number of passes over bindings that ended so.
    fn passes(&self, outcome: &str) -> u64 {
        let line = format!(
            "podidentity_operator_reconciles_total{{kind=\"PodIdentityBinding\",outcome=\"{outcome}\"}} "
        );
        let text = self.metrics.text();
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or_default()
    }
}

fn spec(fields: &Value) -> Value {
    let mut spec = json!({"serviceAccountName": "app"});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

#[tokio::test]
async fn no_earlier_version_of_a_binding_changes_anything_in_aws() {
    let other = format!("arn:aws:iam::{ACCOUNT}:role/other");
    // The last one is what holds; `null` is the deletion of the binding.
    let versions = [
        json!({"role": {"policyARNs": [STORAGE]}}),
        json!({"role": {"policyARNs": [STORAGE, QUEUE]}}),
        json!({"role": {"policyARNs": [QUEUE], "maxSessionDuration": "1h", "description": "x"}}),
        json!({"roleARN": other}),
        json!({"role": {"policyARNs": [QUEUE]}, "deletionPolicy": "Retain"}),
        Value::Null,
        json!({"role": {"policyARNs": [STORAGE]}, "deletionPolicy": "Retain"}),
        json!({"role": {"policyARNs": [STORAGE, QUEUE]}}),
    ];
    let mut world = World::ready().await;
    let mut lists = Vec::new();
    for version in &versions {
        if version.is_null() {
            // As it is while its deletion waits, too.
            world.stop().await;
            world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
            lists.push(("deleting", world.list().await));
            world.start().await;
            world.until(&world.bindings(), "app", "its deletion", |binding| binding.is_none()).await;
        } else {
            world.apply_binding("app", spec(version)).await;
            world.binding_is("app", "Ready").await;
        }
        lists.push(("reconciled", world.list().await));
    }
    lists.pop();
    world.stop().await;
    let state = json!(world.sim.state());

    let mut outdated = Vec::new();
    for (number, (kind, list)) in lists.into_iter().enumerate() {
        let exists = list.contains("serviceAccountName");
        world.hold.show_bindings(Some(list));
        world.start().await;
        let row = format!("version {number}, {kind}");
        let passed = || async {
            let text = world.metrics.text();
            let issuer = text.contains("reconciles_total{kind=\"OidcIssuer\",outcome=\"ok\"}");
            let (ok, outdated) = (world.passes("ok"), world.passes("outdated"));
            anyhow::ensure!(issuer && (!exists || ok >= 1 || outdated >= 3), "{text}");
            Ok(())
        };
        until(&format!("passes with {row}"), Duration::from_secs(15), passed).await.unwrap();
        if world.passes("outdated") > 0 {
            outdated.push(number);
        }
        assert_eq!(world.writes(), [""; 0], "{row}");
        assert_eq!(json!(world.sim.state()), state, "{row}");
        world.kill().await;
    }
    // These would have changed the role: another description, a role of another tool, a deletion. The others have no binding, or say that
    // the role was as specified, and the list of roles shows no difference.
    assert_eq!(outdated, [2, 3, 5]);

    world.hold.show_bindings(None);
    world.start().await;
    world.until_reconciled().await;
    world.binding_is("app", "Ready").await;
    assert_eq!((world.writes(), json!(world.sim.state())), (Vec::new(), state));
    world.unbind("app").await;
}
