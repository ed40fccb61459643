//! The webhook's certificates, kept by the leader: observe → decide (pure) → act.
//!
//! The CA's key stays in one Secret that only the operator reads; leaf and key go to a second `kubernetes.io/tls` Secret
//! which the webhook watches. A CA signs only once the live webhook configuration trusts it. The configuration is the
//! chart's: only its `caBundle` is written here, and it is never made again (deleting it is the emergency stop).

use std::collections::BTreeMap;
use std::time::Duration;

use crds::names::{CA_SECRET, CONTROLLER, MANAGER_CERTIFICATES, TLS_SECRET, WEBHOOK};
use futures::StreamExt;
use futures::stream::select_all;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use serde_json::json;
use thiserror::Error;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::GeneralName;

use crate::metrics::Metrics;
use crate::timings::Timings;
use crate::watch;

/// How old a CA must be before it takes over from another: API servers hear of a changed webhook configuration by a watch.
const HEARD_AFTER: Duration = Duration::from_secs(10);
/// A round is a few small calls. One that hangs must not keep a deleted certificate away for a minute.
const ROUND: Duration = Duration::from_secs(15);
/// How many CAs stay trusted beside the one that stands.
const KEPT: usize = 2;
/// The key under which both Secrets hold them.
const PREVIOUS: &str = "previous.crt";
/// Where one certificate ends and the next begins.
const END_OF_PEM: &str = "-----END CERTIFICATE-----\n";
/// The label by which our Secrets are known.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// A clock that is an hour ahead of ours must accept what we sign.
const BACKDATED: Duration = Duration::from_hours(1);
/// Longest lives, whatever the flags say.
const MAX_CA_LIFE: Duration = Duration::from_hours(365 * 24);
const MAX_LEAF_LIFE: Duration = Duration::from_hours(7 * 24);

/// Why the certificates could not be looked after.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The API server refused a call.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// Time-out, or somebody else undoes what is written.
    #[error(
        "the certificates do not come to rest: the API server does not answer, or somebody else writes them, too"
    )]
    Unsettled,
    /// A life span beyond what a calendar holds.
    #[error("a certificate's end lies outside the calendar")]
    Calendar,
}

/// A certificate and its key that belong together.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PEM. Never logged.
    key: String,
    /// Validity in seconds since 1970.
    pub not_before: i64,
    /// End of validity in seconds since 1970.
    pub not_after: i64,
}

/// What stands in the cluster.
#[derive(Clone, Default)]
pub struct Observed {
    /// The CA, if its Secret holds one.
    pub ca: Option<Pair>,
    /// CAs before it that are trusted still, newest first, as one PEM.
    pub previous: Option<String>,
    /// The leaf, if its Secret holds one, with the CA it says it was signed by.
    pub leaf: Option<(Pair, String)>,
    /// Whether somebody else (cert-manager) keeps the leaf's Secret.
    pub foreign: bool,
    /// The webhook configuration.
    pub configuration: Option<Configuration>,
}

/// The live webhook configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Its uid: an apply without it would create it anew.
    pub uid: String,
    /// `caBundle` by entry.
    pub bundles: Vec<(String, Vec<u8>)>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a CA; the one that stands is trusted a while longer.
    MakeCa,
    /// Put this bundle into every entry.
    PutBundle(String),
    /// Make a leaf, signed by the CA that stands.
    MakeLeaf,
}

/// PURE: the next step, if any; one at a time, each followed by a new look. `now` is in seconds since 1970.
#[must_use]
pub fn decide(observed: &Observed, now: i64) -> Option<Step> {
    let Observed { ca, previous, leaf, foreign, configuration } = observed;
    if *foreign {
        return None; // whoever keeps the Secret keeps the bundle, too
    }
    let fresh = |pair: &&Pair| {
        pair.not_before <= now && now < pair.not_after - (pair.not_after - pair.not_before) / 3
    };
    let Some(ca) = ca.as_ref().filter(fresh) else { return Some(Step::MakeCa) };
    let bundle = ca.certificate.clone() + previous.as_deref().unwrap_or_default();
    let trusted = |c: &Configuration| c.bundles.iter().all(|(_, standing)| standing == bundle.as_bytes());
    if !configuration.as_ref().is_none_or(trusted) {
        return Some(Step::PutBundle(bundle));
    }
    let serves = |(pair, signer): &&(Pair, String)| fresh(&pair) && *signer == ca.certificate;
    if leaf.as_ref().is_some_and(|leaf| serves(&leaf)) {
        return None;
    }
    // A leaf that is still valid serves until every API server has heard of the new CA.
    let valid = leaf.as_ref().is_some_and(|(pair, _)| pair.not_before <= now && now < pair.not_after);
    let heard = now - ca.not_before >= whole(BACKDATED + HEARD_AFTER).whole_seconds();
    (heard || !valid).then_some(Step::MakeLeaf)
}

