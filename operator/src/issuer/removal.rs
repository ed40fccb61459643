//! PURE: how an issuer is removed. Deletion is `Retain`: nothing in AWS is removed. While bindings use the issuer it is not
//! removed, and everything that it publishes is kept as specified: a deletion by mistake must not cut pods off.

use crds::condition::Summary;
use crds::{Finding, Reason};

use super::model::{Observed, Step, View};
use crate::model::Next;
use crate::timings::Timings;

/// How far the removal is.
pub(super) enum Removal {
    /// Bindings still use the issuer.
    Waits(Summary),
    /// Nothing uses it: what is left to be done.
    Ends(Vec<Step>, Summary, Next),
}

/// What is done of the removal in this pass.
pub(super) fn decide(view: &View, observed: &Observed, timings: &Timings) -> Removal {
    /// More names would not be read.
    const NAMED: usize = 5;
    let dependents = &observed.dependents;
    if dependents.is_empty() {
        let steps = view.object.finalizer.then_some(Step::RemoveFinalizer).into_iter().collect();
        let finding = Finding::new(
            Reason::Deleting,
            "what was published and registered stays in AWS; `operator teardown` removes it",
        );
        return Removal::Ends(steps, Summary::Reconciling(finding), Next::At(timings.api_server_poll));
    }
    let named: Vec<&str> = dependents.iter().take(NAMED).map(String::as_str).collect();
    let message = format!(
        "{} PodIdentityBinding(s) still use this issuer: {}{}. Delete them first. Until then its documents and provider are \
         kept as specified",
        dependents.len(),
        named.join(", "),
        if dependents.len() > named.len() { ", …" } else { "" }
    );
    Removal::Waits(Summary::Reconciling(Finding::new(Reason::DeletionBlocked, message)))
}
