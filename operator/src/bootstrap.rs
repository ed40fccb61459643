//! `operator bootstrap`: an administrator, once, with their own AWS session and kubeconfig. Publishes and registers with
//! the reconcile's own plan and steps, then makes the boundary and the operator's own role. Everything is looked at
//! before anything is changed; it is safe to run again, and mends what it finds broken.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use crds::OidcIssuerSpec;
use crds::names::{
    self, OPERATOR_ROLE_PATH, OPERATOR_SERVICE_ACCOUNT, boundary_name, operator_role_name, role_path,
};
use kube::Client;
use serde_json::Value;

use crate::aws::iam::NewRole;
use crate::aws::{Aws, AwsError, Identity, Tags};
use crate::issuer::act::{read_public, write};
use crate::issuer::observe::{ApiServer, Evidence, api_server, aws_state};
use crate::issuer::publication::{self, Target, Write, owned};
use crate::oidc::Documents;
use crate::policy::trust::Trust;
use crate::policy::{boundary, equivalent, operator};
use crate::terminal::Terminal;

/// IAM keeps at most five versions of a managed policy.
const MAX_OLD_VERSIONS: usize = 4;
/// How long AWS may take to let the public policy in and the documents out.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is asked.
const RETRY: Duration = Duration::from_secs(1);
/// Name of the operator role's one inline policy.
pub const INLINE_POLICY: &str = "podidentity-operator";

/// One thing to do beyond publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extra {
    /// Make the boundary.
    CreateBoundary(Value),
    /// Give the boundary a new version; the oldest of too many goes first.
    PutBoundary(Value, Option<String>),
    /// Make the operator's role.
    CreateRole(NewRole),
    /// Put its trust policy.
    PutTrust(Value),
    /// Put its permissions.
    PutPolicy(Value),
}

impl Extra {
    const fn what(&self) -> &'static str {
        match self {
            Self::CreateBoundary(_) => "permissions boundary",
            Self::PutBoundary(..) => "permissions boundary (new version)",
            Self::CreateRole(_) => "operator's role",
            Self::PutTrust(_) => "operator's trust policy",
            Self::PutPolicy(_) => "operator's permissions",
        }
    }
}

/// What `bootstrap` works on.
pub struct Bootstrap<'a> {
    /// `metadata.name` of the issuer.
    pub name: &'a str,
    /// The issuer.
    pub spec: &'a OidcIssuerSpec,
    /// The operator's namespace.
    pub namespace: &'a str,
    /// AWS with the administrator's credentials.
    pub aws: &'a Aws,
    /// The cluster with the administrator's kubeconfig.
    pub client: &'a Client,
    /// Replace published keys of which this cluster knows none.
    pub replace_keys: bool,
}