/// Looks after the certificates for as long as it runs: at once, on every change of the three objects, and at times.
pub async fn keep(client: Client, namespace: String, timings: Timings, metrics: std::sync::Arc<Metrics>) {
    let keeper = Keeper { client, namespace, timings, metrics };
    let mut changes = keeper.changes();
    loop {
        let limit = keeper.timings.reconcile_timeout.min(ROUND);
        let converged = tokio::time::timeout(limit, keeper.converge()).await;
        let wait = match converged.unwrap_or(Err(CertificateError::Unsettled)) {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "the webhook's certificates could not be looked after; tried again");
                tokio::time::sleep(keeper.timings.lease_retry).await;
                continue;
            }
        };
        tokio::select! {
            _ = changes.next() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Keeper {
    client: Client,
    namespace: String,
    timings: Timings,
    metrics: std::sync::Arc<Metrics>,
}

impl Keeper {
    /// Takes steps until there is none; returns when to look again.
    async fn converge(&self) -> Result<Duration, CertificateError> {
        // CA, bundle and leaf are three; whoever undoes them as fast must not keep us busy.
        const MOST_STEPS: usize = 6;
        for _ in 0..MOST_STEPS {
            let observed = self.observe().await?;
            if let Some(ca) = &observed.ca {
                self.metrics.certificate("ca", ca.not_after);
            }
            if let Some((leaf, _)) = &observed.leaf {
                self.metrics.certificate("leaf", leaf.not_after);
            }
            if observed.foreign {
                tracing::info!(
                    "Secret {TLS_SECRET} is kept by somebody else: neither it nor caBundle is written"
                );
            }
            let Some(step) = decide(&observed, Timestamp::now().as_second()) else {
                let signer = observed.leaf.as_ref().map(|(_, signer)| signer);
                let signs = observed.foreign || signer == observed.ca.as_ref().map(|ca| &ca.certificate);
                return Ok(if signs { self.timings.certificate_check } else { HEARD_AFTER });
            };
            tracing::info!(step = step.name(), "webhook certificates");
            self.act(step, &observed).await?;
        }
        Err(CertificateError::Unsettled)
    }

    async fn observe(&self) -> Result<Observed, kube::Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
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
                .and_then(|tls| Some((Pair::read(tls, Some(&self.host()))?, text(tls, "ca.crt")?))),
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

    async fn act(&self, step: Step, observed: &Observed) -> Result<(), CertificateError> {
        match step {
            Step::MakeCa => {
                let life = self.timings.ca_life.min(MAX_CA_LIFE);
                let made = ca(life)?;
                let data = BTreeMap::from([
                    ("tls.crt", made.certificate),
                    ("tls.key", made.key),
                    (PREVIOUS, trusted_so_far(observed, Timestamp::now().as_second())),
                ]);
                self.put_secret(CA_SECRET, "Opaque", &data).await?;
            }
            Step::MakeLeaf => {
                let Some(ca) = &observed.ca else { return Ok(()) };
                let made = leaf(ca, &self.host(), self.timings.leaf_life.min(MAX_LEAF_LIFE))?;
                let data = BTreeMap::from([
                    ("tls.crt", made.certificate),
                    ("tls.key", made.key),
                    ("ca.crt", ca.certificate.clone()),
                    (PREVIOUS, observed.previous.clone().unwrap_or_default()),
                ]);
                self.put_secret(TLS_SECRET, "kubernetes.io/tls", &data).await?;
            }
            Step::PutBundle(bundle) => {
                let Some(Configuration { uid, bundles }) = &observed.configuration else { return Ok(()) };
                let ca_bundle = ByteString(bundle.into_bytes());
                let entries: Vec<_> = bundles
                    .iter()
                    .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": ca_bundle}}))
                    .collect();
                let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
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
        &self,
        name: &str,
        type_: &str,
        data: &BTreeMap<&str, String>,
    ) -> Result<(), kube::Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {MANAGED_BY: CONTROLLER},
            },
            "type": type_,
            "stringData": data,
        });
        let parameters = PatchParams::apply(MANAGER_CERTIFICATES).force();
        api.patch(name, &parameters, &Patch::Apply(patch)).await.map(|_| ())
    }

    /// The name the API server calls the webhook by.
    fn host(&self) -> String {
        format!("{WEBHOOK}.{}.svc", self.namespace)
    }

    /// One item for every change of the three objects; what changed is read anew anyway.
    fn changes(&self) -> impl futures::Stream<Item = ()> + Unpin + use<> {
        let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(self.client.clone(), &self.namespace);
        let configurations: Api<PartialObjectMeta<MutatingWebhookConfiguration>> =
            Api::all(self.client.clone());
        let named = |name: &str| watch::config().fields(&format!("metadata.name={name}"));
        select_all([
            watcher(secrets.clone(), named(CA_SECRET)).backoff(watch::backoff()).map(|_| ()).boxed(),
            watcher(secrets, named(TLS_SECRET)).backoff(watch::backoff()).map(|_| ()).boxed(),
            watcher(configurations, named(WEBHOOK)).backoff(watch::backoff()).map(|_| ()).boxed(),
        ])
    }
}

