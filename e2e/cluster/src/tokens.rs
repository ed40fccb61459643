//! How an API server issues the tokens of `ServiceAccount`s, and which of them it accepts.

use std::path::Path;

/// The issuer of the demo: known before its bucket exists.
const ISSUER: &str = "https://oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com/homelab";

/// The name of the key pair that every cluster has.
pub(crate) const FIRST_KEY: &str = "sa";

/// The flags of kube-apiserver about the tokens of `ServiceAccount`s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Each is a `--service-account-issuer`: the first is the `iss` of new tokens, and tokens of all of them are accepted.
    pub issuers: Vec<String>,
    /// `--api-audiences`: the `aud` of which a token must have one to be accepted by this API server. It is also the `aud`
    /// of a token that is requested without one. Empty: the flag is not set, and Kubernetes takes all issuers.
    pub api_audiences: Vec<String>,
    /// The name of the key pair that signs new tokens: `--service-account-signing-key-file`. Its public key is accepted and
    /// in the JWKS.
    pub signing_key: String,
    /// The names of further key pairs. Their public keys are given by `--service-account-key-file`, too: tokens that were
    /// signed with them are accepted, and they are in the JWKS.
    pub accepted_keys: Vec<String>,
}

impl Default for Tokens {
    /// As docs/issuer-flags.md ends: tokens are issued under the demo's issuer, and those of the cluster's former issuer are
    /// accepted.
    fn default() -> Self {
        let former = "https://kubernetes.default.svc";
        Self {
            issuers: vec![ISSUER.into(), former.into()],
            api_audiences: vec![former.into()],
            signing_key: FIRST_KEY.into(),
            accepted_keys: Vec::new(),
        }
    }
}

impl Tokens {
    /// The issuer of every cluster that kubeadm creates, unless it is configured otherwise.
    pub const KUBEADM_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    /// As kubeadm starts an API server: one issuer, and no `--api-audiences`.
    #[must_use]
    pub fn kubeadm() -> Self {
        Self {
            issuers: vec![Self::KUBEADM_ISSUER.into()],
            api_audiences: Vec::new(),
            signing_key: FIRST_KEY.into(),
            accepted_keys: Vec::new(),
        }
    }

    /// The flags; the key pairs are files in the folder.
    pub(crate) fn flags(&self, pki: &Path) -> Vec<String> {
        let file =
            |name: &str, extension: &str| pki.join(format!("{name}.{extension}")).display().to_string();
        let mut flags =
            vec![format!("--service-account-signing-key-file={}", file(&self.signing_key, "key"))];
        for name in std::iter::once(&self.signing_key).chain(&self.accepted_keys) {
            flags.push(format!("--service-account-key-file={}", file(name, "pub")));
        }
        flags.extend(self.issuers.iter().map(|issuer| format!("--service-account-issuer={issuer}")));
        if !self.api_audiences.is_empty() {
            flags.push(format!("--api-audiences={}", self.api_audiences.join(",")));
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_issues_under_the_demos_issuer_and_accepts_the_former() {
        assert_eq!(
            Tokens::default().flags(Path::new("/pki")),
            [
                "--service-account-signing-key-file=/pki/sa.key",
                "--service-account-key-file=/pki/sa.pub",
                "--service-account-issuer=https://oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com/homelab",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--api-audiences=https://kubernetes.default.svc",
            ]
        );
    }

    #[test]
    fn kubeadm_sets_one_issuer_and_no_audience() {
        assert_eq!(
            Tokens::kubeadm().flags(Path::new("/pki")),
            [
                "--service-account-signing-key-file=/pki/sa.key",
                "--service-account-key-file=/pki/sa.pub",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            ]
        );
    }

    #[test]
    fn every_accepted_key_is_a_file_and_audiences_are_one_list() {
        let tokens = Tokens {
            issuers: vec!["https://a".into()],
            api_audiences: vec!["https://a".into(), "b".into()],
            signing_key: "new".into(),
            accepted_keys: vec!["sa".into(), "other".into()],
        };
        assert_eq!(
            tokens.flags(Path::new("/pki")),
            [
                "--service-account-signing-key-file=/pki/new.key",
                "--service-account-key-file=/pki/new.pub",
                "--service-account-key-file=/pki/sa.pub",
                "--service-account-key-file=/pki/other.pub",
                "--service-account-issuer=https://a",
                "--api-audiences=https://a,b",
            ]
        );
    }
}
