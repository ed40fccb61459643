//! PURE: why keys or documents cannot be used.

use thiserror::Error;

/// Why a document of the API server cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OidcError {
    /// It is not JSON, or a required member is missing.
    #[error("its {document} is not valid: {reason}")]
    Malformed {
        /// Which document.
        document: &'static str,
        /// The parser's message.
        reason: String,
    },
    /// No key is of a type that STS verifies.
    #[error("it has no RSA or EC key with a key id: AWS STS verifies RS256–512 and ES256–512 only")]
    NoUsableKey,
    /// More keys than STS reads.
    #[error("it has {count} {kty} keys: AWS STS reads at most 100")]
    TooManyKeys {
        /// `RSA` or `EC`.
        kty: &'static str,
        /// Their number.
        count: usize,
    },
    /// A text in PEM has something else than public keys.
    #[error("it is not a list of public keys in PEM: {0}")]
    NotAPublicKey(String),
}
