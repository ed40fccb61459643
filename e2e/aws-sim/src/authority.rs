//! A private certificate authority for AWS's host names.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

/// A private CA that issues certificates for AWS's host names.
pub struct Authority {
    /// Its certificate, PEM: what clients must trust.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new CA.
    pub fn generate() -> anyhow::Result<Self> {
        Self::new(KeyPair::generate()?)
    }

    /// The CA of a directory (`ca.crt`, `ca.key`), generated there if it is missing.
    pub fn in_directory(directory: &Path) -> anyhow::Result<Self> {
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        if let (Ok(certificate), Ok(key)) =
            (std::fs::read_to_string(&certificate), std::fs::read_to_string(&key))
        {
            let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?;
            return Ok(Self { certificate, issuer });
        }
        std::fs::create_dir_all(directory)?;
        let pair = KeyPair::generate()?;
        std::fs::write(&key, pair.serialize_pem())?;
        let generated = Self::new(pair)?;
        std::fs::write(certificate, &generated.certificate)?;
        Ok(generated)
    }

    fn new(key: KeyPair) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "aws-sim private CA");
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// A serving certificate for a host name.
    pub(crate) fn leaf(&self, host: &str) -> anyhow::Result<CertifiedKey> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], signer))
    }
}
