//! The webhook's certificates with a real API server: a leaf is always signed by a CA that the webhook configuration trusts,
//! also after Secrets were deleted or damaged, the configuration was reset, or two leaders work at once.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crds::names::{CA_SECRET, CONTROLLER, TLS_SECRET, WEBHOOK};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, ResourceExt};
use operator::certificates;
use operator::cli::WebhookCertificates;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::world::World;

/// How long to wait for a renewal: a new CA signs only ten seconds after it is trusted.
const LIMIT: Duration = Duration::from_secs(40);
const ENTRIES: [&str; 3] =
    ["pods.podidentity.dev", "required-namespaces.podidentity.dev", "required-pods.podidentity.dev"];

/// The two Secrets, the webhook configuration, and the tasks that manage them.
struct Certificates {
    world: World,
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    leaders: Vec<JoinHandle<()>>,
}

impl Drop for Certificates {
    fn drop(&mut self) {
        self.leaders.iter().for_each(JoinHandle::abort);
    }
}

impl Certificates {
    /// With the configuration of the chart, and no Secret.
    async fn new() -> Self {
        let world = World::new().await;
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(world.client.clone());
        if configurations.get_opt(WEBHOOK).await.unwrap().is_some() {
            configurations.delete(WEBHOOK, &DeleteParams::default()).await.unwrap();
        }
        let secrets = Api::namespaced(world.client.clone(), &world.system);
        let this = Self { world, secrets, configurations, leaders: Vec::new() };
        let configuration = serde_json::from_value(this.configuration()).unwrap();
        this.configurations.create(&PostParams::default(), &configuration).await.unwrap();
        this
    }

