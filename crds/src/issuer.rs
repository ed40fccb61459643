//! `OidcIssuer`: one (issuer URL, AWS account) pair, where its documents are published, and which bindings it allows.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::conditions::Conditions;
use crate::keys::{self, KeySettings, PublishedKey};
use crate::names::ABANDON_ANNOTATION;
use crate::names::{self, Partition, tag};
use crate::publication::{Management, ProviderSettings, S3Location};

/// Publishes this cluster's service-account issuer to S3 and registers it with AWS IAM, so that pods can exchange their
/// projected tokens for AWS credentials.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "podidentity.dev",
    version = "v1alpha1",
    kind = "OidcIssuer",
    shortname = "oidci",
    category = "podidentity",
    status = "OidcIssuerStatus",
    derive = "PartialEq",
    doc = "Publishes this cluster's service-account issuer to S3 and registers it with AWS IAM.",
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
    printcolumn(name = "ISSUER", type_ = "string", json_path = ".status.issuerURL"),
    printcolumn(name = "ACCOUNT", type_ = "string", json_path = ".status.accountID"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "PROVIDER", type_ = "string", json_path = ".status.providerARN", priority = 1),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.clusterName == oldSelf.clusterName")
        .message("spec.clusterName is immutable: role names and ownership tags carry it; make a new OidcIssuer"),
    validation = Rule::new("has(self.issuerURL) == has(oldSelf.issuerURL) && (!has(self.issuerURL) || self.issuerURL == oldSelf.issuerURL)")
        .message("spec.issuerURL is immutable and cannot be added or removed: make a new OidcIssuer for a new URL"),
    validation = Rule::new("self.audiences[0] == oldSelf.audiences[0]")
        .message("spec.audiences[0] is immutable: it is in the tokens of running pods and in the operator's own; further audiences may be added and removed"),
    validation = Rule::new("has(self.operatorRoleARN) == has(oldSelf.operatorRoleARN) && (!has(self.operatorRoleARN) || self.operatorRoleARN == oldSelf.operatorRoleARN)")
        .message("spec.operatorRoleARN is immutable and cannot be added or removed: the bucket's policy and the account rest on it; make a new OidcIssuer"),
    validation = Rule::new("has(self.s3) || has(self.issuerURL)")
        .message("spec.issuerURL is required where spec.s3 is absent: somebody else publishes the documents, at that URL"),
    validation = Rule::new("!has(self.s3) || !has(self.issuerURL) || !self.issuerURL.endsWith('/')")
        .message("spec.issuerURL must not end with a slash where spec.s3 is set: only issuers of others do, such as those of Azure AKS"),
    validation = Rule::new("has(self.issuerURL) || !has(self.s3) || !has(oldSelf.s3) || (self.s3.bucket == oldSelf.s3.bucket && self.s3.region == oldSelf.s3.region && has(self.s3.prefix) == has(oldSelf.s3.prefix) && (!has(self.s3.prefix) || self.s3.prefix == oldSelf.s3.prefix))")
        .message("spec.s3.bucket, spec.s3.region and spec.s3.prefix are immutable while spec.issuerURL is absent: the issuer URL is made of them"),
    validation = Rule::new("!has(self.s3) || !self.s3.bucket.contains('.') || (has(self.issuerURL) && !self.issuerURL.startsWith('https://' + self.s3.bucket + '.s3.'))")
        .message("spec.s3.bucket must not contain dots where the issuer is the bucket's own S3 URL: S3's TLS certificate covers one label only"),
)]
pub struct OidcIssuerSpec {
    /// Name of this cluster in AWS: part of role names, paths and ownership tags. A DNS label of at most 32 characters;
    /// immutable.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("a cluster name has lower-case letters, digits and hyphens, and begins and ends with a letter or digit"))]
    pub cluster_name: String,

