//! `operator bootstrap`: an administrator, once, with their own AWS session and kubeconfig. Publishes and registers every
//! issuer of the file with the reconcile's own modules, then makes the boundary, the operator's own role and the canary.
//! Everything is read before anything is changed; it is safe to run again, and repairs what is not as specified.

pub mod boundary;
mod own_boundaries;
pub mod register_only;
pub mod roles;
pub mod signing_keys;
pub mod terraform;

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use crds::names::{DOCS, operator_role_arn};
use crds::{Finding, OidcIssuer, Reason};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use self::roles::{FoundRole, KINDS};
use self::signing_keys::ClusterKeys;
use crate::api_servers::endpoints::Endpoints;
use crate::api_servers::model::ApiServers;
use crate::aws::accounts::{Account, check};
use crate::aws::error::{AwsError, Class};
use crate::aws::model::{Identity, Policy, S3Write, Write};
use crate::aws::public::PublicReader;
use crate::change::Change;
use crate::cli::Mode;
use crate::distribution::Distribution;
use crate::dry_run::{self, Ended};
use crate::installation::{Installation, NamedIssuer};
use crate::issuer::model::{AwsState, Evidence, Expected};
use crate::issuer::observe::{api_servers, aws_state, distribution};
use crate::issuer::publication::target::{Location, Target};
use crate::issuer::publication::{self, documents};
use crate::issuer::verify::read_public;
use crate::terminal::Terminal;

/// How long AWS may take to accept the public policy and to serve the documents.
pub const PROPAGATION_LIMIT: Duration = Duration::from_mins(1);
/// The pause between two tries.
pub const RETRY: Duration = Duration::from_secs(1);

/// What `bootstrap` works on.
pub struct Bootstrap<'a> {
    /// The issuers of the file.
    pub issuers: &'a [NamedIssuer],
    /// The operator's namespace.
    pub namespace: &'a str,
    /// AWS with the administrator's credentials.
    pub account: &'a Account,
    /// Anonymous reads.
    pub public: &'a PublicReader,
    /// The cluster, for a person to recognise.
    pub cluster: &'a str,
    /// ARN of a permissions boundary for the roles of operator and canary.
    pub permissions_boundary: Option<&'a str>,
    /// The cluster with the administrator's kubeconfig.
    pub client: &'a Client,
    /// Its API servers.
    pub endpoints: &'a Endpoints,
    /// Replace published keys of which neither the API servers nor the status knows one.
    pub replace_keys: bool,
}

/// The HTTP status of what does not exist.
const NOT_FOUND: u16 = 404;

/// One issuer of the file.
struct Part<'a> {
    issuer: &'a NamedIssuer,
    target: Target,
    expected: Expected,
    changes: Vec<Change>,
    /// The object with which the bucket's policy is tried.
    canary: Option<Change>,
    /// What somebody else has to correct.
    refusal: Option<Finding>,
}

