//! `operator teardown`: the reverse of `bootstrap`. Provider → objects → bucket → operator's role → boundary; nothing is
//! touched while roles of bindings remain, and nothing that is somebody else's.

use std::io::IsTerminal;
use std::time::Instant;

use anyhow::{anyhow, bail};
use crds::Management;
use crds::names::{role_path, tag};

use crate::aws::accounts::{Account, check};
use crate::aws::error::{AwsError, Class, tolerate};
use crate::aws::inventory::roles_under;
use crate::aws::model::{Identity, Write};
use crate::bootstrap::roles::KINDS;
use crate::bootstrap::{Found, boundary, found, installation, refused, roles, unchanged};
use crate::bootstrap::{PROPAGATION_LIMIT, RETRY};
use crate::change::Change;
use crate::cli::Output;
use crate::dry_run::{self, Ended};
use crate::installation::{Installation, NamedIssuer};
use crate::issuer::model::AwsState;
use crate::issuer::observe::aws_state;
use crate::issuer::publication::target::Target;
use crate::issuer::publication::{bucket, documents, provider};
use crate::terminal::Terminal;

/// What `teardown` works on.
pub struct Teardown<'a> {
    /// The issuers of the file: what was made for them is removed.
    pub issuers: &'a [NamedIssuer],
    /// The issuers that the cluster still has: what they need stays.
    pub of_cluster: Vec<NamedIssuer>,
    /// AWS with the administrator's credentials.
    pub account: &'a Account,
    /// The cluster, for a person to recognise.
    pub cluster: &'a str,
    /// Asked before something is removed.
    pub confirm: Confirm,
}

impl Teardown<'_> {
    /// Reads everything, then removes what `bootstrap` made.
    pub async fn run(self, dry_run: Option<Output>, terminal: &mut Terminal) -> anyhow::Result<Ended> {
        let Self { issuers, of_cluster, account, cluster, confirm } = self;
        let quiet = dry_run == Some(Output::Json);
        let identity = account.identity().await.map_err(|error| refused(&error))?;
        for issuer in issuers {
            check(&identity, &issuer.spec).map_err(|error| refused(&error))?;
        }
        refuse_shared_documents(issuers, &of_cluster)?;
        let installation = installation(&identity, issuers, of_cluster).map_err(unchanged)?;
        if !quiet {
            terminal.field("cluster", cluster);
            for issuer in issuers {
                terminal.field("issuer", &issuer.spec.issuer_url());
            }
            terminal.field("account", &identity.account);
        }
        let remaining_issuers: Vec<&NamedIssuer> =
            installation.issuers().iter().filter(|issuer| !is_in(issuers, issuer)).collect();
        let changes = plan(issuers, account, &identity, &installation, &remaining_issuers).await?;
        if let Some(output) = dry_run {
            return Ok(dry_run::print(&changes, output, terminal));
        }
        if changes.is_empty() {
            terminal.line("there is nothing left to remove");
        } else if let Confirm::Asked(ask) = confirm {
            if !ask(terminal, &changes, installation.cluster_name())? {
                bail!("not confirmed. Nothing was changed");
            }
            // The answer can take minutes. In that time the operator can make a role, and other people can change the bucket.
            if plan(issuers, account, &identity, &installation, &remaining_issuers).await? != changes {
                bail!(
                    "AWS has changed since the question, and other things would be removed than it showed: run teardown again. \
                     Nothing was changed"
                );
            }
        }
        let mut left = Vec::new();
        for change in &changes {
            if let Err(error) = remove(account, change, terminal).await {
                // Objects of others, or locked ones, may keep the bucket from being removed; the rest does not depend on it.
                if !matches!(change.write, Write::S3(..)) {
                    return Err(error);
                }
                terminal.line(&format!("! {}: {error:#}", change.attribute));
                left.push(change.old.clone().unwrap_or_else(|| change.attribute.to_owned()));
            }
        }
        if !left.is_empty() {
            terminal.line(&format!(
                "left in AWS: {}. Everything else is removed. Empty the bucket and delete it by hand; nothing trusts it any more",
                left.join(", ")
            ));
        }
        if !remaining_issuers.is_empty() {
            let names: Vec<&str> = remaining_issuers.iter().map(|issuer| issuer.name.as_str()).collect();
            terminal.line(&format!(
                "operator's role and permissions boundary are kept: OidcIssuer {} uses them. Delete the OidcIssuer objects of \
                 this file, then run `operator bootstrap` with the file of the others",
                names.join(", ")
            ));
        }
        Ok(Ended::Done)
    }
}