    /// The issuer URL, `https://host[/path]`, at most 255 characters, immutable. Where `s3` is absent, it may end with a slash, as
    /// those of Azure AKS do. Default:
    /// `https://<bucket>.s3.<region>.<partition suffix>/<prefix>`.
    #[serde(default, rename = "issuerURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new("self.matches('^https://[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+((/[A-Za-z0-9._-]+)+/?)?$')")
        .message("an issuer URL is https://host[/path] with lower-case letters, digits, dots and hyphens in the host, letters, digits, dots, hyphens and underscores in the path, and no port, query or fragment: AWS compares it byte for byte with the token's iss"))]
    pub issuer_url: Option<String>,

    /// Audiences of this cluster's AWS tokens; the IAM provider's client ids are kept equal to this list. The first is
    /// the one the webhook injects and the operator's own token carries; it is immutable.
    #[serde(default = "default_audiences")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 255)))]
    #[x_kube(validation = Rule::new("self.all(audience, !audience.contains('$'))")
        .message("an audience must not contain $: IAM reads it as a policy variable"))]
    pub audiences: Vec<String>,

    /// Where the discovery document and the JWKS are published. Absent: somebody else publishes them at `issuerURL` (an own web
    /// server, another operator); the issuer is only registered and verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Location>,

    /// The IAM OIDC provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderSettings>,

    /// The AWS account, twelve digits: with credentials of another one, nothing is touched.
    #[serde(default, rename = "accountID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 12, max = 12))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{12}$')").message("an AWS account id has twelve digits"))]
    pub account_id: Option<String>,

    /// ARN of the operator's role in another AWS account, which it assumes with its own token through that account's provider:
    /// the issuer is registered there, and roles of bindings are made there. Immutable. Default: the operator's own role.
    #[serde(default, rename = "operatorRoleARN", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$')")
        .message("a role's ARN is arn:aws:iam::<account>:role/<path and name>"))]
    pub operator_role_arn: Option<String>,

    /// ARN of the permissions boundary of every role that is made for a binding. It must deny what the default one denies. Default:
    /// the policy `/podidentity/<clusterName>/<clusterName>.boundary`, which `operator bootstrap` makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:policy/[A-Za-z0-9+=,.@_/-]+$')")
        .message("a boundary's ARN is arn:aws:iam::<account>:policy/<path and name>"))]
    pub permissions_boundary: Option<String>,

    /// Tags of everything that is made in AWS for this issuer, beside the ownership tags: for organisations that demand some.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    // A length cannot be given to keys of a map, so the cost of rules over them is limited by their number.
    #[schemars(extend("maxProperties" = 20, "additionalProperties" = json!({"type": "string", "maxLength": 256})))]
    #[x_kube(
        validation = Rule::new("self.all(key, key.size() <= 128 && key.matches('^[A-Za-z0-9 _.:/=+@-]+$'))")
            .message("a tag's key has 1 to 128 letters, digits, spaces and _.:/=+@-"),
        validation = Rule::new("self.all(key, self[key].matches('^[A-Za-z0-9 _.:/=+@-]*$'))")
            .message("a tag's value has letters, digits, spaces and _.:/=+@-"),
        validation = Rule::new("!self.exists(key, key.lowerAscii().startsWith('aws:') || key.lowerAscii().startsWith('podidentity.dev/'))")
            .message("tag keys that begin with aws: are reserved by AWS, and those that begin with podidentity.dev/ show whose a resource is")
    )]
    pub tags: BTreeMap<String, String>,

    /// What a deletion of this object does in AWS. `Retain`: nothing. `Delete`: the provider is removed, and then documents and
    /// bucket, as far as they are managed.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// How the API server's signing keys are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeySettings>,

    /// Which namespaces may make roles with which policies. Without a grant no binding makes a role; a binding with
    /// `roleARN` needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<Grant>,
}

/// What a deletion does in AWS.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// Nothing is removed.
    #[default]
    Retain,
    /// What was made is removed.
    Delete,
}

/// One grant must cover a binding whole: its namespace and everything it asks for.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Name of the grant, unique among the issuer's: messages name it, and several appliers may share the list.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("a grant's name has lower-case letters, digits and hyphens, and begins and ends with a letter or digit"))]
    pub name: String,
    /// Which namespaces. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<GrantNamespaces>,
    /// Managed policies a binding may attach: exact ARNs, or with `*` in the resource part, or `*` for any (the
    /// permissions boundary is then the only limit). Absent: none.
    #[serde(default, rename = "policyARNs", skip_serializing_if = "Vec::is_empty")]
    // 64 grants of 128 names and 64 policies each still fit etcd's 1.5 MiB.
    #[schemars(length(max = 64), inner(length(max = 224)))]
    #[x_kube(
        validation = Rule::new("self.all(arn, arn.matches('^([*]|arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/*-]+)$'))")
            .message("each is the ARN of a managed policy, arn:aws:iam::<account or aws>:policy/<name>, with * in path and name only, or * alone for any policy"),
        validation = Rule::new("!self.exists(arn, arn.lowerAscii().contains(':policy/podidentity/'))")
            .message("policies under /podidentity/ are permissions boundaries of this operator: they allow all that they do not deny, and are never granted or attached")
    )]
    pub policy_arns: Vec<String>,
    /// Whether a binding may have policy documents of its own. Deny is the default; with Allow the permissions boundary is the
    /// only limit of what they allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline_policies: Option<InlinePolicies>,
    /// Longest `maxSessionDuration` that a binding may ask for, from 1h to 12h. Default: 1h.
    #[serde(
        default,
        deserialize_with = "crate::duration::optional",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(min = 2, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('1h') && duration(self) <= duration('12h')")
        .message("a session lasts from 1h to 12h, written as hours, minutes and seconds: 4h, 90m, 1h30m"))]
    pub max_session_duration: Option<Duration>,
}

