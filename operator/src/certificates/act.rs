//! Writes one step: a Secret, or the configuration's `caBundle`.

use std::collections::BTreeMap;

use crds::names::{CA_SECRET, CONTROLLER, MANAGER_CERTIFICATES, TLS_SECRET, WEBHOOK};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::decide::trusted_so_far;
use super::error::CertificateError;
use super::keeper::Keeper;
use super::model::{Configuration, MANAGED_BY, MAX_CA_LIFE, MAX_LEAF_LIFE, Observed, PREVIOUS, Step};
use super::pair::{ca, leaf};

/// Takes one step.
pub async fn act(keeper: &Keeper, step: Step, observed: &Observed) -> Result<(), CertificateError> {
    match step {
        Step::MakeCa => {
            let life = keeper.timings.ca_life.min(MAX_CA_LIFE);
            let made = ca(life)?;
            let data = BTreeMap::from([
                ("tls.crt", made.certificate),
                ("tls.key", made.key),
                (PREVIOUS, trusted_so_far(observed, Timestamp::now().as_second())),
            ]);
            put_secret(keeper, CA_SECRET, "Opaque", &data).await?;
        }
        Step::MakeLeaf => {
            let Some(ca) = &observed.ca else { return Ok(()) };
            let made = leaf(ca, &keeper.host(), keeper.timings.leaf_life.min(MAX_LEAF_LIFE))?;
            let data = BTreeMap::from([
                ("tls.crt", made.certificate),
                ("tls.key", made.key),
                ("ca.crt", ca.certificate.clone()),
                (PREVIOUS, observed.previous.clone().unwrap_or_default()),
            ]);
            put_secret(keeper, TLS_SECRET, "kubernetes.io/tls", &data).await?;
        }
        Step::PutBundle(bundle) => {
            let Some(Configuration { uid, bundles }) = &observed.configuration else { return Ok(()) };
            let ca_bundle = ByteString(bundle.into_bytes());
            let entries: Vec<_> = bundles
                .iter()
                .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": ca_bundle}}))
                .collect();
            let api: Api<MutatingWebhookConfiguration> = Api::all(keeper.client.clone());
            let patch = json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": WEBHOOK, "uid": uid},
                "webhooks": entries,
            });
            // Forced: a GitOps tool that once wrote an empty bundle must not silence the webhook.
            let parameters = PatchParams::apply(MANAGER_CERTIFICATES).force();
            api.patch(WEBHOOK, &parameters, &Patch::Apply(patch)).await?;
        }
    }
    Ok(())
}

async fn put_secret(
    keeper: &Keeper,
    name: &str,
    type_: &str,
    data: &BTreeMap<&str, String>,
) -> Result<(), kube::Error> {
    let api: Api<Secret> = Api::namespaced(keeper.client.clone(), &keeper.namespace);
    let patch = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": keeper.namespace,
            "labels": {MANAGED_BY: CONTROLLER},
        },
        "type": type_,
        "stringData": data,
    });
    let parameters = PatchParams::apply(MANAGER_CERTIFICATES).force();
    api.patch(name, &parameters, &Patch::Apply(patch)).await.map(|_| ())
}
