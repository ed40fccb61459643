//! The results, as one table.

/// What a value is compared with.
#[derive(Clone, Copy)]
pub enum Limit {
    /// Nothing: it is there to be known.
    None,
    /// It is at most this.
    AtMost(f64),
    /// What is possible at best: the ratio to it is the result, and is at most the second number, if there is one.
    Best(f64, Option<f64>),
}

/// One measurement.
pub struct Row {
    what: String,
    value: f64,
    digits: usize,
    limit: Limit,
}

impl Row {
    pub fn new(what: impl Into<String>, value: f64, digits: usize, limit: Limit) -> Self {
        Self { what: what.into(), value, digits, limit }
    }

    /// A number of things, of which there should be none.
    pub fn none(what: impl Into<String>, count: usize) -> Self {
        Self::new(what, number(count), 0, Limit::AtMost(0.0))
    }

    /// Measurement, value, limit, ratio of the two, what is aimed at, and whether that is met.
    fn columns(&self) -> [String; 6] {
        let Self { what, value, digits, limit } = self;
        let text = |number: f64| format!("{number:.digits$}");
        let met = |met: bool| if met { "yes" } else { "no" }.to_owned();
        let (best, ratio, target, is_met) = match *limit {
            Limit::None => (String::new(), String::new(), String::new(), String::new()),
            Limit::AtMost(0.0) => (String::new(), String::new(), "0".into(), met(*value <= 0.0)),
            Limit::AtMost(most) => (
                text(most),
                format!("{:.2}", value / most),
                format!("<= {}", text(most)),
                met(*value <= most),
            ),
            Limit::Best(best, target) => (
                text(best),
                format!("{:.2}", value / best),
                target.map_or(String::new(), |target| format!("ratio <= {target:.2}")),
                target.map_or(String::new(), |target| met(value / best <= target)),
            ),
        };
        [what.clone(), text(*value), best, ratio, target, is_met]
    }
}

/// A count as a number that can be divided.
#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
pub fn number(count: usize) -> f64 {
    count as f64
}

/// Prints all rows, aligned.
pub fn print(rows: &[Row]) {
    let head = ["measurement", "measured", "limit", "ratio", "target", "met"].map(str::to_owned);
    let all: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(Row::columns)).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    println!();
    for row in &all {
        let first = format!("{:<width$}", row[0], width = widths[0]);
        let others = row.iter().zip(&widths).skip(1).map(|(text, width)| format!("{text:>width$}"));
        let columns: Vec<String> = std::iter::once(first).chain(others).collect();
        println!("{}", columns.join("  ").trim_end());
    }
}
