//! PURE: the two roles that `bootstrap` makes: the operator's own, which carries what `operator iam-policy` prints, and the
//! canary, with which the operator tries whether a bucket's policy keeps pods from writing. Both may be assumed by the
//! operator's `ServiceAccount` through every issuer.

use crds::names::{
    OPERATOR_ROLE_PATH, OPERATOR_SERVICE_ACCOUNT, canary_role_name, operator_role_name, provider_arn,
    subject, tag,
};
use crds::{Finding, Reason};
use serde_json::{Value, json};

use crate::aws::model::{IamWrite, NewRole, Role, RoleSettings, Write};
use crate::change::Change;
use crate::installation::{Installation, NamedIssuer};
use crate::policy::trust::{Trust, union};
use crate::policy::{VERSION, equivalent, operator};

/// Characters of a role's trust policy that IAM allows unless the quota was raised (IAM quotas).
const TRUST_QUOTA: usize = 2048;
/// Sessions last as long as IAM's default: the SDK renews them.
const SESSION_SECONDS: i32 = 3600;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The operator's own role.
    Operator,
    /// The canary.
    Canary,
}

/// Both, in the order in which they are made.
pub const KINDS: [Kind; 2] = [Kind::Operator, Kind::Canary];

impl Kind {
    /// The role's name.
    #[must_use]
    pub fn name(self, installation: &Installation) -> String {
        match self {
            Self::Operator => operator_role_name(installation.cluster_name()),
            Self::Canary => canary_role_name(installation.cluster_name()),
        }
    }

    /// The role's name in a file for Terraform.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Canary => "canary",
        }
    }

    /// Whether the installation has a use for it: the canary is for managed buckets.
    #[must_use]
    pub fn is_needed(self, installation: &Installation) -> bool {
        let mut issuers = installation.issuers().iter();
        self == Self::Operator || issuers.any(|issuer| issuer.spec.managed_bucket().is_some())
    }

    /// Name of its one inline policy.
    #[must_use]
    pub const fn inline_policy(self) -> &'static str {
        match self {
            Self::Operator => "podidentity-operator",
            Self::Canary => "podidentity-canary",
        }
    }

    /// Names of its attributes: the role, its trust policy, its inline policy, its owner.
    const fn attributes(self) -> [&'static str; 4] {
        match self {
            Self::Operator => [
                "operator's role",
                "operator's trust policy",
                "operator's permissions",
                "owner of the operator's role",
            ],
            Self::Canary => {
                ["canary role", "canary's trust policy", "canary's permissions", "owner of the canary role"]
            }
        }
    }

    fn description(self, installation: &Installation) -> String {
        let cluster = installation.cluster_name();
        match self {
            Self::Operator => format!("podidentity operator of cluster {cluster}"),
            Self::Canary => format!("tries the bucket policy of cluster {cluster}: podidentity operator"),
        }
    }

    fn permissions(self, installation: &Installation) -> Value {
        match self {
            Self::Operator => operator::policy(installation),
            Self::Canary => canary_policy(installation),
        }
    }
}

/// Read and write of one object a bucket: what the bucket's policy must deny, and nothing else.
fn canary_policy(installation: &Installation) -> Value {
    let object = |issuer: &NamedIssuer| {
        let bucket = &issuer.spec.managed_bucket()?.bucket;
        Some(format!("arn:{}:s3:::{bucket}/{}", installation.partition(), issuer.spec.canary_key()))
    };
    let objects: Vec<String> = installation.issuers().iter().filter_map(object).collect();
    json!({"Version": VERSION, "Statement": [
        {"Sid": "OneObject", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": objects},
    ]})
}

/// The role as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedRole {
    /// Which role.
    pub kind: Kind,
    /// The trust policy.
    pub trust: Value,
    /// The inline policy.
    pub permissions: Value,
    /// ARN of the permissions boundary; without one, whatever the role has stays.
    pub boundary: Option<String>,
}

/// The role as IAM shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRole {
    /// The role.
    pub role: Role,
    /// Its inline policy, if it has it.
    pub permissions: Option<String>,
}

