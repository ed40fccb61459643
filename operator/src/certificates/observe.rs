//! Reads the two Secrets and the webhook configuration.

use crds::names::{CA_SECRET, CONTROLLER, TLS_SECRET, WEBHOOK};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::certified_key::text;
use super::context::CertificateContext;
use super::model::{CertifiedKey, Configuration, MANAGED_BY, ObservedCertificates, PREVIOUS, validity};

/// Reads all three objects from the API server.
pub async fn observe(context: &CertificateContext) -> Result<ObservedCertificates, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(context.client.clone());
    let (ca, tls, configuration) = tokio::try_join!(
        secrets.get_opt(CA_SECRET),
        secrets.get_opt(TLS_SECRET),
        configurations.get_opt(WEBHOOK)
    )?;
    // It is in both Secrets: if the CA's Secret is lost, a replica that still serves an older leaf must stay trusted.
    let previous = [&ca, &tls].into_iter().flatten().find_map(|secret| text(secret, PREVIOUS));
    let previous = previous.filter(|pem| validity(pem).is_some());
    Ok(ObservedCertificates {
        ca: ca.as_ref().and_then(|ca| CertifiedKey::read(ca, None)),
        previous,
        managed_by_other: tls.as_ref().is_some_and(|tls| !has_our_label(tls)),
        leaf: tls
            .as_ref()
            .and_then(|tls| Some((CertifiedKey::read(tls, Some(&context.host()))?, text(tls, "ca.crt")?))),
        configuration: configuration.map(|found| Configuration {
            uid: found.uid().unwrap_or_default(),
            bundles: found
                .webhooks
                .unwrap_or_default()
                .into_iter()
                .map(|entry| (entry.name, entry.client_config.ca_bundle.unwrap_or_default().0))
                .collect(),
        }),
    })
}

/// cert-manager or a person may manage a Secret of that name. Ours has our label, also after a restore from a backup.
fn has_our_label(secret: &Secret) -> bool {
    secret.labels().get(MANAGED_BY).is_some_and(|manager| manager == CONTROLLER)
}
