//! The YAML file with the cluster's `OidcIssuer`s, which the administrator's subcommands read.

pub mod crd_rules;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use crds::names::{GROUP, VERSION, account_of_bucket};
use crds::{Finding, OidcIssuer, OidcIssuerSpec};
use kube::ResourceExt;
use serde_json::Value;
use thiserror::Error;

use crate::aws::model::Identity;
use crate::cli::{File, Offline};
use crate::installation::{Installation, NamedIssuer};

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// It is not YAML.
    #[error("{file} is not valid YAML: {reason}")]
    Yaml {
        /// The file.
        file: String,
        /// The place and the reason.
        reason: String,
    },
    /// An `OidcIssuer` that the API server would refuse.
    #[error("{file}: OidcIssuer {name}: {reason}")]
    Invalid {
        /// The file.
        file: String,
        /// The object.
        name: String,
        /// The field and the reason.
        reason: String,
    },
    /// It has no `OidcIssuer`.
    #[error("{file} has no object of kind OidcIssuer: at least one is required")]
    None {
        /// The file.
        file: String,
    },
    /// The issuers cannot belong to one cluster.
    #[error("{0}")]
    Inconsistent(String),
    /// The AWS account is not known.
    #[error(
        "--account <twelve digits> is required: spec.operatorRoleARN and spec.accountID are absent, and no bucket name ends in -<account>-<region>-an"
    )]
    UnknownAccount,
}

/// Reads all `OidcIssuer`s of a file, at least one.
///
/// # Errors
/// If the file cannot be read, or the API server would refuse an issuer in it.
pub fn read(File { file: path }: &File) -> Result<Vec<NamedIssuer>, FileError> {
    let file = path.display().to_string();
    let text = text(path).map_err(|source| FileError::Read { file: file.clone(), source })?;
    parse(&file, &text)
}

fn text(path: &Path) -> std::io::Result<String> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

/// The same of a text; `file` is its name in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, text: &str) -> Result<Vec<NamedIssuer>, FileError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|e| FileError::Yaml { file: file.to_owned(), reason: e.to_string() })?;
    let issuers: Vec<NamedIssuer> = documents
        .iter()
        .filter(|document| document["kind"] == "OidcIssuer")
        .map(|document| issuer(file, document))
        .collect::<Result<_, _>>()?;
    let inconsistent = |message: String| Err(FileError::Inconsistent(format!("{file}: {message}")));
    let mut names = BTreeSet::new();
    if let Some(twice) = issuers.iter().find(|issuer| !names.insert(&issuer.name)) {
        return inconsistent(format!("two OidcIssuers have the name {}", twice.name));
    }
    let mut accounts: Vec<&str> = issuers.iter().filter_map(|issuer| account_of(&issuer.spec)).collect();
    accounts.dedup();
    if let [one, other, ..] = accounts[..] {
        return inconsistent(format!(
            "the issuers are of accounts {one} and {other}: use a file for each account"
        ));
    }
    if issuers.is_empty() {
        return Err(FileError::None { file: file.to_owned() });
    }
    Ok(issuers)
}

fn issuer(file: &str, document: &Value) -> Result<NamedIssuer, FileError> {
    let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let invalid = |reason: String| FileError::Invalid { file: file.to_owned(), name: name.clone(), reason };
    // The API server drops unknown fields without an error, so a misspelt grant would have no effect.
    let mut unknown = Vec::new();
    let issuer: OidcIssuer =
        serde_ignored::deserialize(document, |path| unknown.push(path.to_string().replace(".?", "")))
            .map_err(|e| invalid(e.to_string()))?;
    if let Some(field) = unknown.iter().find(|field| field.starts_with("spec")) {
        return Err(invalid(format!(
            "{field} is not a field of {GROUP}/{VERSION}: see `kubectl explain oidcissuer.spec`"
        )));
    }
    if issuer.name_any().is_empty() {
        return Err(invalid("metadata.name is missing".into()));
    }
    // Refuse what the API server refuses: otherwise a bucket is created for an issuer that cannot be applied.
    let refusals = crd_rules::refusals(&issuer);
    if !refusals.is_empty() {
        return Err(invalid(refusals.join("; ")));
    }
    Ok(NamedIssuer { name: issuer.name_any(), spec: issuer.spec })
}

