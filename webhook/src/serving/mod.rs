//! What the listener needs to be trusted: the serving certificate ([`tls`]), which callers are accepted ([`callers`]),
//! whether the webhook configuration trusts the certificate ([`trust`]); and files that are read again when they change
//! ([`files`]).

pub mod callers;
pub mod files;
pub mod tls;
pub mod trust;
