//! Figures as people read them.

use std::time::Duration;

/// The value that so great a share is not above; `sorted` must be so, and not empty.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// The middle one of what is seen of each; of an even number the later one. `all` must not be empty.
pub fn median<T, V: Ord>(all: &[T], of: impl Fn(&T) -> V) -> V {
    let mut values: Vec<V> = all.iter().map(of).collect();
    values.sort();
    values.swap_remove(values.len() / 2)
}

/// In milliseconds.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

/// In units of so many bytes.
pub fn megabytes(bytes: u64, unit: u64) -> String {
    format!("{:.1}", bytes as f64 / unit as f64)
}