    /// The configuration of the chart, except that it selects no pods.
    fn configuration(&self) -> Value {
        let entries = ENTRIES.map(|name| {
            json!({
                "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
                "clientConfig": {"service": {"name": WEBHOOK, "namespace": self.world.system, "path": "/mutate"}},
                "objectSelector": {"matchLabels": {"never": "true"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            })
        });
        json!({"metadata": {"name": WEBHOOK}, "webhooks": entries})
    }

    /// Starts one more leader.
    fn start_leader(&mut self) {
        self.start_leader_with(self.world.client.clone());
    }

    fn start_leader_with(&mut self, client: Client) {
        let system = self.world.system.clone();
        let (timings, metrics) = (self.world.timings.clone(), self.world.metrics.clone());
        self.leaders.push(tokio::spawn(certificates::run(client, system, timings, metrics)));
    }

    async fn secret(&self, name: &str) -> Option<Secret> {
        self.secrets.get_opt(name).await.unwrap()
    }

    /// Resource versions of the Secrets of CA and leaf.
    async fn versions(&self) -> [u64; 2] {
        [version(&self.secret(CA_SECRET).await.unwrap()), version(&self.secret(TLS_SECRET).await.unwrap())]
    }

    /// Whether every entry of the configuration trusts the leaf, verified as the API server does.
    async fn check_trusted(&self) -> anyhow::Result<()> {
        let configuration = self.configurations.get(WEBHOOK).await?;
        let leaf = self.secret(TLS_SECRET).await.ok_or_else(|| anyhow::anyhow!("there is no leaf"))?;
        let leaf = CertificateDer::from_pem_slice(text(&leaf, "tls.crt").as_bytes())?;
        let host = ServerName::try_from(format!("{WEBHOOK}.{}.svc", self.world.system))?;
        let entries = configuration.webhooks.unwrap_or_default();
        anyhow::ensure!(entries.len() == ENTRIES.len(), "an entry is missing");
        for entry in entries {
            let mut roots = RootCertStore::empty();
            for ca in CertificateDer::pem_slice_iter(&entry.client_config.ca_bundle.unwrap_or_default().0) {
                roots.add(ca?)?;
            }
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let verifier =
                WebPkiServerVerifier::builder_with_provider(roots.into(), provider.into()).build()?;
            verifier.verify_server_cert(&leaf, &[], &host, &[], UnixTime::now())?;
        }
        Ok(())
    }

    /// Waits until every entry trusts the leaf, and the leaf is signed by the current CA.
    async fn until_complete(&self) {
        let check = || async {
            self.check_trusted().await?;
            let (ca, leaf) = (self.secret(CA_SECRET).await, self.secret(TLS_SECRET).await);
            let (ca, leaf) = (ca.unwrap_or_default(), leaf.unwrap_or_default());
            anyhow::ensure!(text(&ca, "tls.crt") == text(&leaf, "ca.crt"), "it is signed by another CA");
            Ok(())
        };
        cluster::until("a trusted leaf of the current CA", LIMIT, check).await.unwrap();
    }

    /// Waits until the Secret has another certificate than before. Returns the Secret.
    async fn until_renewed(&self, name: &str, before: &Secret) -> Secret {
        let old = text(before, "tls.crt");
        let check = || async {
            let now = self.secret(name).await.unwrap_or_default();
            anyhow::ensure!(
                text(&now, "tls.crt").contains("BEGIN") && text(&now, "tls.crt") != old,
                "the certificate is not renewed"
            );
            Ok(())
        };
        cluster::until(&format!("a new certificate in {name}"), LIMIT, check).await.unwrap();
        self.secret(name).await.unwrap()
    }

    async fn damage(&self, name: &str) {
        let data = json!({"stringData": {"tls.crt": "garbage"}});
        self.secrets.patch(name, &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
    }
}

fn text(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.map(|ByteString(bytes)| String::from_utf8(bytes.clone()).unwrap()).unwrap_or_default()
}

/// The resource version; those of all objects are comparable, because they are etcd's revision.
fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_leaf_is_signed_only_by_a_ca_that_every_entry_trusts() {
    let mut certificates = Certificates::new().await;
    certificates.start_leader();
    certificates.until_complete().await;
    let (ca, leaf) =
        (certificates.secret(CA_SECRET).await.unwrap(), certificates.secret(TLS_SECRET).await.unwrap());
    let configuration = certificates.configurations.get(WEBHOOK).await.unwrap();
    assert!(version(&ca) < version(&configuration) && version(&configuration) < version(&leaf));
    assert!(text(&leaf, "tls.key").contains("PRIVATE KEY") && !text(&leaf, "ca.crt").contains("KEY"));
    assert_eq!(leaf.type_.as_deref(), Some("kubernetes.io/tls"));
}

#[tokio::test]
async fn a_deleted_or_damaged_secret_is_renewed_and_the_old_ca_stays_trusted() {
    let mut certificates = Certificates::new().await;
    certificates.start_leader();
    certificates.until_complete().await;
    let ca = certificates.secret(CA_SECRET).await.unwrap();
    // The leaf: the current CA signs another.
    for damaged in [true, false] {
        let leaf = certificates.secret(TLS_SECRET).await.unwrap();
        if damaged {
            certificates.damage(TLS_SECRET).await;
        } else {
            certificates.secrets.delete(TLS_SECRET, &DeleteParams::default()).await.unwrap();
        }
        certificates.until_renewed(TLS_SECRET, &leaf).await;
        certificates.until_complete().await;
        assert_eq!(
            version(&certificates.secret(CA_SECRET).await.unwrap()),
            version(&ca),
            "the CA does not change"
        );
    }
    // The CA: the served leaf stays trusted all the time, and so does the leaf before it, which a replica may still serve.
    let first = text(&ca, "tls.crt");
    for damaged in [true, false] {
        let (ca, leaf) =
            (certificates.secret(CA_SECRET).await.unwrap(), certificates.secret(TLS_SECRET).await.unwrap());
        if damaged {
            certificates.damage(CA_SECRET).await;
        } else {
            certificates.secrets.delete(CA_SECRET, &DeleteParams::default()).await.unwrap();
        }
        certificates.until_renewed(CA_SECRET, &ca).await;
        certificates.check_trusted().await.unwrap();
        certificates.until_renewed(TLS_SECRET, &leaf).await;
        certificates.until_complete().await;
        let bundle = certificates.configurations.get(WEBHOOK).await.unwrap().webhooks.unwrap().remove(0);
        let bundle = String::from_utf8(bundle.client_config.ca_bundle.unwrap().0).unwrap();
        assert!(bundle.contains(&text(&ca, "tls.crt")), "the old CA is in the bundle, too");
        assert!(bundle.contains(&first), "the CA before it is in the bundle, too");
        assert_eq!(bundle.matches("BEGIN").count(), if damaged { 2 } else { 3 });
    }
}

#[tokio::test]
async fn a_bundle_that_a_gitops_tool_resets_is_written_again_and_nothing_else_changes() {
    let mut certificates = Certificates::new().await;
    certificates.start_leader();
    certificates.until_complete().await;
    let before = certificates.versions().await;
    for _ in 0..3 {
        // As `kubectl replace`, or Argo CD with Replace=true, does it.
        let mut replaced = certificates.configuration();
        let live = certificates.configurations.get(WEBHOOK).await.unwrap();
        replaced["metadata"]["resourceVersion"] = json!(live.resource_version());
        let replaced = serde_json::from_value(replaced).unwrap();
        certificates.configurations.replace(WEBHOOK, &PostParams::default(), &replaced).await.unwrap();
        certificates.until_complete().await;
    }
    assert_eq!(certificates.versions().await, before);
}

#[tokio::test]
async fn the_emergency_stop_is_not_undone() {
    let mut certificates = Certificates::new().await;
    certificates.start_leader();
    certificates.until_complete().await;
    let uid = certificates.configurations.get(WEBHOOK).await.unwrap().uid();
    certificates.configurations.delete(WEBHOOK, &DeleteParams::default()).await.unwrap();
    // The leaf is still renewed, but the configuration is not created.
    let leaf = certificates.secret(TLS_SECRET).await.unwrap();
    certificates.secrets.delete(TLS_SECRET, &DeleteParams::default()).await.unwrap();
    certificates.until_renewed(TLS_SECRET, &leaf).await;
    assert!(certificates.configurations.get_opt(WEBHOOK).await.unwrap().is_none(), "it was {uid:?}");
    // `helm upgrade` creates it.
    let configuration = serde_json::from_value(certificates.configuration()).unwrap();
    certificates.configurations.create(&PostParams::default(), &configuration).await.unwrap();
    certificates.until_complete().await;
}

#[tokio::test]
async fn a_secret_of_cert_manager_and_its_bundle_are_not_changed() {
    let mut certificates = Certificates::new().await;
    let foreign = json!({
        "metadata": {"name": TLS_SECRET, "annotations": {"cert-manager.io/certificate-name": "webhook"}},
        "type": "kubernetes.io/tls", "stringData": {"tls.crt": "theirs", "tls.key": "theirs"},
    });
    let foreign = serde_json::from_value(foreign).unwrap();
    let foreign = certificates.secrets.create(&PostParams::default(), &foreign).await.unwrap();
    certificates.start_leader();
    // The operator reconciles after every change, and writes nothing.
    for number in 0..3 {
        let change = json!({"metadata": {"annotations": {"change": number.to_string()}}});
        certificates
            .configurations
            .patch(WEBHOOK, &PatchParams::default(), &Patch::Merge(change))
            .await
            .unwrap();
    }
    // Once the Secret has the operator's label, it is replaced. Until then nothing was written.
    let unchanged = certificates.secret(TLS_SECRET).await.unwrap();
    assert_eq!(version(&unchanged), version(&foreign));
    let label = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": CONTROLLER}}});
    let labelled =
        certificates.secrets.patch(TLS_SECRET, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    certificates.until_complete().await;
    let ca = certificates.secret(CA_SECRET).await.unwrap();
    let (created, fields) = (ca.creation_timestamp(), labelled.managed_fields());
    assert!(version(&ca) > version(&unchanged), "a CA was created at {created:?}, before the label was set");
    assert!(
        fields.iter().all(|fields| fields.manager.as_deref() != Some("podidentity-operator-certificates"))
    );
}

#[tokio::test]
async fn two_leaders_one_after_the_other_or_at_once_agree() {
    let mut certificates = Certificates::new().await;
    certificates.start_leader();
    certificates.until_complete().await;
    let ca = certificates.secret(CA_SECRET).await.unwrap();
    certificates.leaders.remove(0).abort();
    // The next one has nothing to do until the leaf is deleted.
    certificates.start_leader();
    let leaf = certificates.secret(TLS_SECRET).await.unwrap();
    certificates.secrets.delete(TLS_SECRET, &DeleteParams::default()).await.unwrap();
    certificates.until_renewed(TLS_SECRET, &leaf).await;
    certificates.until_complete().await;
    assert_eq!(
        version(&certificates.secret(CA_SECRET).await.unwrap()),
        version(&ca),
        "the next leader uses the same CA"
    );
    // Two at once, without Secrets.
    certificates.start_leader();
    for name in [CA_SECRET, TLS_SECRET] {
        certificates.secrets.delete(name, &DeleteParams::default()).await.unwrap();
    }
    certificates.until_renewed(CA_SECRET, &ca).await;
    certificates.until_complete().await;
}

#[tokio::test]
async fn a_call_without_response_times_out_and_is_retried() {
    let mut certificates = Certificates::new().await;
    let (client, reads) = (certificates.world.client.clone(), Arc::new(AtomicUsize::new(0)));
    let first_hangs = {
        let reads = Arc::clone(&reads);
        tower::service_fn(move |request: http::Request<Body>| {
            let hangs = request.uri().path().ends_with(&format!("/secrets/{CA_SECRET}"))
                && request.method() == http::Method::GET
                && reads.fetch_add(1, Ordering::Relaxed) == 0;
            let client = client.clone();
            async move { if hangs { pending().await } else { client.send(request).await } }
        })
    };
    certificates.start_leader_with(Client::new(first_hangs, certificates.world.system.clone()));
    certificates.until_complete().await;
    assert!(reads.load(Ordering::Relaxed) > 1, "the first read got no response");
}

/// Where something else makes the certificates, the operator touches neither Secret nor configuration.
#[tokio::test]
async fn certificates_of_something_else_are_not_managed() {
    let mut world = World::bootstrapped().await;
    world.webhook_certificates = WebhookCertificates::External;
    world.apply_issuer(&world.spec()).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.stop().await;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &world.system);
    for name in [CA_SECRET, TLS_SECRET] {
        assert!(secrets.get_opt(name).await.unwrap().is_none(), "{name}");
    }
}
