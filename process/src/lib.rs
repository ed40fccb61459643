//! What operator and webhook share as processes: the log, the health port, a limiter for connections and memory that no
//! client can exhaust, and how the API server is watched. It depends on neither of the two.

pub mod acceptor;
pub mod health;
pub mod limiter;
pub mod logs;
pub mod responses;
pub mod watch;
