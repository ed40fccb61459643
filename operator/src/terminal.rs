//! What the administrator's subcommands print: one aligned line for each change, with the time it took.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// The administrator's terminal.
pub struct Terminal {
    out: Box<dyn Write>,
    color: bool,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { color: io::stdout().is_terminal(), out: Box::new(io::stdout()) }
    }
}

impl Terminal {
    /// Writes to `out` instead of standard output, without colour.
    #[must_use]
    pub fn to(out: Box<dyn Write>) -> Self {
        Self { out, color: false }
    }

    /// Prints a name and its value.
    pub fn field(&mut self, name: &str, value: &str) {
        self.line(&format!("{name:<10}{value}"));
    }

    /// Prints what was created or changed.
    pub fn done(&mut self, what: &str, took: Duration) {
        self.mark("✔", "32", what, took);
    }

    /// Prints what was deleted.
    pub fn removed(&mut self, what: &str, took: Duration) {
        self.mark("−", "33", what, took);
    }

    /// Prints what a dry run would do.
    pub fn planned(&mut self, what: &str) {
        self.line(&format!("· {what}"));
    }

    /// Prints an empty line and a heading.
    pub fn heading(&mut self, text: &str) {
        let text = if self.color { format!("\n\x1b[1m{text}\x1b[0m") } else { format!("\n{text}") };
        self.line(&text);
    }

    /// Prints a line. A failure (a closed pipe) is ignored, so that it does not stop changes that have begun.
    pub fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    fn mark(&mut self, mark: &str, color: &str, what: &str, took: Duration) {
        let mark = if self.color { format!("\x1b[{color}m{mark}\x1b[0m") } else { mark.to_owned() };
        self.line(&format!("{mark} {what:<38}{:>6.1} s", took.as_secs_f64()));
    }
}
