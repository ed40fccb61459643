//! [`Sim`]: answers requests, logs them, and applies injected faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sim_api::{Behaviour, Bucket, Call, Credentials, Fault, FaultKind, Policy, Role, State, Tags};
use bytes::Bytes;
use http::{Request as HttpRequest, Response};

use crate::account::Account;
use crate::authz::{self, Caller};
use crate::faults::Active;
use crate::model::{ConnectionLost, Fetch, LogFields, Settings, lock};
use crate::wire::{ApiError, Request};
use crate::{constraints, iam, s3, sts};

/// The simulator. Cheap to clone; all clones share the accounts. It answers for all of them; what a test reads and changes
/// directly is in one.
#[derive(Clone)]
pub struct Sim {
    shared: Arc<Inner>,
    settings: Arc<Settings>,
}

struct Inner {
    made: Instant,
    /// The id of the account that requests without a signature belong to.
    own: String,
    account: Mutex<Account>,
    calls: Mutex<Vec<Call>>,
    faults: Mutex<Vec<Active>>,
    fetch: Mutex<Option<Fetch>>,
}

impl Sim {
    /// An empty account.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let shared = Arc::new(Inner {
            made: Instant::now(),
            own: settings.account.clone(),
            account: Mutex::default(),
            calls: Mutex::default(),
            faults: Mutex::default(),
            fetch: Mutex::default(),
        });
        Self { shared, settings: Arc::new(settings) }
    }

    /// The same simulator, with another account as the one that is read and changed directly. Every account exists.
    #[must_use]
    pub fn account(&self, id: &str) -> Self {
        let settings = Settings { account: id.to_owned(), ..(*self.settings).clone() };
        Self { settings: Arc::new(settings), ..self.clone() }
    }

    /// Runs something in the account.
    fn within<T>(&self, run: impl FnOnce(&mut Account) -> T) -> T {
        lock(&self.shared.account).within(&self.settings.account, &self.shared.own, run)
    }

    /// Id and region of the account.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Keys of an IAM user of the account with every right.
    #[must_use]
    pub fn administrator(&self) -> Credentials {
        authz::administrator(&self.settings.account)
    }

    /// Sets how STS reads an issuer's documents. The default is an anonymous request to this simulator's own S3.
    pub fn fetch_with(&self, fetch: Fetch) {
        *lock(&self.shared.fetch) = Some(fetch);
    }

    /// Sets how far AWS's clock is ahead, in seconds.
    pub fn shift_clock(&self, seconds: i64) {
        lock(&self.shared.account).clock = seconds;
    }

    /// How long ago the simulator was made: the clock of [`Call::at`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.made.elapsed()
    }

    /// All calls since the last [`Self::clear_calls`], in the order in which they ended.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// Empties the call log.
    pub fn clear_calls(&self) {
        lock(&self.shared.calls).clear();
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.faults).push(Active::new(fault));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// A copy of everything in the account.
    #[must_use]
    pub fn state(&self) -> State {
        self.within(|account| account.state.clone())
    }

    /// Changes the account directly: not authorised, not validated, not logged, and seen at once whatever the lag is.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.within(|account| account.settled(change))
    }

    /// How AWS answers where it can go either way.
    #[must_use]
    pub fn behaviour(&self) -> Behaviour {
        lock(&self.shared.account).behaviour.clone()
    }

    /// Changes how AWS answers where it can go either way.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.shared.account).behaviour);
    }

    /// Creates or replaces a managed policy directly. Returns its ARN.
    pub fn put_managed_policy(&self, name: &str, document: serde_json::Value) -> String {
        let arn = format!("arn:aws:iam::{}:policy/{name}", self.settings.account);
        let policy = Policy::new(name, "/", Tags::new(), document, lock(&self.shared.account).now());
        self.change(|state| state.policies.insert(arn.clone(), policy));
        arn
    }

    /// Creates or replaces a bucket directly. `owner` may be another account.
    pub fn put_bucket(&self, name: &str, owner: &str) {
        let bucket = Bucket {
            owner: owner.to_owned(),
            region: self.settings.region.clone(),
            tags: Tags::new(),
            policy: None,
            policy_text: String::new(),
            public_access_block: [true; 4],
            ownership: "BucketOwnerEnforced".into(),
            objects: BTreeMap::new(),
            versioned: self.behaviour().versioned_buckets,
            versions: Vec::new(),
        };
        self.change(|state| state.buckets.insert(name.to_owned(), bucket));
    }

    /// Writes an object directly. The metadata of an existing object is kept.
    pub fn put_object(&self, bucket: &str, key: &str, body: impl Into<Bytes>) {
        let id = lock(&self.shared.account).version_id();
        self.change(|state| {
            if let Some(bucket) = state.buckets.get_mut(bucket) {
                let old = bucket.objects.get(key);
                let content_type = old.map_or("application/octet-stream", |old| &old.content_type).to_owned();
                let cache = old.and_then(|old| old.cache_control.clone());
                let metadata = old.map(|old| old.metadata.clone()).unwrap_or_default();
                let mut object = s3::object(body.into(), &content_type, cache.as_deref());
                object.metadata = metadata;
                s3::put_object(bucket, key, object, &id);
            }
        });
    }

    /// Creates or replaces a role directly. Returns its ARN.
    pub fn put_role(&self, path: &str, name: &str, trust: serde_json::Value, attached: &[&str]) -> String {
        let arn = format!("arn:aws:iam::{}:role{path}{name}", self.settings.account);
        let role = Role {
            name: name.to_owned(),
            path: path.to_owned(),
            arn: arn.clone(),
            id: format!("AROASIM{:013}", lock(&self.shared.account).next()),
            trust,
            tags: Tags::new(),
            attached: attached.iter().map(|a| (*a).to_owned()).collect(),
            inline: BTreeMap::new(),
            boundary: None,
            description: String::new(),
            max_session_duration: 3600,
            instance_profiles: Vec::new(),
        };
        self.change(|state| state.roles.insert(name.to_lowercase(), role));
        arn
    }

    /// Answers a request, logs it, and applies the first fault that matches.
    pub async fn handle(&self, request: HttpRequest<Bytes>) -> Result<Response<Bytes>, ConnectionLost> {
        let request = match Request::new(request) {
            Ok(request) => request,
            Err(error) => return Ok(error.response(None)),
        };
        let action = match request.service {
            "s3" => s3::action(&request).to_owned(),
            _ => request.parameter("Action").unwrap_or_default().to_owned(),
        };
        let fault =
            lock(&self.shared.faults).iter_mut().find_map(|fault| fault.apply(request.service, &action));
        let mut log = LogFields { principal: "anonymous".into(), resource: String::new() };
        let outcome = match &fault {
            Some(FaultKind::Error { status, code, message }) => {
                Err(ApiError::new(*status, code, message.clone()))
            }
            Some(FaultKind::LostRequest) => return Err(ConnectionLost),
            Some(FaultKind::Delay { milliseconds }) => {
                tokio::time::sleep(Duration::from_millis(*milliseconds)).await;
                self.dispatch(&request, &action, &mut log).await
            }
            Some(FaultKind::LostResponse | FaultKind::Silence) | None => {
                self.dispatch(&request, &action, &mut log).await
            }
        };
        if let (Err(error), None) = (&outcome, &fault) {
            let declared = constraints::declares(request.service, &action, error);
            debug_assert!(declared, "AWS's model declares no {} {} of {action}", error.status, error.code);
        }
        let (status, code) = match &outcome {
            Ok(response) => (response.status().as_u16(), None),
            Err(error) => (error.status, Some(error.code.clone())),
        };
        let denied = log.principal != "anonymous" && outcome.as_ref().is_err_and(|error| error.denied);
        let reads = ["Get", "List", "Head", "Assume"].iter().any(|prefix| action.starts_with(prefix));
        lock(&self.shared.calls).push(Call {
            service: request.service.to_owned(),
            action,
            resource: log.resource,
            principal: log.principal,
            status,
            code,
            denied,
            write: !reads,
            at: self.elapsed(),
        });
        match fault {
            Some(FaultKind::LostResponse) => return Err(ConnectionLost),
            Some(FaultKind::Silence) => std::future::pending().await,
            _ => {}
        }
        Ok(outcome.unwrap_or_else(|error| error.response(Some(&request))))
    }

    async fn dispatch(
        &self,
        request: &Request,
        action: &str,
        log: &mut LogFields,
    ) -> Result<Response<Bytes>, ApiError> {
        let Inner { own, account, .. } = &*self.shared;
        if action == "AssumeRoleWithWebIdentity" {
            // The one call that is not signed.
            return sts::assume_role_with_web_identity(account, own, &self.fetch(), request, log).await;
        }
        let contacted = action != "CreateOpenIDConnectProvider" || self.contact(request).await;
        let mut account = lock(account);
        let id = authz::account_of(&account, request)?.unwrap_or_else(|| own.clone());
        let settings = Settings { account: id, ..(*self.settings).clone() };
        account.within(&settings.account, own, |account| {
            let caller = Caller::identify(account, &settings, request)?;
            caller.arn().clone_into(&mut log.principal);
            let rate = account.behaviour.iam_rate.filter(|_| request.service == "iam");
            if rate.is_some_and(|rate| !account.permits.take(rate)) {
                return Err(ApiError::new(400, "Throttling", "Rate exceeded"));
            }
            constraints::check(request, action)?;
            match request.service {
                "iam" => iam::dispatch(account, &settings, &caller, request, contacted, action, log),
                "sts" => sts::dispatch(&caller, &settings, action),
                _ => s3::dispatch(account, &settings, &caller, request, log),
            }
        })
    }

    /// Whether the host of a new provider's URL answers IAM, whatever it answers (IAM API reference,
    /// `OpenIdIdpCommunicationError`).
    async fn contact(&self, request: &Request) -> bool {
        if !self.behaviour().contact_provider {
            return true;
        }
        let url = request.parameter("Url").unwrap_or_default();
        if lock(&self.shared.fetch).is_none() && serves(url) {
            return true; // this simulator's own S3
        }
        let url = url.trim_end_matches('/');
        self.fetch()(format!("{url}/.well-known/openid-configuration")).await.is_ok()
    }

    /// How STS reads an issuer's documents.
    fn fetch(&self) -> Fetch {
        if let Some(fetch) = lock(&self.shared.fetch).clone() {
            return fetch;
        }
        let sim = self.clone();
        Arc::new(move |url| {
            let sim = sim.clone();
            Box::pin(async move {
                if !serves(&url) {
                    return Err("no host of that name".to_owned());
                }
                let request = HttpRequest::get(&url).body(Bytes::new()).map_err(|e| e.to_string())?;
                let response =
                    sim.handle(request).await.map_err(|ConnectionLost| "connection lost".to_owned())?;
                Ok((response.status().as_u16(), response.into_body()))
            })
        })
    }
}

/// Whether the simulator serves the host of a URL.
fn serves(url: &str) -> bool {
    HttpRequest::get(url).body(Bytes::new()).is_ok_and(|request| Request::new(request).is_ok())
}