/// Trust policy and permissions for an operator in that namespace.
#[must_use]
pub fn wanted(
    kind: Kind,
    installation: &Installation,
    namespace: &str,
    boundary: Option<&str>,
) -> WantedRole {
    let (partition, account) = (installation.partition(), installation.account());
    let subject = subject(namespace, OPERATOR_SERVICE_ACCOUNT);
    let issuers: Vec<(String, String)> = installation
        .issuers()
        .iter()
        .map(|issuer| issuer.spec.issuer_url())
        .map(|url| (provider_arn(partition, account, &url), url))
        .collect();
    let trusts: Vec<Trust<'_>> = installation
        .issuers()
        .iter()
        .zip(&issuers)
        .map(|(issuer, (provider_arn, issuer_url))| Trust {
            provider_arn,
            issuer_url,
            audience: issuer.spec.audience(),
            subject: &subject,
        })
        .collect();
    let (trust, permissions) = (union(&trusts), kind.permissions(installation));
    WantedRole { kind, trust, permissions, boundary: boundary.map(str::to_owned) }
}

/// What makes the role as wanted; an error where it belongs to somebody else.
pub fn diff(
    installation: &Installation,
    wanted: &WantedRole,
    found: Option<&FoundRole>,
) -> Result<Vec<Change>, Finding> {
    let WantedRole { kind, trust, permissions, boundary } = wanted;
    let (name, [role_of, trust_of, permissions_of, _]) = (kind.name(installation), kind.attributes());
    let length = trust.to_string().len();
    if length > TRUST_QUOTA {
        let message = format!(
            "the trust policy of the {role_of} would have {length} characters for {} issuers, and IAM allows \
             {TRUST_QUOTA}: use fewer issuers in one account, or shorter issuer URLs",
            installation.issuers().len()
        );
        return Err(Finding::new(Reason::QuotaExceeded, message));
    }
    let put_permissions = |old: Option<String>| Change {
        attribute: permissions_of,
        old,
        new: Some(permissions.to_string()),
        write: Write::Iam(IamWrite::PutInline {
            role: name.clone(),
            name: kind.inline_policy().into(),
            document: permissions.clone(),
        }),
    };
    let Some(found) = found else {
        let new = NewRole {
            name: name.clone(),
            path: OPERATOR_ROLE_PATH.into(),
            trust: trust.to_string(),
            boundary: boundary.clone(),
            settings: RoleSettings {
                max_session_seconds: SESSION_SECONDS,
                description: kind.description(installation),
            },
            tags: installation.owner().tags().clone(),
        };
        let create = Change {
            attribute: role_of,
            old: None,
            new: Some(name.clone()),
            write: Write::Iam(IamWrite::CreateRole(Box::new(new))),
        };
        return Ok(vec![create, put_permissions(None)]);
    };
    installation.owner().check("role", &name, &found.role.tags)?;
    let mut changes = Vec::new();
    if !equivalent(&found.role.trust, trust) {
        changes.push(Change {
            attribute: trust_of,
            old: Some(found.role.trust.clone()),
            new: Some(trust.to_string()),
            write: Write::Iam(IamWrite::PutTrust {
                role: name.clone(),
                document: trust.clone(),
                otherwise: None,
            }),
        });
    }
    if let Some(boundary) = boundary.as_ref().filter(|wanted| Some(*wanted) != found.role.boundary.as_ref()) {
        changes.push(Change {
            attribute: "permissions boundary of the operator's roles",
            old: found.role.boundary.clone(),
            new: Some(boundary.clone()),
            write: Write::Iam(IamWrite::PutBoundary { role: name.clone(), boundary: boundary.clone() }),
        });
    }
    if !found.permissions.as_ref().is_some_and(|document| equivalent(document, permissions)) {
        changes.push(put_permissions(found.permissions.clone()));
    }
    Ok(changes)
}

