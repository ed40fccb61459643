//! Keys and certificates of a cluster that lives for minutes.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SanType,
};

use crate::tokens::FIRST_KEY;

/// The type of a key that signs tokens of `ServiceAccount`s. kube-apiserver accepts RSA and EC keys, and chooses the
/// algorithm of a token by its key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyType {
    /// RSA of 2048 bits, as kubeadm and most distributions make it: `RS256`.
    #[default]
    Rsa,
    /// The curve P-256: `ES256`.
    EcP256,
}

/// The cluster's CA, and what it signs, in one directory.
pub(crate) struct Pki<'a> {
    directory: &'a Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Pki<'a> {
    /// A new CA (`ca.crt`) and the key `ServiceAccount` tokens are signed with (`sa.key`).
    pub(crate) fn new(directory: &'a Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "cluster-ca");
        std::fs::write(directory.join("ca.crt"), params.self_signed(&key)?.pem())?;
        signing_key(directory, FIRST_KEY, KeyType::Rsa)?;
        Ok(Self { directory, issuer: Issuer::new(params, key) })
    }

    /// A client certificate `<name>.crt` and its key.
    pub(crate) fn client(&self, name: &str, common_name: &str, organization: &str) -> anyhow::Result<()> {
        self.sign(name, common_name, organization, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A serving certificate `<name>.crt` and its key.
    pub(crate) fn server(
        &self,
        name: &str,
        common_name: &str,
        organization: &str,
        names: &[&str],
    ) -> anyhow::Result<()> {
        self.sign(name, common_name, organization, names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(
        &self,
        name: &str,
        common_name: &str,
        organization: &str,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into()?),
            });
        }
        params.distinguished_name.push(DnType::CommonName, common_name);
        if !organization.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::write(self.directory.join(format!("{name}.crt")), certificate.pem())?;
        std::fs::write(self.directory.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// A kubeconfig with everything in it, for the client of that name.
    pub(crate) fn kubeconfig(&self, server: &str, name: &str) -> anyhow::Result<String> {
        let data = |file: &str| -> anyhow::Result<serde_json::Value> {
            let path = self.directory.join(file);
            let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
            Ok(serde_json::Value::String(base64(&text)))
        };
        let cluster = serde_json::json!({"server": server, "certificate-authority-data": data("ca.crt")?});
        let user = serde_json::json!({
            "client-certificate-data": data(&format!("{name}.crt"))?,
            "client-key-data": data(&format!("{name}.key"))?,
        });
        // JSON is YAML.
        Ok(serde_json::to_string_pretty(&serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": name}}],
            "current-context": "local",
        }))?)
    }
}

/// A new key pair that `ServiceAccount` tokens are signed with: `<name>.key` and `<name>.pub`. The name must be a new one:
/// kube-apiserver reads its key files at its start only, so that the next start would change its keys.
pub(crate) fn signing_key(directory: &Path, name: &str, key_type: KeyType) -> anyhow::Result<()> {
    let pair = match key_type {
        KeyType::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyType::EcP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
    }?;
    for (extension, content) in [("key", pair.serialize_pem()), ("pub", pair.public_key_pem())] {
        let path = directory.join(format!("{name}.{extension}"));
        let mut file = File::create_new(&path).with_context(|| path.display().to_string())?;
        file.write_all(content.as_bytes())?;
    }
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
