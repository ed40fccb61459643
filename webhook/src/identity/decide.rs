//! PURE: decides which identity a `ServiceAccount` has.
//!
//! Order: the container-credentials file, the `PodIdentityBinding` that holds the `ServiceAccount`, the `ServiceAccount`'s
//! annotations, the ConfigMap. The first that gives one decides alone: later ones add nothing to it.
//!
//! Issuers: a binding takes account, partition, cluster name, region and audience from its issuer: the one that it names, and while that is
//! not in effect the one under which its role was made. All others take region and account from the cluster's default issuer.

use std::borrow::Cow;
use std::sync::Arc;

use crds::binding::{DEFAULT_TOKEN_EXPIRATION_SECONDS, NO_REGION};
use crds::holder::{heir, holder};
use crds::names;
use crds::pod::problem::PodProblem;

use crate::identity::expiration::{in_range, limited, parse_expiration};
use crate::identity::facts::{Annotations, BindingFacts, IssuerFacts};
use crate::identity::issuers::Issuers;
use crate::identity::mapping::Mapped;
use crate::identity::model::{CredentialMethod, Decision, Identity, IdentitySource, ServiceAccountFacts};
use crate::identity::settings::{RoleNames, Settings};

/// Decides for the `ServiceAccount` of that namespace and name.
#[must_use]
pub fn decide<'a>(
    namespace: &str,
    service_account: &str,
    facts: &'a ServiceAccountFacts,
    settings: &'a Settings,
) -> Decision<'a> {
    let ServiceAccountFacts { annotations, bindings, issuers, mapped, container_credentials } = facts;
    let (annotations, mapped) = (annotations.as_deref(), mapped.as_deref());
    let default_issuer = issuers.default_issuer();
    let mut warnings = Warnings::default();
    if *container_credentials {
        let identity = from_credentials_file(annotations, mapped, default_issuer, settings, &mut warnings);
        return warnings.decision(Some(identity), without_effect(annotations, settings));
    }
    let mut identity = None;
    let mut unusable_role = None;
    if let Some(binding) = serving(bindings, namespace, issuers) {
        let issuer = issuer_of(binding, namespace, issuers);
        match from_binding(binding, namespace, issuer, settings) {
            Ok(found) => identity = Some(found),
            Err(reason) => {
                warnings
                    .others
                    .push(format!("PodIdentityBinding {} gives no identity: {reason}", binding.name));
                // The operator's own annotation may still name the binding's role, which is about to be deleted.
                unusable_role = role_arn(binding, namespace, issuer).ok();
            }
        }
    }
    let identity = identity
        .or_else(|| {
            let mut of_annotations = Warnings::default();
            let found = from_annotations(annotations?, default_issuer, settings, &mut of_annotations)?;
            let is_usable = |role| found.method != CredentialMethod::Role(role);
            let found = unusable_role.is_none_or(is_usable).then_some(found)?;
            warnings.append(of_annotations);
            Some(found)
        })
        .or_else(|| Some(from_mapping(mapped?, service_account, default_issuer, settings, &mut warnings)));
    // Where a binding decides, no annotation counts.
    let annotations = annotations.filter(|_| {
        identity.as_ref().is_none_or(|identity: &Identity<'_>| identity.source != IdentitySource::Binding)
    });
    warnings.decision(identity, without_effect(annotations, settings))
}

/// The warnings of a decision.
#[derive(Default)]
struct Warnings {
    lifetime: Vec<String>,
    others: Vec<String>,
}

impl Warnings {
    fn append(&mut self, more: Self) {
        self.lifetime.extend(more.lifetime);
        self.others.extend(more.others);
    }

    fn decision(self, identity: Option<Identity<'_>>, problems: Vec<PodProblem>) -> Decision<'_> {
        Decision { identity, warnings: self.others, lifetime_warnings: self.lifetime, problems }
    }
}

/// Annotations of the `ServiceAccount` that nothing reads.
fn without_effect(annotations: Option<&Annotations>, settings: &Settings) -> Vec<PodProblem> {
    let unread_annotations = annotations.into_iter().flat_map(|annotations| &annotations.unread_annotations);
    unread_annotations.map(|found| PodProblem::annotation(found, &settings.annotation_prefix)).collect()
}

/// The binding whose specification counts: the holder of the `ServiceAccount`; while it is being deleted, the one that its role
/// is handed over to, so that a renamed binding leaves no pod without identity.
fn serving<'a>(
    bindings: &'a [Arc<BindingFacts>],
    namespace: &str,
    issuers: &Issuers,
) -> Option<&'a BindingFacts> {
    let claims = || bindings.iter().map(AsRef::as_ref);
    let holder = holder(claims())?;
    if !holder.deleting {
        return Some(holder);
    }
    let role = |binding: &BindingFacts| {
        let role = role_arn(binding, namespace, issuer_of(binding, namespace, issuers));
        role.ok().map(Cow::into_owned)
    };
    let heir = heir(claims()).filter(|heir| role(heir) == role(holder));
    heir.or(Some(holder))
}