impl Bootstrap<'_> {
    /// Runs it and tells about it.
    pub async fn run(&self, dry_run: bool, terminal: &mut Terminal) -> anyhow::Result<()> {
        let Self { name, spec, aws, client, .. } = self;
        let api =
            api_server(client).await.map_err(|problem| anyhow!("{}. Nothing was changed", problem.0))?;
        let identity = aws.identity().await.map_err(unchanged)?.clone();
        publication::check_account(spec, &identity.account)
            .map_err(|r| anyhow!("{}. Nothing was changed", r.message))?;
        let target = Target::new(name, spec, &identity.account);
        let documents = publication::documents(spec, &api.keys);

        terminal.field("issuer", &target.issuer_url);
        terminal.field("account", &identity.account);
        terminal.field("as", &identity.arn);
        let state = aws_state(aws, &identity, spec).await.map_err(unchanged)?;
        let writes = publication::plan(&target, &state, Some(&documents))
            .map_err(|refusal| anyhow!("{}. Nothing was changed", refusal.message))?;
        let stranger = api.issuer != target.issuer_url && publication::foreign_keys(&state, &api.keys);
        if stranger && !self.replace_keys {
            bail!(
                "the published keys are of another cluster, and this one issues tokens as {}: is the kubeconfig the right \
                 one? To replace them all the same, say --replace-keys. Nothing was changed",
                api.issuer
            );
        }
        let extras = self.extras(&target, &identity).await.context("nothing was changed")?;

        if dry_run {
            for what in writes.iter().map(Write::attribute).chain(extras.iter().map(Extra::what)) {
                terminal.planned(what);
            }
            terminal.line("dry run: nothing was changed");
            return Ok(());
        }
        if writes.is_empty() && extras.is_empty() {
            terminal.line("everything stands as specified");
        }
        self.publish(&target, &identity, &documents, writes, terminal).await?;
        for extra in &extras {
            let begun = Instant::now();
            self.put(extra, &target).await.map_err(|e| anyhow!(e.for_administrator()))?;
            terminal.done(extra.what(), begun.elapsed());
        }
        self.await_public(&documents, terminal).await?;
        self.advise(&api, &identity, terminal);
        Ok(())
    }

    /// Follows the reconcile's plan until nothing is left to write.
    async fn publish(
        &self,
        target: &Target,
        identity: &Identity,
        documents: &Documents,
        mut writes: Vec<Write>,
        terminal: &mut Terminal,
    ) -> anyhow::Result<()> {
        let Self { spec, aws, .. } = self;
        let deadline = Instant::now() + PATIENCE;
        while !writes.is_empty() {
            for step in &writes {
                let begun = Instant::now();
                match write(step, target, spec, aws, identity).await {
                    Ok(()) => {
                        terminal.done(step.attribute(), begun.elapsed());
                        if matches!(step, Write::CreateBucket) {
                            break; // whether it is ours is read from its tags before anything else is done to it
                        }
                    }
                    Err(e) if e.public_policy_blocked() && Instant::now() < deadline => {
                        tokio::time::sleep(RETRY).await;
                        break;
                    }
                    Err(error) => {
                        bail!(
                            "{}. Run bootstrap again: it goes on where it stopped",
                            error.for_administrator()
                        )
                    }
                }
            }
            let state = aws_state(aws, identity, spec).await.map_err(|e| anyhow!(e.for_administrator()))?;
            writes = publication::plan(target, &state, Some(documents)).map_err(|r| anyhow!(r.message))?;
            if Instant::now() > deadline && !writes.is_empty() {
                bail!("AWS does not show what was written: {}. Run bootstrap again", writes[0].attribute());
            }
        }
        Ok(())
    }

    /// What is missing of boundary and operator role; an error where they are somebody else's.
    async fn extras(&self, target: &Target, identity: &Identity) -> anyhow::Result<Vec<Extra>> {
        let Self { spec, aws, namespace, .. } = self;
        let partition = spec.partition().id;
        let tags = self.tags();
        let role_name = operator_role_name(&spec.cluster_name);
        let (policy, role) = tokio::try_join!(aws.iam.policy(&target.boundary_arn), aws.iam.role(&role_name))
            .map_err(|e| anyhow!(e.for_administrator()))?;
        let mut extras = Vec::new();

        let document = boundary::policy(partition, &identity.account, &spec.s3.bucket);
        match policy {
            None => extras.push(Extra::CreateBoundary(document)),
            Some(policy) => {
                owned("policy", &target.boundary_arn, &policy.tags, &tags).map_err(|r| anyhow!(r.message))?;
                if !equivalent(&policy.document, &document) {
                    let surplus = policy.old_versions.len() >= MAX_OLD_VERSIONS;
                    let oldest = policy.old_versions.first().filter(|_| surplus).cloned();
                    extras.push(Extra::PutBoundary(document, oldest));
                }
            }
        }

        let subject = names::subject(namespace, OPERATOR_SERVICE_ACCOUNT);
        let trust = Trust {
            provider_arn: &target.provider_arn,
            issuer_url: &target.issuer_url,
            audience: spec.audience(),
            subject: &subject,
        }
        .policy();
        let permissions = operator::policy(&identity.account, spec);
        match role {
            None => {
                extras.push(Extra::CreateRole(NewRole {
                    name: role_name,
                    path: OPERATOR_ROLE_PATH.into(),
                    trust: trust.to_string(),
                    boundary: None,
                    description: format!("podidentity operator of cluster {}", spec.cluster_name),
                    tags,
                }));
                extras.push(Extra::PutPolicy(permissions));
            }
            Some(role) => {
                owned("role", &role_name, &role.tags, &tags).map_err(|r| anyhow!(r.message))?;
                if !equivalent(&role.trust, &trust) {
                    extras.push(Extra::PutTrust(trust));
                }
                let standing = aws
                    .iam
                    .inline_document(&role_name, INLINE_POLICY)
                    .await
                    .map_err(|e| anyhow!(e.for_administrator()))?;
                if !standing.is_some_and(|document| equivalent(&document, &permissions)) {
                    extras.push(Extra::PutPolicy(permissions));
                }
            }
        }
        Ok(extras)
    }

    async fn put(&self, extra: &Extra, target: &Target) -> Result<(), AwsError> {
        let (iam, cluster) = (&self.aws.iam, &self.spec.cluster_name);
        let role = operator_role_name(cluster);
        match extra {
            Extra::CreateBoundary(document) => {
                let (name, path) = (boundary_name(cluster), role_path(cluster));
                iam.create_policy(&name, &path, &document.to_string(), &self.tags()).await
            }
            Extra::PutBoundary(document, oldest) => {
                if let Some(version) = oldest {
                    iam.delete_policy_version(&target.boundary_arn, version).await?;
                }
                iam.put_policy_version(&target.boundary_arn, &document.to_string()).await
            }
            Extra::CreateRole(new) => iam.create_role(new).await.map(|_| ()),
            Extra::PutTrust(document) => iam.put_trust(&role, &document.to_string()).await,
            Extra::PutPolicy(document) => iam.put_inline(&role, INLINE_POLICY, &document.to_string()).await,
        }
    }

    async fn await_public(&self, documents: &Documents, terminal: &mut Terminal) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match read_public(self.spec, documents, self.aws).await {
                Evidence::Good => break,
                Evidence::Bad(_, why) | Evidence::Unclear(_, why) if begun.elapsed() > PATIENCE => {
                    bail!("published, but {why}. Run bootstrap again once that is mended");
                }
                Evidence::Bad(..) | Evidence::Unclear(..) => tokio::time::sleep(RETRY).await,
            }
        }
        terminal.done("anybody can read both documents", begun.elapsed());
        Ok(())
    }

    /// What is left to a person: the API server's flags and the chart's values.
    fn advise(&self, api: &ApiServer, identity: &Identity, terminal: &mut Terminal) {
        let spec = self.spec;
        let wanted = spec.issuer_url();
        terminal.heading("API server flags (docs/issuer-flags.md says where)");
        terminal.line(&format!("--service-account-issuer={wanted}"));
        if api.issuer == wanted {
            terminal.line("# this API server issues tokens under it already");
        } else {
            terminal.line(&format!(
                "--service-account-issuer={}   # stays accepted for running pods",
                api.issuer
            ));
            terminal.line(&format!("--api-audiences={}   # unless it is set already", api.issuer));
        }
        terminal.heading("chart values");
        let role = names::operator_role_arn(spec.partition().id, &identity.account, &spec.cluster_name);
        terminal.line("aws:");
        terminal.line(&format!("  roleArn: {role}"));
        terminal.line(&format!("  region: {}", spec.s3.region));
        terminal.line(&format!("  audience: {}", spec.audience()));
    }

    /// Ownership tags of what is made for the operator itself.
    fn tags(&self) -> Tags {
        self.spec.ownership_tags("Operator", None, self.name)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape map_err asks for")]
fn unchanged(error: AwsError) -> anyhow::Error {
    anyhow!("{}. Nothing was changed", error.for_administrator())
}
