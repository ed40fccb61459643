//! The webhook's certificates on a real API server: who trusts what before who is signed by whom, whatever is deleted,
//! garbled, reset or done twice.

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
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::world::World;

/// A new CA signs ten seconds after it is trusted.
const LIMIT: Duration = Duration::from_secs(40);
const ENTRIES: [&str; 3] =
    ["pods.podidentity.dev", "required-namespaces.podidentity.dev", "required-pods.podidentity.dev"];

/// The three objects, and those who look after them.
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
    /// A configuration as the chart makes it, and nothing else.
    async fn new() -> Self {
        let world = World::new().await;
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(world.client.clone());
        if configurations.get_opt(WEBHOOK).await.unwrap().is_some() {
            configurations.delete(WEBHOOK, &DeleteParams::default()).await.unwrap();
        }
        let secrets = Api::namespaced(world.client.clone(), &world.system);
        let this = Self { world, secrets, configurations, leaders: Vec::new() };
        let made = serde_json::from_value(this.configuration()).unwrap();
        this.configurations.create(&PostParams::default(), &made).await.unwrap();
        this
    }

    /// Selects nothing: no pod of any test is sent there.
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

    /// One more replica that thinks it leads.
    fn lead(&mut self) {
        self.lead_through(self.world.client.clone());
    }

    fn lead_through(&mut self, client: Client) {
        let system = self.world.system.clone();
        let (timings, metrics) = (self.world.timings.clone(), self.world.metrics.clone());
        self.leaders.push(tokio::spawn(certificates::keep(client, system, timings, metrics)));
    }

    async fn secret(&self, name: &str) -> Option<Secret> {
        self.secrets.get_opt(name).await.unwrap()
    }

    /// Versions of CA and leaf.
    async fn versions(&self) -> [u64; 2] {
        [version(&self.secret(CA_SECRET).await.unwrap()), version(&self.secret(TLS_SECRET).await.unwrap())]
    }

    /// What the API server would say of the leaf: whether every entry trusts it.
    async fn trusted(&self) -> anyhow::Result<()> {
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

    /// Waits until every entry trusts the leaf, and the leaf is signed by the CA that stands.
    async fn at_rest(&self) {
        let rest = || async {
            self.trusted().await?;
            let (ca, leaf) = (self.secret(CA_SECRET).await, self.secret(TLS_SECRET).await);
            let (ca, leaf) = (ca.unwrap_or_default(), leaf.unwrap_or_default());
            anyhow::ensure!(text(&ca, "tls.crt") == text(&leaf, "ca.crt"), "another CA has signed it");
            Ok(())
        };
        cluster::until("the certificates to come to rest", LIMIT, rest).await.unwrap();
    }

    /// Waits until the Secret's certificate is another one than this.
    async fn renewed(&self, name: &str, before: &Secret) -> Secret {
        let old = text(before, "tls.crt");
        let another = || async {
            let now = self.secret(name).await.unwrap_or_default();
            anyhow::ensure!(
                text(&now, "tls.crt").contains("BEGIN") && text(&now, "tls.crt") != old,
                "not yet"
            );
            Ok(())
        };
        cluster::until(&format!("{name} to be made anew"), LIMIT, another).await.unwrap();
        self.secret(name).await.unwrap()
    }

    async fn garble(&self, name: &str) {
        let data = json!({"stringData": {"tls.crt": "garbage"}});
        self.secrets.patch(name, &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
    }
}

fn text(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.map(|ByteString(bytes)| String::from_utf8(bytes.clone()).unwrap()).unwrap_or_default()
}

/// The API server's one clock.
fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_leaf_is_signed_only_by_a_ca_that_every_entry_trusts() {
    let mut these = Certificates::new().await;
    these.lead();
    these.at_rest().await;
    let (ca, leaf) = (these.secret(CA_SECRET).await.unwrap(), these.secret(TLS_SECRET).await.unwrap());
    let configuration = these.configurations.get(WEBHOOK).await.unwrap();
    assert!(version(&ca) < version(&configuration) && version(&configuration) < version(&leaf));
    assert!(text(&leaf, "tls.key").contains("PRIVATE KEY") && !text(&leaf, "ca.crt").contains("KEY"));
    assert_eq!(leaf.type_.as_deref(), Some("kubernetes.io/tls"));
}

#[tokio::test]
async fn what_is_deleted_or_garbled_is_made_anew_and_the_old_ca_stays_trusted() {
    let mut these = Certificates::new().await;
    these.lead();
    these.at_rest().await;
    let ca = these.secret(CA_SECRET).await.unwrap();
    // The leaf: the CA that stands signs another.
    for garbled in [true, false] {
        let leaf = these.secret(TLS_SECRET).await.unwrap();
        if garbled {
            these.garble(TLS_SECRET).await;
        } else {
            these.secrets.delete(TLS_SECRET, &DeleteParams::default()).await.unwrap();
        }
        these.renewed(TLS_SECRET, &leaf).await;
        these.at_rest().await;
        assert_eq!(version(&these.secret(CA_SECRET).await.unwrap()), version(&ca), "the CA is left alone");
    }
    // The CA: what serves stays trusted all the while, and so does what served before it, which a replica may still do.
    let first = text(&ca, "tls.crt");
    for garbled in [true, false] {
        let (ca, leaf) = (these.secret(CA_SECRET).await.unwrap(), these.secret(TLS_SECRET).await.unwrap());
        if garbled {
            these.garble(CA_SECRET).await;
        } else {
            these.secrets.delete(CA_SECRET, &DeleteParams::default()).await.unwrap();
        }
        these.renewed(CA_SECRET, &ca).await;
        these.trusted().await.unwrap();
        these.renewed(TLS_SECRET, &leaf).await;
        these.at_rest().await;
        let bundle = these.configurations.get(WEBHOOK).await.unwrap().webhooks.unwrap().remove(0);
        let bundle = String::from_utf8(bundle.client_config.ca_bundle.unwrap().0).unwrap();
        assert!(bundle.contains(&text(&ca, "tls.crt")), "the old CA is in the bundle beside the new one");
        assert!(bundle.contains(&first), "and so is the one before");
        assert_eq!(bundle.matches("BEGIN").count(), if garbled { 2 } else { 3 });
    }
}

#[tokio::test]
async fn a_bundle_that_a_gitops_tool_has_emptied_is_filled_again_and_nothing_else_changes() {
    let mut these = Certificates::new().await;
    these.lead();
    these.at_rest().await;
    let before = these.versions().await;
    for _ in 0..3 {
        // As `kubectl replace`, or Argo CD with Replace=true, does it.
        let mut replaced = these.configuration();
        let standing = these.configurations.get(WEBHOOK).await.unwrap();
        replaced["metadata"]["resourceVersion"] = json!(standing.resource_version());
        let replaced = serde_json::from_value(replaced).unwrap();
        these.configurations.replace(WEBHOOK, &PostParams::default(), &replaced).await.unwrap();
        these.at_rest().await;
    }
    assert_eq!(these.versions().await, before);
}

#[tokio::test]
async fn the_emergency_stop_is_not_undone() {
    let mut these = Certificates::new().await;
    these.lead();
    these.at_rest().await;
    let uid = these.configurations.get(WEBHOOK).await.unwrap().uid();
    these.configurations.delete(WEBHOOK, &DeleteParams::default()).await.unwrap();
    // It goes on working: the leaf is made anew, the configuration is not.
    let leaf = these.secret(TLS_SECRET).await.unwrap();
    these.secrets.delete(TLS_SECRET, &DeleteParams::default()).await.unwrap();
    these.renewed(TLS_SECRET, &leaf).await;
    assert!(these.configurations.get_opt(WEBHOOK).await.unwrap().is_none(), "it was {uid:?}");
    // `helm upgrade` makes it again.
    let made = serde_json::from_value(these.configuration()).unwrap();
    these.configurations.create(&PostParams::default(), &made).await.unwrap();
    these.at_rest().await;
}

#[tokio::test]
async fn a_secret_that_cert_manager_keeps_is_left_alone_with_its_bundle() {
    let mut these = Certificates::new().await;
    let foreign = json!({
        "metadata": {"name": TLS_SECRET, "annotations": {"cert-manager.io/certificate-name": "webhook"}},
        "type": "kubernetes.io/tls", "stringData": {"tls.crt": "theirs", "tls.key": "theirs"},
    });
    let foreign = serde_json::from_value(foreign).unwrap();
    let foreign = these.secrets.create(&PostParams::default(), &foreign).await.unwrap();
    these.lead();
    // It looks at every change; none of them moves it.
    for number in 0..3 {
        let poke = json!({"metadata": {"annotations": {"poke": number.to_string()}}});
        these.configurations.patch(WEBHOOK, &PatchParams::default(), &Patch::Merge(poke)).await.unwrap();
    }
    // Given to the operator by its label, it is replaced: until then nothing was written.
    let standing = these.secret(TLS_SECRET).await.unwrap();
    assert_eq!(version(&standing), version(&foreign));
    let given = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": CONTROLLER}}});
    let given = these.secrets.patch(TLS_SECRET, &PatchParams::default(), &Patch::Merge(given)).await.unwrap();
    these.at_rest().await;
    let ca = these.secret(CA_SECRET).await.unwrap();
    let (made, given) = (ca.creation_timestamp(), given.managed_fields().to_vec());
    assert!(version(&ca) > version(&standing), "a CA was made at {made:?}, before the Secret was given");
    assert!(
        given.iter().all(|fields| fields.manager.as_deref() != Some("podidentity-operator-certificates"))
    );
}

#[tokio::test]
async fn two_leaders_in_succession_or_at_once_come_to_one_rest() {
    let mut these = Certificates::new().await;
    these.lead();
    these.at_rest().await;
    let ca = these.secret(CA_SECRET).await.unwrap();
    these.leaders.remove(0).abort();
    // The next one finds everything in place, and shows that it lives by making a leaf.
    these.lead();
    let leaf = these.secret(TLS_SECRET).await.unwrap();
    these.secrets.delete(TLS_SECRET, &DeleteParams::default()).await.unwrap();
    these.renewed(TLS_SECRET, &leaf).await;
    these.at_rest().await;
    assert_eq!(version(&these.secret(CA_SECRET).await.unwrap()), version(&ca), "the CA is handed on");
    // Both at once, from nothing.
    these.lead();
    for name in [CA_SECRET, TLS_SECRET] {
        these.secrets.delete(name, &DeleteParams::default()).await.unwrap();
    }
    these.renewed(CA_SECRET, &ca).await;
    these.at_rest().await;
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_given_up_soon() {
    let mut these = Certificates::new().await;
    let (client, asked) = (these.world.client.clone(), Arc::new(AtomicUsize::new(0)));
    let first_hangs = {
        let asked = Arc::clone(&asked);
        tower::service_fn(move |request: http::Request<Body>| {
            let hangs = request.uri().path().ends_with(&format!("/secrets/{CA_SECRET}"))
                && request.method() == http::Method::GET
                && asked.fetch_add(1, Ordering::Relaxed) == 0;
            let client = client.clone();
            async move { if hangs { pending().await } else { client.send(request).await } }
        })
    };
    these.lead_through(Client::new(first_hangs, these.world.system.clone()));
    these.at_rest().await;
    assert!(asked.load(Ordering::Relaxed) > 1, "the first look hung");
}
