//! `operator orphans`: an administrator lists the roles that no binding makes any more, and removes those that are named.

use std::time::Instant;

use anyhow::{anyhow, bail};
use crds::names::role_path;
use kube::Client;

use super::find::{FindError, find, known};
use super::judge::{Known, Orphan};
use crate::aws::accounts::Account;
use crate::aws::error::AwsError;
use crate::aws::model::{IamWrite, RolePolicies, Write};
use crate::binding::role::{attached, inline};
use crate::change::Change;
use crate::installation::NamedIssuer;
use crate::policy::trust::letting_nothing_in;
use crate::terminal::Terminal;

/// What `operator orphans` works on.
pub struct Orphans<'a> {
    /// The issuers of the cluster.
    pub issuers: &'a [NamedIssuer],
    /// The cluster with the administrator's kubeconfig.
    pub client: &'a Client,
    /// AWS with the administrator's credentials.
    pub account: &'a Account,
}

impl Orphans<'_> {
    /// Lists the orphans.
    pub async fn list(&self, terminal: &mut Terminal) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        for known in self.known().await? {
            for orphan in find(self.account, &known).await.map_err(user)? {
                let used = self.account.iam.role_last_used(&orphan.role).await.map_err(of_aws)?;
                rows.push((orphan, used.unwrap_or_else(|| "never".into())));
            }
        }
        if rows.is_empty() {
            terminal.line("no role under this cluster's path is without its binding");
            return Ok(());
        }
        let width = rows.iter().map(|(orphan, _)| orphan.role.len()).max().unwrap_or_default();
        let [role, last] = ["ROLE", "LAST USED"];
        terminal.line(&format!("{role:<width$}  {last:<20}  BINDING THAT IT WAS MADE FOR"));
        for (Orphan { role, namespace, binding, .. }, used) in &rows {
            terminal.line(&format!("{role:<width$}  {used:<20}  {namespace}/{binding}"));
        }
        terminal.line(
            "\nTo remove them: operator orphans --delete NAME…. A binding of that namespace and name that is applied again finds \
             its role and keeps it",
        );
        Ok(())
    }

    /// Removes the named roles. Each is read again, and nothing is removed unless all of them are orphans.
    pub async fn delete(&self, names: &[String], terminal: &mut Terminal) -> anyhow::Result<()> {
        let known = self.known().await?;
        let unreadable =
            known.iter().flat_map(|known| &known.bindings).find(|(_, account)| account.is_none());
        if let Some(((namespace, name), _)) = unreadable {
            bail!(
                "PodIdentityBinding {namespace}/{name} cannot be read, and may need one of the roles: mend or delete it first. \
                 Nothing was removed"
            );
        }
        for name in names {
            self.removal(&known, name).await?;
        }
        for name in names {
            // Asked again for each: bindings may come back meanwhile.
            for change in self.removal(&self.known().await?, name).await? {
                let begun = Instant::now();
                self.account.apply(&change.write).await.map_err(of_aws)?;
                terminal.removed(change.attribute, begun.elapsed());
            }
            terminal.line(&format!("role {name} is removed"));
        }
        Ok(())
    }

    async fn known(&self) -> anyhow::Result<Vec<Known>> {
        let known = known(self.client, self.issuers).await.map_err(user)?;
        if known.is_empty() {
            bail!("the cluster has no OidcIssuer, so it is not known which roles are its own");
        }
        Ok(known)
    }

    /// What removes one role; an error where it is no orphan.
    async fn removal(&self, known: &[Known], name: &str) -> anyhow::Result<Vec<Change>> {
        let iam = &self.account.iam;
        let Some(role) = iam.role(name).await.map_err(of_aws)? else {
            bail!("there is no role {name}");
        };
        let is_orphan = known.iter().any(|known| {
            let under_path = role.arn.contains(&format!(":role{}", role_path(&known.cluster)));
            under_path && known.orphan(name, &role).is_some()
        });
        if !is_orphan {
            bail!(
                "role {name} is no orphan of this cluster: a binding needs it, or it does not carry this cluster's tags"
            );
        }
        let (attached, inline) = tokio::try_join!(iam.attached(name), iam.inline(name)).map_err(of_aws)?;
        let mut policies = RolePolicies::default();
        for arn in attached {
            let document = iam.policy_document(&arn).await.map_err(of_aws)?;
            policies.attached.insert(arn, document);
        }
        for policy in inline {
            let document = iam.inline_document(name, &policy).await.map_err(of_aws)?;
            policies.inline.insert(policy, document.unwrap_or_default());
        }
        let change = |attribute, write| Change {
            attribute,
            old: Some(name.to_owned()),
            new: None,
            write: Write::Iam(write),
        };
        // No new session begins while the rest is removed.
        let trust = letting_nothing_in(&role.trust).map(|[document, otherwise]| {
            let (role, otherwise) = (name.to_owned(), Some(otherwise));
            change("trust policy", IamWrite::PutTrust { role, document, otherwise })
        });
        let [attached, attached_denies] = attached::removal(name, &policies.attached);
        let [inline, inline_denies] = inline::removal(name, &policies.inline);
        let last = change("role", IamWrite::DeleteRole { role: name.to_owned(), id: role.id });
        let parts = [attached, inline, attached_denies, inline_denies].concat();
        Ok(trust.into_iter().chain(parts).chain([last]).collect())
    }
}

fn user(error: FindError) -> anyhow::Error {
    match error {
        FindError::Aws(error) => of_aws(error),
        FindError::Kube(_) => anyhow!(error),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature that map_err requires")]
fn of_aws(error: AwsError) -> anyhow::Error {
    anyhow!(error.for_administrator())
}
