//! PURE: which keys an issuer publishes, from what was observed and what is remembered. The life of each key is in `keys.rs`.

use std::time::Instant;

use crds::{Finding, PublishedKey, Reason};

use super::keys::{self, Life, Sources};
use super::model::{Memory, Observed, View};
use super::publication::documents;
use crate::api_servers::model::{ApiServers, Coverage};
use crate::clock::Clock;
use crate::timings::Timings;

/// The keys to be published. An error while the API servers' keys or the bucket are not known, and a finding where the
/// published keys are of another API server: they stay. Where this process published for this API server before, or an API
/// server shows a key that is recorded, it is this cluster: its keys are put back whatever replaced them, and new ones are
/// added.
pub fn decide(
    view: &View,
    observed: &Observed,
    memory: &Memory,
    clock: &Clock,
    timings: &Timings,
) -> Result<Life, Option<Finding>> {
    // Where somebody else publishes, there is nothing to decide.
    view.spec().s3.as_ref().ok_or(None)?;
    let api = observed.api.as_ref().map_err(|_| None)?;
    let bucket = observed.aws.as_ref().map_err(|_| None)?.bucket.as_ref();
    let (seen, published) = (api.keys(), documents::published_keys(bucket));
    let recorded = recorded(view, memory);
    let own = memory.keys.as_ref().map(|life| &life.keys);
    let has_published = memory.publishes && memory.is_for(view.spec());
    let is_this_cluster = own.is_some() || has_published || keys::any_is_recorded(&seen, recorded);
    if !is_this_cluster && documents::foreign_keys(&published, &seen) {
        return Err(Some(foreign()));
    }
    Ok(keys::life(&Sources {
        seen: &seen,
        complete: is_complete(observed, memory, clock, timings),
        additional: &observed.additional.keys,
        additional_complete: observed.additional.unread.is_empty(),
        recorded,
        published: [own.unwrap_or(&published), &published],
        stored_clocks: bucket.and_then(|bucket| bucket.jwks.as_ref()).map_or("", |jwks| &jwks.clocks),
        now: clock.wall,
        retention: view.spec().key_retention(),
        revoked: view.spec().revoked_keys(),
    }))
}

/// Since when an API server is out of reach while others are not.
#[must_use]
pub fn out_of_reach_since(observed: &Observed, memory: &Memory, clock: &Clock) -> Option<Instant> {
    let coverage = observed.api.as_ref().ok().map(ApiServers::coverage);
    let begun = memory.out_of_reach_since.unwrap_or(clock.instant);
    coverage.filter(|coverage| *coverage == Coverage::AllInReach).map(|_| begun)
}

/// Whether a key that no API server shows is certainly a key of none. One that restarts is out of reach for a moment: its
/// keys are not retired meanwhile.
fn is_complete(observed: &Observed, memory: &Memory, clock: &Clock, timings: &Timings) -> bool {
    match observed.api.as_ref().map(ApiServers::coverage) {
        Ok(Coverage::All) => true,
        Ok(Coverage::AllInReach) => {
            let since = out_of_reach_since(observed, memory, clock);
            since.is_some_and(|since| clock.since(since) >= timings.api_server_absence)
        }
        Ok(Coverage::Partial) | Err(_) => false,
    }
}

/// What is known of published keys: from this process, or from the process before it.
#[must_use]
pub fn recorded<'a>(view: &'a View, memory: &'a Memory) -> &'a [PublishedKey] {
    memory.keys.as_ref().map_or_else(|| view.recorded_keys(), |life| &life.records)
}

fn foreign() -> Finding {
    let message = "the bucket has the keys of another API server, and none of this one's: another cluster uses the same \
                   OidcIssuer, or all signing keys of this cluster were replaced. The published keys are left as they are. If \
                   this is the cluster that they belong to, run `operator bootstrap` again, with --replace-keys if the cluster was built \
                   anew";
    Finding::new(Reason::ForeignKeys, message)
}

/// What is worth an event in this pass. A `ConfigMap` that stays wrong is named once.
#[must_use]
pub fn events(observed: &Observed, memory: &Memory, life: Option<&Life>) -> Vec<Finding> {
    let new = observed.additional.invalid.iter().filter(|what| !memory.invalid.contains(what));
    let invalid =
        new.map(|what| Finding::new(Reason::AdditionalKeysInvalid, format!("{what}: it is ignored")));
    life.map_or(&[][..], |life| &life.events).iter().cloned().chain(invalid).collect()
}
