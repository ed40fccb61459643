//! From an issuer to the clients of its AWS account. Nothing else makes a client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use crds::OidcIssuerSpec;
use tokio::sync::Mutex;

use super::call::Calls;
use super::credentials::KeptCredentials;
use super::error::{AwsError, Class};
use super::iam::Iam;
use super::model::{BucketRef, Identity, RoleChange, Write, Written};
use super::public::PublicReader;
use super::recent::RecentRoles;
use super::s3::S3;
use super::setup::{Settings, SetupError};
use super::sts::Sts;
use crate::metrics::Metrics;

/// The accounts that the operator's credentials reach.
#[derive(Clone)]
pub struct Accounts {
    /// Anonymous reads, as STS makes them.
    pub public: PublicReader,
    own: Account,
}

/// The clients of one account. Cheap to clone.
#[derive(Clone)]
pub struct Account {
    /// Identity and access management: one endpoint per partition.
    pub iam: Iam,
    /// AWS STS.
    pub sts: Sts,
    config: SdkConfig,
    calls: Calls,
    /// The identity and when it was asked for. Locked while it is asked for: many passes ask at once, and one call answers.
    identity: Arc<Mutex<Option<(Identity, Instant)>>>,
    recent: Arc<RecentRoles>,
    identity_refresh: Duration,
}

impl Accounts {
    /// Clients with the SDK's default credential chain over the system's TLS roots and the extra CA.
    pub async fn connect(settings: &Settings, metrics: Arc<Metrics>) -> Result<Self, SetupError> {
        let tls = settings.tls()?;
        let public = PublicReader::https(&tls, settings.public_timeout);
        let config = settings.load(&tls).await;
        Ok(Self::new(&config, public, metrics, settings.identity_refresh))
    }

    /// Clients over a given configuration: what `connect` makes, or a test's.
    #[must_use]
    pub fn new(
        config: &SdkConfig,
        public: PublicReader,
        metrics: Arc<Metrics>,
        identity_refresh: Duration,
    ) -> Self {
        let (config, credentials) = KeptCredentials::over(config);
        let calls = Calls::new(metrics, credentials);
        let own = Account {
            iam: Iam::new(&config, calls.clone()),
            sts: Sts::new(&config, calls.clone()),
            config,
            calls,
            identity: Arc::default(),
            recent: Arc::default(),
            identity_refresh,
        };
        Self { public, own }
    }

    /// The account that an issuer is registered in: every issuer is registered in the account of the operator's own
    /// credentials.
    #[must_use]
    pub fn of(&self, _issuer: &OidcIssuerSpec) -> Account {
        self.own.clone()
    }

    /// The account of the operator's own credentials.
    #[must_use]
    pub fn own(&self) -> &Account {
        &self.own
    }
}

impl Account {
    /// S3 for one bucket, guarding every call with the account that must own it.
    #[must_use]
    pub fn s3(&self, bucket: &BucketRef) -> S3 {
        S3::new(&self.config, bucket.clone(), self.calls.clone())
    }

    /// S3 for one bucket with the credentials of a session.
    #[must_use]
    pub fn s3_as(&self, session: Credentials, bucket: &BucketRef) -> S3 {
        let provider = SharedCredentialsProvider::new(session);
        let config = self.config.to_builder().credentials_provider(provider).build();
        S3::new(&config, bucket.clone(), self.calls.of_other_credentials())
    }

    /// Account and principal of the credentials. The answer is used for `identity_refresh` and until AWS refuses the
    /// credentials; after that, too, while AWS cannot be asked.
    pub async fn identity(&self) -> Result<Identity, AwsError> {
        let mut known = self.identity.lock().await;
        if let Some((identity, at)) = &*known
            && at.elapsed() < self.identity_refresh
            && !self.calls.were_refused()
        {
            return Ok(identity.clone());
        }
        match (self.sts.caller_identity().await, &mut *known) {
            (Ok(identity), known) => {
                *known = Some((identity.clone(), Instant::now()));
                Ok(identity)
            }
            (Err(error), Some((identity, _)))
                if matches!(error.class, Class::Transient | Class::Throttled) =>
            {
                Ok(identity.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Carries out one change.
    pub async fn apply(&self, write: &Write) -> Result<Written, AwsError> {
        let written = match write {
            Write::Iam(write) => self.iam.apply(write).await?,
            Write::S3(bucket, write) => self.s3(bucket).apply(write).await.map(|()| Written::Done)?,
        };
        self.recent.note(write);
        Ok(written)
    }

    /// What this process did to that role last.
    #[must_use]
    pub fn role_change(&self, role: &str) -> Option<RoleChange> {
        self.recent.change(role)
    }
}
