//! A limit of calls a second.

use std::time::Instant;

use aws_sim_api::CallRate;

/// The permits of a token bucket.
#[derive(Debug, Default)]
pub(crate) struct Permits(Option<(f64, Instant)>);

impl Permits {
    /// Takes a permit, if there is one. The bucket is full at first.
    pub(crate) fn take(&mut self, rate: CallRate) -> bool {
        let (now, burst) = (Instant::now(), f64::from(rate.burst));
        let (left, at) = self.0.unwrap_or((burst, now));
        let available = (left + now.duration_since(at).as_secs_f64() * f64::from(rate.per_second)).min(burst);
        let taken = available >= 1.0;
        self.0 = Some((if taken { available - 1.0 } else { available }, now));
        taken
    }
}
