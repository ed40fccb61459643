//! `operator run`: wires everything. The only place that spawns; whoever drops the future stops all of it.

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

use crate::aws::Aws;
use crate::backoff::Backoff;
use crate::binding::watch::Bindings;
use crate::context::{Context, Remembered};
use crate::health::Health;
use crate::lease::Elector;
use crate::metrics::Metrics;
use crate::timings::Timings;
use crate::{binding, certificates, issuer};

/// What a replica is made of.
pub struct Operator {
    /// The API server.
    pub client: Client,
    /// AWS.
    pub aws: Aws,
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
        let Bindings { controller: bindings, issuers: of_bindings, ends } =
            binding::watch::controller(&self.client);
        let issuers = issuer::watch::controller(&self.client, ends);
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(self.identity.clone()) };
        let context = Arc::new(Context {
            issuers: of_bindings.store,
            issuers_synced: of_bindings.synced,
            bindings: bindings.store(),
            client: self.client.clone(),
            aws: self.aws.clone(),
            backoff: Backoff::new(self.timings.backoff_min, self.timings.backoff_max),
            timings: self.timings.clone(),
            metrics: self.metrics.clone(),
            recorder: Recorder::new(self.client.clone(), reporter),
            namespace: self.namespace.clone(),
            started: Instant::now(),
            issuer_memory: Remembered::default(),
            binding_memory: Remembered::default(),
        });
        let certificates = certificates::keep(
            self.client.clone(),
            self.namespace.clone(),
            self.timings.clone(),
            self.metrics.clone(),
        );
        let until_stopped = stop.clone();
        let parts: [BoxFuture<'static, ()>; 3] = [
            Box::pin(issuer::watch::run(issuers, context.clone(), stop.clone())),
            Box::pin(binding::watch::run(bindings, context, stop.clone())),
            Box::pin(async move {
                until_stopped.run_until_cancelled_owned(certificates).await;
            }),
        ];
        parts.into_iter().collect()
    }
}
