//! Which calls an injected fault applies to.

use aws_sim_api::{Fault, FaultKind};

/// A fault, and how many calls it matched.
#[derive(Debug)]
pub(crate) struct Active {
    fault: Fault,
    seen: u32,
}

impl Active {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { fault, seen: 0 }
    }

    /// What happens to this call, if the fault applies to it. Counts the call.
    pub(crate) fn apply(&mut self, service: &str, action: &str) -> Option<FaultKind> {
        let Fault { service: wanted, action: operation, kind, times, after } = &self.fault;
        let matches =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        if !matches(wanted, service) || !matches(operation, action) {
            return None;
        }
        self.seen += 1;
        let applies = self.seen > *after && times.is_none_or(|times| self.seen <= after + times);
        applies.then(|| kind.clone())
    }
}
