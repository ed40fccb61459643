//! The rules of a `PodIdentityBinding`, for those that act on one. The API server applies them first, as rules of the CRD; but an
//! object may be stored that they do not admit: by an API server with an older CRD, or from before a rule was added.

use std::collections::BTreeSet;

use crate::PodIdentityBindingSpec;
use crate::binding::{
    DEFAULT_TOKEN_EXPIRATION_SECONDS, InlinePolicy, MINIMUM_TOKEN_EXPIRATION_SECONDS, RoleSpec,
};
use crate::names::{REVOKED_POLICY, is_boundary};

const LONGEST_NAME: usize = 253;
const MOST_POLICIES: usize = 25;
const MOST_INLINE: usize = 16;
const HOUR: u64 = 3600;

impl PodIdentityBindingSpec {
    /// Why the CRD would refuse the specification. What only the webhook reads is not checked here, nor what compares with an
    /// earlier specification.
    ///
    /// # Errors
    /// The field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        require(self.undecodable.is_empty(), || {
            format!(
                "not a value that this version of the operator knows: spec.{}",
                self.undecodable.join(", spec.")
            )
        })?;
        let name = &self.service_account_name;
        require(is_subdomain(name), || {
            format!("spec.serviceAccountName {name:?} is no name of a ServiceAccount")
        })?;
        let issuer = self.issuer_name();
        require(is_subdomain(issuer), || {
            format!("spec.issuerRef.name {issuer:?} is no name of an OidcIssuer")
        })?;
        let audience = self.audience.as_deref().is_none_or(|text| fits(text, 255) && !text.contains('$'));
        require(audience, || "spec.audience must have 1 to 255 characters and no $".to_owned())?;
        let life = MINIMUM_TOKEN_EXPIRATION_SECONDS..=DEFAULT_TOKEN_EXPIRATION_SECONDS;
        let is_within = self.token_expiration_seconds.is_none_or(|seconds| life.contains(&seconds));
        require(is_within, || "spec.tokenExpirationSeconds must be from 600 to 86400".to_owned())?;
        match (&self.role, &self.role_arn) {
            (Some(role), None) => check_role(role),
            (None, Some(arn)) => require(is_arn(arn, ":role/", false), || {
                format!("spec.roleARN {arn:?} is not arn:aws:iam::<account>:role/<path and name>")
            }),
            _ => Err("exactly one of spec.role and spec.roleARN must be set".to_owned()),
        }
    }
}

fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

fn check_role(role: &RoleSpec) -> Result<(), String> {
    let RoleSpec { policy_arns, inline_policies, max_session_duration, description } = role;
    let few = policy_arns.len() <= MOST_POLICIES && inline_policies.len() <= MOST_INLINE;
    require(few, || {
        format!("spec.role has more than {MOST_POLICIES} policyARNs or {MOST_INLINE} inlinePolicies")
    })?;
    for arn in policy_arns {
        require(is_arn(arn, ":policy/", true) && !is_boundary(arn), || {
            format!(
                "spec.role.policyARNs: {arn:?} is not the ARN of a managed policy, or is a permissions boundary"
            )
        })?;
    }
    let names: BTreeSet<&str> = inline_policies.iter().map(|policy| policy.name.as_str()).collect();
    require(names.len() == inline_policies.len(), || {
        "spec.role.inlinePolicies: a name is there twice".to_owned()
    })?;
    for InlinePolicy { name, .. } in inline_policies {
        let is_name =
            fits(name, 128) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b));
        require(is_name && name != REVOKED_POLICY, || {
            format!("spec.role.inlinePolicies: {name:?} is no name of a policy")
        })?;
    }
    let session = max_session_duration.is_none_or(|session| {
        let seconds = std::time::Duration::from(session).as_secs();
        !session.is_negative() && (HOUR..=12 * HOUR).contains(&seconds)
    });
    require(session, || "spec.role.maxSessionDuration must be from 1h to 12h".to_owned())?;
    let latin = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{a1}'..='\u{ff}');
    let is_description =
        description.as_ref().is_none_or(|text| text.chars().count() <= 1000 && text.chars().all(latin));
    require(is_description, || {
        "spec.role.description must have at most 1,000 characters of Latin-1".to_owned()
    })
}

fn fits(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.chars().count())
}

/// Whether a text is a name as `ServiceAccount`s and most objects have one (RFC 1123): labels with lower-case letters, digits and
/// hyphens, with dots between them.
#[must_use]
pub fn is_subdomain(name: &str) -> bool {
    let is_end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_label = |label: &str| {
        let mut bytes = label.bytes();
        is_end(label.bytes().next())
            && is_end(label.bytes().next_back())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    fits(name, LONGEST_NAME) && name.split('.').all(is_label)
}

/// `arn:aws…:iam::<twelve digits>:<kind><path and name>`; of AWS's own policies the account is `aws`.
fn is_arn(arn: &str, kind: &str, of_aws: bool) -> bool {
    let Some((head, name)) = arn.split_once(kind) else { return false };
    let parts: Vec<&str> = head.split(':').collect();
    let ["arn", partition, "iam", "", account] = parts[..] else { return false };
    let is_partition = partition
        .strip_prefix("aws")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
    let is_account =
        account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) || of_aws && account == "aws";
    let is_name =
        fits(name, usize::MAX) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b));
    is_partition && is_account && is_name && fits(arn, 2048)
}
