//! PURE: which identity a `ServiceAccount` has: what is known about it in, decision out.
//!
//! Order: the container-credentials file, the `PodIdentityBinding` that holds the `ServiceAccount`, the `ServiceAccount`'s
//! annotations, the ConfigMap. Each wins whole: what a later one says adds nothing to it.

use std::borrow::Cow;
use std::sync::Arc;

use crds::binding::{DEFAULT_TOKEN_EXPIRATION_SECONDS, MINIMUM_TOKEN_EXPIRATION_SECONDS};
use crds::names;

use crate::facts::{Annotations, Bound, Issuer};
use crate::mapping::Mapped;
use crate::settings::{Composed, Settings};

/// The longest token life Kubernetes lets a pod ask for (`ValidateProjectedVolumeSource`: 2^32 seconds).
pub const MAXIMUM_TOKEN_EXPIRATION_SECONDS: i64 = 1 << 32;

/// What is known about a `ServiceAccount`.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What its annotations say.
    pub annotations: Option<Arc<Annotations>>,
    /// The bindings that name it.
    pub bindings: Vec<Arc<Bound>>,
    /// The issuer that bindings use.
    pub issuer: Option<Arc<Issuer>>,
    /// Its entry in the ConfigMap.
    pub mapped: Option<Arc<Mapped>>,
    /// Whether it is in the container-credentials file.
    pub container_credentials: bool,
}

/// What a pod gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Who said so.
    pub source: Source,
    /// How the SDK gets credentials.
    pub means: Means<'a>,
    /// The token's audience.
    pub audience: &'a str,
    /// The token's life in seconds, before the pod's own annotation is looked at.
    pub expiration_seconds: i64,
    /// `AWS_REGION` and `AWS_DEFAULT_REGION`, where a region is known.
    pub region: Option<&'a str>,
    /// Whether `AWS_STS_REGIONAL_ENDPOINTS=regional` is injected.
    pub sts_regional_endpoints: bool,
}

/// How an SDK gets credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Means<'a> {
    /// It exchanges the token for this role at STS.
    Role(Cow<'a, str>),
    /// It shows the token to an agent on the node.
    ContainerCredentials,
}

/// Where an identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The container-credentials file.
    ContainerCredentials,
    /// A `PodIdentityBinding`.
    Binding,
    /// Annotations of the `ServiceAccount`.
    Annotations,
    /// The ConfigMap.
    ConfigMap,
}

impl Source {
    /// As metrics and logs name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContainerCredentials => "container_credentials",
            Self::Binding => "binding",
            Self::Annotations => "annotations",
            Self::ConfigMap => "config_map",
        }
    }
}

/// The decision, with what the user should know about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision<'a> {
    /// `None`: the pod is left as it is.
    pub identity: Option<Identity<'a>>,
    /// Admission warnings.
    pub warnings: Vec<String>,
}

/// Decides for the `ServiceAccount` `account` of `namespace`.
#[must_use]
pub fn decide<'a>(namespace: &str, account: &str, facts: &'a Facts, settings: &'a Settings) -> Decision<'a> {
    let Facts { annotations, bindings, issuer, mapped, container_credentials } = facts;
    let (annotations, issuer) = (annotations.as_deref(), issuer.as_deref());
    let mut warnings = Vec::new();
    if *container_credentials {
        let identity = from_credentials_file(annotations, mapped.as_deref(), issuer, settings, &mut warnings);
        return Decision { identity: Some(identity), warnings };
    }
    let mut identity = None;
    let mut own = None;
    if let Some(binding) = holder(bindings) {
        match from_binding(binding, namespace, issuer, settings) {
            Ok(found) => identity = Some(found),
            Err(unusable) => {
                warnings.push(format!("PodIdentityBinding {} gives no identity: {unusable}", binding.name));
                // The operator's own annotation may outlive what it stands for: the role is on its way out.
                own = role_arn(binding, namespace, issuer).ok();
            }
        }
    }
    let identity = identity
        .or_else(|| {
            let found = from_annotations(annotations?, issuer, settings, &mut warnings)?;
            (own.is_none_or(|own| found.means != Means::Role(own))).then_some(found)
        })
        .or_else(|| Some(from_mapping(mapped.as_deref()?, account, issuer, settings, &mut warnings)));
    Decision { identity, warnings }
}

