//! Takes one step: writes a Secret or the `caBundle` of the webhook configuration.

use std::collections::BTreeMap;

use crds::names::{CA_SECRET, CONTROLLER, MANAGER_CERTIFICATES, TLS_SECRET, WEBHOOK};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::certified_key::{ca, leaf};
use super::context::CertificateContext;
use super::decide::still_trusted;
use super::error::CertificateError;
use super::model::{
    CertificateStep, Configuration, MANAGED_BY, MAX_CA_LIFE, MAX_LEAF_LIFE, ObservedCertificates, PREVIOUS,
};

/// Takes one step. It does nothing if the object that the step needs does not exist.
pub async fn act(
    context: &CertificateContext,
    step: CertificateStep,
    observed: &ObservedCertificates,
) -> Result<(), CertificateError> {
    match step {
        CertificateStep::CreateCa => {
            let life = context.timings.ca_life.min(MAX_CA_LIFE);
            let ca = ca(life)?;
            let data = BTreeMap::from([
                ("tls.crt", ca.certificate),
                ("tls.key", ca.key),
                (PREVIOUS, still_trusted(observed, Timestamp::now().as_second())),
            ]);
            put_secret(context, CA_SECRET, "Opaque", &data).await?;
        }
        CertificateStep::CreateLeaf => {
            let Some(ca) = &observed.ca else { return Ok(()) };
            let leaf = leaf(ca, &context.host(), context.timings.leaf_life.min(MAX_LEAF_LIFE))?;
            let data = BTreeMap::from([
                ("tls.crt", leaf.certificate),
                ("tls.key", leaf.key),
                ("ca.crt", ca.certificate.clone()),
                (PREVIOUS, observed.previous.clone().unwrap_or_default()),
            ]);
            put_secret(context, TLS_SECRET, "kubernetes.io/tls", &data).await?;
        }
        CertificateStep::WriteBundle(bundle) => {
            let Some(Configuration { uid, bundles }) = &observed.configuration else { return Ok(()) };
            let ca_bundle = ByteString(bundle.into_bytes());
            let entries: Vec<_> = bundles
                .iter()
                .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": ca_bundle}}))
                .collect();
            let api: Api<MutatingWebhookConfiguration> = Api::all(context.client.clone());
            let patch = json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": WEBHOOK, "uid": uid},
                "webhooks": entries,
            });
            // Forced, because a GitOps tool that once applied an empty bundle owns the field.
            let parameters = PatchParams::apply(MANAGER_CERTIFICATES).force();
            api.patch(WEBHOOK, &parameters, &Patch::Apply(patch)).await?;
        }
    }
    Ok(())
}

async fn put_secret(
    context: &CertificateContext,
    name: &str,
    type_: &str,
    data: &BTreeMap<&str, String>,
) -> Result<(), kube::Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let patch = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": context.namespace,
            "labels": {MANAGED_BY: CONTROLLER},
        },
        "type": type_,
        "stringData": data,
    });
    let parameters = PatchParams::apply(MANAGER_CERTIFICATES).force();
    api.patch(name, &parameters, &Patch::Apply(patch)).await.map(|_| ())
}
