//! `operator teardown`: the mirror of `bootstrap`. Provider → objects → bucket → operator's role → boundary; nothing is
//! touched while roles of bindings remain, and nothing that is somebody else's.

use std::time::Instant;

use anyhow::{anyhow, bail};
use crds::OidcIssuerSpec;
use crds::names::{operator_role_name, role_path};

use crate::aws::iam::Policy;
use crate::aws::{Aws, AwsError};
use crate::bootstrap::INLINE_POLICY;
use crate::issuer::observe::aws_state;
use crate::issuer::publication::{self, Target, owned};
use crate::terminal::Terminal;

/// Looks at everything, then removes what `bootstrap` made for the issuer of that name.
pub async fn run(
    name: &str,
    spec: &OidcIssuerSpec,
    aws: &Aws,
    dry_run: bool,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let identity = aws.identity().await.map_err(user)?.clone();
    publication::check_account(spec, &identity.account).map_err(|r| anyhow!(r.message))?;
    let target = Target::new(name, spec, &identity.account);
    terminal.field("issuer", &target.issuer_url);
    terminal.field("account", &identity.account);

    let path = role_path(&spec.cluster_name);
    let roles = aws.iam.roles_under(&path).await.map_err(user)?;
    if !roles.is_empty() {
        bail!(
            "{} role(s) of bindings remain under {path}: {}. Delete their PodIdentityBindings first. Nothing was changed",
            roles.len(),
            roles.join(", ")
        );
    }
    let state = aws_state(aws, &identity, spec).await.map_err(user)?;
    let role = operator_role_name(&spec.cluster_name);
    let (policy, operator) =
        tokio::try_join!(aws.iam.policy(&target.boundary_arn), aws.iam.role(&role)).map_err(user)?;
    let tags = spec.ownership_tags("Operator", None, name);
    let ours = |what, name: &str, found: &_, tags: &_| {
        owned(what, name, found, tags).map_err(|r| anyhow!("{}. Nothing was changed", r.message))
    };
    if let Some(provider) = &state.provider {
        ours("OIDC provider", &target.provider_arn, &provider.tags, &target.tags)?;
    }
    if let Some(bucket) = &state.bucket {
        ours("bucket", &target.bucket, &bucket.tags, &target.tags)?;
    }
    if let Some(operator) = &operator {
        ours("role", &role, &operator.tags, &tags)?;
    }
    if let Some(policy) = &policy {
        ours("policy", &target.boundary_arn, &policy.tags, &tags)?;
    }

    let standing = [
        ("OIDC provider", state.provider.is_some()),
        ("documents and bucket", state.bucket.is_some()),
        ("operator's role", operator.is_some()),
        ("permissions boundary", policy.is_some()),
    ];
    for (what, _) in standing.iter().filter(|(_, stands)| dry_run && *stands) {
        terminal.planned(what);
    }
    if dry_run {
        terminal.line("dry run: nothing was changed");
        return Ok(());
    }
    let mut begun = Instant::now();
    let mut done = |terminal: &mut Terminal, what: &str| {
        terminal.gone(what, begun.elapsed());
        begun = Instant::now();
    };
    if state.provider.is_some() {
        aws.iam.delete_provider(&target.provider_arn).await.map_err(user)?;
        // STS must not find a provider whose documents somebody else could publish next.
        if aws.iam.provider(&target.provider_arn).await.map_err(user)?.is_some() {
            bail!("the OIDC provider still stands after its removal. Run teardown again");
        }
        done(terminal, "OIDC provider");
    }
    if state.bucket.is_some() {
        let s3 = aws.s3(&spec.s3.region, &identity.account);
        for key in &target.keys {
            s3.delete_object(&target.bucket, key).await.map_err(user)?;
        }
        s3.delete(&target.bucket).await.map_err(user)?;
        done(terminal, "documents and bucket");
    }
    if operator.is_some() {
        aws.iam.delete_inline(&role, INLINE_POLICY).await.map_err(user)?;
        aws.iam.delete_role(&role).await.map_err(user)?;
        done(terminal, "operator's role");
    }
    if let Some(Policy { old_versions, .. }) = policy {
        for version in &old_versions {
            aws.iam.delete_policy_version(&target.boundary_arn, version).await.map_err(user)?;
        }
        aws.iam.delete_policy(&target.boundary_arn).await.map_err(user)?;
        done(terminal, "permissions boundary");
    }
    if !standing.iter().any(|(_, stands)| *stands) {
        terminal.line("there is nothing left to remove");
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "the shape map_err asks for")]
fn user(error: AwsError) -> anyhow::Error {
    anyhow!(error.for_administrator())
}
