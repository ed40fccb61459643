//! `OidcIssuer`: one (issuer URL, AWS account) pair, where its documents are published, and which bindings it allows.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::names::{self, Partition, tag};

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

    /// The issuer URL, `https://host[/path]`, at most 255 characters, immutable. Default:
    /// `https://<bucket>.s3.<region>.<partition suffix>/<prefix>`.
    #[serde(default, rename = "issuerURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new("self.matches('^https://[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+(/[A-Za-z0-9._-]+)*$')")
        .message("an issuer URL is https://host[/path] with lower-case letters, digits, dots and hyphens in the host, letters, digits, dots, hyphens and underscores in the path, and no port, query, fragment or trailing slash: AWS compares it byte for byte with the token's iss"))]
    pub issuer_url: Option<String>,

    /// Audiences of this cluster's AWS tokens; the IAM provider's client ids are kept equal to this list. The first is
    /// the one the webhook injects and the operator's own token carries; it is immutable.
    #[serde(default = "default_audiences")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 255)))]
    #[x_kube(validation = Rule::new("self.all(audience, !audience.contains('$'))")
        .message("an audience must not contain $: IAM reads it as a policy variable"))]
    pub audiences: Vec<String>,

    /// Where the discovery document and the JWKS are published.
    pub s3: S3Location,

    /// Which namespaces may make roles with which policies. Without a grant no binding makes a role; a binding with
    /// `roleARN` needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<Grant>,
}

/// A bucket made and kept for this cluster's two documents.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Location {
    /// Bucket name. Names that end in `-<account>-<region>-an` are made in the account-regional namespace, where no other
    /// account can claim them: recommended.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$') && !self.contains('..')")
            .message("a bucket name has lower-case letters, digits, hyphens and single dots, and begins and ends with a letter or digit"),
        validation = Rule::new("!self.matches('^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$')")
            .message("a bucket name is not formatted as an IP address"),
        validation = Rule::new("!['xn--', 'sthree-', 'amzn-s3-demo-'].exists(prefix, self.startsWith(prefix)) && !['-s3alias', '--ol-s3', '.mrap', '--x-s3', '--table-s3'].exists(suffix, self.endsWith(suffix))")
            .message("S3 reserves bucket names that begin with xn--, sthree- or amzn-s3-demo- or end with -s3alias, --ol-s3, .mrap, --x-s3 or --table-s3")
    )]
    pub bucket: String,
    /// The bucket's region, for example `eu-central-1`.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^((us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-[0-9]+|(cn|us-gov|eusc-[a-z]+)-[a-z]+-[0-9]+)$')")
        .message("this is not a region of the partitions aws, aws-cn, aws-us-gov and aws-eusc; an example of one is eu-central-1"))]
    pub region: String,
    /// Key prefix of the two documents, without slashes at its ends. Default: `clusterName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$')")
        .message("a prefix has letters, digits, dots, hyphens, underscores and single slashes, and no slash at its ends"))]
    pub prefix: Option<String>,
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
    /// Longest `maxSessionDuration` that a binding may ask for, from 1h to 12h. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('1h') && duration(self) <= duration('12h')")
        .message("a session lasts from 1h to 12h, written as hours, minutes and seconds: 4h, 90m, 1h30m"))]
    pub max_session_duration: Option<Duration>,
}

/// The namespaces of a grant: by name or by selector.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.names) != has(self.selector)")
        .message("exactly one of names and selector must be set; to grant nothing, leave namespaces out"),
    validation = Rule::new("!has(self.selector) || ((!has(self.selector.matchLabels) || self.selector.matchLabels.size() == 0) && (!has(self.selector.matchExpressions) || self.selector.matchExpressions.size() == 0))")
        .message("only the empty selector, {}, which is every namespace, is supported so far: name the namespaces instead"),
)]
pub struct GrantNamespaces {
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))")
        .message("a namespace's name has lower-case letters, digits and hyphens, and begins and ends with a letter or digit"))]
    pub names: Option<Vec<String>>,
    /// Namespaces by their labels; the empty selector is every namespace. No other is supported so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// What was observed. Never read back to decide what to do.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct OidcIssuerStatus {
    /// Generation of the spec this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
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
    /// SHA-256 over both published documents, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_digest: Option<String>,
}

fn default_audiences() -> Vec<String> {
    vec![names::DEFAULT_AUDIENCE.into()]
}

impl OidcIssuerSpec {
    /// The issuer URL: the one string from which provider, documents, trust policies and checks are derived.
    #[must_use]
    pub fn issuer_url(&self) -> String {
        self.issuer_url.clone().unwrap_or_else(|| {
            let S3Location { bucket, region, .. } = &self.s3;
            let suffix = self.partition().dns_suffix;
            format!("https://{bucket}.s3.{region}.{suffix}/{}", self.prefix())
        })
    }

    /// Public URL of the JWKS, which the discovery document names.
    #[must_use]
    pub fn jwks_uri(&self) -> String {
        format!("{}/{JWKS_PATH}", self.issuer_url())
    }

    /// Public URL of the discovery document.
    #[must_use]
    pub fn discovery_uri(&self) -> String {
        format!("{}/{DISCOVERY_PATH}", self.issuer_url())
    }

    /// Object key of the discovery document.
    #[must_use]
    pub fn discovery_key(&self) -> String {
        format!("{}/{DISCOVERY_PATH}", self.prefix())
    }

    /// Object key of the JWKS.
    #[must_use]
    pub fn jwks_key(&self) -> String {
        format!("{}/{JWKS_PATH}", self.prefix())
    }

    /// Object key of the canary: only the operator accesses it, to test that the bucket policy refuses sessions of pods.
    #[must_use]
    pub fn canary_key(&self) -> String {
        format!("{}/podidentity-canary", self.prefix())
    }

    /// Key prefix of both documents, without slashes at its ends.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.s3.prefix.as_deref().unwrap_or(&self.cluster_name)
    }

    /// The partition of the bucket's region.
    #[must_use]
    pub fn partition(&self) -> Partition {
        Partition::of_region(&self.s3.region)
    }

    /// The audience that the webhook injects and the operator's own token carries.
    #[must_use]
    pub fn audience(&self) -> &str {
        self.audiences.first().map_or(names::DEFAULT_AUDIENCE, String::as_str)
    }

    /// Ownership tags of what is made in AWS for an object. `namespace` is `None` for cluster-scoped kinds.
    #[must_use]
    pub fn ownership_tags(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::from([
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