/// The binding that holds a `ServiceAccount`, of all that name it: the oldest, of two made in one second the one whose
/// name comes first, and one that is being deleted until it is gone: the operator's own rule, so that a pod never gets a
/// role which the operator will not make.
fn holder(bindings: &[Arc<Bound>]) -> Option<&Bound> {
    bindings.iter().map(AsRef::as_ref).min_by_key(|binding| (binding.created, &binding.name))
}

/// The identity a binding gives, or why it gives none.
fn from_binding<'a>(
    binding: &'a Bound,
    namespace: &str,
    issuer: Option<&'a Issuer>,
    settings: &'a Settings,
) -> Result<Identity<'a>, Cow<'static, str>> {
    if binding.deleting {
        return Err("it is being deleted".into());
    }
    if binding.hopeless {
        return Err("it is Stalled and never had a role".into());
    }
    let audience = binding.audience.as_deref().or(issuer.map(|issuer| &*issuer.audience));
    Ok(Identity {
        source: Source::Binding,
        means: Means::Role(role_arn(binding, namespace, issuer)?),
        audience: audience.unwrap_or(&settings.audience),
        // The CRD's default, not the flag's: the same binding means the same token in every cluster.
        expiration_seconds: binding
            .expiration_seconds
            .unwrap_or(DEFAULT_TOKEN_EXPIRATION_SECONDS)
            .clamp(MINIMUM_TOKEN_EXPIRATION_SECONDS, MAXIMUM_TOKEN_EXPIRATION_SECONDS),
        region: binding
            .region
            .as_deref()
            .or(issuer.map(|issuer| &*issuer.region))
            .or(settings.region.as_deref()),
        sts_regional_endpoints: binding.sts_regional_endpoints.unwrap_or(true),
    })
}

/// The role a binding stands for, whatever its state. One that the operator makes may not exist yet: account and partition
/// are all that is not in the specifications.
fn role_arn<'a>(
    binding: &'a Bound,
    namespace: &str,
    issuer: Option<&Issuer>,
) -> Result<Cow<'a, str>, Cow<'static, str>> {
    if let Some(arn) = &binding.role_arn {
        return Ok(Cow::Borrowed(arn));
    }
    let Some(issuer) = issuer else {
        return Err(format!("OidcIssuer {} does not exist", names::DEFAULT_ISSUER).into());
    };
    let Some(account) = &issuer.account else {
        return Err(
            format!("the AWS account of OidcIssuer {} is not known yet", names::DEFAULT_ISSUER).into()
        );
    };
    let (partition, cluster) = (&issuer.partition, &issuer.cluster_name);
    Ok(names::role_arn(partition, account, cluster, namespace, &binding.service_account).into())
}

/// The identity that the annotations of the EKS contract give.
fn from_annotations<'a>(
    annotations: &'a Annotations,
    issuer: Option<&'a Issuer>,
    settings: &'a Settings,
    warnings: &mut Vec<String>,
) -> Option<Identity<'a>> {
    let prefix = &settings.annotation_prefix;
    let role = composed(annotations.role()?, issuer, settings);
    if !is_role_arn(&role) {
        warnings.push(format!("{prefix}/role-arn is not the ARN of an IAM role; injected as it is"));
    }
    Some(Identity {
        source: Source::Annotations,
        means: Means::Role(role),
        // An empty audience would become the API server's own, which AWS refuses.
        audience: given(annotations.audience.as_deref()).unwrap_or(&settings.audience),
        expiration_seconds: expiration(annotations, prefix, warnings).unwrap_or(settings.expiration_seconds),
        region: region(issuer, settings),
        sts_regional_endpoints: regional(annotations, prefix, warnings)
            .unwrap_or(settings.sts_regional_endpoints),
    })
}

/// The identity that the ConfigMap gives. Where it is silent on the audience the default counts: the reference asks for a
/// token without one, which AWS refuses.
fn from_mapping<'a>(
    mapped: &'a Mapped,
    account: &str,
    issuer: Option<&'a Issuer>,
    settings: &'a Settings,
    warnings: &mut Vec<String>,
) -> Identity<'a> {
    if !is_role_arn(&mapped.role_arn) {
        warnings.push(format!(
            "ConfigMap {}: the RoleARN of {account} is not the ARN of an IAM role; injected as it is",
            names::ROLE_MAP
        ));
    }
    let clamp = |seconds| {
        let (clamped, warning) = clamped(seconds, &format!("ConfigMap {}: TokenExpiration", names::ROLE_MAP));
        warnings.extend(warning);
        clamped
    };
    Identity {
        source: Source::ConfigMap,
        means: Means::Role(Cow::Borrowed(&mapped.role_arn)),
        audience: mapped.audience.as_deref().unwrap_or(&settings.audience),
        expiration_seconds: mapped.expiration_seconds.map_or(settings.expiration_seconds, clamp),
        region: region(issuer, settings),
        sts_regional_endpoints: mapped.sts_regional_endpoints,
    }
}

