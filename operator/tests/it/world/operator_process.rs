//! The operator under test, as a task in place of a process.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_credential_types::provider::ProvideCredentials;
use crds::names::{self, OPERATOR_SERVICE_ACCOUNT};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use operator::run::{Ended, Operator};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{ACCOUNT, CLUSTER, LIMIT, NEXT_NUMBER, World, lag_milliseconds};

pub(super) struct RunningOperator {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<Ended>>,
}

impl RunningOperator {
    pub(super) fn abort(&self) {
        self.task.abort();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl World {
    /// Starts the operator with credentials of its own role for its own token, and clears the recorded calls.
    pub async fn start(&mut self) {
        let role = names::operator_role_arn("aws", ACCOUNT, CLUSTER);
        let credentials = self.exchange(&self.system, OPERATOR_SERVICE_ACCOUNT, &role).await.unwrap();
        self.start_as(credentials).await;
    }

    /// The same with the given credentials.
    pub async fn start_as(&mut self, credentials: impl ProvideCredentials + 'static) {
        self.metrics = Arc::default();
        if let Some(lag) = lag_milliseconds() {
            self.sim.behave(|behaviour| behaviour.lag_milliseconds = lag);
        }
        self.sim.clear_calls();
        let stop = CancellationToken::new();
        let operator = Operator {
            client: self.hold.client(&self.config),
            config: self.config.clone(),
            accounts: self.aws(credentials, self.metrics.clone()).await,
            metrics: self.metrics.clone(),
            timings: self.timings.clone(),
            namespace: self.system.clone(),
            webhook_certificates: self.webhook_certificates,
            pods: self.pods.clone(),
            identity: format!("replica-{}", NEXT_NUMBER.fetch_add(1, Ordering::Relaxed)),
        };
        let health = TcpListener::bind("127.0.0.1:0").unwrap();
        let task = tokio::spawn(operator.run(health, stop.clone()));
        self.operator = Some(RunningOperator { stop, task });
    }

    /// As SIGTERM: the operator releases the lease.
    pub async fn stop(&mut self) {
        let RunningOperator { stop, task } = self.operator.take().unwrap();
        stop.cancel();
        assert_eq!(task.await.unwrap().unwrap(), Ended::Stopped);
    }

    /// As SIGKILL: the operator finishes nothing. The lease is deleted, so that the test need not wait until it expires.
    pub async fn kill(&mut self) {
        let RunningOperator { task, .. } = self.operator.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.system);
        leases.delete(names::LEASE, &DeleteParams::default()).await.unwrap();
    }

    /// Whether an operator runs.
    pub fn is_running(&self) -> bool {
        self.operator.is_some()
    }

    /// How many passes over objects of a kind have ended since the start: those that ended so, or all.
    pub fn passes(&self, kind: &str, outcome: Option<&str>) -> u64 {
        let of_kind = format!("podidentity_operator_reconciles_total{{kind=\"{kind}\"");
        let so = outcome.map(|outcome| format!("outcome=\"{outcome}\""));
        let text = self.metrics.text();
        let lines = text.lines().filter(|line| line.starts_with(&of_kind));
        let lines = lines.filter(|line| so.as_ref().is_none_or(|so| line.contains(so)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Waits until the operator has nothing to do for longer than it waits before it tries again, or has tried six times more.
    pub async fn until_idle(&self) {
        const TRIES: u64 = 6;
        const SAME: usize = 6;
        let passes = || {
            let [issuers, bindings] =
                ["OidcIssuer", "PodIdentityBinding"].map(|kind| self.passes(kind, None));
            issuers + bindings
        };
        let (enough, mut last, mut same) = (passes() + TRIES, passes(), 0);
        let check = || {
            let now = passes();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            let is_idle = same >= SAME || now >= enough;
            async move {
                anyhow::ensure!(is_idle, "{now} passes");
                Ok(())
            }
        };
        cluster::until("the end of the operator's work", LIMIT, check).await.unwrap();
    }

    /// Waits until both controllers have reconciled an object since the start.
    pub async fn until_reconciled(&self) {
        let check = || async {
            let text = self.metrics.text();
            for kind in ["OidcIssuer", "PodIdentityBinding"] {
                let line = format!("podidentity_operator_reconciles_total{{kind=\"{kind}\",outcome=\"ok\"}}");
                anyhow::ensure!(text.contains(&line), "no {kind} was reconciled: {text}");
            }
            Ok(())
        };
        cluster::until("a reconcile of both kinds", LIMIT, check).await.unwrap();
    }
}
