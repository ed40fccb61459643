//! What is in the cluster: the two Secrets and the webhook configuration.

use crds::names::{CA_SECRET, CONTROLLER, TLS_SECRET, WEBHOOK};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::keeper::Keeper;
use super::model::{Configuration, MANAGED_BY, Observed, PREVIOUS, Pair, validity};
use super::pair::text;

/// Reads all three anew.
pub async fn observe(keeper: &Keeper) -> Result<Observed, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(keeper.client.clone(), &keeper.namespace);
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(keeper.client.clone());
    let (ca, tls, configuration) = tokio::try_join!(
        secrets.get_opt(CA_SECRET),
        secrets.get_opt(TLS_SECRET),
        configurations.get_opt(WEBHOOK)
    )?;
    // In both Secrets, so that the loss of the CA's does not cut off a replica that serves an older leaf.
    let previous = [&ca, &tls].into_iter().flatten().find_map(|secret| text(secret, PREVIOUS));
    let previous = previous.filter(|pem| validity(pem).is_some());
    Ok(Observed {
        ca: ca.as_ref().and_then(|ca| Pair::read(ca, None)),
        previous,
        foreign: tls.as_ref().is_some_and(|tls| !kept_by_us(tls)),
        leaf: tls
            .as_ref()
            .and_then(|tls| Some((Pair::read(tls, Some(&keeper.host()))?, text(tls, "ca.crt")?))),
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

/// cert-manager, or a person, may keep a Secret of that name; ours carries our label, also when it was restored.
fn kept_by_us(secret: &Secret) -> bool {
    secret.labels().get(MANAGED_BY).is_some_and(|manager| manager == CONTROLLER)
}
