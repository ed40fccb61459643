//! PURE: the admission protocol on the wire: what is read of an `AdmissionReview`, and how answers are written.
//!
//! Most pods need nothing. To find that out takes a few words of the review ([`Probe`]), read in one pass that builds
//! nothing; only a pod that has an identity is read as a [`crate::mutate::Pod`].

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::mutate::TOKEN_VOLUME;
use crate::text::Text;

/// The versions answered; both have the same shape.
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
    /// What is asked.
    #[serde(borrow)]
    pub request: Request<'a, O>,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
pub struct Request<'a, O> {
    /// Repeated in the answer.
    #[serde(borrow)]
    pub uid: Text<'a>,
    /// What kind of object.
    #[serde(borrow, default)]
    pub kind: Kind<'a>,
    /// Empty for the object itself.
    #[serde(borrow, default)]
    pub sub_resource: Text<'a>,
    /// `CREATE`.
    #[serde(borrow, default)]
    pub operation: Text<'a>,
    /// The object's namespace; the object itself need not say it.
    #[serde(borrow, default)]
    pub namespace: Text<'a>,
    /// Whether the pod will not be made.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// The object; `None` where it is missing or null.
    #[serde(default = "nothing")]
    pub object: Option<O>,
}

fn nothing<O>() -> Option<O> {
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

/// The few words of a pod that say whether anything has to be done.
#[derive(Debug, Deserialize)]
pub struct Probe<'a> {
    /// What it is called.
    #[serde(borrow, default)]
    pub metadata: Option<Names<'a>>,
    /// Whose it is.
    #[serde(borrow)]
    pub spec: Account<'a>,
}

/// What a pod is called.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Names<'a> {
    /// Its name; empty for what a controller makes.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// What its name will begin with.
    #[serde(borrow, default)]
    pub generate_name: Option<Text<'a>>,
}

/// Whose a pod is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account<'a> {
    /// Absent for mirror pods; for all others the API server has filled in `default`.
    #[serde(borrow, default)]
    pub service_account_name: Option<Text<'a>>,
    /// Its volumes, unread.
    #[serde(borrow, default)]
    pub volumes: Option<&'a RawValue>,
}

impl Probe<'_> {
    /// Whether it is worth reading whole in search of our token.
    #[must_use]
    pub fn may_have_token(&self) -> bool {
        self.spec.volumes.is_some_and(|volumes| volumes.get().contains(TOKEN_VOLUME))
    }

    /// The pod's `ServiceAccount`.
    #[must_use]
    pub fn service_account(&self) -> Option<&str> {
        self.spec.service_account_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The pod's name, or what it will begin with.
    #[must_use]
    pub fn name(&self) -> &str {
        let Some(Names { name, generate_name }) = &self.metadata else { return "" };
        let given = |name: &'_ Option<Text<'_>>| name.as_deref().is_some_and(|name| !name.is_empty());
        if given(name) { name.as_deref() } else { generate_name.as_deref() }.unwrap_or_default()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    api_version: &'a str,
    kind: &'static str,
    response: Response<'a>,
}

/// The answer to a request.
#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Response<'a> {
    /// The request's.
    pub uid: &'a str,
    /// Whether the pod is admitted.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status<'a>>,
    /// `JSONPatch` where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<&'static str>,
    /// The patch, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// Shown to whoever made the pod.
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
    /// One that does not admit the pod.
    #[must_use]
    pub fn refusal(code: u16, reason: &'static str, message: &'a str) -> Self {
        let status = Some(Status { result: "Failure", code, reason, message });
        Self { status, ..Self::default() }
    }

    /// The review that carries it.
    #[must_use]
    pub fn write(self, api_version: &str) -> Vec<u8> {
        let mut body = Vec::with_capacity(256 + self.patch.as_ref().map_or(0, String::len));
        let reply = Reply { api_version, kind: "AdmissionReview", response: self };
        // Strings, numbers and flags into memory: nothing that can fail.
        let _ = serde_json::to_writer(&mut body, &reply);
        body
    }
}
