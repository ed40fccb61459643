//! Pod creations at a constant rate, independent of the responses (open loop): a webhook that stalls increases the latencies and
//! does not lower the rate.
//!
//! The rate is one that the machine can give: right before each load such pods are created as fast as possible, with the webhook
//! and without. On a machine that is too slow for [`RATE`], the API server's own delays would otherwise end calls of the webhook.
//! What the webhook costs is judged by the ratio of the two.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crds::names::label;
use e2e::lab::Lab;
use futures::future::join_all;
use kube::Client;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::client::{Creation, PodDraft, inside};

/// Pods a second on a machine that is fast enough.
const RATE: u32 = 200;
/// The load takes at most this part of what the machine can give: programs are started and certificates renewed meanwhile.
const SHARE: f64 = 0.5;
/// The API server creates at least this part of the pods with the webhook that it creates without: of pods that require their
/// identity, which it sends to the webhook twice, too.
const LEAST_RATIO: f64 = 0.2;
/// How the two rates are measured: this many creations at a time, for this long.
const AT_A_TIME: usize = 16;
const SAMPLE: Duration = Duration::from_secs(2);

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
    /// What the machine can give, and what was due.
    pub rates: Rates,
    /// From the time at which a pod was due to its response; sorted.
    latencies: Vec<Duration>,
    /// From the start of the load to the last response.
    duration: Duration,
}

/// Pods a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Created without the webhook as fast as possible, right before the load.
    pub bare: f64,
    /// The same with the webhook.
    pub reviewed: f64,
    /// Due in the load.
    due: u32,
}

impl Rates {
    async fn measure(client: &Client, pod: &PodDraft) -> Self {
        let not_reviewed = self::pod(Some((label::INJECTION, "disabled")));
        let bare = sample(client, &not_reviewed, &Creation::NoIdentity).await;
        let reviewed = sample(client, pod, &Creation::Identity).await;
        // Whole pods a second; at least one.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and RATE")]
        let due = (reviewed * SHARE).clamp(1.0, f64::from(RATE)) as u32;
        Self { bare, reviewed, due }
    }
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

    /// All pods were admitted with their identity, at the rate at which they were due.
    pub fn assert_nothing_lost(&self) {
        assert_eq!((self.without.len(), self.refused.len(), self.failed.len()), (0, 0, 0), "{self}");
        self.assert_rate();
    }

    /// The rate at which pods were due was reached: otherwise the load was lower than the test assumes.
    pub fn assert_rate(&self) {
        let Rates { bare, reviewed, due } = self.rates;
        assert!(reviewed >= bare * LEAST_RATIO, "the webhook is too slow: {self}");
        assert!(self.rate() >= f64::from(due) * 0.95, "the rate was not reached: {self}");
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
        let Rates { bare, reviewed, due } = self.rates;
        write!(
            f,
            "{responses} pods at {rate:.1}/s of {due} (at most {reviewed:.0}, without the webhook {bare:.0}), "
        )?;
        write!(f, "p50 {p50} ms, p99 {p99} ms, ")?;
        write!(f, "{without} without identity, {refused} refused, {failed} failed")?;
        let first = self.refused.first().map(|(_, message)| message).or(self.failed.first());
        first.map_or(Ok(()), |message| write!(f, ", the first: {message}"))?;
        self.failed_open.iter().take(3).try_for_each(|line| write!(f, "\n{line}"))
    }
}

/// A pod of `ServiceAccount` vault/vault with this label.
pub fn pod(label: Option<(&str, &str)>) -> PodDraft {
    let labels: BTreeMap<_, _> = label.into_iter().collect();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "load-", "labels": labels},
        "spec": {"serviceAccountName": "vault", "containers": [{"name": "app", "image": "app"}]},
    });
    PodDraft::new("vault", &pod)
}

/// Creates pods of `ServiceAccount` vault/vault with this label, as dry runs, while `work` runs: it begins after the responses to
/// the first second's pods, and the load continues for one second after its end.
pub async fn during<T>(
    lab: &Lab,
    label: Option<(&str, &str)>,
    work: impl Future<Output = T>,
) -> (T, Outcome) {
    let (started, running) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let log = lab.node.state().join("log/kube-apiserver.log");
    let before = std::fs::metadata(&log).unwrap().len();
    let pod = pod(label);
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

/// Pods a second, created as fast as possible.
async fn sample(client: &Client, pod: &PodDraft, expected: &Creation) -> f64 {
    let begun = Instant::now();
    let create = || async {
        let mut number = 0_u32;
        while begun.elapsed() < SAMPLE {
            assert_eq!(pod.create(client).await, *expected);
            number += 1;
        }
        number
    };
    let number: u32 = join_all((0..AT_A_TIME).map(|_| create())).await.into_iter().sum();
    f64::from(number) / begun.elapsed().as_secs_f64()
}

async fn create_pods(
    client: Client,
    pod: PodDraft,
    started: oneshot::Sender<()>,
    mut stopped: oneshot::Receiver<()>,
) -> Outcome {
    let rates = Rates::measure(&client, &pod).await;
    let (sender, mut responses) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let create = async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rates.due);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut remaining = rates.due;
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
        let (mut outcome, mut started) = (Outcome { rates, ..Outcome::default() }, Some(started));
        while let Some((due, answered, creation)) = responses.recv().await {
            outcome.add(due, answered, creation);
            if outcome.responses() >= rates.due as usize
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