impl Step {
    const fn name(&self) -> &'static str {
        match self {
            Self::MakeCa => "make CA",
            Self::PutBundle(_) => "put caBundle",
            Self::MakeLeaf => "make leaf",
        }
    }
}

impl Pair {
    /// A Secret's pair, if certificate and key are readable, belong together and, for a leaf, name the host.
    fn read(secret: &Secret, host: Option<&str>) -> Option<Self> {
        let (certificate, key) = (text(secret, "tls.crt")?, text(secret, "tls.key")?);
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
        let parsed = pem.parse_x509().ok()?;
        let public = KeyPair::from_pem(&key).ok()?.subject_public_key_info();
        if parsed.public_key().raw != public.as_slice() {
            return None;
        }
        if let Some(host) = host {
            let alternatives = parsed.subject_alternative_name().ok()??;
            let is_host = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(dns) if *dns == host);
            alternatives.value.general_names.iter().any(is_host).then_some(())?;
        }
        let (not_before, not_after) = validity(&certificate)?;
        Some(Self { certificate, key, not_before, not_after })
    }
}

/// The CAs that must stay trusted beside a new one, newest first: the one that stands or, where its Secret was lost, the
/// leaf's signer; and those before it, since a replica may not have taken the last leaf yet when the next CA is made.
fn trusted_so_far(observed: &Observed, now: i64) -> String {
    let standing = observed.ca.as_ref().map(|ca| ca.certificate.as_str());
    let signer = observed.leaf.as_ref().map(|(_, signer)| signer.as_str());
    let before = observed.previous.as_deref().unwrap_or_default();
    let mut kept: Vec<&str> = Vec::new();
    for pem in [standing, signer].into_iter().flatten().chain(before.split_inclusive(END_OF_PEM)) {
        let alive = validity(pem).is_some_and(|(_, not_after)| now < not_after);
        if alive && kept.len() < KEPT && !kept.contains(&pem) {
            kept.push(pem);
        }
    }
    kept.concat()
}

fn validity(pem: &str) -> Option<(i64, i64)> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let validity = pem.parse_x509().ok()?.validity().clone();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

/// cert-manager, or a person, may keep a Secret of that name; ours carries our label, also when it was restored.
fn kept_by_us(secret: &Secret) -> bool {
    secret.labels().get(MANAGED_BY).is_some_and(|manager| manager == CONTROLLER)
}

fn ca(life: Duration) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = parameters(Vec::new(), "podidentity-webhook-ca", life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key)?.pem();
    pair(certificate, &key)
}

fn leaf(ca: &Pair, host: &str, life: Duration) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = parameters(vec![host.to_owned()], host, life)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    pair(certificate, &key)
}

fn parameters(
    names: Vec<String>,
    common_name: &str,
    life: Duration,
) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    // X.520 allows 64 characters in a common name.
    params.distinguished_name.push(DnType::CommonName, &common_name[..common_name.floor_char_boundary(64)]);
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now.checked_sub(whole(BACKDATED)).ok_or(CertificateError::Calendar)?;
    params.not_after = now.checked_add(whole(life)).ok_or(CertificateError::Calendar)?;
    Ok(params)
}

