//! An AWS stand-in that refuses what AWS refuses: IAM, STS and S3, as far as we call them.
//!
//! It exists because no packaged emulator verifies a web identity token against the published documents, nor evaluates
//! conditions, boundaries and bucket policies on every call. A [`Sim`] answers HTTP requests: in the same process
//! ([`sdk`]), or as a TLS server under the real host names ([`server`]). S3 is written out here rather than put on the
//! `s3s` crate: of what we need (bucket policy, public-access block, ownership, tags, anonymous reads) it has none.

mod authz;
mod faults;
mod iam;
pub mod policy;
mod s3;
#[cfg(feature = "sdk")]
pub mod sdk;
pub mod server;
mod sigv4;
mod sts;
mod wire;
pub mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request as HttpRequest, Response};
use serde::{Deserialize, Serialize};

pub use faults::{Fault, FaultKind};
pub use world::State;

use authz::Caller;
use wire::{Fail, Request};

/// Where the account lives.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Twelve digits.
    pub account: String,
    /// The one region: STS's and the buckets'. IAM signs for `us-east-1`, as on AWS.
    pub region: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { account: "111122223333".into(), region: "eu-central-1".into() }
    }
}

/// Long-lived keys.
#[derive(Debug, Clone, Serialize)]
pub struct Credentials {
    /// Access key.
    pub access_key_id: String,
    /// Secret key.
    pub secret_access_key: String,
}

/// One call, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// `iam`, `sts` or `s3`.
    pub service: String,
    /// The API operation.
    pub action: String,
    /// What it was asked of: ARN, bucket or key.
    pub resource: String,
    /// ARN of the caller, or `anonymous`.
    pub principal: String,
    /// HTTP status.
    pub status: u16,
    /// Error code.
    pub code: Option<String>,
    /// Whether authorisation refused it.
    pub denied: bool,
    /// Whether it would change something.
    pub write: bool,
}

/// The connection broke before an answer arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLost;

/// Reads a URL anonymously: how STS gets an issuer's documents.
pub type Fetch = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(u16, Bytes), String>> + Send + Sync>;

/// The stand-in. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Sim(Arc<Inner>);

