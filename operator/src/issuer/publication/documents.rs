//! PURE: the two public documents.

use crds::OidcIssuerSpec;

use super::super::keys::{Life, stored_clocks};
use super::target::Target;
use crate::aws::model::{Bucket, CACHE_CONTROL, CONTENT_TYPE, Object, S3Write, Write};
use crate::change::Change;
use crate::oidc::{Documents, Keys};

/// The documents of an issuer with these keys.
#[must_use]
pub fn wanted(spec: &OidcIssuerSpec, life: &Life) -> Documents {
    Documents::new(&spec.issuer_url(), &spec.jwks_uri(), &life.keys, stored_clocks(&life.records))
}

/// The keys of the published JWKS; none where there is no JWKS that can be read.
#[must_use]
pub fn published_keys(found: Option<&Bucket>) -> Keys {
    let jwks = found.and_then(|bucket| bucket.jwks.as_ref());
    jwks.and_then(|object| Keys::parse(&object.body).ok()).unwrap_or_default()
}

/// Whether the published keys are all of another API server: a file was copied to a second cluster, a cluster was cloned, or
/// the wrong cluster is asked. Its keys must not replace the published ones without a person's word.
#[must_use]
pub fn foreign_keys(published: &Keys, keys: &Keys) -> bool {
    !published.is_empty() && !published.ids().any(|kid| keys.get(kid).is_some())
}

/// What publishes the documents, the keys before the document that names them. `wanted` is `None` while the API server's
/// keys are not known: the documents are then left as they are, never shrunk.
#[must_use]
pub fn diff(target: &Target, found: Option<&Bucket>, wanted: Option<&Documents>) -> Vec<Change> {
    let (Some(location), Some(Documents { discovery, jwks, clocks })) = (&target.location, wanted) else {
        return Vec::new();
    };
    let put = |attribute, key: &str, found: Option<&Object>, new: Object, describe: fn(&Object) -> String| {
        (!found.is_some_and(|found| is_published(found, &new))).then(|| Change {
            attribute,
            old: found.map(describe),
            new: Some(describe(&new)),
            write: Write::S3(
                location.bucket.clone(),
                S3Write::PutObject {
                    key: key.to_owned(),
                    body: new.body,
                    clocks: new.clocks,
                    over: found.map(|found| found.etag.clone()),
                },
            ),
        })
    };
    let jwks = put(
        "JWKS",
        &location.jwks_key,
        found.and_then(|b| b.jwks.as_ref()),
        object(jwks, clocks),
        describe_keys,
    );
    let discovery = put(
        "discovery document",
        &location.discovery_key,
        found.and_then(|b| b.discovery.as_ref()),
        object(discovery, ""),
        describe_object,
    );
    jwks.into_iter().chain(discovery).collect()
}

/// What removes the documents; nothing where there is no bucket.
#[must_use]
pub fn removal(target: &Target, found: Option<&Bucket>) -> Vec<Change> {
    let (Some(location), Some(bucket)) = (&target.location, found) else { return Vec::new() };
    let delete = |(attribute, key): (&'static str, &String)| Change {
        attribute,
        old: Some(key.clone()),
        new: None,
        write: Write::S3(location.bucket.clone(), S3Write::DeleteObject { key: key.clone() }),
    };
    // In a bucket that stays, only what is there: otherwise it would never end.
    let is_there = |object: Option<&Object>| object.is_some() || target.managed().is_some();
    let documents = [
        is_there(bucket.discovery.as_ref()).then_some(("discovery document", &location.discovery_key)),
        is_there(bucket.jwks.as_ref()).then_some(("JWKS", &location.jwks_key)),
    ];
    let canary = target.managed().map(|_| ("canary object", &location.canary_key));
    documents.into_iter().flatten().chain(canary).map(delete).collect()
}

/// What makes the object with which the bucket's policy is tried. Only `bootstrap` writes it: the operator has no right to.
#[must_use]
pub fn canary(target: &Target, found: Option<&Object>) -> Option<Change> {
    let location = target.managed()?;
    found.is_none_or(|found| found.body != CONTENT).then(|| Change {
        attribute: "canary object",
        old: found.map(describe_object),
        new: Some(location.canary_key.clone()),
        write: Write::S3(
            location.bucket.clone(),
            S3Write::PutObject {
                key: location.canary_key.clone(),
                body: CONTENT.to_vec(),
                clocks: String::new(),
                over: found.map(|found| found.etag.clone()),
            },
        ),
    })
}

/// What the canary object holds.
pub const CONTENT: &[u8] =
    b"This object shows whether the bucket's policy keeps pods from writing. It holds nothing.\n";

/// An object as it is wanted.
fn object(body: &[u8], clocks: &str) -> Object {
    Object {
        body: body.to_vec(),
        etag: String::new(),
        content_type: CONTENT_TYPE.into(),
        cache_control: CACHE_CONTROL.into(),
        encrypted_by_key: false,
        clocks: clocks.to_owned(),
    }
}

fn is_published(found: &Object, wanted: &Object) -> bool {
    *found == Object { etag: found.etag.clone(), ..wanted.clone() }
}

fn describe_keys(object: &Object) -> String {
    let keys = Keys::parse(&object.body);
    let ids = keys.map_or_else(
        |_| "no readable keys".to_owned(),
        |keys| format!("keys {}", keys.ids().collect::<Vec<_>>().join(" ")),
    );
    format!("{ids} ({})", describe_form(object))
}

fn describe_object(object: &Object) -> String {
    format!("{} bytes ({})", object.body.len(), describe_form(object))
}

fn describe_form(object: &Object) -> String {
    let key = if object.encrypted_by_key { ", encrypted by a KMS key" } else { "" };
    let clocks = if object.clocks.is_empty() { "" } else { ", with retention clocks" };
    format!("{}, {}{key}{clocks}", object.content_type, object.cache_control)
}