/// The issuer of a binding; where that one has ended or cannot have the role that was made, another one that has it: the operator leaves
/// the role as it is, and so does what new pods get.
fn issuer_of<'a>(binding: &BindingFacts, namespace: &str, issuers: &'a Issuers) -> Option<&'a IssuerFacts> {
    let named = issuers.get(binding.issuer_name());
    let Some(made) = binding.role.filter(|_| binding.role_arn.is_none()) else { return named };
    let has_role = |issuer: &&IssuerFacts| {
        role_arn(binding, namespace, Some(issuer)).is_ok_and(|arn| names::hash_of(&arn) == made)
    };
    named.filter(has_role).or_else(|| issuers.readable().find(has_role)).or(named)
}

/// The identity a binding gives, or why it gives none.
fn from_binding<'a>(
    binding: &'a BindingFacts,
    namespace: &str,
    issuer: Option<&'a IssuerFacts>,
    settings: &'a Settings,
) -> Result<Identity<'a>, Cow<'static, str>> {
    if binding.deleting {
        return Err("it is being deleted".into());
    }
    if binding.stalled_without_role {
        return Err("it is Stalled and never had a role".into());
    }
    if binding.revoked {
        return Err("its role is revoked, since no grant covers its rights".into());
    }
    // Its audience is not known. Where a binding names no issuer, the flags count: the webhook may run without issuers.
    if issuer.is_none() && binding.issuer.is_some() {
        return Err(format!("OidcIssuer {} does not exist", binding.issuer_name()).into());
    }
    let audience = binding.audience.as_deref().or(issuer.map(|issuer| &*issuer.audience));
    Ok(Identity {
        source: IdentitySource::Binding,
        method: CredentialMethod::Role(role_arn(binding, namespace, issuer)?),
        audience: audience.unwrap_or(&settings.audience),
        // The CRD's default, not the flag's: the same binding means the same token in every cluster.
        expiration_seconds: in_range(binding.expiration_seconds.unwrap_or(DEFAULT_TOKEN_EXPIRATION_SECONDS)),
        region: match binding.region.as_deref() {
            Some(NO_REGION) => None,
            own => own.or(issuer.and_then(|issuer| issuer.region.as_deref())).or(settings.region.as_deref()),
        },
        sts_regional_endpoints: binding.sts_regional_endpoints.unwrap_or(true),
    })
}

/// The role of a binding, whatever the binding's state. One that the operator makes may not exist yet: its ARN follows from
/// the specifications, except account and partition, which are in the issuer's status.
fn role_arn<'a>(
    binding: &'a BindingFacts,
    namespace: &str,
    issuer: Option<&IssuerFacts>,
) -> Result<Cow<'a, str>, Cow<'static, str>> {
    if let Some(arn) = &binding.role_arn {
        return Ok(Cow::Borrowed(arn));
    }
    let Some(issuer) = issuer else {
        return Err(format!("OidcIssuer {} does not exist", binding.issuer_name()).into());
    };
    let Some(account) = &issuer.account else {
        return Err(format!("the AWS account of OidcIssuer {} is not known yet", issuer.name).into());
    };
    let (partition, cluster) = (&issuer.partition, &issuer.cluster_name);
    Ok(names::role_arn(partition, account, cluster, namespace, &binding.service_account).into())
}

/// The identity that the annotations of the EKS contract give.
fn from_annotations<'a>(
    annotations: &'a Annotations,
    default_issuer: Option<&'a IssuerFacts>,
    settings: &'a Settings,
    warnings: &mut Warnings,
) -> Option<Identity<'a>> {
    let prefix = &settings.annotation_prefix;
    let role = annotated_role(annotations.role()?, default_issuer, settings);
    if !is_role_arn(&role) {
        warnings.others.push(format!("{prefix}/role-arn is not the ARN of an IAM role; injected as it is"));
    }
    Some(Identity {
        source: IdentitySource::Annotations,
        method: CredentialMethod::Role(role),
        // An empty audience would become the API server's own, which AWS refuses.
        audience: not_empty(annotations.audience.as_deref()).unwrap_or(&settings.audience),
        expiration_seconds: expiration(annotations, prefix, warnings).unwrap_or(settings.expiration_seconds),
        region: region(default_issuer, settings),
        sts_regional_endpoints: sts_regional_endpoints(annotations, prefix, warnings)
            .unwrap_or(settings.sts_regional_endpoints),
    })
}

