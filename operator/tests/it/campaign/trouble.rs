//! What happens in a run, computed from the calls and writes of a run without trouble.

use aws_sim::{Call, Fault, FaultKind};
use sha2::{Digest, Sha256};

use super::scenario::Scenario;
use crate::crash::occurrences;
use crate::world::Side;

/// How many plans of each scenario `cargo test` runs.
const SAMPLE: usize = 4;

/// What a run did and got.
#[derive(Default)]
pub struct Trace {
    /// Calls of AWS.
    pub calls: Vec<Call>,
    /// Writes to the cluster.
    pub writes: Vec<String>,
    /// Events of watches.
    pub events: Vec<String>,
}

/// What happens in a run of a scenario.
pub struct Plan {
    pub name: String,
    pub trouble: Trouble,
}

#[derive(Debug, Clone)]
pub enum Trouble {
    /// A call of AWS is answered so.
    Fault(Fault),
    /// The program is killed at its n-th write to the cluster.
    KillInWrite(usize, Side),
    /// The program is killed after a call of AWS took effect, before it gets the response: service, operation, and how many of
    /// them come before. A kill before a call is one after the call before it.
    KillInCall((String, String, u32)),
    /// The operator does not get an event of one of its watches. Once it has nothing to do with what it knows, it lists again. The event, and how many of the same text come before.
    LoseEvent((String, usize)),
    /// IAM shows everything as it was so many milliseconds ago.
    Lag(u64),
}

/// The faults that a call is given, and how many calls: what the SDK's own three attempts pass over is given to four.
fn faults(service: &str, action: &str) -> Vec<(&'static str, FaultKind, u32)> {
    let error = |status, code: &str, message: String| FaultKind::Error { status, code: code.into(), message };
    let message = |text: &str| text.to_owned();
    let denied = format!("User: x is not authorized to perform: {service}:{action}");
    let mut all = vec![
        ("throttled", FaultKind::throttle(), 4),
        ("5xx", FaultKind::server_error(), 4),
        ("no response", FaultKind::Silence, 1),
        ("lost response", FaultKind::LostResponse, 1),
        ("lost request", FaultKind::LostRequest, 4),
        ("denied", error(403, "AccessDenied", denied), 1),
    ];
    match service {
        "iam" => {
            all.push(("not found", error(404, "NoSuchEntity", message("not found")), 1));
            all.push(("limit", error(409, "LimitExceeded", message("Cannot exceed quota")), 1));
        }
        "s3" => all.push(("not found", error(404, "NoSuchBucket", message("not found")), 1)),
        _ => {}
    }
    match action {
        "CreateOpenIDConnectProvider" | "CreateRole" | "CreatePolicy" => {
            all.push(("exists", error(409, "EntityAlreadyExists", message("it exists")), 1));
        }
        "CreateBucket" => {
            all.push(("exists", error(409, "BucketAlreadyOwnedByYou", message("it exists")), 1));
            all.push(("limit", error(400, "TooManyBuckets", message("too many")), 1));
        }
        "PutObject" => {
            all.push(("exists", error(412, "PreconditionFailed", message("it was changed")), 1));
        }
        _ => {}
    }
    all
}

/// All that can happen in a run that made these calls of AWS, and these writes to the cluster, and got these events of watches.
pub fn plans(scenario: Scenario, Trace { calls, writes, events }: Trace) -> Vec<Plan> {
    let of_aws = calls.into_iter().filter(|call| call.principal != "anonymous").collect();
    let mut plans = Vec::new();
    let mut add = |name: String, trouble| plans.push(Plan { name: format!("{scenario:?}: {name}"), trouble });
    // Where many equal bindings do the same, what happens to the first stands for the others.
    let (most_calls, most) = if scenario.is_of_many() { (3, 12) } else { (u32::MAX, usize::MAX) };
    for call in occurrences(of_aws).into_iter().filter(|(_, _, number)| *number < most_calls) {
        let (service, action, number) = &call;
        for (fault, kind, times) in faults(service, action) {
            // A person ends a command that waits: that is the kill.
            if scenario.is_command() && matches!(kind, FaultKind::Silence) {
                continue;
            }
            let name = format!("call {number} of {service}:{action}: {fault}");
            add(name, Trouble::Fault(Fault::on(service, action, kind).after(*number).times(times)));
        }
        add(format!("killed in call {number} of {service}:{action}"), Trouble::KillInCall(call.clone()));
    }
    for lag in [50, 200, 600] {
        add(format!("reads are {lag} ms late"), Trouble::Lag(lag));
    }
    for (number, write) in writes.iter().enumerate().take(most) {
        for side in [Side::Before, Side::After] {
            let name = format!("killed {side:?} write {number} to the cluster, {write}");
            add(name, Trouble::KillInWrite(number, side));
        }
    }
    for (position, event) in events.iter().enumerate().take(most) {
        let number = events[..position].iter().filter(|earlier| *earlier == event).count();
        add(format!("lost event {number} of {event}"), Trouble::LoseEvent((event.clone(), number)));
    }
    plans
}

/// The plans that run: all, those whose name contains one of some texts, or a sample in an order that the seed gives.
pub fn chosen(mut plans: Vec<Plan>) -> Vec<Plan> {
    if let Ok(value) = std::env::var("PODIDENTITY_CAMPAIGN") {
        plans.retain(|plan| {
            value == "all" || value.split('|').any(|text| !text.is_empty() && plan.name.contains(text))
        });
        return plans;
    }
    let seed = std::env::var("PODIDENTITY_CAMPAIGN_SEED").unwrap_or_default();
    plans.sort_by_key(|plan| Sha256::digest(format!("{seed} {}", plan.name)).to_vec());
    plans.truncate(SAMPLE);
    plans
}
