//! Generated edits of both kinds, valid and invalid, applied to what works, with a running operator. An edit that the API server refuses
//! changes nothing; one that the controller refuses breaks nothing; and after the last one the specified state comes soon, and stays.
//!
//! `cargo test` runs a sample. `PODIDENTITY_TRANSITIONS=all cargo test -p operator --test it -- transitions --nocapture` runs all, another
//! number so many of each kind. `PODIDENTITY_TRANSITIONS_SEED=7` chooses others.

mod binding;
mod edits;
mod issuer;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use aws_sim::world::Role;
use crds::names::DEFAULT_AUDIENCE;
use kube::Api;
use kube::core::DynamicObject;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

use self::edits::{Edit, Numbers};
use crate::world::{World, exchange_token, token_for};

/// How many transitions of each kind `cargo test` runs, and how many there are at least.
const SAMPLE: usize = 60;
const ALL: usize = 1200;
/// Transitions between two returns to the working specification.
const SERIES: usize = 5;
/// Passes after which the specified state is there, or it is said why it is not.
const FEW: u64 = 10;
const LIMIT: Duration = Duration::from_secs(15);

/// What became of a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The API server refused it.
    Refused,
    /// It changed nothing of the specification.
    Same,
    /// The controller refused it.
    Stalled,
    /// The controller waits for something.
    Waiting,
    /// It is Ready.
    Applied,
}

/// The counts of a run.
#[derive(Debug, Default)]
struct Tally {
    outcomes: BTreeMap<Outcome, usize>,
    reasons: BTreeMap<String, usize>,
    /// Stalled, after a part was done.
    partly: usize,
    /// The most passes until a transition was decided about, or a return to the working specification was.
    passes: u64,
}

/// The object whose specification changes.
struct Subject {
    world: World,
    /// `OidcIssuer` or `PodIdentityBinding`.
    kind: &'static str,
    /// Its name.
    name: &'static str,
    api: Api<DynamicObject>,
    path: String,
    /// The specification that works.
    good: Value,
    tally: Tally,
    /// The seed and all transitions since the last return.
    history: Vec<String>,
    /// The role as it was last applied whole, while the specification keeps one.
    role: Option<Role>,
    /// The audience under which the role was made: its tokens stay accepted.
    audience: String,
}

impl Subject {
    async fn get(&self) -> Value {
        let request = http::Request::get(&self.path).body(Vec::new()).unwrap();
        self.world.client.request(request).await.unwrap()
    }

    async fn patch(&self, operations: Value, strict: bool) -> Result<(), u16> {
        let validation = if strict { "Strict" } else { "Ignore" };
        let request = http::Request::patch(format!("{}?fieldValidation={validation}", self.path))
            .header("content-type", "application/json-patch+json")
            .body(serde_json::to_vec(&operations).unwrap())
            .unwrap();
        match self.world.client.request_text(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(status.code),
            Err(error) => panic!("{error}: {:#?}", self.history),
        }
    }

    async fn replace(&self, spec: &Value, strict: bool) -> Result<(), u16> {
        self.patch(json!([{"op": "replace", "path": "/spec", "value": spec}]), strict).await
    }

    /// Passes over objects of this kind since the start of the operator.
    fn passes(&self) -> u64 {
        self.world.passes(self.kind, None)
    }

    /// Waits until the controller has decided about the specification: the reason of Ready.
    async fn decided(&self) -> (Outcome, String) {
        let decided = |object: Option<&DynamicObject>| object.and_then(decision_of).is_some();
        let waited = tokio::time::timeout(LIMIT, await_condition(self.api.clone(), self.name, decided)).await;
        let decision = waited.ok().and_then(Result::ok).flatten().as_ref().and_then(decision_of);
        let Some(decision) = decision else {
            panic!("nothing is decided: {:#}\n{:#?}", self.get().await, self.history);
        };
        decision
    }