struct Inner {
    settings: Settings,
    state: Mutex<State>,
    calls: Mutex<Vec<Call>>,
    faults: Mutex<Vec<faults::Active>>,
    fetch: Mutex<Option<Fetch>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// An empty account.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Inner {
            settings,
            state: Mutex::default(),
            calls: Mutex::default(),
            faults: Mutex::default(),
            fetch: Mutex::default(),
        }))
    }

    /// Where the account lives.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Keys of an IAM user who may do everything.
    #[must_use]
    pub fn administrator(&self) -> Credentials {
        authz::administrator()
    }

    /// How STS reads documents; the default asks this stand-in's own S3, as a stranger.
    pub fn fetch_with(&self, fetch: Fetch) {
        *lock(&self.0.fetch) = Some(fetch);
    }

    /// Moves AWS's clock, in seconds.
    pub fn shift_clock(&self, seconds: i64) {
        self.change(|state| state.clock = seconds);
    }

    /// All calls since the last [`Self::clear_calls`], in order of their end.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.0.calls).clone()
    }

    /// Forgets the calls.
    pub fn clear_calls(&self) {
        lock(&self.0.calls).clear();
    }

    /// From now on, this goes wrong.
    pub fn inject(&self, fault: Fault) {
        lock(&self.0.faults).push(faults::Active::new(fault));
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        lock(&self.0.faults).clear();
    }

    /// What stands in the account.
    #[must_use]
    pub fn state(&self) -> State {
        lock(&self.0.state).clone()
    }

    /// Changes the account as somebody with the console would: not authorised, not logged.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut lock(&self.0.state))
    }

    /// Makes or replaces a managed policy from outside.
    pub fn put_managed_policy(&self, name: &str, document: serde_json::Value) -> String {
        let arn = format!("arn:aws:iam::{}:policy/{name}", self.0.settings.account);
        let policy = world::Policy {
            name: name.to_owned(),
            path: "/".into(),
            tags: world::Tags::new(),
            versions: vec![("v1".into(), document)],
            default: "v1".into(),
        };
        self.change(|state| state.policies.insert(arn.clone(), policy));
        arn
    }

    /// Makes a bucket from outside; of another account if `owner` is one.
    pub fn put_bucket(&self, name: &str, owner: &str) {
        let bucket = world::Bucket {
            owner: owner.to_owned(),
            region: self.0.settings.region.clone(),
            tags: world::Tags::new(),
            policy: None,
            policy_text: String::new(),
            public_access_block: [true; 4],
            ownership: "BucketOwnerEnforced".into(),
            objects: std::collections::BTreeMap::new(),
        };
        self.change(|state| state.buckets.insert(name.to_owned(), bucket));
    }

    /// Writes an object from outside, keeping the metadata of one that stands.
    pub fn put_object(&self, bucket: &str, key: &str, body: impl Into<Bytes>) {
        self.change(|state| {
            if let Some(bucket) = state.buckets.get_mut(bucket) {
                let old = bucket.objects.get(key);
                let (content_type, cache) = old.map_or(("application/octet-stream".to_owned(), None), |o| {
                    (o.content_type.clone(), o.cache_control.clone())
                });
                let object = world::Object::new(body.into(), &content_type, cache.as_deref());
                bucket.objects.insert(key.to_owned(), object);
            }
        });
    }

    /// Makes a role from outside.
    pub fn put_role(&self, path: &str, name: &str, trust: serde_json::Value, attached: &[&str]) -> String {
        let arn = format!("arn:aws:iam::{}:role{path}{name}", self.0.settings.account);
        self.change(|state| {
            let id = format!("AROASIM{:013}", state.next());
            let role = world::Role {
                name: name.to_owned(),
                path: path.to_owned(),
                arn: arn.clone(),
                id,
                trust,
                tags: world::Tags::new(),
                attached: attached.iter().map(|a| (*a).to_owned()).collect(),
                inline: std::collections::BTreeMap::new(),
                boundary: None,
                description: String::new(),
                max_session_duration: 3600,
            };
            state.roles.insert(name.to_lowercase(), role);
        });
        arn
    }

    /// Seconds since 1970 by AWS's clock.
    fn now(&self) -> i64 {
        lock(&self.0.state).now()
    }

    /// Answers a request, logs it, and lets it go wrong where that was asked for.
    pub async fn handle(&self, request: HttpRequest<Bytes>) -> Result<Response<Bytes>, ConnectionLost> {
        let request = match Request::new(request) {
            Ok(request) => request,
            Err(fail) => return Ok(fail.response(None)),
        };
        let action = match request.service {
            "s3" => s3::action(&request).to_owned(),
            _ => request.parameter("Action").unwrap_or_default().to_owned(),
        };
        let fault = lock(&self.0.faults).iter_mut().find_map(|fault| fault.hit(request.service, &action));
        let mut log = Log { principal: "anonymous".into(), resource: String::new() };
        let outcome = match &fault {
            Some(FaultKind::Error { status, code, message }) => {
                Err(Fail::new(*status, code, message.clone()))
            }
            Some(FaultKind::LostRequest) => return Err(ConnectionLost),
            Some(FaultKind::Delay { milliseconds }) => {
                tokio::time::sleep(std::time::Duration::from_millis(*milliseconds)).await;
                self.dispatch(&request, &action, &mut log).await
            }
            Some(FaultKind::LostResponse | FaultKind::Silence) | None => {
                self.dispatch(&request, &action, &mut log).await
            }
        };
        let (status, code) = match &outcome {
            Ok(response) => (response.status().as_u16(), None),
            Err(fail) => (fail.status, Some(fail.code.clone())),
        };
        let denied = log.principal != "anonymous" && outcome.as_ref().is_err_and(|fail| fail.denied);
        let reads = ["Get", "List", "Head", "Assume"].iter().any(|prefix| action.starts_with(prefix));
        lock(&self.0.calls).push(Call {
            service: request.service.to_owned(),
            action,
            resource: log.resource,
            principal: log.principal,
            status,
            code,
            denied,
            write: !reads,
        });
        match fault {
            Some(FaultKind::LostResponse) => return Err(ConnectionLost),
            Some(FaultKind::Silence) => std::future::pending().await,
            _ => {}
        }
        Ok(outcome.unwrap_or_else(|fail| fail.response(Some(&request))))
    }

    async fn dispatch(
        &self,
        request: &Request,
        action: &str,
        log: &mut Log,
    ) -> Result<Response<Bytes>, Fail> {
        let settings = &self.0.settings;
        if action == "AssumeRoleWithWebIdentity" {
            return sts::assume_role_with_web_identity(self, request, log).await; // unsigned
        }
        let mut state = lock(&self.0.state);
        let caller = Caller::identify(&state, settings, request)?;
        caller.arn().clone_into(&mut log.principal);
        match request.service {
            "iam" => iam::dispatch(&mut state, settings, &caller, request, action, log),
            "sts" => sts::dispatch(&caller, settings, action),
            _ => s3::dispatch(&mut state, settings, &caller, request, action, log),
        }
    }

    /// Reads a URL as STS does.
    fn read(&self, url: String) -> BoxFuture<'static, Result<(u16, Bytes), String>> {
        if let Some(fetch) = lock(&self.0.fetch).clone() {
            return fetch(url);
        }
        let sim = self.clone();
        Box::pin(async move {
            let request = HttpRequest::get(&url).body(Bytes::new()).map_err(|e| e.to_string())?;
            let response =
                sim.handle(request).await.map_err(|ConnectionLost| "connection lost".to_owned())?;
            Ok((response.status().as_u16(), response.into_body()))
        })
    }
}

/// What the call log says beyond the request itself.
struct Log {
    principal: String,
    resource: String,
}
