//! What operator and webhook share as processes: the log, the listener of health and metrics, and the door that keeps any
//! listener from being filled up, and how the API server is watched. It knows neither of them.

pub mod crowd;
pub mod door;
pub mod health;
pub mod logs;
pub mod watch;
