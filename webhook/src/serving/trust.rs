//! Whether the API server accepts the serving certificate: the `caBundle` of the live webhook configuration is watched by
//! name, and the certificate is verified against it as the API server does. Until it is accepted, a replica that has just
//! started is not ready; afterwards a mismatch is a metric, so that deleting the configuration (the emergency stop) does not
//! stop the replicas.

use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::serving::tls::{Certificate, provider};

/// Whether the live configuration trusts the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// Every entry does.
    Yes,
    /// There is no configuration, so there are no calls.
    NoConfiguration,
    /// It has not been read yet.
    Unknown,
    /// This entry does not.
    NotBy(Arc<str>),
}

/// The live configuration.
#[derive(Debug)]
pub struct Trust {
    certificate: Arc<Certificate>,
    /// `None` until the configuration was read; empty where there is none.
    entries: RwLock<Option<Arc<[ConfiguredEntry]>>>,
}

/// An entry of the configuration.
#[derive(Debug)]
struct ConfiguredEntry {
    name: Arc<str>,
    /// The host name that the API server verifies.
    host: String,
    /// The CAs it trusts; `None` where that cannot be read, or is empty.
    bundle: Option<Arc<RootCertStore>>,
}

impl Trust {
    /// Without a configuration so far.
    #[must_use]
    pub fn new(certificate: Arc<Certificate>) -> Self {
        Self { certificate, entries: RwLock::default() }
    }

    /// Watches the configuration; returns only if the watch ends, which it does not do by itself.
    pub async fn follow(&self, client: Client, name: &str) {
        // RBAC's resourceNames permits a list or watch only with this field selector.
        let config = process::watch::config().fields(&format!("metadata.name={name}"));
        self.apply_all(watcher(Api::<MutatingWebhookConfiguration>::all(client), config)).await;
    }

    async fn apply_all(
        &self,
        events: impl Stream<Item = watcher::Result<Event<MutatingWebhookConfiguration>>>,
    ) {
        let mut events = std::pin::pin!(events.backoff(process::watch::backoff()));
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = false,
                Ok(Event::InitApply(configuration) | Event::Apply(configuration)) => {
                    listed = true;
                    self.apply(Some(&configuration));
                }
                Ok(Event::InitDone) if listed => {}
                Ok(Event::InitDone | Event::Delete(_)) => self.apply(None),
                Err(error) => {
                    tracing::warn!(error = %error, "the watch of the webhook configuration failed and is retried");
                }
            }
        }
    }

    /// Applies the current configuration; `None` where there is none.
    pub fn apply(&self, configuration: Option<&MutatingWebhookConfiguration>) {
        let webhooks = configuration.and_then(|configuration| configuration.webhooks.as_deref());
        let entries = webhooks.unwrap_or_default().iter().map(|webhook| {
            let config = &webhook.client_config;
            let service = config.service.as_ref().map(|s| format!("{}.{}.svc", s.name, s.namespace));
            let url = || {
                let (_, rest) = config.url.as_deref()?.split_once("://")?;
                let authority = rest.split('/').next()?;
                Some(authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_owned())
            };
            let bundle = config.ca_bundle.as_ref().and_then(|bundle| roots(&bundle.0)).map(Arc::new);
            ConfiguredEntry {
                name: webhook.name.as_str().into(),
                host: service.or_else(url).unwrap_or_default(),
                bundle,
            }
        });
        let entries = entries.collect();
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = Some(entries);
        tracing::info!(trusted = ?self.trusted(), "webhook configuration read");
    }

    /// Whether it trusts the certificate that is served now.
    #[must_use]
    pub fn trusted(&self) -> Trusted {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(entries) = entries else { return Trusted::Unknown };
        if entries.is_empty() {
            return Trusted::NoConfiguration;
        }
        let Some(chain) = self.certificate.chain() else { return Trusted::Unknown };
        let refusing = entries.iter().find(|entry| !entry.accepts(&chain));
        refusing.map_or(Trusted::Yes, |entry| Trusted::NotBy(Arc::clone(&entry.name)))
    }
}

impl ConfiguredEntry {
    fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let (Some(bundle), [leaf, intermediates @ ..]) = (&self.bundle, chain) else { return false };
        let Ok(host) = ServerName::try_from(self.host.as_str()) else { return false };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(bundle), provider()).build();
        verifier.is_ok_and(|verifier| {
            verifier.verify_server_cert(leaf, intermediates, &host, &[], UnixTime::now()).is_ok()
        })
    }
}

/// The CAs of a bundle; `None` where there is none, or one that cannot be read.
fn roots(pem: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}
