//! PURE: the discovery document and the JWKS in the form that AWS requires, from those that the API server serves.

pub mod documents;
pub mod error;
pub mod jwk;
pub mod keys;
mod pem;
pub mod token;

pub use self::documents::{Discovery, Documents};
pub use self::error::OidcError;
pub use self::keys::{Keys, ReadKeys};
