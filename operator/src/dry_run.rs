//! What a dry run prints: each change, old beside new.

use serde_json::{Value, json};

use crate::change::Change;
use crate::cli::Output;
use crate::terminal::Terminal;

/// How a subcommand ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything is done, or there was nothing to do.
    Done,
    /// It was a dry run, and something would be changed.
    WouldChange,
}

/// Prints the changes that would be made.
pub fn print(changes: &[Change], output: Output, terminal: &mut Terminal) -> Ended {
    match output {
        Output::Text => {
            for change in changes {
                terminal.planned(&change.describe());
            }
            terminal.line("dry run: nothing was changed");
        }
        Output::Json => terminal.line(&format!("{:#}", as_json(changes))),
    }
    if changes.is_empty() { Ended::Done } else { Ended::WouldChange }
}

/// A policy or a document as JSON, not as JSON in a text.
fn as_json(changes: &[Change]) -> Value {
    let value = |text: &Option<String>| {
        let document = |text: &str| serde_json::from_str(text).ok().filter(|value: &Value| value.is_object());
        text.as_ref().map(|text| document(text).unwrap_or_else(|| json!(text)))
    };
    let change = |change: &Change| {
        json!({
            "attribute": change.attribute,
            "resource": change.write.resource(),
            "old": value(&change.old),
            "new": value(&change.new),
        })
    };
    json!({"changes": changes.iter().map(change).collect::<Vec<_>>()})
}
