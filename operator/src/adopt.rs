//! `operator adopt`: a bucket, a provider or a role that somebody else made (a tutorial, irsa-manager, Terraform) becomes this
//! cluster's, because an administrator says so. Only tags are written: `bootstrap`, or the operator, then brings it to what is
//! specified. What carries the tags of another owner is refused.

use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use crds::names::{role_arn, role_name};
use crds::{Management, PodIdentityBinding};
use kube::{Api, Client, ResourceExt};

use crate::aws::accounts::{Account, check};
use crate::aws::model::{IamWrite, S3Write, Tags, Write};
use crate::bootstrap::{issuers_of, refused};
use crate::change::Change;
use crate::cli::Output;
use crate::dry_run::{self, Ended};
use crate::installation::NamedIssuer;
use crate::issuer::publication::target::Target;
use crate::ownership::Owner;
use crate::terminal::Terminal;

/// What is taken over.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'a> {
    /// The bucket of an issuer.
    Bucket(&'a NamedIssuer),
    /// The OIDC provider of an issuer.
    Provider(&'a NamedIssuer),
    /// The role of a binding, which the cluster has.
    Role(&'a BindingRole),
}

/// A binding of the cluster whose role is to be made, with its issuer.
#[derive(Debug)]
pub struct BindingRole {
    issuer: NamedIssuer,
    owner: Owner,
    namespace: String,
    service_account: String,
}

impl BindingRole {
    /// Reads the binding and the issuers.
    ///
    /// # Errors
    /// Where one cannot be read, or the binding makes no role.
    pub async fn read(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Self> {
        let bindings: Api<PodIdentityBinding> = Api::namespaced(client.clone(), namespace);
        let binding = bindings.get(name).await.with_context(|| format!("binding {namespace}/{name}"))?;
        if let Err(why) = binding.spec.check() {
            bail!("binding {namespace}/{name}: {why}");
        }
        if binding.spec.role.is_none() {
            bail!("binding {namespace}/{name} names its role in spec.roleARN: such a role is used as it is");
        }
        let issuers = issuers_of(client).await?;
        let urls: Vec<String> = issuers.iter().map(|issuer| issuer.spec.issuer_url()).collect();
        let wanted = binding.spec.issuer_name();
        let issuer = issuers.into_iter().find(|issuer| issuer.name == wanted);
        let issuer = issuer.ok_or_else(|| anyhow!("the cluster has no OidcIssuer {wanted}"))?;
        let owner = Owner::of_binding(namespace, &binding.name_any(), &issuer.spec, urls);
        let service_account = binding.spec.service_account_name;
        Ok(Self { issuer, owner, namespace: namespace.to_owned(), service_account })
    }

    /// The issuer of the binding.
    #[must_use]
    pub fn issuer(&self) -> &NamedIssuer {
        &self.issuer
    }
}

/// Reads the tags, and adds ours.
///
/// # Errors
/// Where there is nothing to take over, or it belongs to another object or cluster.
pub async fn adopt(
    resource: Resource<'_>,
    account: &Account,
    dry_run: Option<Output>,
    terminal: &mut Terminal,
) -> anyhow::Result<Ended> {
    let issuer = match &resource {
        Resource::Bucket(issuer) | Resource::Provider(issuer) => *issuer,
        Resource::Role(binding) => &binding.issuer,
    };
    let identity = account.identity().await.map_err(|error| refused(&error))?;
    check(&identity, &issuer.spec).map_err(|error| refused(&error))?;
    if dry_run != Some(Output::Json) {
        terminal.field("issuer", &issuer.spec.issuer_url());
        terminal.field("account", &identity.account);
        terminal.field("as", &identity.arn);
    }
    let target = Target::new(&issuer.name, &issuer.spec, &identity);
    let (change, next) = match resource {
        Resource::Bucket(_) => (bucket(&target, account).await?, BOOTSTRAP),
        Resource::Provider(_) => (provider(&target, account).await?, BOOTSTRAP),
        Resource::Role(binding) => (role(binding, &target, account).await?, OPERATOR),
    };
    if let Some(output) = dry_run {
        return Ok(dry_run::print(change.as_slice(), output, terminal));
    }
    match change {
        None => terminal.line("it is this cluster's already"),
        Some(change) => {
            let begun = Instant::now();
            account.apply(&change.write).await.map_err(|error| refused(&error))?;
            terminal.done(&change.describe(), begun.elapsed());
        }
    }
    terminal.line(next);
    Ok(Ended::Done)
}

const BOOTSTRAP: &str =
    "`operator bootstrap` brings it to what the file specifies; its --dry-run shows every change";
const OPERATOR: &str =
    "the operator brings it to what the binding specifies: boundary, trust policy, policies";

async fn bucket(target: &Target, account: &Account) -> anyhow::Result<Option<Change>> {
    let Some(location) = target.managed() else {
        bail!(
            "the issuer has no bucket that the operator keeps (spec.s3 is absent, or its management is Existing)"
        );
    };
    let bucket = &location.bucket;
    let tags = account.s3(bucket).tags().await.map_err(|error| refused(&error))?;
    let all = |tags: Tags| Write::S3(bucket.clone(), S3Write::PutTags(tags));
    adoption(&target.owner, ("bucket", &bucket.name), tags, |found, ours| {
        // The call replaces all tags: those of others stay.
        all(found.clone().into_iter().chain(ours.clone()).collect())
    })
}

async fn provider(target: &Target, account: &Account) -> anyhow::Result<Option<Change>> {
    let provider = &target.provider_arn;
    if target.provider_management == Management::Existing {
        bail!("spec.provider.management is Existing: such a provider is used as it is");
    }
    let found = account.iam.provider(provider).await.map_err(|error| refused(&error))?;
    let tags = found.map(|found| found.tags);
    adoption(&target.owner, ("OIDC provider", provider), tags, |_, ours| {
        Write::Iam(IamWrite::TagProvider { provider: provider.clone(), tags: ours.clone() })
    })
}

async fn role(binding: &BindingRole, target: &Target, account: &Account) -> anyhow::Result<Option<Change>> {
    let BindingRole { issuer, owner, namespace, service_account } = binding;
    let cluster = &issuer.spec.cluster_name;
    let name = role_name(cluster, namespace, service_account);
    let arn = role_arn(target.partition, &target.account, cluster, namespace, service_account);
    let found = account.iam.role(&name).await.map_err(|error| refused(&error))?;
    if let Some(elsewhere) = found.as_ref().filter(|role| role.arn != arn) {
        bail!(
            "the binding's role is {arn}, but the role of that name is {}: IAM cannot change a path. Name that role in \
             spec.roleARN, or remove it. Nothing was changed",
            elsewhere.arn
        );
    }
    adoption(owner, ("role", &name), found.map(|role| role.tags), |_, ours| {
        Write::Iam(IamWrite::TagRole { role: name.clone(), tags: ours.clone() })
    })
}

/// What makes it the owner's, `None` where it is already.
fn adoption(
    owner: &Owner,
    (what, name): (&str, &str),
    found: Option<Tags>,
    write: impl FnOnce(&Tags, &Tags) -> Write,
) -> anyhow::Result<Option<Change>> {
    let Some(found) = found else {
        bail!(
            "there is no {what} {name}, so there is nothing to take over: it will be made. Nothing was changed"
        );
    };
    let Some(ours) = owner.missing_tags(&found) else { return Ok(None) };
    if found.contains_key(crds::names::tag::CLUSTER)
        && let Err(finding) = owner.check(what, name, &found)
    {
        bail!("{}. Nothing was changed", finding.message);
    }
    Ok(Some(Change {
        attribute: "ownership",
        old: None,
        new: Some(format!("of {what} {name}: {}", describe(ours))),
        write: write(&found, ours),
    }))
}

fn describe(tags: &Tags) -> String {
    tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}
