//! PURE: the types of the certificates' reconcile, and the validity of a certificate.

use std::time::Duration;

use x509_parser::pem::parse_x509_pem;

/// Key in both Secrets: the CA certificates before the current one.
pub const PREVIOUS: &str = "previous.crt";
/// The label that marks our Secrets.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Certificates are valid from this long before they are created, so that machines with a slow clock accept them.
pub const BACKDATED: Duration = Duration::from_hours(1);
/// The longest lifetime of a CA, whatever `--ca-life` says.
pub const MAX_CA_LIFE: Duration = Duration::from_hours(365 * 24);
/// The longest lifetime of a leaf, whatever `--leaf-life` says.
pub const MAX_LEAF_LIFE: Duration = Duration::from_hours(7 * 24);

/// A certificate and its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct CertifiedKey {
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PEM. Never logged.
    pub key: String,
    /// Begin of validity in seconds since 1970.
    pub not_before: i64,
    /// End of validity in seconds since 1970.
    pub not_after: i64,
}

/// The two Secrets and the webhook configuration, as they are in the cluster.
#[derive(Clone, Default)]
pub struct ObservedCertificates {
    /// The CA, if its Secret has a valid one.
    pub ca: Option<CertifiedKey>,
    /// The certificates of earlier CAs that are still trusted, newest first, as one PEM.
    pub previous: Option<String>,
    /// The leaf, if its Secret has a valid one, with the CA certificate (PEM) that its Secret names as signer.
    pub leaf: Option<(CertifiedKey, String)>,
    /// Whether another program (cert-manager) or a person manages the leaf's Secret.
    pub managed_by_other: bool,
    /// The webhook configuration; `None` where it does not exist.
    pub configuration: Option<Configuration>,
}

/// The live webhook configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Its uid: a server-side apply without it would create a deleted configuration again.
    pub uid: String,
    /// `caBundle` by entry.
    pub bundles: Vec<(String, Vec<u8>)>,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateStep {
    /// Create a CA; the current one stays trusted.
    CreateCa,
    /// Write this bundle (PEM) into every entry of the configuration.
    WriteBundle(String),
    /// Create a leaf, signed by the current CA.
    CreateLeaf,
}

impl CertificateStep {
    /// Its name in the log.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateCa => "create CA",
            Self::WriteBundle(_) => "write caBundle",
            Self::CreateLeaf => "create leaf",
        }
    }
}

/// Rounds down to seconds: validity in certificates has no fractions.
pub fn whole_seconds(duration: Duration) -> time::Duration {
    time::Duration::seconds(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

/// First and last second of a certificate's life, since 1970.
pub fn validity(pem: &str) -> Option<(i64, i64)> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let validity = pem.parse_x509().ok()?.validity().clone();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}
