//! Which callers are accepted: optionally only those with a client certificate of a given CA, as an API server has that is
//! configured for it (`AdmissionConfiguration`, `kubeConfigFile`). Without it every pod can ask which role a `ServiceAccount`
//! has.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::serving::tls::provider;

/// Why a CA is not usable.
#[derive(Debug, Error)]
pub enum CallersError {
    /// Not PEM.
    #[error("not PEM: CERTIFICATE sections of whole lines are expected")]
    Pem, // the decoder's message is not repeated: it quotes the line, which may contain a key
    /// Not a CA's certificate.
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
    /// No certificate to verify with.
    #[error(transparent)]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Accepts client certificates of one CA; where names are given, only those with one of these common names.
#[derive(Debug)]
pub struct Callers {
    chain: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl Callers {
    /// `ca` is PEM; without `names` all certificates of the CA are accepted.
    pub fn new(ca: &[u8], names: &[String]) -> Result<Self, CallersError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.map_err(|_| CallersError::Pem)?)?;
        }
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        Ok(Self { chain, names: names.to_vec() })
    }

    fn has_accepted_name(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
        let mut common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        self.names.is_empty() || common.any(|name| self.names.iter().any(|accepted| accepted == name))
    }
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        if self.has_accepted_name(end_entity) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
