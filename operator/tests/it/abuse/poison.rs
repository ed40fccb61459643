//! Objects of a tenant that a program cannot decode. A list is decoded as a whole: one such object must not hide those of others, neither
//! from a running operator nor from one that starts.

use cluster::{ControlPlane, Options};
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{FREE, Grants, Tenancy, create};
use crate::world::{STORAGE, World, with_crds};

/// The API server stores this time, and a decoder whose last time is a day earlier does not.
const TOO_LATE: &str = "9999-12-31T23:59:59Z";

impl Tenancy {
    /// Another binding becomes Ready, with its annotation; then again under another operator, which lists everything anew.
    async fn goes_on(&mut self, what: &str) {
        for (round, name) in ["running", "restarted"].into_iter().enumerate() {
            let world = &self.world;
            world.service_account(&world.namespace, name).await;
            let spec = json!({"serviceAccountName": name, "role": {"policyARNs": [STORAGE]}});
            self.apply(name, &spec).await.unwrap();
            world.binding_is(name, "Ready").await;
            // The watch of ServiceAccounts works, too: what is taken away is put back.
            let none = json!({"metadata": {"annotations": {"eks.amazonaws.com/role-arn": null}}});
            let own = world.accounts();
            own.patch(name, &PatchParams::default(), &Patch::Merge(&none)).await.unwrap();
            let annotated = |account: Option<&k8s_openapi::api::core::v1::ServiceAccount>| {
                let annotations = account.and_then(|account| account.metadata.annotations.as_ref());
                annotations.is_some_and(|all| all.contains_key("eks.amazonaws.com/role-arn"))
            };
            world.until(&own, name, &format!("its annotation, with {what}"), annotated).await;
            if round == 0 {
                self.world.stop().await;
                self.world.start().await;
            }
        }
    }

    /// Adds an entry to the object's `managedFields` that has that time, as the tenant can.
    async fn late_entry(&self, client: &Client, path: &str, version: &str) {
        let added = || async {
            let request = http::Request::get(path).body(Vec::new()).unwrap();
            let mut object: Value = client.request(request).await?;
            let entry = json!({
                "manager": "x", "operation": "Update", "apiVersion": version, "fieldsType": "FieldsV1", "time": TOO_LATE,
                "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:x": {}}}},
            });
            object["metadata"]["labels"]["x"] = json!("y");
            let mut entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
            entries.push(entry);
            object["metadata"]["managedFields"] = json!(entries);
            let request = http::Request::put(path).body(serde_json::to_vec(&object).unwrap()).unwrap();
            let stored = client.request_text(request).await?;
            anyhow::ensure!(stored.contains(TOO_LATE), "the API server has changed the time");
            Ok(())
        };
        // Conflict where the operator has just written the status.
        cluster::until("a time of the year 9999", super::LIMIT, added).await.unwrap();
    }
}

/// The CRD has no schema for policy documents, so that no rule of it can limit their depth.
#[tokio::test]
async fn a_document_of_a_thousand_levels_hides_no_other_binding() {
    for (grants, reason) in [(Grants::Narrow, "NotGranted"), (Grants::Wide, "InvalidSpec")] {
        let mut tenancy = Tenancy::new(World::new().await).await;
        tenancy.grant(grants).await;
        tenancy.world.issuer_is("Ready").await;
        let depth = 1000;
        let document = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        // As text: no value of that depth can be made here.
        let object = format!(
            r#"{{"apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding", "metadata": {{"name": "try"}}, "spec":
            {{"serviceAccountName": "{FREE}", "role": {{"inlinePolicies": [{{"name": "x", "document": {document}}}]}}}}}}"#
        );
        let request = http::Request::post(tenancy.path()).body(object.into_bytes()).unwrap();
        tenancy.tenant.request_text(request).await.unwrap();
        tenancy.goes_on("a deep document").await;
        let client = process::responses::decodable(tenancy.world.client.clone());
        let path = format!("{}/try", tenancy.path());
        let found = || async {
            let request = http::Request::get(&path).body(Vec::new()).unwrap();
            let object: Value = client.request(request).await?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready =
                conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
            anyhow::ensure!(ready["reason"] == reason, "{ready}");
            Ok(())
        };
        cluster::until(reason, super::LIMIT, found).await.unwrap();
        tenancy.remove("try").await;
        tenancy.world.stop().await;
    }
}

#[tokio::test]
async fn times_that_no_decoder_knows_hide_no_other_object() {
    // Of its own: the Namespace stays, and other tests could not list it.
    let cluster = with_crds(ControlPlane::start(&Options::default()).await.unwrap());
    let mut tenancy = Tenancy::new(World::on(&cluster).await).await;
    let namespace = tenancy.world.namespace.clone();
    let spec = json!({"serviceAccountName": FREE, "role": {"policyARNs": [STORAGE]}});
    tenancy.apply("try", &spec).await.unwrap();
    tenancy.world.binding_is("try", "Ready").await;
    let binding = format!("{}/try", tenancy.path());
    tenancy.late_entry(&tenancy.tenant, &binding, "podidentity.dev/v1alpha1").await;
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    create(&tenancy.tenant, &accounts, &json!({"metadata": {"name": "late"}})).await.unwrap();
    tenancy.late_entry(&tenancy.tenant, &format!("{accounts}/late"), "v1").await;
    // Who may edit its own Namespace; grants that select by labels rest on its list.
    tenancy.late_entry(&tenancy.world.client, &format!("/api/v1/namespaces/{namespace}"), "v1").await;
    let mut issuer = tenancy.issuer(Grants::Narrow);
    issuer.grants[0].namespaces =
        serde_json::from_value(json!({"selector": {"matchLabels": {"x": "y"}}})).unwrap();
    tenancy.world.apply_issuer(&issuer).await;
    tenancy.goes_on("times of the year 9999").await;
    tenancy.remove("try").await;
    tenancy.world.stop().await;
}

/// This needs the right to write the status; a restored backup has it, for example.
#[tokio::test]
async fn a_status_that_cannot_be_decoded_hides_no_other_binding() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let spec =
        json!({"serviceAccountName": FREE, "role": {"policyARNs": ["arn:aws:iam::111122223333:policy/x"]}});
    tenancy.world.stop().await;
    tenancy.apply("try", &spec).await.unwrap();
    let status = json!({"status": {"revokeAt": TOO_LATE}});
    let request = http::Request::patch(format!("{}/try/status", tenancy.path()))
        .header("content-type", "application/merge-patch+json")
        .body(serde_json::to_vec(&status).unwrap())
        .unwrap();
    let stored = tenancy.world.client.request_text(request).await.unwrap();
    assert!(stored.contains(TOO_LATE), "{stored}");
    tenancy.world.start().await;
    // It is read without what cannot be decoded, which is written anew.
    tenancy.world.binding_is("try", "NotGranted").await;
    tenancy.goes_on("a status").await;
    tenancy.remove("try").await;
    tenancy.world.stop().await;
}
