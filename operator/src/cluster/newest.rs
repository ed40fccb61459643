//! Whether the API server has issuers and namespaces as a pass has seen them: a watch may be late, and a list may come from a cache that
//! is.

use std::collections::HashMap;
use std::time::Instant;

use crds::OidcIssuer;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::Mutex;

use super::namespaces::Labels;
use crate::model::Version;

/// What the API server has said of issuers. One answer serves all passes that began before it was asked for.
#[derive(Debug, Default)]
pub(super) struct Newest(Mutex<HashMap<String, Answer>>);

#[derive(Debug)]
struct Answer {
    found: Found,
    asked: Instant,
}

/// An object as the API server has it.
#[derive(Debug)]
enum Found {
    None,
    Readable(Version),
    /// It cannot be decoded: the last version that can be holds, as in the store.
    Unreadable {
        uid: Option<String>,
    },
}

impl Found {
    fn of(object: Option<DeserializeGuard<OidcIssuer>>) -> Self {
        match object {
            None => Self::None,
            Some(DeserializeGuard(Ok(issuer))) => Self::Readable(Version::of(issuer.meta())),
            Some(unreadable) => Self::Unreadable { uid: unreadable.uid() },
        }
    }

    /// Whether that is the issuer that was seen, and no newer one holds.
    fn confirms(&self, seen: &OidcIssuer) -> bool {
        match self {
            Self::None => false,
            Self::Readable(version) => *version == Version::of(seen.meta()),
            Self::Unreadable { uid } => *uid == seen.uid(),
        }
    }
}

impl Newest {
    /// Whether an issuer that a pass has seen is the newest one. `began` is when the pass began.
    ///
    /// # Errors
    ///
    /// The API server did not answer.
    pub async fn has_issuer(
        &self,
        client: &Client,
        issuer: &OidcIssuer,
        began: Instant,
    ) -> Result<bool, kube::Error> {
        let name = issuer.name_any();
        // Held during the request: passes that wait for it need none of their own.
        let mut answers = self.0.lock().await;
        if let Some(answer) = answers.get(&name).filter(|answer| answer.asked >= began) {
            return Ok(answer.found.confirms(issuer));
        }
        let asked = Instant::now();
        let api: Api<DeserializeGuard<OidcIssuer>> = Api::all(client.clone());
        let found = Found::of(api.get_opt(&name).await?);
        let is_newest = found.confirms(issuer);
        answers.insert(name, Answer { found, asked });
        Ok(is_newest)
    }
}

/// Whether a namespace has these labels.
///
/// # Errors
///
/// The API server did not answer.
pub(super) async fn has_labels(
    client: &Client,
    namespace: &str,
    labels: &Labels,
) -> Result<bool, kube::Error> {
    let found = Api::<Namespace>::all(client.clone()).get_metadata_opt(namespace).await?;
    Ok(found.is_some_and(|found| found.metadata.labels.unwrap_or_default() == **labels))
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
        let of = |metadata| object(metadata, spec.clone());
        let rows = [
            ("the same", Some(of(json!({"labels": {"a": "b"}}))), true),
            ("edited", Some(of(json!({"generation": 2}))), false),
            ("made again", Some(of(json!({"uid": "v"}))), false),
            ("being deleted", Some(of(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))), false),
            ("abandoned", Some(of(json!({"annotations": {"podidentity.dev/abandon": "true"}}))), false),
            ("gone", None, false),
            (
                "an edit that cannot be decoded",
                Some(object(json!({"generation": 2}), json!({"s3": 1}))),
                true,
            ),
            ("the same of another one", Some(object(json!({"uid": "v"}), json!({"s3": 1}))), false),
        ];
        for (row, found, expected) in rows {
            let found = found.map(|found| serde_json::from_value(found).unwrap());
            assert_eq!(Found::of(found).confirms(&seen), expected, "{row}");
        }
    }
}