/// The identity that the ConfigMap gives. An entry without an audience gets the default one: the EKS webhook asks for a
/// token without an audience there, which AWS refuses.
fn from_mapping<'a>(
    mapped: &'a Mapped,
    service_account: &str,
    default_issuer: Option<&'a IssuerFacts>,
    settings: &'a Settings,
    warnings: &mut Warnings,
) -> Identity<'a> {
    if !is_role_arn(&mapped.role_arn) {
        warnings.others.push(format!(
            "ConfigMap {}: the RoleARN of {service_account} is not the ARN of an IAM role; injected as it is",
            names::ROLE_MAP
        ));
    }
    Identity {
        source: IdentitySource::ConfigMap,
        method: CredentialMethod::Role(Cow::Borrowed(&mapped.role_arn)),
        audience: mapped.audience.as_deref().unwrap_or(&settings.audience),
        expiration_seconds: mapped_expiration(mapped, warnings).unwrap_or(settings.expiration_seconds),
        region: region(default_issuer, settings),
        sts_regional_endpoints: mapped.sts_regional_endpoints,
    }
}

/// Container credentials: role and audience of annotations or ConfigMap do not count there.
fn from_credentials_file<'a>(
    annotations: Option<&Annotations>,
    mapped: Option<&Mapped>,
    default_issuer: Option<&'a IssuerFacts>,
    settings: &'a Settings,
    warnings: &mut Warnings,
) -> Identity<'a> {
    let prefix = &settings.annotation_prefix;
    let expiration_seconds = annotations
        .and_then(|annotations| expiration(annotations, prefix, warnings))
        .or_else(|| mapped_expiration(mapped?, warnings))
        .unwrap_or(DEFAULT_TOKEN_EXPIRATION_SECONDS);
    let sts_regional_endpoints = annotations
        .and_then(|annotations| sts_regional_endpoints(annotations, prefix, warnings))
        .or_else(|| mapped.map(|mapped| mapped.sts_regional_endpoints))
        .unwrap_or(false);
    Identity {
        source: IdentitySource::ContainerCredentials,
        method: CredentialMethod::ContainerCredentials,
        audience: &settings.container_credentials.audience,
        expiration_seconds,
        region: region(default_issuer, settings),
        sts_regional_endpoints,
    }
}

/// The role of an annotation; a name, or path and name, becomes an ARN where the flags say so.
fn annotated_role<'a>(
    role: &'a str,
    default_issuer: Option<&IssuerFacts>,
    settings: &Settings,
) -> Cow<'a, str> {
    let RoleNames::OfAccount { account, partition } = &settings.role_names else {
        return Cow::Borrowed(role);
    };
    if role.starts_with("arn:") {
        return Cow::Borrowed(role);
    }
    let account = account.as_deref().or_else(|| default_issuer?.account.as_deref());
    let partition = partition.as_deref().or(default_issuer.map(|issuer| &*issuer.partition)).unwrap_or("aws");
    let Some(account) = account else { return Cow::Borrowed(role) };
    format!("arn:{partition}:iam::{account}:role/{}", role.trim_start_matches('/')).into()
}

/// The region of a `ServiceAccount` without a binding: the flag's, as in the EKS webhook; without the flag the default
/// issuer's.
fn region<'a>(default_issuer: Option<&'a IssuerFacts>, settings: &'a Settings) -> Option<&'a str> {
    settings.region.as_deref().or(default_issuer.and_then(|issuer| issuer.region.as_deref()))
}

fn not_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn sts_regional_endpoints(annotations: &Annotations, prefix: &str, warnings: &mut Warnings) -> Option<bool> {
    let value = parse_bool(annotations.sts_regional_endpoints.as_deref()?);
    if value.is_none() {
        warnings.others.push(format!("{prefix}/sts-regional-endpoints is neither true nor false; ignored"));
    }
    value
}

fn expiration(annotations: &Annotations, prefix: &str, warnings: &mut Warnings) -> Option<i64> {
    parse_expiration(annotations.token_expiration.as_deref()?, prefix, &mut warnings.lifetime)
}

fn mapped_expiration(mapped: &Mapped, warnings: &mut Warnings) -> Option<i64> {
    let what = format!("ConfigMap {}: TokenExpiration", names::ROLE_MAP);
    Some(limited(mapped.expiration_seconds?, &what, &mut warnings.lifetime))
}

/// Go's `strconv.ParseBool`, which the EKS webhook uses.
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
