//! Whether the API server has issuers and namespaces as a pass has seen them: a watch may be late, and a list may come from a cache that
//! is.

use std::time::Instant;

use crds::OidcIssuer;
use crds::condition::ConditionType;
use crds::conditions::is_true;
use crds::rules::is_subdomain;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt};

use super::answers::Answers;
use super::namespaces::Labels;
use crate::model::Version;

/// An issuer as the API server has it.
#[derive(Debug, Clone)]
pub(super) enum Found {
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

/// Whether the issuer of that name is the one that a pass has seen; `None`: it has seen none. The answer is not older than `asked`.
///
/// # Errors
///
/// The API server did not answer.
pub(super) async fn has_issuer(
    answers: &Answers<Found>,
    client: &Client,
    name: &str,
    seen: Option<&OidcIssuer>,
    asked: Instant,
) -> Result<bool, kube::Error> {
    // It is put into a URL, and the API server may have stored it without the rules of the CRD.
    if !is_subdomain(name) {
        return Ok(seen.is_none());
    }
    let api: Api<DeserializeGuard<OidcIssuer>> = Api::all(client.clone());
    let ask = async { api.get_opt(name).await.map(Found::of) };
    Ok(answers.get(name, asked, ask).await?.confirms(seen))
}

/// The labels of a namespace now; `None`: there is none of that name.
///
/// # Errors
///
/// The API server did not answer.
pub(super) async fn labels(client: &Client, namespace: &str) -> Result<Option<Labels>, kube::Error> {
    let found = Api::<Namespace>::all(client.clone()).get_metadata_opt(namespace).await?;
    Ok(found.map(|found| Labels::new(found.metadata.labels.unwrap_or_default())))
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