/// Container credentials: what annotations or the ConfigMap say of role and audience does not count there.
fn from_credentials_file<'a>(
    annotations: Option<&Annotations>,
    mapped: Option<&Mapped>,
    issuer: Option<&'a Issuer>,
    settings: &'a Settings,
    warnings: &mut Vec<String>,
) -> Identity<'a> {
    let prefix = &settings.annotation_prefix;
    let seconds = annotations
        .and_then(|annotations| expiration(annotations, prefix, warnings))
        .or_else(|| Some(clamped(mapped?.expiration_seconds?, "").0))
        .unwrap_or(DEFAULT_TOKEN_EXPIRATION_SECONDS);
    let sts_regional_endpoints = annotations
        .and_then(|annotations| regional(annotations, prefix, warnings))
        .or_else(|| mapped.map(|mapped| mapped.sts_regional_endpoints))
        .unwrap_or(false);
    Identity {
        source: Source::ContainerCredentials,
        means: Means::ContainerCredentials,
        audience: &settings.container_credentials.audience,
        expiration_seconds: seconds,
        region: region(issuer, settings),
        sts_regional_endpoints,
    }
}

/// A role annotation that is no ARN, made one where the flags say so.
fn composed<'a>(role: &'a str, issuer: Option<&Issuer>, settings: &Settings) -> Cow<'a, str> {
    let Composed::Of { account, partition } = &settings.composed else { return Cow::Borrowed(role) };
    if role.starts_with("arn:") {
        return Cow::Borrowed(role);
    }
    let account = account.as_deref().or_else(|| issuer?.account.as_deref());
    let partition = partition.as_deref().or(issuer.map(|issuer| &*issuer.partition)).unwrap_or("aws");
    let Some(account) = account else { return Cow::Borrowed(role) };
    format!("arn:{partition}:iam::{account}:role/{}", role.trim_start_matches('/')).into()
}

/// The region of those who have no field for one: the flag's, as with the reference; without the flag the issuer's.
fn region<'a>(issuer: Option<&'a Issuer>, settings: &'a Settings) -> Option<&'a str> {
    settings.region.as_deref().or(issuer.map(|issuer| &*issuer.region))
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn regional(annotations: &Annotations, prefix: &str, warnings: &mut Vec<String>) -> Option<bool> {
    let wanted = parse_bool(annotations.sts_regional_endpoints.as_deref()?);
    if wanted.is_none() {
        warnings.push(format!("{prefix}/sts-regional-endpoints is neither true nor false; ignored"));
    }
    wanted
}

fn expiration(annotations: &Annotations, prefix: &str, warnings: &mut Vec<String>) -> Option<i64> {
    parse_expiration(annotations.token_expiration.as_deref()?, prefix, warnings)
}

/// A life within what Kubernetes accepts, and what to say where it had to be changed.
fn clamped(seconds: i64, what: &str) -> (i64, Option<String>) {
    let clamped = seconds.clamp(MINIMUM_TOKEN_EXPIRATION_SECONDS, MAXIMUM_TOKEN_EXPIRATION_SECONDS);
    (clamped, (clamped != seconds).then(|| format!("{what} {seconds} is out of range; {clamped} is used")))
}

/// A token life as the annotation spells it: a whole number of seconds, brought into what Kubernetes accepts. `None`:
/// unreadable, the next source counts.
pub fn parse_expiration(text: &str, prefix: &str, warnings: &mut Vec<String>) -> Option<i64> {
    let Ok(seconds) = text.parse::<i64>() else {
        warnings.push(format!("{prefix}/token-expiration is not a whole number of seconds; ignored"));
        return None;
    };
    let (clamped, warning) = clamped(seconds, &format!("{prefix}/token-expiration"));
    warnings.extend(warning);
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