/// The account that a specification names, or that its bucket's name ends in.
fn account_of(spec: &OidcIssuerSpec) -> Option<&str> {
    let in_name = || spec.s3.as_ref().and_then(|s3| account_of_bucket(&s3.bucket, &s3.region));
    spec.role_account().or(spec.account_id.as_deref()).or_else(in_name)
}

/// Issuers and account, for the subcommands that use neither the cluster nor AWS.
///
/// # Errors
/// As [`read`], and if the account is not known or the issuers cannot belong to one cluster.
pub fn offline(offline: &Offline) -> Result<Installation, FileError> {
    let issuers = read(&offline.file)?;
    let account_in_file = issuers.iter().find_map(|issuer| account_of(&issuer.spec));
    let account = offline.account.as_deref().or(account_in_file).ok_or(FileError::UnknownAccount)?;
    Installation::new(&Identity::of_account(account), issuers.clone())
        .map_err(|Finding { message, .. }| FileError::Inconsistent(message))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: podidentity.dev/v1alpha1\nkind: OidcIssuer\nmetadata: {name: default}\nspec:\n  \
                        clusterName: homelab\n  s3: {bucket: oidc-111122223333-eu-central-1-an, region: eu-central-1}\n";

    #[test]
    fn objects_of_other_kinds_are_ignored() {
        let issuers = parse("f", &format!("kind: Namespace\nmetadata: {{name: x}}\n---\n{GOOD}")).unwrap();
        let NamedIssuer { name, spec } = &issuers[0];
        assert_eq!((issuers.len(), name.as_str()), (1, "default"));
        assert_eq!(account_of(spec), Some("111122223333"));
    }

    #[test]
    fn a_file_may_contain_several_issuers() {
        let second = GOOD.replace("default", "second").replace("oidc-", "second-");
        let issuers = parse("f", &format!("{GOOD}---\n{second}")).unwrap();
        assert_eq!(
            issuers.iter().map(|issuer| issuer.name.as_str()).collect::<Vec<_>>(),
            ["default", "second"]
        );
    }

    #[test]
    fn an_error_names_the_invalid_field() {
        for (text, expected) in [
            (GOOD.replace("homelab", "Home_Lab"), "spec.clusterName"),
            (GOOD.replace("oidc-", "oidc."), "dots"),
            (GOOD.replace("oidc-", "OIDC-"), "spec.s3.bucket"),
            (GOOD.replace("  clusterName: homelab\n", ""), "clusterName"),
            (GOOD.replace("name: default", "labels: {}"), "metadata.name"),
            (GOOD.replace("eu-central-1}", "us-iso-east-1}"), "spec.s3.region"),
            (format!("{GOOD}  audiences: ['a$b']\n"), "spec.audiences"),
            (format!("{GOOD}  grant: []\n"), "spec.grant is not a field"),
            (
                format!("{GOOD}  grants: [{{name: a, policyArns: ['*']}}]\n"),
                "spec.grants.0.policyArns is not a field",
            ),
            (format!("{GOOD}  issuerUrl: https://x.example.com\n"), "spec.issuerUrl is not a field"),
            (format!("{GOOD}---\n{GOOD}"), "two OidcIssuers have the name default"),
            (
                format!(
                    "{GOOD}---\n{}",
                    GOOD.replace("default", "second").replace("111122223333", "999999999999")
                ),
                "are of accounts 111122223333 and 999999999999",
            ),
            ("kind: Namespace".to_owned(), "has no object of kind OidcIssuer"),
            ("{".to_owned(), "not valid YAML"),
        ] {
            let error = parse("f", &text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