/// What takes the role away; an error where it belongs to somebody else.
pub fn removal(
    kind: Kind,
    installation: &Installation,
    found: Option<&FoundRole>,
) -> Result<Vec<Change>, Finding> {
    let Some(found) = found else { return Ok(Vec::new()) };
    let (name, [role_of, _, permissions_of, _]) = (kind.name(installation), kind.attributes());
    installation.owner().check("role", &name, &found.role.tags)?;
    let permissions = Change {
        attribute: permissions_of,
        old: Some(kind.inline_policy().into()),
        new: None,
        write: Write::Iam(IamWrite::DeleteInline { role: name.clone(), name: kind.inline_policy().into() }),
    };
    let role = Change {
        attribute: role_of,
        old: Some(found.role.arn.clone()),
        new: None,
        write: Write::Iam(IamWrite::DeleteRole { role: name, id: found.role.id.clone() }),
    };
    Ok(vec![permissions, role])
}

/// What marks the role as made for other issuers of the cluster, before those it was made for are removed; an error where
/// it belongs to somebody else.
pub fn hand_over(
    kind: Kind,
    from: &Installation,
    to: &Installation,
    found: Option<&FoundRole>,
) -> Result<Option<Change>, Finding> {
    let Some(found) = found else { return Ok(None) };
    let (name, [_, _, _, owner_of]) = (kind.name(from), kind.attributes());
    from.owner().check("role", &name, &found.role.tags)?;
    let owner = to.owner();
    Ok(owner.missing_tags(&found.role.tags).map(|tags| Change {
        attribute: owner_of,
        old: found.role.tags.get(tag::ISSUER).cloned(),
        new: tags.get(tag::ISSUER).cloned(),
        write: Write::Iam(IamWrite::TagRole { role: name, tags: tags.clone() }),
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::aws::model::Identity;
    use crate::bootstrap::boundary;
    use crate::installation::NamedIssuer;

    fn installation(issuers: &[(&str, &str)]) -> Installation {
        let issuer = |(name, region): &(&str, &str)| {
            let bucket = format!("{name}-111122223333-{region}-an");
            let spec = json!({"clusterName": "homelab", "s3": {"bucket": bucket, "region": region}});
            NamedIssuer { name: (*name).into(), spec: serde_json::from_value(spec).unwrap() }
        };
        Installation::new(&Identity::of_account("111122223333"), issuers.iter().map(issuer)).unwrap()
    }

    #[test]
    fn more_issuers_than_the_trust_policy_holds_are_refused_before_anything_is_changed() {
        let names: Vec<String> = (0..9).map(|n| format!("issuer-{n}")).collect();
        let issuers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "eu-central-1")).collect();
        let made = |count: usize| {
            let installation = installation(&issuers[..count]);
            diff(&installation, &wanted(Kind::Operator, &installation, "podidentity-system", None), None)
        };
        assert!(made(4).is_ok());
        let refused = made(9).unwrap_err();
        assert!(refused.message.contains("for 9 issuers, and IAM allows 2048"), "{refused:?}");
    }

    #[test]
    fn policy_trust_and_boundary_are_unions_over_all_issuers() {
        const ISSUERS: [(&str, &str); 2] = [("one", "eu-central-1"), ("two", "eu-west-1")];
        let both = installation(&ISSUERS);
        let WantedRole { trust, permissions, .. } = wanted(Kind::Operator, &both, "podidentity-system", None);
        let permissions = permissions.to_string();
        // Whatever the policy of one issuer names, the union names, too.
        for issuer in ISSUERS {
            for statement in operator::policy(&installation(&[issuer]))["Statement"].as_array().unwrap() {
                let resources = match &statement["Resource"] {
                    Value::Array(list) => list.clone(),
                    single => vec![single.clone()],
                };
                for resource in resources {
                    assert!(permissions.contains(&resource.to_string()), "{resource}");
                }
            }
        }
        assert_eq!(trust["Statement"].as_array().unwrap().len(), 2);
        let boundary = boundary::wanted(&both).to_string();
        assert!(
            boundary.contains(":::one-111122223333") && boundary.contains(":::two-111122223333"),
            "{boundary}"
        );
    }
}
