//! `PodIdentityBinding`: one `ServiceAccount` and the one role it may assume.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::conditions::Conditions;
use crate::lenient;
use crate::names::DEFAULT_ISSUER;

/// Lets exactly one `ServiceAccount` of this namespace assume exactly one AWS role.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "podidentity.dev",
    version = "v1alpha1",
    kind = "PodIdentityBinding",
    namespaced,
    shortname = "pib",
    category = "podidentity",
    status = "PodIdentityBindingStatus",
    derive = "PartialEq",
    doc = "Lets exactly one ServiceAccount of its namespace assume exactly one AWS role.",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "SERVICEACCOUNT", type_ = "string", json_path = ".spec.serviceAccountName"),
    printcolumn(name = "ROLE", type_ = "string", json_path = ".status.roleName"),
    printcolumn(name = "MISSING", type_ = "integer", json_path = ".status.missing.count"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "ARN", type_ = "string", json_path = ".status.roleARN", priority = 1),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", remote = "Self")]
#[x_kube(
    validation = Rule::new("self.serviceAccountName == oldSelf.serviceAccountName")
        .message("spec.serviceAccountName is immutable: make a new PodIdentityBinding"),
    validation = Rule::new("has(self.role) != has(self.roleARN)")
        .message("exactly one of spec.role (make a role) and spec.roleARN (use an existing role) must be set"),
)]
pub struct PodIdentityBindingSpec {
    /// The one `ServiceAccount`, in the binding's own namespace; immutable. It need not exist yet.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')")
        .message("a ServiceAccount's name has lower-case letters, digits, hyphens and dots; the ServiceAccount is in the binding's namespace"))]
    pub service_account_name: String,

    /// The `OidcIssuer` under which the `ServiceAccount`'s tokens are exchanged. It may change to one of the same AWS account and
    /// `clusterName`: tokens of the former one stay accepted for its `keys.retention`. Default: the one named `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,

    /// Make a role. A grant of the `OidcIssuer` must cover it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleSpec>,

    /// Use this existing role, in any account; it is never read or written in IAM. Its own trust policy alone decides which identities may assume it.
    #[serde(default, rename = "roleARN", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$')")
        .message("a role's ARN is arn:aws:iam::<account>:role/<path and name>"))]
    pub role_arn: Option<String>,

    /// Audience of the injected token. Default: the issuer's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.contains('$')")
        .message("an audience must not contain $: IAM reads it as a policy variable"))]
    pub audience: Option<String>,

    /// Life of the injected token in seconds, 600 to 86400. Default: 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 600, max = 86400))]
    pub token_expiration_seconds: Option<i64>,

    /// Whether `AWS_STS_REGIONAL_ENDPOINTS=regional` is injected, which older SDKs need. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sts_regional_endpoints: Option<bool>,

    /// The region injected where the pod sets none. Default: the issuer's. None: no region is injected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self == 'None' || self.matches('^[a-z]{2,4}(-[a-z]+)+-[0-9]+$')")
        .message("a region is written as eu-central-1; None means that no region is injected"))]
    pub region: Option<String>,

    /// What the operator does when somebody else has changed the role in AWS. Correct, the default: it restores the specification.
    /// `ReportOnly`: it reports the difference and changes nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drift_policy: DriftPolicy,

    /// What becomes of the role that was made once this binding gives it up. Delete, the default: it is removed. Retain: it is kept, and
    /// nothing can use it any more. Release: it stays as it is, without our tags, for another tool.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deletion_policy: RoleDeletionPolicy,

    /// Not a field: members that have a value which this version cannot decode. They are left out here, and [`Self::check`] names them.
    #[serde(skip)]
    pub undecodable: Vec<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What the operator does when somebody else has changed a role.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DriftPolicy {
    /// It restores the specification.
    #[default]
    Correct,
    /// It reports the difference, and changes nothing.
    ReportOnly,
}

/// What becomes of a role that a binding gives up.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RoleDeletionPolicy {
    /// It is removed.
    #[default]
    Delete,
    /// It is kept and revoked: no session can do anything, and none can begin.
    Retain,
    /// It is kept as it is, and our tags are taken off: it is another tool's from then on.
    Release,
}

/// Names an `OidcIssuer` of the cluster.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// `metadata.name` of the `OidcIssuer`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')")
        .message("an OidcIssuer's name has lower-case letters, digits, hyphens and dots"))]
    pub name: String,
}

impl Serialize for PodIdentityBindingSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for PodIdentityBindingSpec {
    /// Members that cannot be decoded are named in `undecodable`, but for those that say whose identity it is: without them it would be
    /// another one. An unknown policy is read as the one that removes nothing.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const REQUIRED: [&str; 4] = ["serviceAccountName", "issuerRef", "roleARN", "audience"];
        let value = Value::deserialize(deserializer)?;
        let (mut spec, left_out) = lenient::members(&value, &REQUIRED, |value| Self::deserialize(value))?;
        let is_left_out = |name: &str| left_out.iter().any(|left_out| left_out == name);
        if is_left_out("role") {
            return Err(de::Error::custom("role is no object"));
        }
        if is_left_out("deletionPolicy") {
            spec.deletion_policy = RoleDeletionPolicy::Retain;
        }
        if is_left_out("driftPolicy") {
            spec.drift_policy = DriftPolicy::ReportOnly;
        }
        Ok(Self { undecodable: left_out, ..spec })
    }
}

