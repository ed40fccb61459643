//! `operator bootstrap` and `operator teardown`, run as the administrator.

use std::io::Write;
use std::sync::{Arc, Mutex};

use crds::OidcIssuerSpec;
use kube::Client;
use operator::api_servers::endpoints::Endpoints;
use operator::aws::accounts::Accounts;
use operator::bootstrap::{Bootstrap, issuers_of};
use operator::cli::{Mode, Output};
use operator::dry_run::Ended;
use operator::installation::NamedIssuer;
use operator::orphans::command::Orphans;
use operator::teardown::{Ask, Confirm, Teardown};
use operator::terminal::Terminal;

use super::{World, issuer};

/// Flags of `bootstrap`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flags {
    pub dry_run: bool,
    pub replace_keys: bool,
    pub terraform: bool,
}

impl World {
    /// `operator bootstrap` with a file of one issuer. Returns what it printed.
    pub async fn bootstrap(&self, spec: &OidcIssuerSpec) -> anyhow::Result<String> {
        self.bootstrap_with(spec, Flags::default(), &self.client).await
    }

    /// The same with flags, and with that client of a cluster.
    pub async fn bootstrap_with(
        &self,
        spec: &OidcIssuerSpec,
        flags: Flags,
        client: &Client,
    ) -> anyhow::Result<String> {
        self.bootstrap_all(&[issuer("default", spec)], flags, client).await
    }

    /// The same with a file of several issuers.
    pub async fn bootstrap_all(
        &self,
        issuers: &[NamedIssuer],
        flags: Flags,
        client: &Client,
    ) -> anyhow::Result<String> {
        let accounts = self.administrator().await;
        self.bootstrap_as(&accounts, issuers, flags, client).await
    }

    /// The same with the session of that administrator.
    pub async fn bootstrap_as(
        &self,
        accounts: &Accounts,
        issuers: &[NamedIssuer],
        Flags { dry_run, replace_keys, terraform }: Flags,
        client: &Client,
    ) -> anyhow::Result<String> {
        let (account, public) = (accounts.own(), &accounts.public);
        let printed = Printed::default();
        let timeout = self.timings.api_server_timeout;
        let endpoints = &Endpoints::new(client.clone(), self.config.clone(), timeout);
        let namespace = &self.system;
        let bootstrap = Bootstrap {
            issuers,
            namespace,
            account,
            public,
            cluster: "test",
            permissions_boundary: None,
            client,
            endpoints,
            replace_keys,
        };
        let mode = match (dry_run, terraform) {
            (_, true) => Mode::Terraform,
            (true, false) => Mode::DryRun(Output::Text),
            (false, false) => Mode::Make,
        };
        bootstrap.run(mode, &mut Terminal::to(Box::new(printed.clone()))).await?;
        Ok(printed.text())
    }

    /// `operator bootstrap` with these two options: what it does, and a boundary for the operator's own role.
    pub async fn bootstrap_options(
        &self,
        spec: &OidcIssuerSpec,
        mode: Mode,
        permissions_boundary: Option<&str>,
    ) -> anyhow::Result<(Ended, String)> {
        let (accounts, issuers, client) =
            (self.administrator().await, [issuer("default", spec)], &self.client);
        let endpoints = &Endpoints::new(client.clone(), self.config.clone(), self.timings.api_server_timeout);
        let printed = Printed::default();
        let bootstrap = Bootstrap {
            issuers: &issuers,
            namespace: &self.system,
            account: accounts.own(),
            public: &accounts.public,
            cluster: "test",
            permissions_boundary,
            client,
            endpoints,
            replace_keys: false,
        };
        let ended = bootstrap.run(mode, &mut Terminal::to(Box::new(printed.clone()))).await?;
        Ok((ended, printed.text()))
    }

    /// `operator orphans`, with the names to remove. Returns what it printed.
    pub async fn orphans(&self, delete: &[&str]) -> anyhow::Result<String> {
        let printed = Printed::default();
        let mut terminal = Terminal::to(Box::new(printed.clone()));
        let accounts = self.administrator().await;
        let issuers = issuers_of(&self.client).await?;
        let orphans = Orphans { issuers: &issuers, client: &self.client, account: accounts.own() };
        if delete.is_empty() {
            orphans.list(&mut terminal).await?;
        } else {
            let names: Vec<String> = delete.iter().map(|name| (*name).to_owned()).collect();
            orphans.delete(&names, &mut terminal).await?;
        }
        Ok(printed.text())
    }

    /// `operator teardown` with a file of one issuer. Returns what it printed.
    pub async fn teardown(&self, spec: &OidcIssuerSpec, dry_run: bool) -> anyhow::Result<String> {
        self.teardown_all(&[issuer("default", spec)], dry_run).await
    }

    /// The same with a file of several issuers.
    pub async fn teardown_all(&self, issuers: &[NamedIssuer], dry_run: bool) -> anyhow::Result<String> {
        self.teardown_with(issuers, dry_run, Confirm::Given).await
    }

    /// The same without `--yes`.
    pub async fn teardown_asked(&self, spec: &OidcIssuerSpec, ask: Ask) -> anyhow::Result<String> {
        self.teardown_with(&[issuer("default", spec)], false, Confirm::Asked(ask)).await
    }

    async fn teardown_with(
        &self,
        issuers: &[NamedIssuer],
        dry_run: bool,
        confirm: Confirm,
    ) -> anyhow::Result<String> {
        let printed = Printed::default();
        let mut terminal = Terminal::to(Box::new(printed.clone()));
        let accounts = self.administrator().await;
        let of_cluster = issuers_of(&self.client).await?;
        let teardown = Teardown { issuers, of_cluster, account: accounts.own(), cluster: "test", confirm };
        teardown.run(dry_run.then_some(Output::Text), &mut terminal).await?;
        Ok(printed.text())
    }
}

/// The output of a subcommand.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
