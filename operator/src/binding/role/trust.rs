//! PURE: the trust policy. While a binding moves to another issuer or audience, it has the former statement, too: pods keep their
//! tokens for as long as those are valid.

use std::collections::BTreeSet;

use crds::names::{account_of_arn, tag};
use crds::{Finding, Reason};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::aws::model::{IamWrite, Role, Tags, Write};
use crate::change::Change;
use crate::policy::equivalent;
use crate::policy::trust::{
    Trust, before_revocation, lets_nothing_in, letting_nothing_in, of_statements, statements,
};

/// Characters that IAM allows in a trust policy unless the quota was raised (IAM quotas).
pub const QUOTA: usize = 2048;
/// The attribute of the trust policy.
const TRUST: &str = "trust policy";
/// The attribute of the time at which the former statement ends.
pub const END: &str = "end of the former trust";

/// The trust policy, and the one of a role that is being removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Lets the one `ServiceAccount` in.
    pub policy: Value,
    /// Lets nothing in.
    pub revoked: Value,
    /// Lets nothing in, where IAM refuses a policy that only denies.
    pub closed: Value,
    /// The `ServiceAccount` as tokens name it.
    subject: String,
    /// ARNs of the providers of the cluster's issuers in the account: a former statement is of one of them.
    providers: BTreeSet<String>,
}

/// What a pass knows of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moves {
    /// The time.
    pub now: Timestamp,
    /// Whether another statement may be the former one; otherwise it is drift.
    pub may_begin: bool,
    /// How long the former one stays.
    pub retention: SignedDuration,
    /// Whether an API server still issues tokens under another issuer than the new one: the retention begins once none does.
    pub is_in_use: bool,
}

/// The policies of a trust, with the ARNs of the providers of the cluster's issuers.
#[must_use]
pub fn wanted(trust: &Trust<'_>, providers: BTreeSet<String>) -> Wanted {
    Wanted {
        policy: trust.policy(),
        revoked: trust.revoked(),
        closed: trust.closed(),
        subject: trust.subject.to_owned(),
        providers,
    }
}

impl Wanted {
    /// What makes a role's trust policy mean the same as the specified one. `tags` are those of the role's owner.
    #[must_use]
    pub fn diff(&self, role: &str, found: &Role, tags: &Tags, moves: &Moves) -> Vec<Change> {
        /// How often the end of a statement that is in use is postponed.
        const STEP: SignedDuration = SignedDuration::from_hours(1);
        let Moves { now, may_begin, retention, is_in_use } = *moves;
        // A later end than could be written now is not believed.
        let until = until(found).map(|until| until.min(now + retention));
        let is_revoked = self.is_revoked(found);
        let formers = match until {
            // Of a role that is restored they count as long as the move lasts; after its end, those of issuers that exist.
            Some(until) if is_revoked && (until > now || is_in_use) => {
                let formers = self.formers(&restored(found), until > now);
                if self.with(&formers).to_string().len() <= QUOTA { formers } else { Vec::new() }
            }
            _ => self.formers(&found.trust, until.is_some()),
        };
        let both = || self.with(&formers);
        // The former issuer may be deleted once no binding uses it.
        let owner = tag_issuer(role, found, tags);
        let change =
            |wanted: &Value| (!equivalent(&found.trust, wanted)).then(|| put(role, found, wanted, None));
        let is_current = if is_revoked { self.lets_in(&restored(found)) } else { self.lets_in(&found.trust) };
        match until {
            // A role that let nothing in has no former statement where no move lasts, and its issuer may be another one now.
            _ if formers.is_empty() => {
                let trust = change(&self.policy);
                // The tag may be that of a move that went back before the trust policy was changed.
                let owner = owner.filter(|_| trust.is_some() || until.is_some());
                owner.into_iter().chain(trust).chain(untag(role, found)).collect()
            }
            Some(until) if until <= now && !is_in_use && is_current => {
                owner.into_iter().chain(change(&self.policy)).chain(untag(role, found)).collect()
            }
            Some(until) if is_current && is_in_use && until < now + (retention - STEP) => {
                [Some(begin(role, tags, now + retention)), change(&both())].into_iter().flatten().collect()
            }
            Some(_) if is_current => owner.into_iter().chain(change(&both())).collect(),
            None if !may_begin => change(&self.policy).into_iter().collect(),
            // The time first: a crash leaves no former statement without its end.
            Some(_) | None => {
                [Some(begin(role, tags, now + retention)), change(&both())].into_iter().flatten().collect()
            }
        }
    }

    /// Whether a trust policy has the specified statement, whatever else it has.
    #[must_use]
    pub fn lets_in(&self, found: &str) -> bool {
        statements(&parse(found)).iter().any(|one| same(one, &self.policy))
    }

    /// The specified statement, and others.
    fn with(&self, others: &[Value]) -> Value {
        of_statements(statements(&self.policy).into_iter().chain(others.iter().cloned()))
    }

