//! What every measurement begins with: a new cluster, a new AWS account, `operator bootstrap`, and a Ready issuer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::ControlPlane;
use crds::OidcIssuer;
use crds::condition::ConditionType;
use crds::conditions::is_true;
use crds::names::{DEFAULT_AUDIENCE, OPERATOR_SERVICE_ACCOUNT, SYSTEM_NAMESPACE};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::aws::Aws;
use crate::common::{OURS, client, control_plane, each, post};
use crate::operator_process::{RunningOperator, command, no_limit};
use crate::watched::{State, Watched};
use crate::{Arguments, CLUSTER};

const NAMESPACES: usize = 100;
/// For the issuer to become Ready.
const LIMIT: Duration = Duration::from_mins(1);

/// The environment of one measurement.
pub struct Setup<'a> {
    pub arguments: &'a Arguments,
    pub client: Client,
    pub aws: Aws,
    pub watched: Watched,
    server: ControlPlane,
    token: PathBuf,
    _folder: TempDir,
}

impl<'a> Setup<'a> {
    pub async fn new(arguments: &'a Arguments) -> Result<Self> {
        let server = control_plane().await?;
        let client = client(server.kubeconfig()).await?;
        let folder = tempfile::tempdir()?;
        let aws = Aws::start(folder.path(), arguments.managed).await?;
        let namespaces = (0..NAMESPACES).map(|number| format!("scale-{number:02}"));
        for name in namespaces.chain([SYSTEM_NAMESPACE.to_owned()]) {
            post(&client, "/api/v1/namespaces", &json!({"metadata": {"name": name}})).await?;
        }
        let accounts = format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/serviceaccounts");
        post(&client, &accounts, &json!({"metadata": {"name": OPERATOR_SERVICE_ACCOUNT}})).await?;
        let token = folder.path().join("token");
        std::fs::write(&token, own_token(&client, &accounts).await?)?;

        let issuer = issuer();
        let file = folder.path().join("issuer.yaml");
        std::fs::write(&file, issuer.to_string())?;
        let keys = aws.sim.administrator();
        let bootstrap = command("bootstrap", server.kubeconfig(), &aws)
            .arg("-f")
            .arg(&file)
            .env("AWS_ACCESS_KEY_ID", keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", keys.secret_access_key)
            .output()
            .await?;
        ensure!(bootstrap.status.success(), "bootstrap: {}", String::from_utf8_lossy(&bootstrap.stderr));
        post(&client, &format!("{OURS}/oidcissuers"), &issuer).await?;
        let watched = Watched::start(&client);
        Ok(Self { arguments, client, aws, watched, server, token, _folder: folder })
    }

    /// Starts the operator with further flags, and returns once the issuer is Ready.
    pub async fn operator(&self, flags: &[String]) -> Result<RunningOperator> {
        let operator =
            RunningOperator::start(self.server.kubeconfig(), &self.aws, &self.token, flags).await?;
        let issuers: Api<OidcIssuer> = Api::all(self.client.clone());
        let ready = |issuer: Option<&OidcIssuer>| {
            issuer
                .and_then(|issuer| issuer.status.as_ref())
                .is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
        };
        let waited = tokio::time::timeout(LIMIT, await_condition(issuers, "default", ready)).await;
        waited.context("the issuer does not become Ready")??;
        Ok(operator)
    }

    /// The same without a limit of calls, and with so many Ready bindings.
    pub async fn with_ready(&self, bindings: usize) -> Result<RunningOperator> {
        let mut operator = self.operator(&no_limit()).await?;
        self.service_accounts(0, bindings).await?;
        self.create(0, bindings).await?;
        self.until_ready(&mut operator, bindings).await?;
        operator.until_quiet(1).await?;
        Ok(operator)
    }

    /// Creates `ServiceAccount`s.
    pub async fn service_accounts(&self, first: usize, count: usize) -> Result<Duration> {
        let create = async |number: usize| {
            let number = first + number;
            let path = format!("/api/v1/namespaces/{}/serviceaccounts", namespace(number));
            post(&self.client, &path, &json!({"metadata": {"name": name(number)}})).await
        };
        each("ServiceAccounts created", count, create).await
    }

    /// Creates bindings of these `ServiceAccount`s. Returns how long that took.
    pub async fn create(&self, first: usize, count: usize) -> Result<Duration> {
        let create = async |number: usize| self.create_one(first + number).await;
        each("bindings created", count, create).await
    }

    /// Creates one binding.
    pub async fn create_one(&self, number: usize) -> Result<()> {
        let Arguments { managed, inline, .. } = self.arguments;
        let account = &self.aws.sim.settings().account;
        let managed: Vec<String> =
            (0..*managed).map(|policy| format!("arn:aws:iam::{account}:policy/scale-{policy}")).collect();
        let document = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [format!("arn:aws:s3:::data/{number}/*")]},
        ]});
        let inline: Vec<Value> = (0..*inline)
            .map(|policy| json!({"name": format!("inline-{policy}"), "document": document}))
            .collect();
        let object = json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding", "metadata": {"name": name(number)},
            "spec": {
                "serviceAccountName": name(number),
                "role": {"policyARNs": managed, "inlinePolicies": inline},
            },
        });
        let path = format!("{OURS}/namespaces/{}/podidentitybindings", namespace(number));
        post(&self.client, &path, &object).await
    }

    /// Deletes bindings. Returns how long that took.
    pub async fn delete(&self, count: usize) -> Result<Duration> {
        let delete = async |number: usize| {
            let (namespace, name) = (namespace(number), name(number));
            let path = format!("{OURS}/namespaces/{namespace}/podidentitybindings/{name}");
            self.client.request_text(http::Request::delete(path).body(Vec::new())?).await?;
            Ok(())
        };
        each("bindings deleted", count, delete).await
    }

    /// Waits until so many bindings are Ready. Returns when the last one became so.
    pub async fn until_ready(&self, operator: &mut RunningOperator, count: usize) -> Result<Instant> {
        let holds = |state: &State| state.ready.len() >= count;
        self.watched.until("bindings are Ready", operator, holds, |state| state.ready.len()).await?;
        self.watched.state().ready.values().max().copied().context("no binding")
    }
}

/// The name of a binding and of its `ServiceAccount`.
pub fn name(number: usize) -> String {
    format!("account-{number:06}")
}

/// The namespace of that binding.
pub fn namespace(number: usize) -> String {
    format!("scale-{:02}", number % NAMESPACES)
}

/// An issuer whose grant covers all bindings.
fn issuer() -> Value {
    json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": {"name": "default"},
        "spec": {
            "clusterName": CLUSTER,
            "s3": {"bucket": "oidc-111122223333-eu-central-1-an", "region": "eu-central-1"},
            "grants": [{
                "name": "scale",
                "namespaces": {"selector": {}},
                "policyARNs": ["arn:aws:iam::111122223333:policy/scale-*"],
                "inlinePolicies": "Allow",
            }],
        },
    })
}

/// A token of the operator, as the chart projects it.
async fn own_token(client: &Client, accounts: &str) -> Result<String> {
    let asked = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [DEFAULT_AUDIENCE], "expirationSeconds": 86_400},
    });
    let path = format!("{accounts}/{OPERATOR_SERVICE_ACCOUNT}/token");
    let request = http::Request::post(path).header("content-type", "application/json");
    let issued: Value = client.request(request.body(serde_json::to_vec(&asked)?)?).await?;
    Ok(issued["status"]["token"].as_str().context("no token")?.to_owned())
}