    /// One transition, and what has to hold after it whatever it was.
    async fn transition(&mut self, spec: &Value, strict: bool) -> Outcome {
        let (object, account) = (self.get().await, json!(self.world.sim.state()));
        let before = self.passes();
        self.world.sim.clear_calls();
        if let Err(code) = self.replace(spec, strict).await {
            assert!((400..500).contains(&code), "{code}: {:#?}", self.history);
            let now = self.get().await;
            assert_eq!(
                (&now["spec"], &now["metadata"]["generation"]),
                (&object["spec"], &object["metadata"]["generation"])
            );
            assert_eq!(json!(self.world.sim.state()), account, "a refused edit: {:#?}", self.history);
            return Outcome::Refused;
        }
        let now = self.get().await;
        if now["metadata"]["generation"] == object["metadata"]["generation"] {
            return Outcome::Same;
        }
        let (outcome, reason) = self.decided().await;
        let passes = self.passes() - before;
        let _ = write!(self.history.last_mut().unwrap(), " → {outcome:?} {reason}");
        *self.tally.reasons.entry(format!("{outcome:?} {reason}")).or_default() += 1;
        self.tally.passes = self.tally.passes.max(passes);
        assert!(passes <= FEW, "{passes} passes: {:#?}", self.history);
        let writes: Vec<_> =
            self.world.operators().into_iter().filter(|c| c.write && c.status == 200).collect();
        if outcome != Outcome::Applied {
            if writes.is_empty() {
                assert_eq!(json!(self.world.sim.state()), account, "{:#?}", self.history);
            } else {
                self.tally.partly += 1;
            }
        }
        outcome
    }

    /// The role is the same one with all that it had when it was last applied whole, and a token is exchanged for it.
    async fn works(&self) {
        let (Some(before), history) = (&self.role, &self.history) else { return };
        let after = self.world.role().unwrap_or_else(|| panic!("the role is gone: {history:#?}"));
        assert_eq!((&after.id, &after.boundary), (&before.id, &before.boundary), "{history:#?}");
        for arn in &before.attached {
            assert!(after.attached.contains(arn), "{arn} is gone: {history:#?}");
        }
        for name in before.inline.keys() {
            assert!(after.inline.contains_key(name), "{name} is gone: {history:#?}");
        }
        let token =
            token_for(&self.world.client, (&self.world.namespace, "app"), &[&self.audience]).await.unwrap();
        let session = exchange_token(&self.world.sim, token, &after.arn).await;
        let session = session.unwrap_or_else(|code| panic!("{code}: {history:#?}"));
        if after.attached.iter().any(|arn| arn == crate::world::STORAGE) {
            assert_eq!(self.world.reads(session).await, Ok(()), "{history:#?}");
        }
    }

    /// Wakes the object, and waits for its pass. Nothing is written in AWS.
    async fn wakes_without_a_write(&self, number: usize) {
        self.world.sim.clear_calls();
        let before = self.passes();
        let value = format!("{number}");
        self.patch(
            json!([{"op": "add", "path": "/metadata/annotations", "value": {"test/wake": value}}]),
            false,
        )
        .await
        .unwrap();
        let passed = || async {
            anyhow::ensure!(self.passes() > before, "no pass");
            Ok(())
        };
        cluster::until("a pass", LIMIT, passed).await.unwrap();
        assert_eq!(self.world.writes(), [""; 0], "{:#?}", self.history);
    }

    /// Runs so many transitions as were asked for.
    async fn run(&mut self, edits: &[Edit], examples: &[Edit], follow: impl AsyncFn(&mut Self, Outcome)) {
        let number = |name: &str| std::env::var(name).ok();
        let count = match number("PODIDENTITY_TRANSITIONS").as_deref() {
            None => SAMPLE,
            Some("all") => ALL.max(2 * edits.len()),
            Some(count) => count.parse().unwrap(),
        };
        let seed = number("PODIDENTITY_TRANSITIONS_SEED").map_or(15, |seed| seed.parse().unwrap());
        let mut numbers = Numbers(seed);
        // A whole run makes each edit by itself at least once.
        let mut single: Vec<&Edit> = edits.iter().collect();
        for n in 0..count {
            if n % SERIES == 0 {
                self.history = vec![format!("PODIDENTITY_TRANSITIONS_SEED={seed}, transition {n}")];
            }
            let stored = self.get().await["spec"].clone();
            let mut spec = if numbers.below(10) < 6 { self.good.clone() } else { stored };
            // Most edits of the schema are refused: every other transition is one of the examples.
            let first = match (n % 2, single.is_empty()) {
                (0, false) => single.swap_remove(numbers.below(single.len())),
                (0, true) => numbers.pick(edits),
                _ => numbers.pick(examples),
            };
            let mut chosen = vec![first];
            while numbers.below(3) == 0 {
                chosen.push(numbers.pick(examples));
            }
            for edit in &chosen {
                edit.apply(&mut spec);
            }
            let strict = numbers.below(4) != 0;
            let text = chosen.iter().map(|edit| format!("{} = {}", edit.pointer, shown(edit.value.as_ref())));
            self.history.push(text.collect::<Vec<_>>().join(", "));
            let outcome = self.transition(&spec, strict).await;
            *self.tally.outcomes.entry(outcome).or_default() += 1;
            follow(self, outcome).await;
            self.works().await;
            if n % SERIES == SERIES - 1 || n + 1 == count {
                self.returns(n).await;
            }
        }
        eprintln!(
            "{}: {count} transitions with {} edits, seed {seed}: {:#?}",
            self.kind,
            edits.len(),
            self.tally
        );
    }