impl PodIdentityBindingSpec {
    /// Name of the `OidcIssuer` that the binding uses.
    #[must_use]
    pub fn issuer_name(&self) -> &str {
        self.issuer_ref.as_ref().map_or(DEFAULT_ISSUER, |issuer| &issuer.name)
    }

    /// Whether another binding of the same namespace has the same effect: fields that are absent in one have their default in
    /// the other, and the order of policies does not matter.
    #[must_use]
    pub fn has_same_effect(&self, other: &Self) -> bool {
        let [one, two] = [self, other].map(Self::with_defaults);
        one == two
    }

    fn with_defaults(&self) -> Self {
        let role = self.role.clone().map(|mut role| {
            role.policy_arns.sort_unstable();
            role.policy_arns.dedup();
            role.inline_policies.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            let session = role.max_session_duration.map_or(DEFAULT_SESSION, std::time::Duration::from);
            role.max_session_duration = Some(session.into());
            role
        });
        let seconds = self.token_expiration_seconds.unwrap_or(DEFAULT_TOKEN_EXPIRATION_SECONDS);
        Self {
            issuer_ref: Some(IssuerRef { name: self.issuer_name().to_owned() }),
            role,
            token_expiration_seconds: Some(seconds),
            sts_regional_endpoints: Some(self.sts_regional_endpoints.unwrap_or(true)),
            ..self.clone()
        }
    }
}

/// The role to make. Name, path, trust policy and permissions boundary are computed, never chosen.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct RoleSpec {
    /// Managed policies; the role's attachments are kept exactly equal to this list. IAM allows at most 25 and 10
    /// unless the account's quota was raised.
    #[serde(default, rename = "policyARNs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25), inner(length(max = 2048)))]
    #[x_kube(
        validation = Rule::new("self.all(arn, arn.matches('^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+$'))")
            .message("each is the ARN of a managed policy, arn:aws:iam::<account or aws>:policy/<name>"),
        validation = Rule::new("!self.exists(arn, arn.lowerAscii().contains(':policy/podidentity/'))")
            .message("policies under /podidentity/ are permissions boundaries of this operator: they allow all that they do not deny, and are never granted or attached")
    )]
    pub policy_arns: Vec<String>,

    /// Inline policies; those of the role are kept exactly equal to this list. A grant with `inlinePolicies: Allow` must cover
    /// them. Together they may have 9,984 characters without white space: of IAM's 10,240, the rest is kept for a revocation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub inline_policies: Vec<InlinePolicy>,

    /// How long a session of the role may last, for example `4h` or `90m`; from 1h, the default, to 12h. The grant's
    /// `maxSessionDuration` is the ceiling.
    #[serde(
        default,
        deserialize_with = "crate::duration::optional",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(min = 2, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('1h') && duration(self) <= duration('12h')")
        .message("a session lasts from 1h to 12h, written as hours, minutes and seconds: 4h, 90m, 1h30m"))]
    pub max_session_duration: Option<Duration>,

    /// The role's description in AWS, at most 1,000 characters. Default: which `ServiceAccount` it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    #[x_kube(validation = Rule::new("self.matches('^[\\\\x09\\\\x0A\\\\x0D\\\\x20-\\\\x7E\\\\x{A1}-\\\\x{FF}]*$')")
        .message("IAM takes printable characters of Latin-1 in a description"))]
    pub description: Option<String>,
}

/// An inline policy of the role.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InlinePolicy {
    /// The policy's name in IAM, unique in the role.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(
        validation = Rule::new("self.matches('^[A-Za-z0-9+=,.@_-]+$')")
            .message("an inline policy's name has letters, digits and +=,.@_-"),
        validation = Rule::new("self != 'podidentity-revoked'")
            .message("podidentity-revoked is the operator's own policy of a revoked role: choose another name")
    )]
    pub name: String,
    /// The policy document as IAM takes it, written as YAML: `Version` and `Statement`.
    #[schemars(schema_with = "policy_document")]
    pub document: Map<String, Value>,
}

/// An object with any members: IAM's policy language is IAM's to check.
fn policy_document(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// How long a session of a role may last where nothing else is specified (IAM's own default).
pub const DEFAULT_SESSION: std::time::Duration = std::time::Duration::from_hours(1);

/// What was observed. Only the operator writes it.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", remote = "Self")]
pub struct PodIdentityBindingStatus {
    /// Generation of the spec this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions by type.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
    /// ARN of the role, once it was seen to exist; of `spec.roleARN`, that ARN.
    #[serde(default, rename = "roleARN", skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// Name of the role that was made for this binding, once it was seen to exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_name: Option<String>,
    /// `OidcIssuer` whose tokens that role trusts for new pods, as it was last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Audience of those tokens; absent where that is `sts.amazonaws.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// When the role is revoked, because no grant covers its rights any more. Absent while one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_at: Option<Time>,
    /// Digest of the specified role as it was last read and found so, or under which its differences were reported; shorter where tags of
    /// the issuer are missing. Where it differs from the specification's, the operator reads the role at its start; otherwise, if the binding
    /// is Ready, within `roleResync`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_digest: Option<String>,
    /// Pods of the `ServiceAccount` that run without the identity. Absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingPods>,
}

impl Serialize for PodIdentityBindingStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for PodIdentityBindingStatus {
    /// Without the members that cannot be decoded: the operator writes them anew.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        lenient::members(&value, &[], |value| Self::deserialize(value)).map(|(status, _)| status)
    }
}

