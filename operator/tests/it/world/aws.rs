//! AWS: clients of the in-process stand-in, and what it recorded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::SdkError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_sim::{Call, Sim, sdk};
use crds::names::{self, OPERATOR_SERVICE_ACCOUNT};
use futures::FutureExt;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use operator::aws::accounts::{Accounts, TokenExchange};
use operator::aws::public::PublicReader;
use operator::metrics::Metrics;

use super::{CLUSTER, LIMIT, REGION, World};

/// Number of calls by `service:Operation`.
pub type Counts = BTreeMap<String, usize>;

impl World {
    /// Clients of the stand-in with the given credentials.
    pub(super) async fn aws(
        &self,
        credentials: impl ProvideCredentials + 'static,
        metrics: Arc<Metrics>,
    ) -> Accounts {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .http_client(sdk::http_client(&self.sim))
            .credentials_provider(credentials)
            // The SDK's own retries, with shorter delays.
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(20)))
            .load()
            .await;
        let (sites, sim) = (self.sites.clone(), self.sim.clone());
        let read = move |uri: http::Uri| {
            let (sites, sim) = (sites.clone(), sim.clone());
            async move { sites.get(&sim, uri).await }.boxed()
        };
        let exchange = self.token_exchange();
        let refresh = self.timings.identity_refresh;
        Accounts::new(&config, PublicReader::from_fn(read), exchange, metrics, self.limits.clone(), refresh)
    }

    /// As the operator's pod: its own token is exchanged for credentials of any role that trusts it.
    fn token_exchange(&self) -> TokenExchange {
        let (client, sim, namespace) = (self.client.clone(), self.sim.clone(), self.system.clone());
        Arc::new(move |role| {
            let (client, sim) = (client.clone(), sim.clone());
            let (namespace, role) = (namespace.clone(), role.to_owned());
            SharedCredentialsProvider::new(provide_credentials_fn(move || {
                let (client, sim, namespace, role) =
                    (client.clone(), sim.clone(), namespace.clone(), role.clone());
                async move {
                    let account = (namespace.as_str(), OPERATOR_SERVICE_ACCOUNT);
                    exchange(&client, &sim, account, &role).await.map_err(CredentialsError::provider_error)
                }
            }))
        })
    }

    /// Clients with the administrator's credentials.
    pub async fn administrator(&self) -> Accounts {
        self.administrator_of(&self.sim).await
    }

    /// Clients with credentials of the administrator of that account.
    pub async fn administrator_of(&self, sim: &Sim) -> Accounts {
        let keys = sim.administrator();
        let credentials =
            Credentials::new(keys.access_key_id, keys.secret_access_key, None, None, "administrator");
        self.aws(credentials, Arc::default()).await
    }

    /// Exchanges a token of the API server for credentials of a role. The error is AWS's error code.
    pub async fn exchange(
        &self,
        namespace: &str,
        service_account: &str,
        role: &str,
    ) -> Result<Credentials, String> {
        exchange(&self.client, &self.sim, (namespace, service_account), role).await
    }

    /// The name of a `ServiceAccount`'s role.
    pub fn role_name(&self, service_account: &str) -> String {
        names::role_name(CLUSTER, &self.namespace, service_account)
    }

    /// The role of `ServiceAccount` `app`, if it exists.
    pub fn role(&self) -> Option<aws_sim::world::Role> {
        self.sim.state().role(&self.role_name("app")).cloned()
    }

    /// The operator's calls since the start, without the lists of its sweep for orphans, which come at their own time.
    pub fn operators(&self) -> Vec<Call> {
        let role = names::operator_role_name(CLUSTER);
        let by_operator =
            |c: &Call| c.principal.contains(&format!("assumed-role/{role}/")) && c.action != "ListRoles";
        self.sim.calls().into_iter().filter(by_operator).collect()
    }

    /// Their number by operation.
    pub fn counts(&self) -> Counts {
        count(self.operators())
    }

    /// Those to IAM that concern roles of bindings.
    pub fn role_calls(&self) -> Vec<Call> {
        let of_bindings =
            |c: &Call| c.resource.contains(":role/podidentity/") || c.resource.contains(":role/homelab.");
        self.operators().into_iter().filter(of_bindings).filter(|c| c.service == "iam").collect()
    }

    /// Operations of those that change something in AWS.
    pub fn writes(&self) -> Vec<String> {
        self.operators().into_iter().filter(|c| c.write).map(|c| c.action).collect()
    }

    /// Waits until the state of the AWS account meets a condition.
    pub async fn until_aws(&self, what: &str, holds: impl Fn(&aws_sim::State) -> bool) {
        let check = || async {
            anyhow::ensure!(holds(&self.sim.state()), "AWS is not in that state");
            Ok(())
        };
        cluster::until(what, LIMIT, check).await.unwrap();
    }

    /// Waits until an operation was called at least that many times.
    pub async fn until_called(&self, action: &str, times: usize) {
        let check = || async {
            let calls = self.sim.calls().iter().filter(|c| c.action == action).count();
            anyhow::ensure!(calls >= times, "it was called {calls} times");
            Ok(())
        };
        cluster::until(&format!("{times} × {action}"), LIMIT, check).await.unwrap();
    }

    /// At the end of every test: the operator's own policy, as `iam-policy` prints it, allowed all its calls.
    pub fn assert_nothing_denied(&self) {
        let denied: Vec<Call> = self.operators().into_iter().filter(|c| c.denied).collect();
        assert!(denied.is_empty(), "AWS denied {denied:#?}");
    }
}

