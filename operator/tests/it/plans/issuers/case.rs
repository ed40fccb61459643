//! What a row of the table starts from, and the words for its steps.

use crds::{DeletionPolicy, KeyState, PublishedKey};
use issuer::decide::decide;
use issuer::model::{
    Additional, AwsState, Evidence, Fence, Memory, Missing, Observed, Plan, Step, Verification, View,
};
use issuer::publication::bucket::{OPEN, wanted};
use issuer::publication::target::Target;
use operator::distribution::Distribution;
use operator::oidc::jwk::{Jwk, thumbprint};

use super::super::*;

/// Everything a row may change; as it is: Ready, and nothing to do.
#[allow(clippy::struct_excessive_bools, reason = "each is what a row may change")]
pub struct Case {
    pub spec: OidcIssuerSpec,
    pub account: Result<&'static str, AwsError>,
    pub deleting: bool,
    pub finalizer: bool,
    pub was_ready: bool,
    pub published: bool,
    pub observed: Observed,
    pub memory: Memory,
    pub clock: Clock,
    pub untouched: Option<Finding>,
    /// The keys that the status knows, where it knows published documents.
    pub recorded: Vec<PublishedKey>,
    /// Whether the credentials are a session of the operator's role.
    pub own_role: bool,
}

pub fn keys() -> Keys {
    let jwk = json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "one", "n": "AQAB", "e": "AQAB"});
    Keys::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap()
}

/// One API server, reached at the service address and at its own.
pub fn api(issuer: &str, keys: Keys) -> ApiServers {
    let server = ApiServer { issuer: issuer.into(), keys, left_out: Vec::new() };
    let endpoints = vec![("192.0.2.1:6443".to_owned(), Ok(server.clone()))];
    ApiServers { service: Ok(server), endpoints, unlisted: None }
}

/// The keys as a status shows them.
pub fn records(keys: &Keys) -> Vec<PublishedKey> {
    let record = |(kid, jwk): (&str, &Jwk)| PublishedKey {
        kid: kid.into(),
        alg: "RS256".into(),
        thumbprint: thumbprint(jwk).unwrap(),
        state: KeyState::Active,
        retired_at: None,
    };
    keys.iter().map(record).collect()
}

/// Keys of another API server.
pub fn other_keys() -> Keys {
    let jwk = json!({"kty": "RSA", "kid": "two", "n": "AQAB", "e": "AQAB"});
    Keys::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap()
}

pub fn unreachable() -> Finding {
    Finding::new(Reason::APIServerUnreachable, "no answer")
}

pub fn refused() -> Evidence {
    Evidence::Bad(Finding::new(Reason::TokenExchangeFailed, "no"))
}

impl Case {
    pub fn good() -> Self {
        let spec = issuer_spec();
        let target = Target::new("default", &spec, &Identity::of_account(ACCOUNT));
        let documents = Documents::new(&spec.issuer_url(), &spec.jwks_uri(), &keys(), String::new());
        let object = |body: &[u8]| Object {
            body: body.to_vec(),
            etag: "\"1\"".into(),
            content_type: CONTENT_TYPE.into(),
            cache_control: CACHE_CONTROL.into(),
            encrypted_by_key: false,
            clocks: String::new(),
        };
        let bucket = Bucket {
            tags: target.owner.tags().clone(),
            owner_enforced: true,
            public_access: OPEN,
            policy: Some(wanted(&target, target.managed().unwrap()).policy().to_string()),
            discovery: Some(object(&documents.discovery)),
            jwks: Some(object(&documents.jwks)),
        };
        let provider = Provider { client_ids: spec.audiences.clone(), tags: target.owner.tags().clone() };
        let clock = clock();
        let verification = Verification {
            at: clock.instant,
            digest: documents.digest(),
            public: Evidence::Good,
            exchange: Some(Evidence::Good),
            fence: Some(Fence::Holds),
            api_audiences: vec!["https://kubernetes.default.svc".into()],
        };
        Self {
            account: Ok(ACCOUNT),
            deleting: false,
            finalizer: true,
            was_ready: true,
            published: true,
            observed: Observed {
                api: Ok(api(&spec.issuer_url(), keys())),
                additional: Additional::default(),
                distribution: Distribution::Unknown,
                aws: Ok(AwsState { bucket: Some(bucket), provider: Some(provider) }),
                dependents: Vec::new(),
                own_token_issuer: None,
                same_url: Vec::new(),
            },
            memory: Memory { verification: Some(verification), ..Memory::default() },
            spec,
            clock,
            untouched: None,
            own_role: false,
            recorded: records(&keys()),
        }
    }

    /// The API servers show none of the published keys.
    pub fn shows_other_keys(&mut self) {
        self.observed.api = Ok(api(&self.spec.issuer_url(), other_keys()));
        (self.published, self.was_ready) = (false, false);
    }

    fn identity(&self, account: &str) -> Identity {
        let session = format!("arn:aws:sts::{account}:assumed-role/podidentity-operator.homelab/podidentity");
        let user = format!("arn:aws:iam::{account}:user/admin");
        Identity { account: account.into(), arn: if self.own_role { session } else { user } }
    }

    pub fn bucket(&mut self) -> &mut Bucket {
        self.observed.aws.as_mut().unwrap().bucket.as_mut().unwrap()
    }

    /// A deletion whose reads have shown neither a provider nor a bucket for long enough.
    pub fn is_gone(&mut self) {
        (self.deleting, self.spec.deletion_policy) = (true, DeletionPolicy::Delete);
        self.observed.aws = Ok(AwsState { bucket: None, provider: None });
        let since = self.clock.instant.checked_sub(Duration::from_secs(30));
        self.memory.missing = Missing { provider_since: since, bucket_since: since };
    }

    pub fn evidence(&mut self) -> &mut Verification {
        self.memory.verification.as_mut().unwrap()
    }

    pub fn plan(&self) -> Plan {
        let digest =
            Documents::new(&self.spec.issuer_url(), &self.spec.jwks_uri(), &keys(), String::new()).digest();
        let mut issuer = OidcIssuer::new("default", self.spec.clone());
        let status = issuer.status.get_or_insert_default();
        if self.published {
            (status.published_digest, status.keys) = (Some(digest), self.recorded.clone());
        }
        let view = View {
            object: ObjectState {
                namespace: String::new(),
                name: "default".into(),
                generation: 1,
                created: self.clock.wall,
                deleting: self.deleting,
                finalizer: self.finalizer,
                was_ready: self.was_ready && !self.deleting,
            },
            issuer: Arc::new(issuer),
            target: self
                .account
                .clone()
                .map(|account| Target::new("default", &self.spec, &self.identity(account))),
            untouched: self.untouched.clone(),
        };
        decide(&view, &self.observed, &self.memory, &self.clock, &Timings::default())
    }
}

pub fn name(step: &Step) -> String {
    match step {
        Step::AddFinalizer => "add finalizer".into(),
        Step::RemoveFinalizer => "remove finalizer".into(),
        Step::Change(change) => change.attribute.into(),
        Step::Own(verify) => if verify.exchange { "exchange" } else { "read" }.into(),
    }
}
