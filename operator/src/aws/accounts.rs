//! From an issuer to the clients of its AWS account. Nothing else makes a client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use crds::OidcIssuerSpec;
use tokio::sync::Mutex;

use super::call::Calls;
use super::credentials::KeptCredentials;
use super::error::{AwsError, Class};
use super::iam::Iam;
use super::limit::Limits;
use super::model::{BucketRef, Identity, RoleChanges, Write, Written};
use super::public::PublicReader;
use super::recent::RecentRoles;
use super::s3::S3;
use super::setup::{Settings, SetupError};
use super::sts::Sts;
use crate::metrics::Metrics;

/// The accounts that the operator reaches: that of its own credentials, and those in which an issuer names a role that trusts
/// the operator's token (`spec.operatorRoleARN`). No role is assumed with the credentials of another one.
#[derive(Clone)]
pub struct Accounts {
    /// Anonymous reads, as STS makes them.
    pub public: PublicReader,
    own: Account,
    /// By the role's ARN; made when an issuer first names it.
    others: Arc<StdMutex<HashMap<String, Account>>>,
    exchange: TokenExchange,
    metrics: Arc<Metrics>,
    limits: Limits,
    identity_refresh: Duration,
}

/// From the ARN of a role to credentials that the operator's own token is exchanged for.
pub type TokenExchange = Arc<dyn Fn(&str) -> SharedCredentialsProvider + Send + Sync>;

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
        let exchange = token_exchange(&config);
        let limits = settings.limits.clone();
        Ok(Self::new(&config, public, exchange, metrics, limits, settings.identity_refresh))
    }

    /// Clients over a given configuration: what `connect` makes, or a test's.
    #[must_use]
    pub fn new(
        config: &SdkConfig,
        public: PublicReader,
        exchange: TokenExchange,
        metrics: Arc<Metrics>,
        limits: Limits,
        identity_refresh: Duration,
    ) -> Self {
        let own = Account::new(config, metrics.clone(), limits.clone(), identity_refresh);
        Self { public, own, others: Arc::default(), exchange, metrics, limits, identity_refresh }
    }

    /// How many passes at once use all calls that are allowed.
    #[must_use]
    pub fn passes(&self) -> usize {
        self.limits.passes()
    }

    /// The account that an issuer is registered in: that of the role it names, or that of the operator's own credentials.
    #[must_use]
    pub fn of(&self, issuer: &OidcIssuerSpec) -> Account {
        let Some(role) = &issuer.operator_role_arn else { return self.own.clone() };
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let config = self.own.config.to_builder().credentials_provider((self.exchange)(role)).build();
            Account::new(&config, self.metrics.clone(), self.limits.clone(), self.identity_refresh)
        };
        others.entry(role.clone()).or_insert_with(make).clone()
    }

    /// Account and principal with which an issuer's resources are kept.
    ///
    /// # Errors
    /// If AWS cannot be asked, and [`Class::OtherAccount`] where the issuer names another account: then nothing is touched.
    pub async fn identity(&self, issuer: &OidcIssuerSpec) -> Result<Identity, AwsError> {
        let identity = self.of(issuer).identity().await?;
        check(&identity, issuer)?;
        Ok(identity)
    }

    /// The account of the operator's own credentials.
    #[must_use]
    pub fn own(&self) -> &Account {
        &self.own
    }
}

/// Exchanges the token of the operator's pod (`AWS_WEB_IDENTITY_TOKEN_FILE`) for credentials of a role, through the OIDC
/// provider in that role's account.
fn token_exchange(config: &SdkConfig) -> TokenExchange {
    let mut provider = ProviderConfig::without_region().with_region(config.region().cloned());
    if let Some(http) = config.http_client() {
        provider = provider.with_http_client(http);
    }
    Arc::new(move |role| {
        let file = std::env::var("AWS_WEB_IDENTITY_TOKEN_FILE").unwrap_or_default();
        let configuration = StaticConfiguration {
            web_identity_token_file: file.into(),
            role_arn: role.to_owned(),
            session_name: "podidentity-operator".into(),
        };
        let exchange = WebIdentityTokenCredentialsProvider::builder()
            .static_configuration(configuration)
            .configure(&provider)
            .build();
        SharedCredentialsProvider::new(exchange)
    })
}

impl Account {
    fn new(config: &SdkConfig, metrics: Arc<Metrics>, limits: Limits, identity_refresh: Duration) -> Self {
        let (config, credentials) = KeptCredentials::over(config);
        let calls = Calls::new(metrics, limits, credentials);
        Self {
            iam: Iam::new(&config, calls.clone()),
            sts: Sts::new(&config, calls.clone()),
            config,
            calls,
            identity: Arc::default(),
            recent: Arc::default(),
            identity_refresh,
        }
    }

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
        self.recent.begun(write);
        let written = match write {
            Write::Iam(write) => self.iam.apply(write).await?,
            Write::S3(bucket, write) => self.s3(bucket).apply(write).await.map(|()| Written::Done)?,
        };
        self.recent.done(write);
        Ok(written)
    }

    /// What this process did to the roles of that name.
    #[must_use]
    pub fn role_changes(&self, role: &str) -> RoleChanges {
        self.recent.changes(role)
    }
}

/// Refuses credentials of another account than the issuer names.
///
/// # Errors
/// [`Class::OtherAccount`].
pub fn check(identity: &Identity, issuer: &OidcIssuerSpec) -> Result<(), AwsError> {
    let named =
        [("spec.accountID", issuer.account_id.as_deref()), ("spec.operatorRoleARN", issuer.role_account())];
    let differs =
        |(_, account): &(&str, Option<&str>)| account.is_some_and(|account| account != identity.account);
    match named.into_iter().find(differs) {
        Some((field, Some(wanted))) => Err(AwsError {
            class: Class::OtherAccount,
            operation: "sts:GetCallerIdentity",
            resource: identity.arn.clone(),
            code: String::new(),
            cause: None,
            message: format!(
                "{field} is of account {wanted}, but the credentials are of account {}: nothing is touched. Use credentials of \
                 that account, or correct {field}",
                identity.account
            ),
            detail: String::new(),
        }),
        _ => Ok(()),
    }
}