impl Bootstrap<'_> {
    /// Runs it and prints each step.
    pub async fn run(&self, mode: Mode, terminal: &mut Terminal) -> anyhow::Result<Ended> {
        let quiet = mode.is_for_programs();
        if !quiet {
            terminal.field("cluster", self.cluster);
        }
        let api = api_servers(self.endpoints).await.map_err(unchanged)?;
        let identity = self.account.identity().await.map_err(|error| refused(&error))?;
        for issuer in self.issuers {
            check(&identity, &issuer.spec).map_err(|error| refused(&error))?;
        }
        let objects = objects_of(self.client).await.context("nothing was changed")?;
        let others = objects.iter().map(named).collect();
        let installation = installation(&identity, self.issuers, others).map_err(unchanged)?;
        for issuer in self.issuers {
            is_made_here(&installation, issuer)?;
        }
        if !quiet {
            for issuer in self.issuers {
                terminal.field("issuer", &issuer.spec.issuer_url());
            }
            terminal.field("account", &identity.account);
            terminal.field("as", &identity.arn);
        }

        let Self { client, namespace, replace_keys, .. } = *self;
        let cluster_keys = ClusterKeys { client, namespace, api: &api, objects: &objects, replace_keys };
        let mut parts = Vec::new();
        for issuer in self.issuers {
            // Remarks about keys are not part of the JSON.
            let mut stderr = Terminal::to(Box::new(std::io::stderr()));
            let remarks = if quiet { &mut stderr } else { &mut *terminal };
            parts.push(self.part(issuer, cluster_keys, &identity, remarks).await?);
        }
        if mode == Mode::Terraform {
            terminal.line(&format!("{:#}", self.terraform(&installation, &parts)?));
            return Ok(Ended::Done);
        }
        let once = self.once(&installation).await?;
        let of_part = |part: &Part<'_>| part.changes.iter().chain(&part.canary).cloned().collect::<Vec<_>>();
        let changes = || parts.iter().flat_map(of_part).chain(once.clone());
        let refusal = parts.iter().find_map(|part| part.refusal.clone());
        if let Mode::DryRun(output) = mode {
            let ended = dry_run::print(&changes().collect::<Vec<_>>(), output, terminal);
            return refusal.map_or(Ok(ended), |refusal| Err(unchanged(refusal)));
        }
        if changes().next().is_none() {
            terminal.line("everything is as specified");
        }
        for part in &parts {
            self.publish(part, terminal).await?;
        }
        for change in parts.iter().filter_map(|part| part.canary.as_ref()) {
            self.apply(change, terminal).await.map_err(|error| anyhow!(error.for_administrator()))?;
        }
        self.make_once(&installation, once, terminal).await?;
        for part in &parts {
            self.await_public(part, terminal).await?;
        }
        if let Some(refusal) = refusal {
            bail!("{}. Everything else is made; then run bootstrap again", refusal.message);
        }
        let distribution = distribution(self.client).await.unwrap_or_default();
        self.advise(&api, distribution, &installation, terminal);
        Ok(Ended::Done)
    }

    /// What has to be changed for one issuer; an error where something is wrong or belongs to somebody else.
    async fn part<'a>(
        &self,
        issuer: &'a NamedIssuer,
        cluster_keys: ClusterKeys<'_>,
        identity: &Identity,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Part<'a>> {
        let NamedIssuer { name, spec } = issuer;
        let target = Target::new(name, spec, identity);
        if target.managed().is_some() {
            publication::bucket::check(&target, None).map_err(unchanged)?;
        }
        let AwsState { bucket, provider } =
            aws_state(self.account, &target).await.map_err(|error| refused(&error))?;
        let expected = cluster_keys.expected(issuer, bucket.as_ref(), terminal).await?;
        let publication =
            publication::diff(&target, bucket.as_ref(), provider.as_ref(), expected.documents());
        let changes = publication.changes().map_err(unchanged)?;
        if let Some(refusal) = publication.refusal().filter(|refusal| refusal.reason == Reason::NotOwned) {
            return Err(unchanged(refusal.clone()));
        }
        let canary = match (&bucket, target.managed()) {
            (Some(_), Some(location)) => {
                let found = self.account.s3(&location.bucket).object(&location.canary_key).await;
                documents::canary(&target, found.map_err(|error| refused(&error))?.as_ref())
            }
            _ => documents::canary(&target, None),
        };
        let refusal = publication.refusal().cloned();
        Ok(Part { issuer, target, expected, changes, canary, refusal })
    }

    /// Everything that is made for these issuers where nothing is there, as a file for Terraform.
    fn terraform(&self, installation: &Installation, parts: &[Part<'_>]) -> anyhow::Result<Value> {
        let mut file = terraform::File::default();
        for Part { issuer, target, expected, .. } in parts {
            let changes = [
                publication::bucket::diff(target, None),
                documents::diff(target, None, expected.documents()),
                publication::provider::diff(target, None, true),
            ];
            file.add(&issuer.name, changes.iter().flatten().chain(&documents::canary(target, None)));
        }
        file.add("boundary", &boundary::diff(installation, None).map_err(unchanged)?);
        for kind in KINDS.into_iter().filter(|kind| kind.is_needed(installation)) {
            let wanted = roles::wanted(kind, installation, self.namespace, self.permissions_boundary);
            file.add(kind.resource(), &roles::diff(installation, &wanted, None).map_err(unchanged)?);
        }
        Ok(file.json())
    }

    /// What has to be changed of boundary and roles.
    async fn once(&self, installation: &Installation) -> anyhow::Result<Vec<Change>> {
        let refusal = own_boundaries::refusal(self.account, installation).await;
        if let Some(refusal) = refusal.map_err(|error| refused(&error))? {
            return Err(unchanged(refusal));
        }
        let Found { policy, roles } =
            found(self.account, installation).await.map_err(|error| refused(&error))?;
        let former = own_boundaries::former(self.account, installation, roles[0].as_ref()).await;
        let installation =
            &installation.clone().with_former_boundaries(former.map_err(|error| refused(&error))?);
        let mut changes = boundary::diff(installation, policy.as_ref()).map_err(unchanged)?;
        for (kind, role) in KINDS.into_iter().zip(&roles).filter(|(kind, _)| kind.is_needed(installation)) {
            let boundary = self.permissions_boundary;
            let wanted = roles::wanted(kind, installation, self.namespace, boundary);
            changes.extend(roles::diff(installation, &wanted, role.as_ref()).map_err(unchanged)?);
        }
        Ok(changes)
    }

    /// Makes boundary and roles. What an earlier run made a moment ago may exist although IAM does not show it yet.
    async fn make_once(
        &self,
        installation: &Installation,
        mut changes: Vec<Change>,
        terminal: &mut Terminal,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PROPAGATION_LIMIT;
        loop {
            let mut made = Ok(());
            for change in &changes {
                made = self.apply(change, terminal).await;
                if made.is_err() {
                    break;
                }
            }
            match made {
                Ok(()) => return Ok(()),
                Err(error) if error.class == Class::AlreadyExists && Instant::now() < deadline => {
                    tokio::time::sleep(RETRY).await;
                    changes = self.once(installation).await?;
                }
                Err(error) => bail!(error.for_administrator()),
            }
        }
    }

    /// Makes an issuer's changes until nothing is left to change.
    async fn publish(&self, part: &Part<'_>, terminal: &mut Terminal) -> anyhow::Result<()> {
        let deadline = Instant::now() + PROPAGATION_LIMIT;
        let mut changes = part.changes.clone();
        let mut made_bucket = false;
        while !changes.is_empty() {
            for change in &changes {
                match self.apply(change, terminal).await {
                    Ok(()) if change.write.needs_read_back() => {
                        made_bucket = true;
                        break;
                    }
                    Ok(()) => {}
                    Err(error) if error.public_policy_blocked() && Instant::now() < deadline => {
                        tokio::time::sleep(RETRY).await;
                        break;
                    }
                    Err(error) => {
                        bail!(
                            "{}. Run bootstrap again: it continues where it stopped",
                            error.for_administrator()
                        )
                    }
                }
            }
            let state = aws_state(self.account, &part.target).await;
            let AwsState { bucket, provider } = state.map_err(|error| anyhow!(error.for_administrator()))?;
            let (bucket, provider) = (bucket.as_ref(), provider.as_ref());
            if made_bucket && bucket.is_some_and(|bucket| bucket.tags.is_empty()) {
                self.tag_new_bucket(part, terminal).await?;
                made_bucket = false;
                continue;
            }
            let publication = publication::diff(&part.target, bucket, provider, part.expected.documents());
            changes = publication.changes().map_err(|finding| anyhow!(finding.message))?;
            if Instant::now() > deadline && !changes.is_empty() {
                bail!("AWS does not show what was written: {}. Run bootstrap again", changes[0].attribute);
            }
        }
        Ok(())
    }

    /// A bucket that this very run made, and that shows no tags although the creating call had them: what answers for S3
    /// ignores them. It was not there before, it is still private (nothing but the creation was done), and it must be empty:
    /// then it has no other owner, and it gets its tags by a call of their own.
    async fn tag_new_bucket(&self, part: &Part<'_>, terminal: &mut Terminal) -> anyhow::Result<()> {
        let Some(Location { bucket, .. }) = part.target.managed() else { return Ok(()) };
        let s3 = self.account.s3(bucket);
        let user = |error: AwsError| anyhow!(error.for_administrator());
        let advice = format!(
            "bucket {} was made by this run and shows no ownership tags, although the creating call had them. Delete it while it \
             is empty (aws s3api delete-bucket --bucket {} --region {}), find out why S3 ignores the tags, and run bootstrap \
             again",
            bucket.name, bucket.name, bucket.region
        );
        if !s3.is_empty().await.map_err(user)? || s3.policy().await.map_err(user)?.is_some() {
            bail!("{advice}: it is not empty and private any more, so somebody else uses it");
        }
        let tags = part.target.owner.tags().clone();
        let begun = Instant::now();
        self.account.apply(&Write::S3(bucket.clone(), S3Write::PutTags(tags))).await.map_err(user)?;
        if s3.tags().await.map_err(user)?.is_none_or(|tags| tags.is_empty()) {
            bail!(advice);
        }
        terminal.done("bucket's tags", begun.elapsed());
        Ok(())
    }

    async fn apply(&self, change: &Change, terminal: &mut Terminal) -> Result<(), AwsError> {
        let begun = Instant::now();
        self.account.apply(&change.write).await?;
        terminal.done(change.attribute, begun.elapsed());
        Ok(())
    }

    async fn await_public(&self, part: &Part<'_>, terminal: &mut Terminal) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match read_public(&part.issuer.spec, &part.expected, self.public).await {
                Evidence::Good => break,
                Evidence::Bad(why) | Evidence::Unclear(why) if begun.elapsed() > PROPAGATION_LIMIT => {
                    bail!("published, but {}. Run bootstrap again once that is corrected", why.message);
                }
                Evidence::Bad(_) | Evidence::Unclear(_) => tokio::time::sleep(RETRY).await,
            }
        }
        terminal.done("anybody can read both documents", begun.elapsed());
        Ok(())
    }

    /// What is left to a person: the API server's flags and the chart's values.
    fn advise(
        &self,
        api: &ApiServers,
        distribution: Distribution,
        installation: &Installation,
        terminal: &mut Terminal,
    ) {
        terminal.heading(&format!("API server flags ({DOCS}/issuer-flags.md says where)"));
        // An API server signs under one issuer: the present one, if it is in the file, else the file's first.
        let present = api.present_issuer();
        let signs = |issuer: &&NamedIssuer| issuer.spec.issuer_url() == present;
        let Some(chosen) = self.issuers.iter().find(signs).or(self.issuers.first()) else { return };
        terminal.line(&format!("--service-account-issuer={}", chosen.spec.issuer_url()));
        if signs(&chosen) {
            terminal.line("# this API server issues tokens under it already");
        } else {
            terminal.line(&format!("--service-account-issuer={present}   # stays accepted for running pods"));
            terminal.line(&format!("--api-audiences={present}   # unless it is set already"));
            if distribution != Distribution::Unknown {
                terminal.line(&format!("# {}", distribution.advice(&chosen.spec.issuer_url(), present)));
            }
            if api.endpoints.len() > 1 {
                terminal.line(
                    "# several API servers: first set both issuers in the other order on each of them, then in this order",
                );
            }
        }
        for NamedIssuer { name, spec } in self.issuers.iter().filter(|issuer| issuer.name != chosen.name) {
            terminal.line(&format!(
                "# to issue tokens under OidcIssuer {name} instead, put {} first",
                spec.issuer_url()
            ));
        }
        let spec = &chosen.spec;
        if spec.operator_role_arn.is_some() {
            return; // the chart has the values of the operator's own account
        }
        terminal.heading("chart values");
        let (partition, account) = (installation.partition(), installation.account());
        terminal.line("aws:");
        terminal.line(&format!(
            "  roleARN: {}",
            operator_role_arn(partition, account, installation.cluster_name())
        ));
        let region = spec.s3.as_ref().map_or("<the region of the operator's calls>", |s3| &s3.region);
        terminal.line(&format!("  region: {region}"));
        terminal.line(&format!("  audience: {}", spec.audience()));
    }
}

