//! `operator run`: wires everything. The only place that spawns; dropping the future stops all of it.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use crds::names::CONTROLLER;
use futures::future::BoxFuture;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::aws::accounts::Accounts;
use crate::binding::Binding;
use crate::cluster::Cluster;
use crate::context::Context;
use crate::driver::Driver;
use crate::health::Health;
use crate::issuer::Issuer;
use crate::lease::Elector;
use crate::metrics::Metrics;
use crate::timings::Timings;
use crate::{binding, certificates, issuer, watch};

/// What a replica is made of.
pub struct Operator {
    /// The API server.
    pub client: Client,
    /// AWS.
    pub accounts: Accounts,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Waits and periods.
    pub timings: Timings,
    /// The operator's own namespace.
    pub namespace: String,
    /// This replica's name, unique among replicas and restarts.
    pub identity: String,
}

/// How a replica ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// It lost the leadership: the process must end, since it may still hold half-done work.
    LeadershipLost,
}

impl Operator {
    /// Serves health at once, waits to lead, and works until `stop` or the leadership is lost.
    pub async fn run(self, health: TcpListener, stop: CancellationToken) -> anyhow::Result<Ended> {
        let ready = Arc::new(AtomicBool::new(false));
        let mut background = JoinSet::new(); // aborted when dropped
        let told = Health { ready: ready.clone(), metrics: self.metrics.clone() };
        background.spawn(process::health::serve(health, Arc::new(told)));

        self.client.apiserver_version().await.context("the API server does not answer")?;
        ready.store(true, Ordering::Relaxed);
        let mut elector =
            Elector::new(&self.client, &self.namespace, self.identity.clone(), self.timings.clone());
        tracing::info!(identity = self.identity, "waiting to lead");
        tokio::select! {
            () = elector.acquire() => {}
            () = stop.cancelled() => return Ok(Ended::Stopped),
        }
        tracing::info!("leading");
        self.metrics.leader(true);
        let ended = self.lead(&mut elector, stop).await;
        self.metrics.leader(false);
        if ended == Ended::Stopped {
            elector.release().await;
        }
        Ok(ended)
    }

    async fn lead(&self, elector: &mut Elector, stop: CancellationToken) -> Ended {
        let grace = self.timings.shutdown_grace;
        let mut work = self.start(&stop);
        tokio::select! {
            biased; // what ends because it was asked to has not ended by itself
            () = stop.cancelled() => tracing::info!("stopping: running reconciles may end"),
            () = elector.hold() => {
                tracing::error!("the leadership is lost");
                return Ended::LeadershipLost; // dropping the work aborts it
            }
            ended = work.join_next() => {
                tracing::error!(?ended, "a part of the operator ended by itself");
                return Ended::LeadershipLost;
            }
        }
        let all = async { while work.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!("reconciles did not end within {grace:?}");
        }
        Ended::Stopped
    }

    fn start(&self, stop: &CancellationToken) -> JoinSet<()> {
        let (cluster, issuer_feed, binding_feed) = Cluster::watch(&self.client);
        let issuers = issuer::watch::controller(&cluster, issuer_feed);
        let bindings = binding::watch::controller(&self.client, &cluster, binding_feed);
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(self.identity.clone()) };
        let context = Arc::new(Context {
            client: self.client.clone(),
            accounts: self.accounts.clone(),
            cluster,
            timings: self.timings.clone(),
            metrics: self.metrics.clone(),
            recorder: Recorder::new(self.client.clone(), reporter),
            namespace: self.namespace.clone(),
            started: Instant::now(),
        });
        let of_issuers = Arc::new(Driver::<Issuer>::new(context.clone()));
        let of_bindings = Arc::new(Driver::<Binding>::new(context));
        let certificates = certificates::keep(
            self.client.clone(),
            self.namespace.clone(),
            self.timings.clone(),
            self.metrics.clone(),
        );
        let until_stopped = stop.clone();
        let parts: [BoxFuture<'static, ()>; 3] = [
            Box::pin(watch::run(issuers, of_issuers, stop.clone())),
            Box::pin(watch::run(bindings, of_bindings, stop.clone())),
            Box::pin(async move {
                until_stopped.run_until_cancelled_owned(certificates).await;
            }),
        ];
        parts.into_iter().collect()
    }
}
