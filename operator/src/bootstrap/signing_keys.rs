//! Which keys `bootstrap` publishes: those that the reconcile would publish.

use anyhow::bail;
use crds::OidcIssuer;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};

use crate::api_servers::model::{ApiServers, Coverage};
use crate::aws::model::Bucket;
use crate::installation::NamedIssuer;
use crate::issuer::keys::{self, Sources};
use crate::issuer::model::{Additional, Expected};
use crate::issuer::observe::additional;
use crate::issuer::publication::documents;
use crate::oidc::Keys;
use crate::terminal::Terminal;

/// What the cluster shows.
#[derive(Clone, Copy)]
pub struct ClusterKeys<'a> {
    /// The cluster.
    pub client: &'a Client,
    /// The operator's namespace.
    pub namespace: &'a str,
    /// What the API servers answered.
    pub api: &'a ApiServers,
    /// The cluster's `OidcIssuer`s, with their status.
    pub objects: &'a [OidcIssuer],
    /// Replace published keys of which neither the API servers nor the status knows one.
    pub replace_keys: bool,
}

impl ClusterKeys<'_> {
    /// What anonymous readers must find once everything is published. Keys that the issuer's status knows stay as long as the reconcile would keep them, so that
    /// one run mends an issuer whose signing key was replaced while the operator could not see it.
    pub async fn expected(
        &self,
        NamedIssuer { name, spec }: &NamedIssuer,
        bucket: Option<&Bucket>,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Expected> {
        let Self { client, namespace, api, objects, replace_keys } = *self;
        if spec.s3.is_none() {
            return Ok(Expected::Elsewhere(api.keys()));
        }
        let (seen, published) = (api.keys(), documents::published_keys(bucket));
        let same = |object: &&OidcIssuer| {
            object.name_any() == *name && object.spec.issuer_url() == spec.issuer_url()
        };
        let status = objects.iter().find(same).and_then(|object| object.status.as_ref());
        let recorded = status.map_or(&[][..], |status| &status.keys);
        let is_foreign =
            !keys::any_is_recorded(&published, recorded) && documents::foreign_keys(&published, &seen);
        if is_foreign && !replace_keys {
            bail!(
                "the published keys are of another cluster: none of them is a key of this one, which issues tokens as {}. Is the \
                 kubeconfig the right one, and does no other cluster use this file? To replace them all the same (this \
                 cluster's signing keys were all replaced), use --replace-keys. Nothing was changed",
                api.present_issuer()
            );
        }
        let Additional { keys: additional, invalid, unread } = additional(client, namespace, spec).await;
        for what in invalid.iter().chain(&unread) {
            terminal.line(&format!("! {what}: it is not published"));
        }
        let none = Keys::default();
        let (recorded, published) = if is_foreign { (&[][..], &none) } else { (recorded, &published) };
        let life = keys::life(&Sources {
            seen: &seen,
            complete: api.coverage() == Coverage::All,
            additional: &additional,
            additional_complete: unread.is_empty(),
            recorded,
            published: [published, published],
            stored_clocks: bucket.and_then(|bucket| bucket.jwks.as_ref()).map_or("", |jwks| &jwks.clocks),
            now: Timestamp::now(),
            retention: spec.key_retention(),
            revoked: spec.revoked_keys(),
        });
        for note in &life.notes {
            terminal.line(&format!("! {note}"));
        }
        Ok(Expected::Published(documents::wanted(spec, &life)))
    }
}
