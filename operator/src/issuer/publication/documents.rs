//! PURE: the two public documents.

use crds::OidcIssuerSpec;

use super::target::Target;
use crate::aws::model::{Bucket, CACHE_CONTROL, CONTENT_TYPE, Object, S3Write, Write};
use crate::change::Change;
use crate::oidc::{Documents, Keys};

/// The documents of an issuer with these keys.
#[must_use]
pub fn wanted(spec: &OidcIssuerSpec, keys: &Keys) -> Documents {
    Documents::new(&spec.issuer_url(), &spec.jwks_uri(), keys)
}

/// Whether the published keys are all of another API server: a file was copied to a second cluster, a cluster was cloned, or
/// the wrong cluster is asked. Its keys must not replace the published ones without a person's word.
#[must_use]
pub fn foreign_keys(found: Option<&Bucket>, keys: &Keys) -> bool {
    let published = found.and_then(|bucket| bucket.jwks.as_ref());
    let published = published.and_then(|object| Keys::parse(&object.body).ok());
    published.is_some_and(|published| !published.ids().any(|id| keys.ids().any(|known| known == id)))
}

/// What publishes the documents, the keys before the document that names them. `wanted` is `None` while the API server's
/// keys are not known: the documents are then left as they are, never shrunk.
#[must_use]
pub fn diff(target: &Target, found: Option<&Bucket>, wanted: Option<&Documents>) -> Vec<Change> {
    let Some(Documents { discovery, jwks }) = wanted else { return Vec::new() };
    let put = |attribute, key: &str, found: Option<&Object>, body: &[u8], describe: fn(&Object) -> String| {
        let new = Object {
            body: body.to_vec(),
            etag: String::new(),
            content_type: CONTENT_TYPE.into(),
            cache_control: CACHE_CONTROL.into(),
            encrypted_by_key: false,
        };
        (!found.is_some_and(|found| is_published(found, body))).then(|| Change {
            attribute,
            old: found.map(describe),
            new: Some(describe(&new)),
            write: Write::S3(
                target.bucket.clone(),
                S3Write::PutObject {
                    key: key.to_owned(),
                    body: new.body,
                    over: found.map(|found| found.etag.clone()),
                },
            ),
        })
    };
    let jwks = put("JWKS", &target.jwks_key, found.and_then(|b| b.jwks.as_ref()), jwks, describe_keys);
    let discovery = put(
        "discovery document",
        &target.discovery_key,
        found.and_then(|b| b.discovery.as_ref()),
        discovery,
        describe_object,
    );
    jwks.into_iter().chain(discovery).collect()
}

/// What removes the documents; nothing where there is no bucket.
#[must_use]
pub fn removal(target: &Target, found: Option<&Bucket>) -> Vec<Change> {
    let delete = |(attribute, key): (&'static str, &String)| Change {
        attribute,
        old: Some(key.clone()),
        new: None,
        write: Write::S3(target.bucket.clone(), S3Write::DeleteObject { key: key.clone() }),
    };
    let documents = [
        ("discovery document", &target.discovery_key),
        ("JWKS", &target.jwks_key),
        ("canary object", &target.canary_key),
    ];
    found.map_or_else(Vec::new, |_| documents.map(delete).to_vec())
}

/// What makes the object with which the bucket's policy is tried. Only `bootstrap` writes it: the operator has no right to.
#[must_use]
pub fn canary(target: &Target, found: Option<&Object>) -> Option<Change> {
    found.is_none_or(|found| found.body != CONTENT).then(|| Change {
        attribute: "canary object",
        old: found.map(describe_object),
        new: Some(target.canary_key.clone()),
        write: Write::S3(
            target.bucket.clone(),
            S3Write::PutObject {
                key: target.canary_key.clone(),
                body: CONTENT.to_vec(),
                over: found.map(|found| found.etag.clone()),
            },
        ),
    })
}

/// What the canary object holds.
pub const CONTENT: &[u8] =
    b"This object shows whether the bucket's policy keeps pods from writing. It holds nothing.\n";

fn is_published(found: &Object, wanted: &[u8]) -> bool {
    found.body == wanted
        && found.content_type == CONTENT_TYPE
        && found.cache_control == CACHE_CONTROL
        && !found.encrypted_by_key
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
    format!("{}, {}{key}", object.content_type, object.cache_control)
}
