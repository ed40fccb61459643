//! Objects of buckets that keep versions, and of those that keep none (S3 user guide, "Working with delete markers").

use aws_sim_api::{Bucket, Object, ObjectVersion};

/// The id of the only version in a bucket that keeps none.
pub(super) const NULL: &str = "null";

/// Writes an object; `id` becomes the id of its version where the bucket keeps versions.
pub(crate) fn put_object(bucket: &mut Bucket, key: &str, object: Object, id: &str) {
    if bucket.versioned {
        let (key, id) = (key.to_owned(), id.to_owned());
        bucket.versions.push(ObjectVersion { key, id, object: Some(object.clone()) });
    }
    bucket.objects.insert(key.to_owned(), object);
}

/// Deletes an object, or puts a delete marker over it where the bucket keeps versions. Returns whether it put one.
pub(super) fn delete_object(bucket: &mut Bucket, key: &str, id: &str) -> bool {
    bucket.objects.remove(key);
    if bucket.versioned {
        bucket.versions.push(ObjectVersion { key: key.to_owned(), id: id.to_owned(), object: None });
    }
    bucket.versioned
}

/// Deletes one version or delete marker. The one before it, if it is an object, becomes visible. Returns whether it was a
/// delete marker.
pub(super) fn delete_version(bucket: &mut Bucket, key: &str, id: &str) -> bool {
    if !bucket.versioned {
        if id == NULL {
            bucket.objects.remove(key);
        }
        return false;
    }
    let is_it = |version: &ObjectVersion| version.key == key && version.id == id;
    let marker = bucket.versions.iter().any(|version| is_it(version) && version.object.is_none());
    bucket.versions.retain(|version| !is_it(version));
    let latest = bucket.versions.iter().rev().find(|version| version.key == key);
    match latest.and_then(|version| version.object.clone()) {
        Some(object) => bucket.objects.insert(key.to_owned(), object),
        None => bucket.objects.remove(key),
    };
    marker
}

/// All versions and delete markers, by key, those of a key from the newest to the oldest; with each, whether it is the
/// newest.
pub(crate) fn versions(bucket: &Bucket) -> Vec<(ObjectVersion, bool)> {
    if !bucket.versioned {
        let only = |(key, object): (&String, &Object)| {
            let object = Some(object.clone());
            (ObjectVersion { key: key.clone(), id: NULL.to_owned(), object }, true)
        };
        return bucket.objects.iter().map(only).collect();
    }
    let mut all: Vec<ObjectVersion> = bucket.versions.iter().rev().cloned().collect();
    all.sort_by(|one, other| one.key.cmp(&other.key)); // stable
    let mut last = None;
    let newest = |version: ObjectVersion| {
        let newest = last.as_ref() != Some(&version.key);
        last = Some(version.key.clone());
        (version, newest)
    };
    all.into_iter().map(newest).collect()
}
