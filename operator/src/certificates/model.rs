//! PURE: the types of the certificates' reconcile, and what is read of a certificate.

use std::time::Duration;

use x509_parser::pem::parse_x509_pem;

/// The key under which both Secrets hold the CAs that came before the present one.
pub const PREVIOUS: &str = "previous.crt";
/// The label by which our Secrets are known.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// A clock that is an hour ahead of ours must accept what we sign.
pub const BACKDATED: Duration = Duration::from_hours(1);
/// Longest lives, whatever the flags say.
pub const MAX_CA_LIFE: Duration = Duration::from_hours(365 * 24);
/// See [`MAX_CA_LIFE`].
pub const MAX_LEAF_LIFE: Duration = Duration::from_hours(7 * 24);

/// A certificate and its key that belong together.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PEM. Never logged.
    pub key: String,
    /// Validity in seconds since 1970.
    pub not_before: i64,
    /// End of validity in seconds since 1970.
    pub not_after: i64,
}

/// What is in the cluster.
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
    /// Make a CA; the present one is trusted a while longer.
    MakeCa,
    /// Put this bundle into every entry.
    PutBundle(String),
    /// Make a leaf, signed by the present CA.
    MakeLeaf,
}

impl Step {
    /// For people who read the log.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MakeCa => "make CA",
            Self::PutBundle(_) => "put caBundle",
            Self::MakeLeaf => "make leaf",
        }
    }
}

/// Without fractions, which certificates do not have.
pub fn whole(duration: Duration) -> time::Duration {
    time::Duration::seconds(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

/// First and last second of a certificate's life, since 1970.
pub fn validity(pem: &str) -> Option<(i64, i64)> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let validity = pem.parse_x509().ok()?.validity().clone();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}
