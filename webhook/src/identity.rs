//! Which identity a `ServiceAccount` has. Pure: cached objects in, decision out.
//!
//! Order: the `PodIdentityBinding` that holds the `ServiceAccount`, then the `ServiceAccount`'s annotations. A binding
//! wins whole: annotations of the same `ServiceAccount` add nothing to it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crds::binding::{DEFAULT_TOKEN_EXPIRATION_SECONDS, MINIMUM_TOKEN_EXPIRATION_SECONDS};
use crds::condition::{ConditionType, is_true};
use crds::{OidcIssuer, PodIdentityBinding, names};
use kube::ResourceExt;

/// The longest token life Kubernetes lets a pod ask for (`ValidateProjectedVolumeSource`: 2^32 seconds).
pub const MAXIMUM_TOKEN_EXPIRATION_SECONDS: i64 = 1 << 32;

/// What an identity is made of where no object says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Prefix of the annotations, without the slash.
    pub annotation_prefix: String,
    /// The token's audience.
    pub audience: String,
    /// The token's life in seconds.
    pub expiration_seconds: i64,
    /// The region, if one is configured.
    pub region: Option<String>,
    /// `AWS_STS_REGIONAL_ENDPOINTS` for annotated `ServiceAccount`s; a binding has its own default, true.
    pub sts_regional_endpoints: bool,
}

/// What a pod gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who said so.
    pub source: Source,
    /// `AWS_ROLE_ARN`.
    pub role_arn: String,
    /// The token's audience.
    pub audience: String,
    /// The token's life in seconds, before the pod's own annotation is looked at.
    pub expiration_seconds: i64,
    /// `AWS_REGION` and `AWS_DEFAULT_REGION`, where a region is known.
    pub region: Option<String>,
    /// Whether `AWS_STS_REGIONAL_ENDPOINTS=regional` is injected.
    pub sts_regional_endpoints: bool,
}

/// Where an identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A `PodIdentityBinding`.
    Binding,
    /// Annotations of the `ServiceAccount`.
    Annotations,
}

/// The decision, with what the user should know about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// `None`: the pod is left as it is.
    pub identity: Option<Identity>,
    /// Admission warnings.
    pub warnings: Vec<String>,
}

/// Decides for the `ServiceAccount` `service_account` of `namespace`. `bindings` may hold other `ServiceAccount`s'
/// bindings, too; `annotations` are the `ServiceAccount`'s; `issuer` is the `OidcIssuer` named `default`.
#[must_use]
pub fn decide(
    namespace: &str,
    service_account: &str,
    annotations: &BTreeMap<String, String>,
    bindings: &[impl AsRef<PodIdentityBinding>],
    issuer: Option<&OidcIssuer>,
    defaults: &Defaults,
) -> Decision {
    let mut warnings = Vec::new();
    let identity = match holder(bindings, namespace, service_account) {
        Some(binding) => from_binding(binding, namespace, issuer, defaults).or_else(|unusable| {
            warnings.push(format!("PodIdentityBinding {} gives no identity: {unusable}", binding.name_any()));
            // The operator's own annotation may outlive what it stands for: the role is on its way out.
            let own = role_arn(binding, namespace, issuer).ok();
            from_annotations(annotations, issuer, defaults, &mut warnings)
                .filter(|identity| own.as_ref() != Some(&identity.role_arn))
                .ok_or(())
        }),
        None => from_annotations(annotations, issuer, defaults, &mut warnings).ok_or(()),
    };
    Decision { identity: identity.ok(), warnings }
}

/// The binding that holds the `ServiceAccount`: the oldest, of two made in one second the one whose name comes first,
/// and one that is being deleted until it is gone: the operator's own rule, so that a pod never gets a role which the
/// operator will not make.
fn holder<'a>(
    bindings: &'a [impl AsRef<PodIdentityBinding>],
    namespace: &str,
    service_account: &str,
) -> Option<&'a PodIdentityBinding> {
    bindings
        .iter()
        .map(AsRef::as_ref)
        .filter(|binding| {
            binding.metadata.namespace.as_deref() == Some(namespace)
                && binding.spec.service_account_name == service_account
        })
        .min_by_key(|binding| (binding.creation_timestamp(), binding.name_any()))
}

/// The identity a binding gives, or why it gives none.
fn from_binding(
    binding: &PodIdentityBinding,
    namespace: &str,
    issuer: Option<&OidcIssuer>,
    defaults: &Defaults,
) -> Result<Identity, Cow<'static, str>> {
    let spec = &binding.spec;
    if binding.metadata.deletion_timestamp.is_some() {
        return Err("it is being deleted".into());
    }
    // A binding that once had a role keeps it while stalled: the pods that run have it, too.
    if let Some(status) = &binding.status
        && status.role_arn.is_none()
        && is_true(&status.conditions, ConditionType::Stalled)
    {
        return Err("it is Stalled and never had a role".into());
    }
    let role_arn = role_arn(binding, namespace, issuer)?;
    Ok(Identity {
        source: Source::Binding,
        role_arn,
        audience: spec
            .audience
            .clone()
            .or_else(|| issuer.map(|issuer| issuer.spec.audience().to_owned()))
            .unwrap_or_else(|| defaults.audience.clone()),
        // The CRD's default, not the flag's: the same binding means the same token in every cluster.
        expiration_seconds: spec
            .token_expiration_seconds
            .unwrap_or(DEFAULT_TOKEN_EXPIRATION_SECONDS)
            .clamp(MINIMUM_TOKEN_EXPIRATION_SECONDS, MAXIMUM_TOKEN_EXPIRATION_SECONDS),
        region: spec.region.clone().or_else(|| region(issuer, defaults)),
        sts_regional_endpoints: spec.sts_regional_endpoints.unwrap_or(true),
    })
}

