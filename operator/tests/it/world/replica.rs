//! One of several replicas of the operator. What each asks of AWS and of the API server can be told apart.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use aws_sim::Call;
use crds::names::{self, OPERATOR_SERVICE_ACCOUNT};
use http::Method;
use operator::run::{Ended, Operator};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::aws::exchange_as;
use super::gate::{Gate, Sent};
use super::{ACCOUNT, CLUSTER, LIMIT, World};

/// A running replica. Dropping it ends it.
pub struct Replica {
    pub gate: Gate,
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<(anyhow::Result<Ended>, Duration)>,
}

impl World {
    /// Starts a replica of that name. Its sessions at AWS and its lease have it.
    pub async fn replica(&self, name: &'static str) -> Replica {
        let role = names::operator_role_arn("aws", ACCOUNT, CLUSTER);
        let own = (self.system.as_str(), OPERATOR_SERVICE_ACCOUNT);
        let credentials = exchange_as(&self.client, &self.sim, own, &role, name).await.unwrap();
        let (gate, metrics) = (Gate::new(&self.sim), Arc::default());
        let operator = Operator {
            client: gate.client(&self.config),
            config: self.config.clone(),
            accounts: self.aws(credentials, Arc::clone(&metrics)).await,
            metrics,
            timings: self.timings.clone(),
            namespace: self.system.clone(),
            webhook_certificates: self.webhook_certificates,
            pods: self.pods.clone(),
            identity: name.to_owned(),
        };
        let health = TcpListener::bind("127.0.0.1:0").unwrap();
        let (stop, sim) = (CancellationToken::new(), self.sim.clone());
        let running = operator.run(health, stop.clone());
        let task = tokio::spawn(async move {
            let ended = running.await;
            (ended, sim.elapsed())
        });
        Replica { gate, name, stop, task }
    }

    /// A replica's calls to AWS.
    pub fn calls_of(&self, replica: &Replica) -> Vec<Call> {
        let role = names::operator_role_name(CLUSTER);
        let session = format!("assumed-role/{role}/{}", replica.name);
        self.sim.calls().into_iter().filter(|call| call.principal.ends_with(&session)).collect()
    }
}

impl Replica {
    /// As SIGTERM.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it has ended. Returns how, and when.
    pub async fn ended(&mut self) -> (Ended, Duration) {
        let ended = tokio::time::timeout(LIMIT, &mut self.task).await;
        let (ended, at) = ended.unwrap_or_else(|_| panic!("{} still runs", self.name)).unwrap();
        (ended.unwrap(), at)
    }

    /// Its requests of that kind about the lease that were answered.
    pub fn lease_requests(&self, method: &Method) -> Vec<Sent> {
        let wanted = |sent: &Sent| sent.is_of_lease() && sent.method == *method && sent.answered.is_some();
        self.gate.sent().into_iter().filter(wanted).collect()
    }

    /// Waits for one more of them.
    pub async fn until_lease_is_asked_for(&self, method: &Method) -> Sent {
        let before = self.lease_requests(method).len();
        let check = || async {
            anyhow::ensure!(self.lease_requests(method).len() > before, "{before} until now");
            Ok(())
        };
        cluster::until(&format!("{method} of the lease by {}", self.name), LIMIT, check).await.unwrap();
        self.lease_requests(method)[before].clone()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}