/// Reads AWS and returns what is to be removed, in this order.
async fn plan(
    issuers: &[NamedIssuer],
    account: &Account,
    identity: &Identity,
    installation: &Installation,
    remaining_issuers: &[&NamedIssuer],
) -> anyhow::Result<Vec<Change>> {
    refuse_while_roles_remain(account, installation, remaining_issuers).await?;

    let mut changes = Vec::new();
    for NamedIssuer { name, spec } in issuers {
        let target = Target::new(name, spec, identity);
        let state = aws_state(account, &target).await.map_err(|error| refused(&error))?;
        let AwsState { bucket: bucket_found, provider: provider_found } = &state;
        // A bucket or provider of another owner is not removed: it is not checked.
        if target.managed().is_some() || bucket_found.is_some() {
            bucket::check(&target, bucket_found.as_ref()).map_err(unchanged)?;
        }
        if target.provider_management == Management::Managed {
            provider::check(&target, provider_found.as_ref()).map_err(unchanged)?;
        } else if provider_found.is_some() {
            // What it trusts must not be free for others to claim.
            bail!(
                "OIDC provider {} is somebody else's (spec.provider.management is Existing) and still trusts this issuer: \
                 remove it first. Nothing was changed",
                target.provider_arn
            );
        }
        changes.extend(provider::removal(&target, provider_found.as_ref()));
        changes.extend(documents::removal(&target, bucket_found.as_ref()));
        changes.extend(bucket::removal(&target, bucket_found.as_ref()));
    }
    let Found { policy, roles } = found(account, installation).await.map_err(|error| refused(&error))?;
    if remaining_issuers.is_empty() {
        for (kind, role) in KINDS.into_iter().zip(&roles) {
            changes.extend(roles::removal(kind, installation, role.as_ref()).map_err(unchanged)?);
        }
        changes.extend(boundary::removal(installation, policy.as_ref()).map_err(unchanged)?);
    } else {
        // First, so that they have an owner whatever happens next.
        let issuers = remaining_issuers.iter().map(|issuer| (*issuer).clone());
        let remaining = Installation::new(identity, issuers).map_err(unchanged)?;
        let mut handed_over = Vec::new();
        for (kind, role) in KINDS.into_iter().zip(&roles) {
            let role = roles::hand_over(kind, installation, &remaining, role.as_ref());
            handed_over.extend(role.map_err(unchanged)?);
        }
        let boundary = boundary::hand_over(installation, &remaining, policy.as_ref());
        handed_over.extend(boundary.map_err(unchanged)?);
        changes.splice(0..0, handed_over);
    }
    Ok(changes)
}

/// Whether somebody is asked before something is removed.
pub enum Confirm {
    /// `--yes`: nobody is.
    Given,
    /// Whether a person agrees to these removals from the cluster of that name.
    Asked(Ask),
}

/// Shows the removals from the cluster of that name, and returns the answer.
pub type Ask = Box<dyn FnOnce(&mut Terminal, &[Change], &str) -> anyhow::Result<bool> + Send>;

/// Shows what would be removed, and asks for the cluster's name.
pub fn ask(terminal: &mut Terminal, changes: &[Change], cluster: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "nobody can be asked: standard input is not a terminal. With --yes it does not ask. Nothing was changed"
        );
    }
    for change in changes {
        terminal.planned(&change.describe());
    }
    terminal.line(&format!("To remove all of this, type the cluster's name, {cluster}:"));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim() == cluster)
}

/// Another issuer of the cluster may be registered under the same URL in another account: its provider must not trust a
/// bucket that is gone.
fn refuse_shared_documents(file: &[NamedIssuer], of_cluster: &[NamedIssuer]) -> anyhow::Result<()> {
    for issuer in file.iter().filter(|issuer| issuer.spec.s3.is_some()) {
        let url = issuer.spec.issuer_url();
        let same = |other: &&NamedIssuer| other.name != issuer.name && other.spec.issuer_url() == url;
        if let Some(other) = of_cluster.iter().find(same) {
            bail!(
                "OidcIssuer {} has the same issuer URL, and its provider trusts the documents of this one: tear it down and \
                 delete it first. Nothing was changed",
                other.name
            );
        }
    }
    Ok(())
}

/// Whether an issuer is in the file: of one name under two URLs, one was deleted and made again.
fn is_in(file: &[NamedIssuer], issuer: &NamedIssuer) -> bool {
    let url = issuer.spec.issuer_url();
    file.iter().any(|one| one.name == issuer.name && one.spec.issuer_url() == url)
}

async fn remove(account: &Account, change: &Change, terminal: &mut Terminal) -> anyhow::Result<()> {
    let begun = Instant::now();
    // A role that is gone was removed by an earlier run.
    tolerate(Class::NotFound, account.apply(&change.write).await).map_err(|error| user(&error))?;
    // STS must not find a provider whose documents somebody else could publish next. IAM may show it for some seconds.
    if let Some(provider) = change.write.deleted_provider() {
        while account.iam.provider(provider).await.map_err(|error| user(&error))?.is_some() {
            if begun.elapsed() > PROPAGATION_LIMIT {
                bail!("the OIDC provider still exists after its removal. Run teardown again");
            }
            tokio::time::sleep(RETRY).await;
        }
    }
    terminal.removed(change.attribute, begun.elapsed());
    Ok(())
}

/// Stops, naming them, while roles of bindings remain that would be left without issuer or operator.
async fn refuse_while_roles_remain(
    account: &Account,
    installation: &Installation,
    remaining_issuers: &[&NamedIssuer],
) -> anyhow::Result<()> {
    let path = role_path(installation.cluster_name());
    let remaining = roles_under(&account.iam, &path).await.map_err(|error| user(&error))?;
    let mut remaining: Vec<String> = remaining.into_iter().map(|role| role.name.into()).collect();
    if !remaining_issuers.is_empty() {
        let mut of_others = Vec::new();
        for name in &remaining {
            let role = account.iam.role(name).await.map_err(|error| user(&error))?;
            let issuer = role.and_then(|role| role.tags.get(tag::ISSUER).cloned());
            of_others.push(
                remaining_issuers
                    .iter()
                    .any(|remaining_issuers| Some(remaining_issuers.spec.issuer_url()) == issuer),
            );
        }
        let mut of_others = of_others.into_iter();
        remaining.retain(|_| !of_others.next().unwrap_or_default());
    }
    if remaining.is_empty() {
        return Ok(());
    }
    bail!(
        "{} role(s) of bindings remain under {path}: {}. Delete their PodIdentityBindings first. Nothing was changed",
        remaining.len(),
        remaining.join(", ")
    )
}

fn user(error: &AwsError) -> anyhow::Error {
    anyhow!(error.for_administrator())
}
