//! A constant rate of pod creations, whatever the answers take: each is due at its time (open loop), so that a webhook that
//! stalls is seen in the latencies and does not slow down those who ask.

use std::fmt;
use std::time::{Duration, Instant};

use e2e::lab::Lab;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::client::{Became, Draft, inside};

/// Pods a second.
pub const RATE: u32 = 200;

/// What becomes of the pods.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Admitted with their identity.
    pub identity: usize,
    /// Admitted without: when each was due, since the load began.
    pub without: Vec<Duration>,
    /// Refused by admission: when each was due, and why.
    pub refused: Vec<(Duration, String)>,
    /// Anything else that went wrong.
    pub failed: Vec<String>,
    /// What the API server wrote of the calls it did without.
    pub let_go: Vec<String>,
    /// From when a pod was due to its answer; sorted.
    latencies: Vec<Duration>,
    /// From the first pod due to the last answer.
    took: Duration,
}

impl Outcome {
    /// How many were answered.
    pub fn asked(&self) -> usize {
        self.latencies.len()
    }

    /// How many a second were answered.
    pub fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.asked()).unwrap()) / self.took.as_secs_f64()
    }

    /// A quantile of the latencies, in percent.
    pub fn latency(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * percent / 100).copied().unwrap_or_default()
    }

    /// All admitted with their identity, at the rate that was wanted.
    pub fn assert_nothing_lost(&self) {
        assert_eq!((self.without.len(), self.refused.len(), self.failed.len()), (0, 0, 0), "{self}");
        self.assert_rate();
    }

    /// A load that fell behind proves less than it says.
    pub fn assert_rate(&self) {
        assert!(self.rate() >= f64::from(RATE) * 0.95, "the rate was not held: {self}");
    }

    fn note(&mut self, due: Duration, answered: Duration, became: Became) {
        self.latencies.push(answered.saturating_sub(due));
        self.took = self.took.max(answered);
        match became {
            Became::Identity => self.identity += 1,
            Became::NoIdentity => self.without.push(due),
            Became::Refused(why) => self.refused.push((due, why)),
            Became::Failed(why) => self.failed.push(why),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (asked, rate) = (self.asked(), self.rate());
        let (half, most) = (self.latency(50).as_millis(), self.latency(99).as_millis());
        let (without, refused, failed) = (self.without.len(), self.refused.len(), self.failed.len());
        write!(f, "{asked} pods at {rate:.1}/s, p50 {half} ms, p99 {most} ms, ")?;
        write!(f, "{without} without identity, {refused} refused, {failed} failed")?;
        let said = self.refused.first().map(|(_, why)| why).or(self.failed.first());
        said.map_or(Ok(()), |said| write!(f, ", the first: {said}"))?;
        self.let_go.iter().take(3).try_for_each(|line| write!(f, "\n{line}"))
    }
}

/// The pods of a load: one `ServiceAccount`'s, with these labels.
pub fn pod(namespace: &str, service_account: &str, labels: &Value) -> Draft {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "load-", "labels": labels},
        "spec": {"serviceAccountName": service_account, "containers": [{"name": "app", "image": "app"}]},
    });
    Draft::new(namespace, &pod)
}

/// Creates such pods, as dry runs, while something happens: it begins when the first second's pods are answered, and the
/// load goes on for another second after its end.
pub async fn during<T>(lab: &Lab, pod: Draft, happens: impl Future<Output = T>) -> (T, Outcome) {
    let (runs, running) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let log = lab.node.state().join("log/kube-apiserver.log");
    let before = std::fs::metadata(&log).unwrap().len();
    let load = inside(lab, move |client| create_pods(client, pod, runs, stopped));
    let happens = async move {
        running.await.unwrap();
        let happened = happens.await;
        drop(stop);
        happened
    };
    let (happened, mut outcome) = futures::future::join(happens, load).await;
    let written = std::fs::read_to_string(log).unwrap();
    let lines = written[usize::try_from(before).unwrap()..].lines();
    outcome.let_go = lines.filter(|line| line.contains("failing open")).map(str::to_owned).collect();
    (happened, outcome)
}

async fn create_pods(
    client: Client,
    pod: Draft,
    runs: oneshot::Sender<()>,
    mut stopped: oneshot::Receiver<()>,
) -> Outcome {
    let (answer, mut answers) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let ask = async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut left = RATE;
        while left > 0 {
            let due = ticks.tick().await.duration_since(begun.into());
            let (client, pod, answer) = (client.clone(), pod.clone(), answer.clone());
            tokio::spawn(async move {
                let became = pod.create(&client).await;
                let _ = answer.send((due, begun.elapsed(), became));
            });
            if !matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                left -= 1;
            }
        }
    };
    let collect = async move {
        let (mut outcome, mut runs) = (Outcome::default(), Some(runs));
        while let Some((due, answered, became)) = answers.recv().await {
            outcome.note(due, answered, became);
            if outcome.asked() >= RATE as usize
                && let Some(runs) = runs.take()
            {
                let _ = runs.send(());
            }
        }
        outcome.latencies.sort_unstable();
        outcome
    };
    futures::future::join(ask, collect).await.1
}