/// Whether bindings may have inline policies.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum InlinePolicies {
    /// None.
    #[default]
    Deny,
    /// Any.
    Allow,
}

/// The namespaces of a grant: by name or by selector.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.names) != has(self.selector)")
        .message("exactly one of names and selector must be set; to grant nothing, leave namespaces out"),
    validation = Rule::new("!has(self.selector) || !has(self.selector.matchExpressions) || self.selector.matchExpressions.all(e, e.operator.endsWith('In') == (has(e.values) && e.values.size() > 0))")
        .message("an expression of a selector has operator In or NotIn with values, or Exists or DoesNotExist without"),
)]
pub struct GrantNamespaces {
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))")
        .message("a namespace's name has lower-case letters, digits and hyphens, and begins and ends with a letter or digit"))]
    pub names: Option<Vec<String>>,
    /// Namespaces by their labels; the empty selector is every namespace. Whoever may label a Namespace can then give it the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub selector: Option<LabelSelector>,
}

/// The schema of a `LabelSelector` with limits: the cost of rules over lists without any is not limited either.
fn label_selector(_: &mut SchemaGenerator) -> Schema {
    let text = |description: &str| json!({"type": "string", "description": description, "maxLength": 317});
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object", "description": "Labels that a Namespace must have, with these values.",
                "additionalProperties": {"type": "string", "maxLength": 63}, "maxProperties": 16,
            },
            "matchExpressions": {
                "type": "array", "description": "Expressions that must all hold.", "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object", "description": "An expression about one label.", "required": ["key", "operator"],
                    "properties": {
                        "key": text("The label's key."),
                        "operator": {
                            "type": "string", "description": "In, NotIn, Exists or DoesNotExist.",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "type": "array", "description": "Values, for In and NotIn.", "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63}, "x-kubernetes-list-type": "atomic",
                        },
                    },
                },
            },
        },
    })
}

/// What was observed. Never read back to decide what to do, except `keys`: their retention outlives the operator's process.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct OidcIssuerStatus {
    /// Generation of the spec this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions by type.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
    /// The issuer URL, as every part of AWS sees it.
    #[serde(default, rename = "issuerURL", skip_serializing_if = "Option::is_none")]
    pub issuer_url: Option<String>,
    /// Public URL of the JWKS.
    #[serde(default, rename = "jwksURI", skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// The AWS account, twelve digits.
    #[serde(default, rename = "accountID", skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// The AWS partition, for example `aws`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// ARN of the IAM OIDC provider.
    #[serde(default, rename = "providerARN", skip_serializing_if = "Option::is_none")]
    pub provider_arn: Option<String>,
    /// The published keys, by key id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<PublishedKey>,
    /// SHA-256 over both published documents, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_digest: Option<String>,
}

fn default_audiences() -> Vec<String> {
    vec![names::DEFAULT_AUDIENCE.into()]
}

impl OidcIssuer {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether an administrator has said that its AWS account is lost ([`ABANDON_ANNOTATION`]). It has an effect on deletions only.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        let annotation = self.metadata.annotations.as_ref().and_then(|all| all.get(ABANDON_ANNOTATION));
        annotation.is_some_and(|value| value == "true")
    }
}

impl OidcIssuerSpec {
    /// The issuer URL: the one string from which provider, documents, trust policies and checks are derived.
    #[must_use]
    pub fn issuer_url(&self) -> String {
        self.issuer_url.clone().unwrap_or_else(|| {
            // Either is set: a rule of the CRD.
            self.s3.as_ref().map_or_else(String::new, |s3| {
                let S3Location { bucket, region, .. } = s3;
                let suffix = Partition::of_region(region).dns_suffix;
                let url = format!("https://{bucket}.s3.{region}.{suffix}");
                match self.prefix() {
                    "" => url,
                    prefix => format!("{url}/{prefix}"),
                }
            })
        })
    }

    /// Public URL of the JWKS, which the discovery document names.
    #[must_use]
    pub fn jwks_uri(&self) -> String {
        self.document_uri(JWKS_PATH)
    }

    /// Public URL of the discovery document.
    #[must_use]
    pub fn discovery_uri(&self) -> String {
        self.document_uri(DISCOVERY_PATH)
    }

