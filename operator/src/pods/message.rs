//! PURE: what a binding says of pods that run without its identity.

use super::model::{Found, WorkloadRef};
use crds::names::RESTART_ANNOTATION;

/// The most commands in a message.
const COMMANDS: usize = 3;

/// Which pods run without the identity, why, and what to do. `refused`: why they could not be restarted.
#[must_use]
pub fn message(namespace: &str, found: &Found, restarts: bool, refused: Option<&str>) -> String {
    let names: Vec<&str> = found.named.iter().map(|(name, _)| name.as_str()).collect();
    let (pods, run) = if found.count == 1 { ("pod", "runs") } else { ("pods", "run") };
    let more = match found.count - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let mut text = format!("{} {pods} {run} without the identity: {}{more}", found.count, names.join(", "));
    for (name, why) in &found.named {
        if let Some(why) = why {
            text = format!("{text}; {name}: {why}");
        }
    }
    if let Some(refused) = refused {
        return format!("{text}. They could not be restarted: {refused}");
    }
    let commands: Vec<String> =
        found.workloads.iter().map(|workload| command(namespace, workload)).take(COMMANDS).collect();
    if restarts && !found.workloads.is_empty() {
        text.push_str(". Their workloads are restarted, each once");
    } else if !commands.is_empty() {
        let more = match found.workloads.len() - commands.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let commands = commands.join("; ");
        text = format!(
            "{text}. Restart them: {commands}{more}. The annotation {RESTART_ANNOTATION}=\"true\" on this binding does so, once"
        );
    } else if found.named.iter().any(|(_, why)| why.is_none()) {
        text.push_str(". Delete them, or restart what made them: new pods get the identity");
    }
    text
}

fn command(namespace: &str, WorkloadRef { kind, name }: &WorkloadRef) -> String {
    format!("kubectl -n {namespace} rollout restart {}/{name}", kind.as_str().to_ascii_lowercase())
}