/// Refuses an issuer whose operator's role is another one than `bootstrap` makes.
fn is_made_here(installation: &Installation, issuer: &NamedIssuer) -> anyhow::Result<()> {
    let (partition, account) = (installation.partition(), installation.account());
    let made = operator_role_arn(partition, account, installation.cluster_name());
    match &issuer.spec.operator_role_arn {
        Some(named) if *named != made => bail!(
            "spec.operatorRoleARN of OidcIssuer {} is {named}, but bootstrap makes {made}: name that one, or make the role \
             yourself, with the policy that `operator iam-policy` prints. Nothing was changed",
            issuer.name
        ),
        _ => Ok(()),
    }
}

/// The issuers that the cluster has; none where the CRD is not installed.
pub async fn issuers_of(client: &Client) -> anyhow::Result<Vec<NamedIssuer>> {
    Ok(objects_of(client).await?.iter().map(named).collect())
}

/// An issuer with the account that it is registered in, as far as its status knows.
fn named(issuer: &OidcIssuer) -> NamedIssuer {
    let mut spec = issuer.spec.clone();
    let registered = issuer.status.as_ref().and_then(|status| status.account_id.clone());
    spec.account_id = spec.account_id.or(registered);
    NamedIssuer { name: issuer.name_any(), spec }
}

