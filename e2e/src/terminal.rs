//! The demo's output: numbered steps, the proofs of each, how long it took.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Instant;

/// Writes to standard output.
#[derive(Debug)]
pub struct Terminal {
    color: bool,
    step: usize,
    begun: Instant,
    started: Instant,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { color: stdout().is_terminal(), step: 0, begun: Instant::now(), started: Instant::now() }
    }
}

impl Terminal {
    /// Begins a step.
    pub fn step(&mut self, title: &str) {
        self.step += 1;
        self.begun = Instant::now();
        let number = self.paint("1;36", &format!("{:>2}", self.step));
        println!("\n{number}  {}", self.paint("1", title));
    }

    /// Prints a fact that proves the step.
    pub fn proof(&self, text: &str) {
        for line in text.lines() {
            println!("    {} {line}", self.paint("32", "✔"));
        }
    }

    /// Prints the output of a command.
    pub fn shown(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("    {}", self.paint("2", line));
        }
    }

    /// Ends a step.
    pub fn done(&self) {
        println!("    {}", self.paint("2", &format!("{:.1} s", self.begun.elapsed().as_secs_f64())));
    }

    /// Prints the last line, with the total time.
    pub fn end(&self, text: &str) {
        println!(
            "\n{}  {text}  {:.0} s in all",
            self.paint("1;32", "✔"),
            self.started.elapsed().as_secs_f64()
        );
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints a line of progress to standard error.
pub fn progress(line: &str) {
    let _ = writeln!(stderr(), "      {line}");
}
