//! PURE: what the API servers of a cluster show of their issuer and signing keys.

use crate::oidc::Keys;

/// One poll of every API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServers {
    /// What the service address answered: one of the API servers, if there are several.
    pub service: Result<ApiServer, NoAnswer>,
    /// What each endpoint (`address:port`) answered.
    pub endpoints: Vec<(String, Result<ApiServer, NoAnswer>)>,
    /// Why the endpoints could not be listed.
    pub unlisted: Option<String>,
}

/// One API server's issuer and publishable keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServer {
    /// The issuer under which it signs.
    pub issuer: String,
    /// Its keys.
    pub keys: Keys,
    /// Keys that AWS STS does not verify, for messages.
    pub left_out: Vec<String>,
}

/// How much of the API servers one poll shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// Every API server has answered: a key that none of them shows is a key of none.
    All,
    /// Every API server that can be reached has answered; at least one is out of reach. It may be restarting.
    AllInReach,
    /// An API server has refused to answer, or it is not known which ones there are.
    Partial,
}

/// Why an API server gave no documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    /// Whether it gave another answer; otherwise it is out of reach.
    pub reached: bool,
    /// The reason.
    pub why: String,
}

impl ApiServers {
    /// What the API servers answered; the service address is the first.
    pub fn answers(&self) -> impl Iterator<Item = &ApiServer> {
        let endpoints = self.endpoints.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        self.service.iter().chain(endpoints)
    }

    /// The issuer under which API servers sign at present: that of the service address, or else of the first endpoint that has
    /// answered; empty where none has.
    #[must_use]
    pub fn present_issuer(&self) -> &str {
        self.answers().next().map_or("", |server| &server.issuer)
    }

    /// The keys of all of them.
    #[must_use]
    pub fn keys(&self) -> Keys {
        let mut keys = Keys::default();
        self.answers().for_each(|server| keys.extend(&server.keys));
        keys
    }

    /// How much of the API servers this poll shows.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let is_refusal = |answer: &Result<ApiServer, NoAnswer>| answer.as_ref().is_err_and(|no| no.reached);
        let answered = self.endpoints.iter().filter(|(_, answer)| answer.is_ok()).count();
        let refused =
            is_refusal(&self.service) || self.endpoints.iter().any(|(_, answer)| is_refusal(answer));
        match (answered, self.endpoints.len()) {
            _ if refused || self.unlisted.is_some() => Coverage::Partial,
            (answered, all) if answered == all && all > 0 => Coverage::All,
            // The service address is the one API server that there is.
            (0, 1) if self.service.is_ok() => Coverage::All,
            // Of several, or of how many is not known, the service address shows a different one with every poll.
            (0, _) => Coverage::Partial,
            _ => Coverage::AllInReach,
        }
    }
}
