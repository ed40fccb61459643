//! PURE: one change of one attribute in AWS, old beside new. Events, metrics, logs, the terminal and `--dry-run` all describe
//! it by [`Change::describe`].

use crate::aws::model::Write;

/// What is, what is to be, and the one call that makes it so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The attribute, for status, events, metrics and logs: one of a closed set.
    pub attribute: &'static str,
    /// The value that AWS shows; `None` where there is none.
    pub old: Option<String>,
    /// The value that is specified; `None` where there must be none.
    pub new: Option<String>,
    /// The call.
    pub write: Write,
}

impl Change {
    /// The attribute with its old and its new value.
    #[must_use]
    pub fn describe(&self) -> String {
        let attribute = self.attribute;
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => format!("{attribute}: {old} -> {new}"),
            (None, Some(new)) => format!("{attribute}: add {new}"),
            (Some(old), None) => format!("{attribute}: remove {old}"),
            (None, None) => attribute.to_owned(),
        }
    }
}

/// The attributes of some changes, each named once, in order.
#[must_use]
pub fn attributes<'a>(changes: impl IntoIterator<Item = &'a Change>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for change in changes {
        if !names.contains(&change.attribute) {
            names.push(change.attribute);
        }
    }
    names.join(", ")
}
