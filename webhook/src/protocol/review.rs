//! PURE: the JSON of the admission protocol: what is read of an `AdmissionReview`, and how answers are written.
//!
//! Most pods need nothing. To find that out takes a few fields of the review ([`PodSummary`]), read in one pass without
//! allocation; only a pod that has an identity is read as a [`crds::pod::Pod`].

use std::collections::BTreeMap;

use crds::names::label::REQUIRE;
use crds::pod::problem::{PodProblem, annotation_problems};
use crds::pod::text::Text;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::identity::mutate::TOKEN_VOLUME;

/// The versions that are answered; both have the same fields.
pub const API_VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];

/// An `AdmissionReview` whose object is read as an `O`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
pub struct Review<'a, O> {
    /// `admission.k8s.io/v1`.
    #[serde(borrow)]
    pub api_version: Text<'a>,
    /// `AdmissionReview`.
    #[serde(borrow)]
    pub kind: Text<'a>,
    /// The request.
    #[serde(borrow)]
    pub request: Request<'a, O>,
}

/// The request of a review.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
pub struct Request<'a, O> {
    /// Repeated in the answer.
    #[serde(borrow)]
    pub uid: Text<'a>,
    /// The object's kind.
    #[serde(borrow, default)]
    pub kind: Kind<'a>,
    /// Empty for the object itself.
    #[serde(borrow, default)]
    pub sub_resource: Text<'a>,
    /// `CREATE`.
    #[serde(borrow, default)]
    pub operation: Text<'a>,
    /// The object's namespace; the object itself may lack it.
    #[serde(borrow, default)]
    pub namespace: Text<'a>,
    /// Whether the pod will not be stored.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// The object; `None` where it is missing or null.
    #[serde(default = "none")]
    pub object: Option<O>,
}

fn none<O>() -> Option<O> {
    None
}

/// A kind of object.
#[derive(Debug, Default, Deserialize)]
pub struct Kind<'a> {
    /// Empty for the core group.
    #[serde(borrow, default)]
    pub group: Text<'a>,
    /// For example `Pod`.
    #[serde(borrow, default)]
    pub kind: Text<'a>,
}

/// The few fields of a pod that show whether anything has to be done.
#[derive(Debug, Deserialize)]
pub struct PodSummary<'a> {
    /// Its name, labels and annotations.
    #[serde(borrow, default)]
    pub metadata: Option<MetadataSummary<'a>>,
    /// Its `ServiceAccount` and volumes.
    #[serde(borrow)]
    pub spec: SpecSummary<'a>,
}

/// The part of a pod's metadata that [`PodSummary`] reads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataSummary<'a> {
    /// Its name; empty for a pod that a controller creates.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// The prefix of the name that will be generated.
    #[serde(borrow, default)]
    pub generate_name: Option<Text<'a>>,
    /// Its labels, unread.
    #[serde(borrow, default)]
    pub labels: Option<&'a RawValue>,
    /// Its annotations, unread.
    #[serde(borrow, default)]
    pub annotations: Option<&'a RawValue>,
}

/// The part of a pod's specification that [`PodSummary`] reads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecSummary<'a> {
    /// Absent for mirror pods; for all others the API server has filled in `default`.
    #[serde(borrow, default)]
    pub service_account_name: Option<Text<'a>>,
    /// Its volumes, unread.
    #[serde(borrow, default)]
    pub volumes: Option<&'a RawValue>,
}

impl PodSummary<'_> {
    /// Whether the pod may have a token already; only the whole pod shows whether it has.
    #[must_use]
    pub fn may_have_token(&self) -> bool {
        self.spec.volumes.is_some_and(|volumes| volumes.get().contains(TOKEN_VOLUME))
    }

    /// Whether the pod has the label that requires an identity, with a value that means neither yes nor no: the selectors of
    /// the webhook configuration compare it with `true` exactly, so that any other value has no effect.
    #[must_use]
    pub fn has_unknown_require_label(&self) -> bool {
        const NO: [&str; 6] = ["false", "f", "no", "n", "off", "0"];
        let labels = self.metadata.as_ref().and_then(|metadata| metadata.labels);
        // Most pods do not have it.
        labels.map(RawValue::get).filter(|labels| labels.contains(REQUIRE)).is_some_and(|labels| {
            let labels: BTreeMap<Text<'_>, Text<'_>> = serde_json::from_str(labels).unwrap_or_default();
            labels.get(REQUIRE).is_some_and(|value| {
                **value != *"true" && NO.iter().all(|no| !value.eq_ignore_ascii_case(no))
            })
        })
    }

    /// Annotations that name a role: nothing reads them from a pod.
    #[must_use]
    pub fn role_annotations(&self, prefix: &str) -> Vec<PodProblem> {
        let annotations = self.metadata.as_ref().and_then(|metadata| metadata.annotations).map(RawValue::get);
        // Few pods have such an annotation, and fewer a long list of them.
        let names_role = |text: &&str| ["role", "Role", "ROLE"].iter().any(|name| text.contains(name));
        let Some(annotations) = annotations.filter(names_role) else { return Vec::new() };
        let keys: BTreeMap<Text<'_>, Text<'_>> = serde_json::from_str(annotations).unwrap_or_default();
        annotation_problems(keys.keys().map(|key| &**key), prefix)
    }

    /// The pod's `ServiceAccount`.
    #[must_use]
    pub fn service_account(&self) -> Option<&str> {
        self.spec.service_account_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The pod's name, or the prefix of it.
    #[must_use]
    pub fn name(&self) -> &str {
        let Some(MetadataSummary { name, generate_name, .. }) = &self.metadata else { return "" };
        let is_set = |name: &'_ Option<Text<'_>>| name.as_deref().is_some_and(|name| !name.is_empty());
        if is_set(name) { name.as_deref() } else { generate_name.as_deref() }.unwrap_or_default()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnsweredReview<'a> {
    api_version: &'a str,
    kind: &'static str,
    response: Response<'a>,
}

/// The answer to a request.
#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Response<'a> {
    /// The request's uid.
    pub uid: &'a str,
    /// Whether the pod is admitted.
    pub allowed: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status<'a>>,
    /// `JSONPatch` where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<&'static str>,
    /// The patch, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// Shown to the user who creates the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A `metav1.Status`.
#[derive(Debug, Serialize)]
pub struct Status<'a> {
    #[serde(rename = "status")]
    result: &'static str,
    code: u16,
    reason: &'static str,
    message: &'a str,
}

impl<'a> Response<'a> {
    /// A response that does not admit the pod.
    #[must_use]
    pub fn refusal(code: u16, reason: &'static str, message: &'a str) -> Self {
        let status = Some(Status { result: "Failure", code, reason, message });
        Self { status, ..Self::default() }
    }

    /// The review with this response, as JSON.
    #[must_use]
    pub fn write(self, api_version: &str) -> Vec<u8> {
        let mut body = Vec::with_capacity(256 + self.patch.as_ref().map_or(0, String::len));
        let review = AnsweredReview { api_version, kind: "AdmissionReview", response: self };
        // Writing strings, numbers and flags into memory cannot fail.
        let _ = serde_json::to_writer(&mut body, &review);
        body
    }
}
