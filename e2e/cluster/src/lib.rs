//! A real Kubernetes from Go modules, started in seconds: the control plane alone (no root), or one node with real pods
//! in private namespaces (root). No Docker, no kind, no image registry.

mod api_server;
mod boot;
mod control_plane;
mod endpoints;
pub mod image;
mod node;
mod pki;
mod preflight;
mod process;
mod tokens;
mod tools;

pub use boot::PAUSE;
pub use control_plane::{ControlPlane, Options};
pub use node::{Addresses, Network, Node, NodeOptions};
pub use pki::KeyType;
pub use preflight::preflight;
pub use process::until;
pub use tokens::Tokens;
pub use tools::Tools;
