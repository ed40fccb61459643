//! The admission protocol: the HTTPS listener ([`server`]), a review in and an answer out ([`admit`], [`respond`]), and how
//! both look as JSON ([`review`]).

pub mod admit;
pub mod respond;
pub mod review;
pub mod server;
