//! PURE: how an issuer is removed. Deletion is `Retain`: nothing in AWS is touched, but an issuer is not removed while
//! bindings use it.

use crds::condition::Summary;
use crds::{Finding, Reason};

use super::model::{Observed, Step, View};
use crate::model::Next;
use crate::timings::Timings;

/// What is done of the removal in this pass.
pub(super) fn decide(view: &View, observed: &Observed, timings: &Timings) -> (Vec<Step>, Summary, Next) {
    /// More names would not be read.
    const NAMED: usize = 5;
    let next = Next::At(timings.api_server_poll); // the end of a binding wakes it
    let dependents = &observed.dependents;
    if dependents.is_empty() {
        let steps = view.object.finalizer.then_some(Step::RemoveFinalizer).into_iter().collect();
        let finding = Finding::new(
            Reason::Deleting,
            "what was published and registered stays in AWS; `operator teardown` removes it",
        );
        return (steps, Summary::Reconciling(finding), next);
    }
    let named: Vec<&str> = dependents.iter().take(NAMED).map(String::as_str).collect();
    let message = format!(
        "{} PodIdentityBinding(s) still use this issuer: {}{}. Delete them first",
        dependents.len(),
        named.join(", "),
        if dependents.len() > named.len() { ", …" } else { "" }
    );
    (Vec::new(), Summary::Reconciling(Finding::new(Reason::DeletionBlocked, message)), next)
}