    /// The statements of a trust policy that let the same `ServiceAccount` in with tokens of an issuer of this cluster, beside the
    /// specified one. Once a move has begun, the former issuer may be deleted.
    fn formers(&self, found: &str, has_begun: bool) -> Vec<Value> {
        let is_former = |statement: &Value| {
            let Some(provider_arn) = statement["Principal"]["Federated"].as_str() else { return false };
            let Some((_, bare)) = provider_arn.split_once(":oidc-provider/") else { return false };
            let same_account =
                self.providers.iter().any(|arn| account_of_arn(arn) == account_of_arn(provider_arn));
            let known = self.providers.contains(provider_arn) || (has_begun && same_account);
            let Some(audience) = statement["Condition"]["StringEquals"][format!("{bare}:aud")].as_str()
            else {
                return false;
            };
            let (issuer_url, subject) = (&format!("https://{bare}"), self.subject.as_str());
            known && same(statement, &Trust { provider_arn, issuer_url, audience, subject }.policy())
        };
        let all = statements(&parse(found));
        all.into_iter().filter(|statement| is_former(statement) && !same(statement, &self.policy)).collect()
    }

    /// What makes a role's trust policy let nothing in. It keeps the former statements, which a restoration needs, where they fit.
    #[must_use]
    pub fn revocation(&self, role: &str, found: &Role) -> Option<Change> {
        let formers = until(found).map(|_| self.formers(&found.trust, true)).unwrap_or_default();
        // Where the role does not have the specified statement yet, the restoration begins the move.
        let is_begun = formers.is_empty() || self.lets_in(&found.trust);
        let all = if is_begun { self.with(&formers) } else { of_statements(formers) };
        let [revoked, closed] = letting_nothing_in(&all.to_string())
            .filter(|policies| policies.iter().all(|policy| policy.to_string().len() <= QUOTA))
            .unwrap_or_else(|| [self.revoked.clone(), self.closed.clone()]);
        (!self.is_revoked(found)).then(|| put(role, found, &revoked, Some(closed)))
    }

    /// Whether a role's trust policy lets nothing in: what no statement allows is denied (IAM user guide, "Policy evaluation logic"). The
    /// audience of the revocation may be a former one.
    #[must_use]
    pub fn is_revoked(&self, found: &Role) -> bool {
        let statements = statements(&parse(&found.trust));
        !statements.is_empty() && statements.iter().all(lets_nothing_in)
    }
}

/// A trust policy that IAM would refuse: it has several statements while the binding moves.
#[must_use]
pub fn too_long(change: &Change) -> Option<Finding> {
    let Write::Iam(IamWrite::PutTrust { document, .. }) = &change.write else { return None };
    let length = document.to_string().len();
    (length > QUOTA).then(|| {
        let message = format!(
            "the trust policy would have {length} characters with the former issuer, and IAM allows {QUOTA}: wait until an earlier \
             move has ended, or make a new binding"
        );
        Finding::new(Reason::QuotaExceeded, message)
    })
}

/// Whether a change is one that a move makes.
#[must_use]
pub fn is_of_move(change: &Change) -> bool {
    change.attribute == END || change.attribute == TRUST
}

fn parse(document: &str) -> Value {
    serde_json::from_str(document).unwrap_or_default()
}

/// Whether a statement is the one of a policy with one statement.
fn same(statement: &Value, policy: &Value) -> bool {
    equivalent(&of_statements([statement.clone()]).to_string(), policy)
}

/// The trust policy of a revoked role as it was before.
fn restored(found: &Role) -> String {
    of_statements(statements(&parse(&found.trust)).iter().map(before_revocation)).to_string()
}

/// Until when the former statement stays.
fn until(found: &Role) -> Option<Timestamp> {
    Timestamp::from_second(found.tags.get(tag::FORMER_UNTIL)?.parse().ok()?).ok()
}

/// What writes the issuer of the role's owner, where the role has another one: that one may be deleted.
fn tag_issuer(role: &str, found: &Role, owner: &Tags) -> Option<Change> {
    let [old, new] = [&found.tags, owner].map(|tags| tags.get(tag::ISSUER).cloned());
    (old != new).then(|| Change {
        attribute: "issuer of the role",
        old,
        new,
        write: Write::Iam(IamWrite::TagRole { role: role.to_owned(), tags: owner.clone() }),
    })
}

fn begin(role: &str, owner: &Tags, until: Timestamp) -> Change {
    let mut tags = owner.clone();
    tags.insert(tag::FORMER_UNTIL.into(), until.as_second().to_string());
    Change {
        attribute: END,
        old: None,
        new: Some(until.to_string()),
        write: Write::Iam(IamWrite::TagRole { role: role.to_owned(), tags }),
    }
}

fn untag(role: &str, found: &Role) -> Option<Change> {
    found.tags.get(tag::FORMER_UNTIL).map(|until| Change {
        attribute: END,
        old: Some(until.clone()),
        new: None,
        write: Write::Iam(IamWrite::UntagRole {
            role: role.to_owned(),
            keys: vec![tag::FORMER_UNTIL.into()],
        }),
    })
}

fn put(role: &str, found: &Role, document: &Value, otherwise: Option<Value>) -> Change {
    Change {
        attribute: TRUST,
        old: Some(found.trust.clone()),
        new: Some(document.to_string()),
        write: Write::Iam(IamWrite::PutTrust {
            role: role.to_owned(),
            document: document.clone(),
            otherwise,
        }),
    }
}