/// The same with their status.
async fn objects_of(client: &Client) -> anyhow::Result<Vec<OidcIssuer>> {
    let issuers: Api<OidcIssuer> = Api::all(client.clone());
    match issuers.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        // Without the CRD the API server answers in plain text, and the status has no reason.
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(Vec::new()),
        Err(error) => Err(anyhow!("the cluster's OidcIssuers cannot be listed: {error}")),
    }
}

/// The issuers of a file, and those of the cluster in the same account that have its name: what exists once is the union over
/// all.
pub fn installation(
    identity: &Identity,
    of_file: &[NamedIssuer],
    of_cluster: Vec<NamedIssuer>,
) -> Result<Installation, Finding> {
    let name = of_file.first().map(|issuer| issuer.spec.cluster_name.clone());
    let same = of_cluster.into_iter().filter(|issuer| {
        Some(&issuer.spec.cluster_name) == name.as_ref() && check(identity, &issuer.spec).is_ok()
    });
    Installation::new(identity, of_file.iter().cloned().chain(same))
}

/// What exists once for an installation, as IAM shows it.
pub struct Found {
    /// The boundary.
    pub policy: Option<Policy>,
    /// The roles, in the order of [`KINDS`].
    pub roles: [Option<FoundRole>; KINDS.len()],
}

/// Reads it.
pub async fn found(account: &Account, installation: &Installation) -> Result<Found, AwsError> {
    let iam = &account.iam;
    let role = async |kind: roles::Kind| {
        let name = kind.name(installation);
        let Some(role) = iam.role(&name).await? else { return Ok(None) };
        let permissions = iam.inline_document(&name, kind.inline_policy()).await?;
        Ok(Some(FoundRole { role, permissions }))
    };
    let arn = boundary::arn(installation);
    let [operator, canary] = KINDS;
    let (policy, operator, canary) = tokio::try_join!(iam.policy(&arn), role(operator), role(canary))?;
    Ok(Found { policy, roles: [operator, canary] })
}

/// An error before anything was changed.
#[allow(clippy::needless_pass_by_value, reason = "the signature that map_err requires")]
pub fn unchanged(finding: Finding) -> anyhow::Error {
    anyhow!("{}. Nothing was changed", finding.message)
}

/// A failed call before anything was changed.
pub fn refused(error: &AwsError) -> anyhow::Error {
    anyhow!("{}. Nothing was changed", error.for_administrator())
}