/// Exchanges a token of a `ServiceAccount`, given with its namespace, for credentials of a role.
pub async fn exchange(
    client: &Client,
    sim: &Sim,
    service_account: (&str, &str),
    role: &str,
) -> Result<Credentials, String> {
    exchange_as(client, sim, service_account, role, "test").await
}

/// The same for a session of that name.
pub(super) async fn exchange_as(
    client: &Client,
    sim: &Sim,
    service_account: (&str, &str),
    role: &str,
    session: &str,
) -> Result<Credentials, String> {
    let token = token(client, service_account).await.unwrap();
    try_exchange_token_as(sim, token, role, session).await.map_err(code)
}

/// A new token of a `ServiceAccount`, given with its namespace, for AWS.
pub async fn token(client: &Client, service_account: (&str, &str)) -> Result<String, kube::Error> {
    token_for(client, service_account, &[names::DEFAULT_AUDIENCE]).await
}

/// The same for these audiences; without one, for the API server itself.
pub async fn token_for(
    client: &Client,
    (namespace, service_account): (&str, &str),
    audiences: &[&str],
) -> Result<String, kube::Error> {
    let service_accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let issued =
        service_accounts.create_token_request(service_account, &PostParams::default(), &request).await?;
    Ok(issued.status.unwrap().token)
}

/// Exchanges a token for credentials of a role. The error is AWS's error code.
pub async fn exchange_token(sim: &Sim, token: String, role: &str) -> Result<Credentials, String> {
    try_exchange_token(sim, token, role).await.map_err(code)
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn code(error: ExchangeError) -> String {
    error.into_service_error().meta().code().unwrap_or_default().to_owned()
}

/// The SDK's error of an exchange.
pub type ExchangeError = SdkError<AssumeRoleWithWebIdentityError, HttpResponse>;

/// The same with the SDK's error.
pub async fn try_exchange_token(sim: &Sim, token: String, role: &str) -> Result<Credentials, ExchangeError> {
    try_exchange_token_as(sim, token, role, "test").await
}

async fn try_exchange_token_as(
    sim: &Sim,
    token: String,
    role: &str,
    session: &str,
) -> Result<Credentials, ExchangeError> {
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
        .region(Region::new(REGION))
        .http_client(sdk::http_client(sim))
        .allow_no_auth()
        .build();
    let response = aws_sdk_sts::Client::from_conf(config)
        .assume_role_with_web_identity()
        .role_arn(role)
        .role_session_name(session)
        .web_identity_token(token)
        .send()
        .await?;
    let keys = response.credentials.unwrap();
    Ok(Credentials::new(
        keys.access_key_id,
        keys.secret_access_key,
        Some(keys.session_token),
        None,
        "web identity",
    ))
}

/// The number of calls by operation.
fn count(calls: Vec<Call>) -> Counts {
    let mut counts = Counts::new();
    for call in calls {
        *counts.entry(format!("{}:{}", call.service, call.action)).or_default() += 1;
    }
    counts
}

/// Expected counts, as a table.
pub fn counts(table: &[(&str, usize)]) -> Counts {
    table.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect()
}