/// The role a binding stands for, whatever its state.
fn role_arn(
    binding: &PodIdentityBinding,
    namespace: &str,
    issuer: Option<&OidcIssuer>,
) -> Result<String, Cow<'static, str>> {
    let spec = &binding.spec;
    spec.role_arn.clone().map_or_else(|| computed_arn(namespace, &spec.service_account_name, issuer), Ok)
}

/// The ARN of a role that may not exist yet: account and partition are all that is not in the specifications.
fn computed_arn(
    namespace: &str,
    service_account: &str,
    issuer: Option<&OidcIssuer>,
) -> Result<String, Cow<'static, str>> {
    let Some(issuer) = issuer else {
        return Err(format!("OidcIssuer {} does not exist", names::DEFAULT_ISSUER).into());
    };
    let status = issuer.status.as_ref();
    let Some(account) = status.and_then(|status| status.account_id.as_deref()) else {
        return Err(
            format!("the AWS account of OidcIssuer {} is not known yet", names::DEFAULT_ISSUER).into()
        );
    };
    let partition =
        status.and_then(|status| status.partition.as_deref()).unwrap_or_else(|| issuer.spec.partition().id);
    Ok(names::role_arn(partition, account, &issuer.spec.cluster_name, namespace, service_account))
}

/// The identity that the annotations of the EKS contract give.
fn from_annotations(
    annotations: &BTreeMap<String, String>,
    issuer: Option<&OidcIssuer>,
    defaults: &Defaults,
    warnings: &mut Vec<String>,
) -> Option<Identity> {
    let prefix = &defaults.annotation_prefix;
    let get = |key: &str| annotations.get(&format!("{prefix}/{key}")).map(String::as_str);
    let role_arn = get("role-arn").filter(|arn| !arn.is_empty())?;
    if !is_role_arn(role_arn) {
        warnings.push(format!("{prefix}/role-arn is not the ARN of an IAM role; injected as it is"));
    }
    let sts_regional_endpoints = match get("sts-regional-endpoints").map(parse_bool) {
        Some(Some(wanted)) => wanted,
        Some(None) => {
            warnings.push(format!("{prefix}/sts-regional-endpoints is neither true nor false; ignored"));
            defaults.sts_regional_endpoints
        }
        None => defaults.sts_regional_endpoints,
    };
    Some(Identity {
        source: Source::Annotations,
        role_arn: role_arn.to_owned(),
        // An empty audience would become the API server's own, which AWS refuses.
        audience: get("audience")
            .filter(|audience| !audience.is_empty())
            .unwrap_or(&defaults.audience)
            .to_owned(),
        expiration_seconds: get("token-expiration")
            .and_then(|text| parse_expiration(text, prefix, warnings))
            .unwrap_or(defaults.expiration_seconds),
        region: region(issuer, defaults),
        sts_regional_endpoints,
    })
}

/// The region where the pod's own source names none.
fn region(issuer: Option<&OidcIssuer>, defaults: &Defaults) -> Option<String> {
    issuer.map(|issuer| issuer.spec.s3.region.clone()).or_else(|| defaults.region.clone())
}

/// A token life as the annotation spells it: a whole number of seconds, brought into what Kubernetes accepts. `None`:
/// unreadable, the next source counts.
pub fn parse_expiration(text: &str, prefix: &str, warnings: &mut Vec<String>) -> Option<i64> {
    let Ok(seconds) = text.parse::<i64>() else {
        warnings.push(format!("{prefix}/token-expiration is not a whole number of seconds; ignored"));
        return None;
    };
    let clamped = seconds.clamp(MINIMUM_TOKEN_EXPIRATION_SECONDS, MAXIMUM_TOKEN_EXPIRATION_SECONDS);
    if clamped != seconds {
        warnings.push(format!("{prefix}/token-expiration {seconds} is out of range; {clamped} is used"));
    }
    Some(clamped)
}

/// Go's `strconv.ParseBool`, which the reference uses.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `arn:<partition>:iam::<twelve digits>:role/<path and name>`.
fn is_role_arn(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    next() == "arn"
        && next().starts_with("aws")
        && next() == "iam"
        && next().is_empty()
        && matches!(next(), account if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()))
        && next().strip_prefix("role/").is_some_and(|name| !name.is_empty())
}
