//! Certificates and their keys: reads them from a Secret, and creates them.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::GeneralName;

use super::error::CertificateError;
use super::model::{BACKDATED, CertifiedKey, validity, whole_seconds};

impl CertifiedKey {
    /// Certificate and key of a Secret; `None` unless both can be parsed, belong together and, for a leaf, the certificate is for
    /// the host.
    pub fn read(secret: &Secret, host: Option<&str>) -> Option<Self> {
        let (certificate, key) = (text(secret, "tls.crt")?, text(secret, "tls.key")?);
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
        let parsed = pem.parse_x509().ok()?;
        let public = KeyPair::from_pem(&key).ok()?.subject_public_key_info();
        if parsed.public_key().raw != public.as_slice() {
            return None;
        }
        if let Some(host) = host {
            let alternatives = parsed.subject_alternative_name().ok()??;
            let is_host = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(dns) if *dns == host);
            alternatives.value.general_names.iter().any(is_host).then_some(())?;
        }
        let (not_before, not_after) = validity(&certificate)?;
        Some(Self { certificate, key, not_before, not_after })
    }
}

/// Creates a self-signed CA.
pub fn ca(life: Duration) -> Result<CertifiedKey, CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = parameters(Vec::new(), "podidentity-webhook-ca", life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key)?.pem();
    certified_key(certificate, &key)
}

/// Creates a certificate for the host, signed by the CA. It expires with the CA at the latest.
pub fn leaf(ca: &CertifiedKey, host: &str, life: Duration) -> Result<CertifiedKey, CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = parameters(vec![host.to_owned()], host, life)?;
    let end = time::OffsetDateTime::from_unix_timestamp(ca.not_after)
        .map_err(|_| CertificateError::ValidityOutOfRange)?;
    params.not_after = params.not_after.min(end);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    certified_key(certificate, &key)
}

fn parameters(
    names: Vec<String>,
    common_name: &str,
    life: Duration,
) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    // X.520 allows 64 characters in a common name.
    params.distinguished_name.push(DnType::CommonName, &common_name[..common_name.floor_char_boundary(64)]);
    let now = time::OffsetDateTime::now_utc();
    params.not_before =
        now.checked_sub(whole_seconds(BACKDATED)).ok_or(CertificateError::ValidityOutOfRange)?;
    params.not_after = now.checked_add(whole_seconds(life)).ok_or(CertificateError::ValidityOutOfRange)?;
    Ok(params)
}

fn certified_key(certificate: String, key: &KeyPair) -> Result<CertifiedKey, CertificateError> {
    let (not_before, not_after) = validity(&certificate).ok_or(CertificateError::ValidityOutOfRange)?;
    Ok(CertifiedKey { certificate, key: key.serialize_pem(), not_before, not_after })
}

/// The value of a key in a Secret; `None` where it is missing or not UTF-8.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;
    use crate::certificates::model::{MAX_CA_LIFE, MAX_LEAF_LIFE};

    const HOST: &str = "podidentity-webhook.podidentity-system.svc";

    #[test]
    fn a_certificate_without_its_key_or_host_is_not_accepted() {
        let ca = ca(MAX_CA_LIFE).unwrap();
        let leaf = leaf(&ca, HOST, MAX_LEAF_LIFE).unwrap();
        let secret = |certificate: &str, key: &str| Secret {
            data: Some(BTreeMap::from([
                ("tls.crt".to_owned(), ByteString(certificate.as_bytes().to_vec())),
                ("tls.key".to_owned(), ByteString(key.as_bytes().to_vec())),
            ])),
            ..Secret::default()
        };
        assert!(CertifiedKey::read(&secret(&leaf.certificate, &leaf.key), Some(HOST)).is_some());
        assert!(CertifiedKey::read(&secret(&leaf.certificate, &leaf.key), Some("other.svc")).is_none());
        assert!(CertifiedKey::read(&secret(&leaf.certificate, &ca.key), Some(HOST)).is_none());
        assert!(CertifiedKey::read(&secret("garbage", &leaf.key), Some(HOST)).is_none());
    }

    #[test]
    fn a_leaf_expires_with_its_ca_at_the_latest() {
        let hour = Duration::from_hours(1);
        let short = ca(hour).unwrap();
        assert_eq!(leaf(&short, HOST, MAX_LEAF_LIFE).unwrap().not_after, short.not_after);
        let long = ca(MAX_CA_LIFE).unwrap();
        assert!(leaf(&long, HOST, hour).unwrap().not_after < long.not_after);
    }
}
