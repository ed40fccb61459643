//! What the cluster says about a `ServiceAccount`: watched copies ([`mirror`], [`follow`]), live lookups ([`live`]), the
//! ConfigMap and the file ([`sources`]), all together in [`lookup`]; and pods that were admitted without an identity
//! ([`recent`]).

pub mod follow;
pub mod live;
pub mod lookup;
pub mod mirror;
pub mod readable;
pub mod recent;
pub mod service_account;
pub mod sources;