    /// The last change of a series: back to what works.
    async fn returns(&mut self, number: usize) {
        let before = self.passes();
        self.history.push("back".to_owned());
        let good = self.good.clone();
        self.replace(&good, true).await.unwrap();
        let (outcome, reason) = self.decided().await;
        assert_eq!(outcome, Outcome::Applied, "{reason}: {:#?}", self.history);
        self.wakes_without_a_write(number).await;
        let passes = self.passes() - before;
        assert!(passes <= FEW, "{passes} passes: {:#?}", self.history);
        self.tally.passes = self.tally.passes.max(passes);
        (self.role, self.audience) = (self.world.role(), DEFAULT_AUDIENCE.to_owned());
        self.works().await;
    }

    /// A hundred passes of another process, each of which reads AWS anew: none writes.
    async fn stays(&mut self) {
        self.world.stop().await;
        (self.world.timings.role_resync, self.world.timings.issuer_resync) =
            (Duration::from_millis(5), Duration::from_millis(5));
        let state = json!(self.world.sim.state());
        self.world.start().await;
        let hundred = || async {
            let passes = self.passes();
            anyhow::ensure!(passes >= 100, "{passes} passes");
            Ok(())
        };
        // On a machine with other work a pass takes longer than all the rest here.
        cluster::until("100 passes", 4 * LIMIT, hundred).await.unwrap();
        assert_eq!(self.world.writes(), [""; 0]);
        assert_eq!(json!(self.world.sim.state()), state);
        let reads = self.world.operators().len();
        assert!(reads >= 100, "{reads} reads");
        self.world.stop().await;
        // Some of the edits need rights that the operator does not have.
        self.world.sim.clear_calls();
    }
}

/// What the status says about the current generation, once it says something that is not in progress.
fn decision_of(object: &DynamicObject) -> Option<(Outcome, String)> {
    const IN_PROGRESS: [&str; 5] =
        ["Progressing", "ProgressingWithRetry", "Publishing", "Propagating", "NotVerified"];
    let status = &object.data["status"];
    let conditions = status["conditions"].as_array()?;
    let condition = |type_: &str| conditions.iter().find(|condition| condition["type"] == type_);
    let ready =
        condition("Ready").filter(|_| status["observedGeneration"] == json!(object.metadata.generation))?;
    let reason = ready["reason"].as_str()?;
    let outcome = match (ready["status"] == "True", condition("Stalled").is_some()) {
        (true, _) => Outcome::Applied,
        (false, true) => Outcome::Stalled,
        (false, false) => Outcome::Waiting,
    };
    (!IN_PROGRESS.contains(&reason)).then(|| (outcome, reason.to_owned()))
}

/// A value in a message, cut.
fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "(absent)".to_owned(), Value::to_string);
    if text.len() > 90 {
        format!("{}… ({} bytes)", &text[..text.floor_char_boundary(90)], text.len())
    } else {
        text
    }
}

/// The schema of `spec` in a CRD of the chart, as the API server has it.
async fn schema(world: &World, name: &str) -> Value {
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let crd: Value = world.client.request(request).await.unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}
