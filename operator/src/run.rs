//! `operator run`: connects all parts. The only place that spawns tasks; dropping the future aborts all of them.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use crds::names::CONTROLLER;
use futures::future::BoxFuture;
use kube::Client;
use kube::runtime::events::Reporter;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api_servers::endpoints::Endpoints;
use crate::aws::accounts::Accounts;
use crate::aws::inventory::Listings;
use crate::binding::Binding;
use crate::cli::WebhookCertificates;
use crate::cluster::answers::Answers;
use crate::cluster::{Cluster, Following};
use crate::context::Context;
use crate::driver::Driver;
use crate::events::Events;
use crate::health::Health;
use crate::issuer::Issuer;
use crate::lease::Elector;
use crate::metrics::Metrics;
use crate::pods::Pods;
use crate::timings::Timings;
use crate::{binding, certificates, issuer, pods, sweep, watch};

/// One replica of the operator.
pub struct Operator {
    /// The API server.
    pub client: Client,
    /// How `client` reaches it: every API server is reached in the same way, at its own address.
    pub config: kube::Config,
    /// AWS.
    pub accounts: Accounts,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Timeouts and periods.
    pub timings: Timings,
    /// The operator's own namespace.
    pub namespace: String,
    /// This replica's name in the leader election, unique among replicas and restarts.
    pub identity: String,
    /// What makes the webhook's certificates.
    pub webhook_certificates: WebhookCertificates,
    /// How pods are looked at.
    pub pods: pods::Settings,
}

/// How a replica ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped.
    Stopped,
    /// It is no longer the leader, or one of its tasks ended: the work was aborted, and the process must end.
    Aborted,
}

impl Operator {
    /// Serves the health port, waits to become the leader, and reconciles until `stop` is cancelled or it is no longer the
    /// leader.
    ///
    /// # Errors
    /// If the API server does not answer at the start.
    pub async fn run(mut self, health: TcpListener, stop: CancellationToken) -> anyhow::Result<Ended> {
        self.client = process::responses::decodable(self.client);
        let ready = Arc::new(AtomicBool::new(false));
        let mut background = JoinSet::new(); // aborted when dropped
        let served = Health { ready: ready.clone(), metrics: self.metrics.clone() };
        background.spawn(process::health::serve(health, Arc::new(served)));

        self.client.apiserver_version().await.context("the API server does not answer")?;
        ready.store(true, Ordering::Relaxed);
        let mut elector =
            Elector::new(&self.client, &self.namespace, self.identity.clone(), self.timings.clone());
        tracing::info!(identity = self.identity, "waiting to become the leader");
        tokio::select! {
            () = elector.acquire() => {}
            () = stop.cancelled() => {
                // The API server may have accepted a write of the lease whose response was not awaited any more.
                elector.release().await;
                return Ok(Ended::Stopped);
            }
        }
        tracing::info!("this replica is the leader");
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
        let mut tasks = self.start(&stop);
        tokio::select! {
            biased; // after `stop` the tasks end, too: that is no failure
            () = stop.cancelled() => tracing::info!("stopping: waiting for running reconciles to end"),
            () = elector.renew_until_lost() => {
                tracing::error!("this replica is no longer the leader: its work is aborted");
                return Ended::Aborted; // dropping the tasks aborts them
            }
            ended = tasks.join_next() => {
                tracing::error!(?ended, "a task of the operator ended unexpectedly");
                return Ended::Aborted;
            }
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!("running reconciles did not end within {grace:?} and are aborted");
        }
        Ended::Stopped
    }

    fn start(&self, stop: &CancellationToken) -> JoinSet<()> {
        let pods = Pods::new(self.client.clone(), self.pods.clone(), self.metrics.clone());
        let store = pods.store.clone();
        let (cluster, following) = Cluster::watch(&self.client, move |unbound| store.forget(unbound));
        let Following { issuers, bindings, namespaces } = following;
        let (wake_issuers, wake_bindings) = (issuers.waker.clone(), bindings.waker.clone());
        let issuers = issuer::watch::controller(&cluster, issuers);
        let bindings = binding::watch::controller(&self.client, &cluster, bindings);
        let following_pods = pods::follow::follow(
            pods.clone(),
            cluster.clone(),
            wake_bindings.clone(),
            self.timings.missing_period,
        );
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(self.identity.clone()) };
        let context = Arc::new(Context {
            client: self.client.clone(),
            endpoints: Endpoints::new(
                self.client.clone(),
                self.config.clone(),
                self.timings.api_server_timeout,
            ),
            accounts: self.accounts.clone(),
            cluster,
            losses: Answers::default(),
            listings: Listings::default(),
            pods,
            timings: self.timings.clone(),
            metrics: self.metrics.clone(),
            events: Events::new(self.client.clone(), reporter),
            namespace: self.namespace.clone(),
            started: Instant::now(),
        });
        let issuer_driver = Arc::new(Driver::<Issuer>::new(context.clone(), wake_issuers, stop.clone()));
        let sweeping = sweep::run(context.clone(), wake_bindings.clone());
        let binding_driver = Arc::new(Driver::<Binding>::new(context, wake_bindings, stop.clone()));
        let certificates = certificates::run(
            self.client.clone(),
            self.namespace.clone(),
            self.timings.clone(),
            self.metrics.clone(),
        );
        let (waking_issuers, waking_bindings) =
            (issuer_driver.clone().wake_due(), binding_driver.clone().wake_due());
        let until_stopped = |task: BoxFuture<'static, ()>| -> BoxFuture<'static, ()> {
            let stop = stop.clone();
            Box::pin(async move {
                stop.run_until_cancelled_owned(task).await;
            })
        };
        let mut tasks: Vec<BoxFuture<'static, ()>> = vec![
            Box::pin(watch::run(issuers, issuer_driver, stop.clone())),
            Box::pin(watch::run(bindings, binding_driver, stop.clone())),
            until_stopped(Box::pin(waking_issuers)),
            until_stopped(Box::pin(waking_bindings)),
            until_stopped(Box::pin(sweeping)),
            until_stopped(namespaces),
            until_stopped(Box::pin(following_pods)),
        ];
        if self.webhook_certificates == WebhookCertificates::Operator {
            tasks.push(until_stopped(Box::pin(certificates)));
        }
        tasks.into_iter().collect()
    }
}
