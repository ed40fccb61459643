//! `operator teardown`: the mirror of `bootstrap`. Provider → objects → bucket → operator's role → boundary; nothing is
//! touched while roles of bindings remain, and nothing that is somebody else's.

use std::time::Instant;

use anyhow::{anyhow, bail};
use crds::names::{role_path, tag};

use crate::aws::accounts::Account;
use crate::aws::error::AwsError;
use crate::aws::inventory::roles_under;
use crate::bootstrap::{boundary, found, installation, operator_role, refused, unchanged};
use crate::change::Change;
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
}

impl Teardown<'_> {
    /// Reads everything, then removes what `bootstrap` made.
    pub async fn run(self, dry_run: bool, terminal: &mut Terminal) -> anyhow::Result<()> {
        let Self { issuers, of_cluster, account } = self;
        let identity = account.identity().await.map_err(|error| refused(&error))?;
        let installation = installation(&identity.account, issuers, of_cluster).map_err(unchanged)?;
        for issuer in issuers {
            terminal.field("issuer", &issuer.spec.issuer_url());
        }
        terminal.field("account", &identity.account);
        let staying: Vec<&NamedIssuer> = installation
            .issuers()
            .iter()
            .filter(|issuer| !issuers.iter().any(|going| going.name == issuer.name))
            .collect();
        no_roles_remain(account, &installation, &staying).await?;

        let mut changes = Vec::new();
        for NamedIssuer { name, spec } in issuers {
            let target = Target::new(name, spec, &identity.account);
            let state = aws_state(account, &target).await.map_err(|error| refused(&error))?;
            let AwsState { bucket: bucket_found, provider: provider_found } = &state;
            bucket::check(&target, bucket_found.as_ref()).map_err(unchanged)?;
            provider::check(&target, provider_found.as_ref()).map_err(unchanged)?;
            changes.extend(provider::removal(&target, provider_found.as_ref()));
            changes.extend(documents::removal(&target, bucket_found.as_ref()));
            changes.extend(bucket::removal(&target, bucket_found.as_ref()));
        }
        if staying.is_empty() {
            let (policy, role) = found(account, &installation).await.map_err(|error| refused(&error))?;
            changes.extend(operator_role::removal(&installation, role.as_ref()).map_err(unchanged)?);
            changes.extend(boundary::removal(&installation, policy.as_ref()).map_err(unchanged)?);
        }
        if dry_run {
            for change in &changes {
                terminal.planned(&change.describe());
            }
            terminal.line("dry run: nothing was changed");
            return Ok(());
        }
        if changes.is_empty() {
            terminal.line("there is nothing left to remove");
        }
        for change in &changes {
            remove(account, change, terminal).await?;
        }
        if !staying.is_empty() {
            let names: Vec<&str> = staying.iter().map(|issuer| issuer.name.as_str()).collect();
            terminal.line(&format!(
                "operator's role and permissions boundary stay: OidcIssuer {} uses them. Run bootstrap with its file, so \
                 that they name nothing else",
                names.join(", ")
            ));
        }
        Ok(())
    }
}

async fn remove(account: &Account, change: &Change, terminal: &mut Terminal) -> anyhow::Result<()> {
    let begun = Instant::now();
    account.apply(&change.write).await.map_err(|error| user(&error))?;
    // STS must not find a provider whose documents somebody else could publish next.
    if let Some(provider) = change.write.deleted_provider()
        && account.iam.provider(provider).await.map_err(|error| user(&error))?.is_some()
    {
        bail!("the OIDC provider still exists after its removal. Run teardown again");
    }
    terminal.removed(change.attribute, begun.elapsed());
    Ok(())
}

/// Stops, naming them, while roles of bindings remain that would be left without issuer or operator.
async fn no_roles_remain(
    account: &Account,
    installation: &Installation,
    staying: &[&NamedIssuer],
) -> anyhow::Result<()> {
    let path = role_path(installation.cluster_name());
    let mut remaining = roles_under(&account.iam, &path).await.map_err(|error| user(&error))?;
    if !staying.is_empty() {
        let mut of_others = Vec::new();
        for name in &remaining {
            let role = account.iam.role(name).await.map_err(|error| user(&error))?;
            let issuer = role.and_then(|role| role.tags.get(tag::ISSUER).cloned());
            of_others.push(staying.iter().any(|staying| Some(staying.spec.issuer_url()) == issuer));
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