/// Pods that run without the identity that their `ServiceAccount` has.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct MissingPods {
    /// How many.
    pub count: i64,
    /// The names of the first ones by name, at most five.
    pub names: Vec<String>,
}

/// `spec.region` of a binding whose pods get no region.
pub const NO_REGION: &str = "None";

/// The injected token's life unless the binding specifies another, and the longest: what the EKS webhook uses.
pub const DEFAULT_TOKEN_EXPIRATION_SECONDS: i64 = 86_400;

/// The shortest token life the API server grants.
pub const MINIMUM_TOKEN_EXPIRATION_SECONDS: i64 = 600;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_decoded_is_left_out_and_named() {
        let read = |value: serde_json::Value| serde_json::from_value::<PodIdentityBindingSpec>(value);
        let spec = json!({
            "serviceAccountName": "app", "deletionPolicy": "Keep", "driftPolicy": "Never", "audience": "sts", "region": 7,
            "role": {"policyARNs": ["a"], "maxSessionDuration": "soon", "description": "x"},
        });
        let found = read(spec).unwrap();
        assert_eq!(found.undecodable, ["deletionPolicy", "driftPolicy", "region", "role.maxSessionDuration"]);
        assert!(found.check().unwrap_err().contains("spec.role.maxSessionDuration"));
        let role = found.role.as_ref().unwrap();
        assert_eq!(
            (role.policy_arns.as_slice(), role.description.as_deref()),
            (&["a".to_owned()][..], Some("x"))
        );
        assert_eq!(
            (found.deletion_policy, found.drift_policy, found.audience.as_deref()),
            (RoleDeletionPolicy::Retain, DriftPolicy::ReportOnly, Some("sts"))
        );
        // Without these it would be another identity.
        for bad in [
            json!({"serviceAccountName": 1}),
            json!({"role": {}}),
            json!("x"),
            json!({"serviceAccountName": "app", "role": "x"}),
            json!({"serviceAccountName": "app", "roleARN": 1}),
            json!({"serviceAccountName": "app", "audience": 1, "role": {}}),
            json!({"serviceAccountName": "app", "issuerRef": {"name": 1}, "role": {}}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }

        let status =
            json!({"roleName": "r", "revokeAt": "9999-12-31T23:59:59Z", "conditions": [{"type": "Ready"}]});
        let status: PodIdentityBindingStatus = serde_json::from_value(status).unwrap();
        assert!(status.conditions.is_empty() && status.conditions.has_others(), "{status:?}");
        let conditions = status.conditions.clone();
        let expected =
            PodIdentityBindingStatus { role_name: Some("r".into()), conditions, ..Default::default() };
        assert_eq!(status, expected);
    }

    #[test]
    fn defaults_and_order_do_not_make_a_difference() {
        let spec = |fields: serde_json::Value| -> PodIdentityBindingSpec {
            let mut spec = json!({"serviceAccountName": "app", "role": {"policyARNs": ["a", "b"]}});
            spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            serde_json::from_value(spec).unwrap()
        };
        let plain = spec(json!({}));
        for same in [
            json!({"issuerRef": {"name": "default"}}),
            json!({"role": {"policyARNs": ["b", "a", "b"]}}),
            json!({"role": {"policyARNs": ["a", "b"], "maxSessionDuration": "60m"}}),
            json!({"tokenExpirationSeconds": 86400, "stsRegionalEndpoints": true}),
            json!({"driftPolicy": "Correct", "deletionPolicy": "Delete"}),
        ] {
            assert!(plain.has_same_effect(&spec(same.clone())), "{same}");
        }
        for other in [
            json!({"issuerRef": {"name": "second"}}),
            json!({"role": {"policyARNs": ["a"]}}),
            json!({"role": {"policyARNs": ["a", "b"], "maxSessionDuration": "2h"}}),
            json!({"tokenExpirationSeconds": 3600}),
            json!({"stsRegionalEndpoints": false}),
            json!({"region": "eu-west-1"}),
            json!({"audience": "vault"}),
            json!({"driftPolicy": "ReportOnly"}),
            json!({"deletionPolicy": "Retain"}),
            json!({"role": {"policyARNs": ["a", "b"], "inlinePolicies": [{"name": "a", "document": {}}]}}),
        ] {
            assert!(!plain.has_same_effect(&spec(other.clone())), "{other}");
        }
    }
}
