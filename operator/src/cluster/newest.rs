//! Whether the API server has issuers and namespaces as a pass has seen them: a watch may be late, and a list may come from a cache that
//! is.

use std::collections::HashMap;
use std::time::Instant;

use crds::OidcIssuer;
use crds::condition::ConditionType;
use crds::conditions::is_true;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::Mutex;

use super::namespaces::Labels;
use crate::model::Version;

/// What the API server has said of issuers. One answer serves all passes that asked before it was on its way.
#[derive(Debug, Default)]
pub(super) struct Newest(Mutex<HashMap<String, Answer>>);

#[derive(Debug)]
struct Answer {
    found: Found,
    asked: Instant,
}

/// An issuer as the API server has it.
#[derive(Debug)]
enum Found {
    None,
    Readable {
        version: Version,
        /// Whether API servers issue tokens under it: while they do not, a former issuer stays trusted.
        matches: bool,
    },
    /// It cannot be decoded: the last version that can be holds, as in the store.
    Unreadable {
        uid: Option<String>,
    },
}

impl Found {
    fn of(object: Option<DeserializeGuard<OidcIssuer>>) -> Self {
        match object {
            None => Self::None,
            Some(DeserializeGuard(Ok(issuer))) => {
                Self::Readable { version: Version::of(issuer.meta()), matches: matches(&issuer) }
            }
            Some(unreadable) => Self::Unreadable { uid: unreadable.uid() },
        }
    }

    /// Whether that is the issuer that was seen, and no newer one holds.
    fn confirms(&self, seen: Option<&OidcIssuer>) -> bool {
        match (self, seen) {
            // One that cannot be decoded, and never could, is in no store.
            (Self::None | Self::Unreadable { .. }, None) => true,
            (Self::Readable { version, matches: now }, Some(seen)) => {
                *version == Version::of(seen.meta()) && *now == matches(seen)
            }
            (Self::Unreadable { uid }, Some(seen)) => *uid == seen.uid(),
            _ => false,
        }
    }
}

fn matches(issuer: &OidcIssuer) -> bool {
    let conditions = issuer.status.as_ref().map_or(&[][..], |status| &*status.conditions);
    is_true(conditions, ConditionType::IssuerMatches)
}

impl Newest {
    /// Whether the issuer of that name is the one that a pass has seen; `None`: it has seen none. The answer is not older than `asked`.
    ///
    /// # Errors
    ///
    /// The API server did not answer.
    pub async fn has_issuer(
        &self,
        client: &Client,
        name: &str,
        seen: Option<&OidcIssuer>,
        asked: Instant,
    ) -> Result<bool, kube::Error> {
        // Held during the request: passes that wait for it need none of their own.
        let mut answers = self.0.lock().await;
        if let Some(answer) = answers.get(name).filter(|answer| answer.asked >= asked) {
            return Ok(answer.found.confirms(seen));
        }
        let asked = Instant::now();
        let api: Api<DeserializeGuard<OidcIssuer>> = Api::all(client.clone());
        let found = Found::of(api.get_opt(name).await?);
        let is_newest = found.confirms(seen);
        answers.insert(name.to_owned(), Answer { found, asked });
        Ok(is_newest)
    }
}

/// Whether a namespace has these labels; `None`: none is known of that name.
///
/// # Errors
///
/// The API server did not answer.
pub(super) async fn has_labels(
    client: &Client,
    namespace: &str,
    labels: Option<&Labels>,
) -> Result<bool, kube::Error> {
    let found = Api::<Namespace>::all(client.clone()).get_metadata_opt(namespace).await?;
    let found = found.map(|found| found.metadata.labels.unwrap_or_default());
    Ok(found.as_ref() == labels.map(|labels| &**labels))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_issuer_is_confirmed_unless_a_newer_one_holds() {
        let object = |metadata: Value, spec: Value| {
            let mut all = json!({"name": "default", "uid": "u", "generation": 1});
            all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
            json!({"apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": all, "spec": spec})
        };
        let spec = json!({"clusterName": "homelab", "s3": {"bucket": "b", "region": "eu-central-1"}});
        let seen: OidcIssuer = serde_json::from_value(object(json!({}), spec.clone())).unwrap();
        let of = |metadata| Some(object(metadata, spec.clone()));
        let unreadable = |metadata| Some(object(metadata, json!({"s3": 1})));
        let mut in_use = object(json!({}), spec.clone());
        in_use["status"] = json!({"conditions": [{
            "type": "IssuerMatches", "status": "True", "reason": "Matches", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        let rows = [
            ("the same", of(json!({"labels": {"a": "b"}})), true),
            ("edited", of(json!({"generation": 2})), false),
            ("made again", of(json!({"uid": "v"})), false),
            ("being deleted", of(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})), false),
            ("abandoned", of(json!({"annotations": {"podidentity.dev/abandon": "true"}})), false),
            ("used by API servers", Some(in_use), false),
            ("gone", None, false),
            ("an edit that cannot be decoded", unreadable(json!({"generation": 2})), true),
            ("another one that cannot", unreadable(json!({"uid": "v"})), false),
        ];
        for (row, found, expected) in rows {
            let found = found.map(|found| serde_json::from_value(found).unwrap());
            assert_eq!(Found::of(found).confirms(Some(&seen)), expected, "{row}");
        }
        let none_seen = [
            ("none", None, true),
            ("one", of(json!({})), false),
            ("unreadable", unreadable(json!({})), true),
        ];
        for (row, found, expected) in none_seen {
            let found = found.map(|found| serde_json::from_value(found).unwrap());
            assert_eq!(Found::of(found).confirms(None), expected, "{row}");
        }
    }
}