fn whole(duration: Duration) -> time::Duration {
    time::Duration::seconds(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

fn pair(certificate: String, key: &KeyPair) -> Result<Pair, CertificateError> {
    let (not_before, not_after) = validity(&certificate).ok_or(CertificateError::Calendar)?;
    Ok(Pair { certificate, key: key.serialize_pem(), not_before, not_after })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const HOST: &str = "podidentity-webhook.podidentity-system.svc";
    const DAY: i64 = 86_400;

    fn standing() -> Observed {
        let ca = ca(MAX_CA_LIFE).unwrap();
        let leaf = leaf(&ca, HOST, MAX_LEAF_LIFE).unwrap();
        let bundles = vec![("pods".to_owned(), ca.certificate.clone().into_bytes())];
        Observed {
            leaf: Some((leaf, ca.certificate.clone())),
            ca: Some(ca),
            configuration: Some(Configuration { uid: "u".into(), bundles }),
            ..Observed::default()
        }
    }

    #[test]
    fn each_step_follows_from_what_stands() {
        let now = Timestamp::now().as_second();
        let good = standing();
        let certificate = good.ca.clone().unwrap().certificate;
        assert_eq!(decide(&good, now), None);
        assert_eq!(decide(&Observed::default(), now), Some(Step::MakeCa));
        let bundle = Step::PutBundle(certificate.clone());
        let emptied = Configuration { uid: "u".into(), bundles: vec![("pods".into(), Vec::new())] };
        // The bundle comes before the leaf, whatever else is missing.
        let unknown = Observed { configuration: Some(emptied), leaf: None, ..good.clone() };
        assert_eq!(decide(&unknown, now), Some(bundle));
        assert_eq!(decide(&Observed { leaf: None, ..good.clone() }, now), Some(Step::MakeLeaf));
        // The emergency stop: no configuration is made, and the leaf is kept ready.
        assert_eq!(decide(&Observed { configuration: None, ..good.clone() }, now), None);
        // At two thirds of its life.
        assert_eq!(decide(&good, now + 4 * DAY), None);
        assert_eq!(decide(&good, now + 5 * DAY), Some(Step::MakeLeaf));
        assert_eq!(decide(&good, now + 250 * DAY), Some(Step::MakeCa));
        // A clock that went back.
        assert_eq!(decide(&good, now - 2 * DAY), Some(Step::MakeCa));
        // Another CA: its successor signs anew once it is trusted.
        let next = ca(MAX_CA_LIFE).unwrap();
        let rotated =
            Observed { ca: Some(next.clone()), previous: Some(certificate.clone()), ..good.clone() };
        let both = next.certificate + &certificate;
        assert_eq!(decide(&rotated, now), Some(Step::PutBundle(both.clone())));
        // Only once every API server has heard of it, since the old leaf still serves.
        let bundles = vec![("pods".to_owned(), both.into_bytes())];
        let heard = Observed { configuration: Some(Configuration { uid: "u".into(), bundles }), ..rotated };
        assert_eq!(decide(&heard, now), None);
        assert_eq!(decide(&heard, now + 11), Some(Step::MakeLeaf));
        assert_eq!(decide(&Observed { leaf: None, ..heard }, now), Some(Step::MakeLeaf));
        // A CA whose Secret was lost: what it signed stays trusted.
        assert_eq!(trusted_so_far(&Observed { ca: None, ..good.clone() }, now), certificate);
        assert_eq!(decide(&Observed { foreign: true, ..Observed::default() }, now), None);
    }

    #[test]
    fn a_ca_stays_trusted_through_two_more() {
        let now = Timestamp::now().as_second();
        let good = standing();
        let third = good.ca.clone().unwrap().certificate;
        let [first, second] = [(); 2].map(|()| ca(MAX_CA_LIFE).unwrap().certificate);
        let previous = Some(second.clone() + &first);
        let observed = Observed { previous, ..good.clone() };
        assert_eq!(trusted_so_far(&observed, now), third.clone() + &second, "no more than are kept");
        assert_eq!(trusted_so_far(&Observed { ca: None, ..observed.clone() }, now), third.clone() + &second);
        // The leaf is signed by an older one still.
        let leaf = good.leaf.clone().map(|(pair, _)| (pair, second.clone()));
        let observed = Observed { leaf, previous: Some(second.clone() + &first), ..good.clone() };
        assert_eq!(trusted_so_far(&observed, now), third.clone() + &second);
        assert_eq!(trusted_so_far(&Observed { ca: None, ..observed.clone() }, now), second + &first);
        assert_eq!(trusted_so_far(&observed, now + 366 * DAY), "", "what has ended is kept no longer");
        assert_eq!(trusted_so_far(&Observed::default(), now), "");
    }

    #[test]
    fn a_pair_that_does_not_belong_together_is_none() {
        let one = standing();
        let (pair, _) = one.leaf.unwrap();
        let secret = |certificate: &str, key: &str| Secret {
            data: Some(BTreeMap::from([
                ("tls.crt".to_owned(), ByteString(certificate.as_bytes().to_vec())),
                ("tls.key".to_owned(), ByteString(key.as_bytes().to_vec())),
            ])),
            ..Secret::default()
        };
        assert!(Pair::read(&secret(&pair.certificate, &pair.key), Some(HOST)).is_some());
        assert!(Pair::read(&secret(&pair.certificate, &pair.key), Some("other.svc")).is_none());
        assert!(Pair::read(&secret(&pair.certificate, &one.ca.unwrap().key), Some(HOST)).is_none());
        assert!(Pair::read(&secret("garbled", &pair.key), Some(HOST)).is_none());
    }
}