    /// OpenID Connect Discovery 1.0, section 4: a slash at the issuer's end is removed before the path is added.
    fn document_uri(&self, path: &str) -> String {
        format!("{}/{path}", self.issuer_url().trim_end_matches('/'))
    }

    /// Whether a grant selects namespaces by their labels.
    #[must_use]
    pub fn selects_namespaces(&self) -> bool {
        let every = LabelSelector::default();
        let selectors = self.grants.iter().filter_map(|grant| grant.namespaces.as_ref()?.selector.as_ref());
        selectors.into_iter().any(|selector| *selector != every)
    }

    /// Object key of the discovery document.
    #[must_use]
    pub fn discovery_key(&self) -> String {
        self.key(DISCOVERY_PATH)
    }

    /// Object key of the JWKS.
    #[must_use]
    pub fn jwks_key(&self) -> String {
        self.key(JWKS_PATH)
    }

    /// Object key of the canary: only the operator accesses it, to test that the bucket policy refuses sessions of pods.
    #[must_use]
    pub fn canary_key(&self) -> String {
        self.key("podidentity-canary")
    }

    /// Key prefix of both documents, without slashes at its ends.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.s3.as_ref().and_then(|s3| s3.prefix.as_deref()).unwrap_or(&self.cluster_name)
    }

    fn key(&self, path: &str) -> String {
        match self.prefix() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        }
    }

    /// The partition of the bucket's region or of the operator's role; `None` without both, where the account's credentials show
    /// it.
    #[must_use]
    pub fn partition(&self) -> Option<Partition> {
        let of_role = || self.operator_role_arn.as_deref().and_then(Partition::of_arn);
        self.s3.as_ref().map(|s3| Partition::of_region(&s3.region)).or_else(of_role)
    }

    /// The bucket that is made for this issuer.
    #[must_use]
    pub fn managed_bucket(&self) -> Option<&S3Location> {
        self.s3.as_ref().filter(|s3| s3.management == Management::Managed)
    }

    /// Who keeps the provider as specified.
    #[must_use]
    pub fn provider_management(&self) -> Management {
        self.provider.as_ref().map_or(Management::Managed, |provider| provider.management)
    }

    /// The audience that the webhook injects and the operator's own token carries.
    #[must_use]
    pub fn audience(&self) -> &str {
        self.audiences.first().map_or(names::DEFAULT_AUDIENCE, String::as_str)
    }

    /// ARN of the permissions boundary of its bindings' roles.
    #[must_use]
    pub fn boundary_arn(&self, partition: &str, account: &str) -> String {
        let default = || names::boundary_arn(partition, account, &self.cluster_name);
        self.permissions_boundary.clone().unwrap_or_else(default)
    }

    /// The account of `operatorRoleARN`.
    #[must_use]
    pub fn role_account(&self) -> Option<&str> {
        self.operator_role_arn.as_deref().and_then(names::account_of_arn)
    }

    /// How long a key stays published after no API server shows it any more.
    #[must_use]
    pub fn key_retention(&self) -> std::time::Duration {
        let stated = self.keys.as_ref().and_then(|keys| keys.retention);
        stated.map_or(keys::LEAST_RETENTION, std::time::Duration::from).max(keys::LEAST_RETENTION)
    }

    /// Names of the `ConfigMap`s with keys that are published in advance.
    pub fn additional_keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().flat_map(|keys| &keys.additional).map(|one| one.name.as_str())
    }

    /// Ids of keys that are not published once no API server shows them.
    #[must_use]
    pub fn revoked_keys(&self) -> &[String] {
        self.keys.as_ref().map_or(&[], |keys| &keys.revoked)
    }

    /// All tags of what is made in AWS for an object: those of `spec.tags`, and those that say whose it is. `namespace` is `None` for
    /// cluster-scoped kinds.
    #[must_use]
    pub fn all_tags(&self, kind: &str, namespace: Option<&str>, name: &str) -> BTreeMap<String, String> {
        let mut tags = self.tags.clone();
        tags.extend([
            (tag::CLUSTER.to_owned(), self.cluster_name.clone()),
            (tag::KIND.to_owned(), kind.to_owned()),
            (tag::NAME.to_owned(), name.to_owned()),
            (tag::ISSUER.to_owned(), self.issuer_url()),
        ]);
        if let Some(namespace) = namespace {
            tags.insert(tag::NAMESPACE.to_owned(), namespace.to_owned());
        }
        tags
    }
}

/// OpenID Connect Discovery 1.0, section 4: where the document is, relative to the issuer.
pub const DISCOVERY_PATH: &str = ".well-known/openid-configuration";
/// Where the JWKS is, relative to the issuer: the path the API server itself uses.
pub const JWKS_PATH: &str = "openid/v1/jwks";
