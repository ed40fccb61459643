//! Pod creations at a constant rate, independent of the responses (open loop): a webhook that stalls increases the latencies and
//! does not lower the rate.

use std::fmt;
use std::time::{Duration, Instant};

use e2e::lab::Lab;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::client::{Creation, PodDraft, inside};

/// Pods a second.
pub const RATE: u32 = 200;

/// The results of all creations.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Admitted with their identity.
    pub identity: usize,
    /// Admitted without identity: when each was due, since the load began.
    pub without: Vec<Duration>,
    /// Refused by admission: when each was due, and the API server's message.
    pub refused: Vec<(Duration, String)>,
    /// Any other failure.
    pub failed: Vec<String>,
    /// Lines of the API server's log about failed calls of entries that fail open.
    pub failed_open: Vec<String>,
    /// From the time at which a pod was due to its response; sorted.
    latencies: Vec<Duration>,
    /// From the start of the load to the last response.
    duration: Duration,
}

impl Outcome {
    /// The number of responses.
    pub fn responses(&self) -> usize {
        self.latencies.len()
    }

    /// Responses per second.
    pub fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.responses()).unwrap()) / self.duration.as_secs_f64()
    }

    /// A percentile of the latencies.
    pub fn latency(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * percent / 100).copied().unwrap_or_default()
    }

    /// All pods were admitted with their identity, at the specified rate.
    pub fn assert_nothing_lost(&self) {
        assert_eq!((self.without.len(), self.refused.len(), self.failed.len()), (0, 0, 0), "{self}");
        self.assert_rate();
    }

    /// The specified rate was reached: otherwise the load was lower than the test assumes.
    pub fn assert_rate(&self) {
        assert!(self.rate() >= f64::from(RATE) * 0.95, "the rate was not reached: {self}");
    }

    fn add(&mut self, due: Duration, answered: Duration, creation: Creation) {
        self.latencies.push(answered.saturating_sub(due));
        self.duration = self.duration.max(answered);
        match creation {
            Creation::Identity => self.identity += 1,
            Creation::NoIdentity => self.without.push(due),
            Creation::Refused(message) => self.refused.push((due, message)),
            Creation::Failed(message) => self.failed.push(message),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (responses, rate) = (self.responses(), self.rate());
        let (p50, p99) = (self.latency(50).as_millis(), self.latency(99).as_millis());
        let (without, refused, failed) = (self.without.len(), self.refused.len(), self.failed.len());
        write!(f, "{responses} pods at {rate:.1}/s, p50 {p50} ms, p99 {p99} ms, ")?;
        write!(f, "{without} without identity, {refused} refused, {failed} failed")?;
        let first = self.refused.first().map(|(_, message)| message).or(self.failed.first());
        first.map_or(Ok(()), |message| write!(f, ", the first: {message}"))?;
        self.failed_open.iter().take(3).try_for_each(|line| write!(f, "\n{line}"))
    }
}

/// The pod of a load: its `ServiceAccount` and its labels.
pub fn pod(namespace: &str, service_account: &str, labels: &Value) -> PodDraft {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "load-", "labels": labels},
        "spec": {"serviceAccountName": service_account, "containers": [{"name": "app", "image": "app"}]},
    });
    PodDraft::new(namespace, &pod)
}

/// Creates such pods, as dry runs, while `work` runs: it begins after the responses to the first second's pods, and the load
/// continues for one second after its end.
pub async fn during<T>(lab: &Lab, pod: PodDraft, work: impl Future<Output = T>) -> (T, Outcome) {
    let (started, running) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let log = lab.node.state().join("log/kube-apiserver.log");
    let before = std::fs::metadata(&log).unwrap().len();
    let load = inside(lab, move |client| create_pods(client, pod, started, stopped));
    let work = async move {
        running.await.unwrap();
        let result = work.await;
        drop(stop);
        result
    };
    let (result, mut outcome) = futures::future::join(work, load).await;
    let written = std::fs::read_to_string(log).unwrap();
    let lines = written[usize::try_from(before).unwrap()..].lines();
    outcome.failed_open = lines.filter(|line| line.contains("failing open")).map(str::to_owned).collect();
    (result, outcome)
}

async fn create_pods(
    client: Client,
    pod: PodDraft,
    started: oneshot::Sender<()>,
    mut stopped: oneshot::Receiver<()>,
) -> Outcome {
    let (sender, mut responses) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let create = async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut remaining = RATE;
        while remaining > 0 {
            let due = ticks.tick().await.duration_since(begun.into());
            let (client, pod, sender) = (client.clone(), pod.clone(), sender.clone());
            tokio::spawn(async move {
                let creation = pod.create(&client).await;
                let _ = sender.send((due, begun.elapsed(), creation));
            });
            if !matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                remaining -= 1;
            }
        }
    };
    let collect = async move {
        let (mut outcome, mut started) = (Outcome::default(), Some(started));
        while let Some((due, answered, creation)) = responses.recv().await {
            outcome.add(due, answered, creation);
            if outcome.responses() >= RATE as usize
                && let Some(started) = started.take()
            {
                let _ = started.send(());
            }
        }
        outcome.latencies.sort_unstable();
        outcome
    };
    futures::future::join(create, collect).await.1
}
