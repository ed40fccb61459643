//! What a watch of all bindings shows: which are Ready, since when, and which are gone.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use crds::PodIdentityBinding;
use crds::condition::ConditionType;
use crds::conditions::is_true;
use futures::StreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::common::{PROGRESS, is_ready};
use crate::operator_process::RunningOperator;

/// Without any change for so long, what is waited for does not happen: the longest back-off is 6 minutes.
const STUCK: Duration = Duration::from_mins(7);

/// Bindings by name.
#[derive(Default)]
pub struct State {
    /// All that exist.
    pub existing: HashSet<String>,
    /// Those that are Ready, and when that was seen first.
    pub ready: HashMap<String, Instant>,
    /// Those that were Stalled at any time.
    pub stalled: HashSet<String>,
    /// When the last one was gone.
    pub last_gone: Option<Instant>,
}

/// The watch. Dropping it ends it.
pub struct Watched {
    shared: Arc<(Mutex<State>, Notify)>,
    task: JoinHandle<()>,
}

impl Watched {
    pub fn start(client: &Client) -> Self {
        let shared = Arc::new((Mutex::default(), Notify::new()));
        let api: Api<PodIdentityBinding> = Api::all(client.clone());
        let of_task = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut events = pin!(watcher(api, Config::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => note(&of_task.0, event),
                    Err(error) => eprintln!("  the watch failed and is started again: {error}"),
                }
                of_task.1.notify_waiters();
            }
        });
        Self { shared, task }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.0)
    }

    /// Waits until the bindings are in a state. `count` is printed as progress.
    pub async fn until(
        &self,
        what: &str,
        operator: &mut RunningOperator,
        holds: impl Fn(&State) -> bool,
        count: impl Fn(&State) -> usize,
    ) -> Result<()> {
        let begun = Instant::now();
        let (mut last, mut changed, mut reported) = (0, begun, begun);
        loop {
            let notified = self.shared.1.notified();
            let now = {
                let state = self.state();
                if holds(&state) {
                    return Ok(());
                }
                count(&state)
            };
            if now != last {
                (last, changed) = (now, Instant::now());
            }
            if reported.elapsed() >= PROGRESS {
                reported = Instant::now();
                eprintln!("  {now} {what} after {:.0?}", begun.elapsed());
            }
            if changed.elapsed() >= STUCK {
                bail!("{now} {what}, and no change for {STUCK:?}");
            }
            operator.check()?;
            let _ = tokio::time::timeout(PROGRESS, notified).await;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(state: &Mutex<State>, event: Event<PodIdentityBinding>) {
    let mut state = lock(state);
    match event {
        Event::Apply(binding) | Event::InitApply(binding) => {
            let name = binding.name_any();
            if is_ready(&binding) {
                state.ready.entry(name.clone()).or_insert_with(Instant::now);
            }
            let conditions = binding.status.as_ref().map_or(&[][..], |status| &status.conditions);
            if is_true(conditions, ConditionType::Stalled) {
                state.stalled.insert(name.clone());
            }
            state.existing.insert(name);
        }
        Event::Delete(binding) => {
            let name = binding.name_any();
            state.ready.remove(&name);
            state.existing.remove(&name);
            state.last_gone = Some(Instant::now());
        }
        Event::Init | Event::InitDone => {}
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
