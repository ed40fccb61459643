//! `OidcIssuer`.

use issuer::decide::{Step, Subject, decide};
use issuer::observe::{ApiProblem, ApiServer, AwsState, Bucket, Evidence, Memory, Observed, Verification};
use issuer::publication::{OPEN, Target};

use super::*;

/// Everything a row may change; as it is: Ready, and nothing to do.
#[allow(clippy::struct_excessive_bools, reason = "each is what a row may change")]
struct Look {
    spec: OidcIssuerSpec,
    deleting: bool,
    finalizer: bool,
    was_ready: bool,
    published: bool,
    observed: Observed,
    memory: Memory,
    now: Instant,
}

fn keys() -> Keys {
    let jwk = json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "one", "n": "AQAB", "e": "AQAB"});
    Keys::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap()
}

impl Look {
    fn good() -> Self {
        let spec = issuer_spec();
        let target = Target::new("default", &spec, ACCOUNT);
        let documents = Documents::new(&spec.issuer_url(), &spec.jwks_uri(), &keys());
        let object = |body: &[u8]| Object {
            body: body.to_vec(),
            etag: "\"1\"".into(),
            content_type: CONTENT_TYPE.into(),
            cache_control: CACHE_CONTROL.into(),
        };
        let bucket = Bucket {
            tags: target.tags.clone(),
            owner_enforced: true,
            public_access: OPEN,
            policy: Some(target.bucket_policy().policy().to_string()),
            discovery: Some(object(&documents.discovery)),
            jwks: Some(object(&documents.jwks)),
        };
        let provider = Provider { client_ids: spec.audiences.clone(), tags: target.tags.clone() };
        let now = Instant::now();
        let verification = Verification {
            at: now,
            digest: documents.digest(),
            public: Evidence::Good,
            exchange: Some(Evidence::Good),
        };
        Self {
            deleting: false,
            finalizer: true,
            was_ready: true,
            published: true,
            observed: Observed {
                identity: Ok(identity()),
                api: Ok(ApiServer { issuer: spec.issuer_url(), keys: keys() }),
                aws: Ok(AwsState { bucket: Some(bucket), provider: Some(provider) }),
                dependents: Vec::new(),
            },
            memory: Memory { verification: Some(verification), ..Memory::default() },
            spec,
            now,
        }
    }

    fn bucket(&mut self) -> &mut Bucket {
        self.observed.aws.as_mut().unwrap().bucket.as_mut().unwrap()
    }

    fn evidence(&mut self) -> &mut Verification {
        self.memory.verification.as_mut().unwrap()
    }

    fn plan(&self) -> issuer::decide::Plan {
        let digest = Documents::new(&self.spec.issuer_url(), &self.spec.jwks_uri(), &keys()).digest();
        let subject = Subject {
            name: "default",
            spec: &self.spec,
            generation: 1,
            deleting: self.deleting,
            finalizer: self.finalizer,
            published: self.published.then_some(digest.as_str()),
            was_ready: self.was_ready,
        };
        let started = self.now.checked_sub(Duration::from_hours(1)).unwrap();
        decide(&subject, &self.observed, &self.memory, self.now, started, &Timings::default())
    }
}

fn name(step: &Step) -> String {
    match step {
        Step::AddFinalizer => "hold".into(),
        Step::RemoveFinalizer => "let go".into(),
        Step::Write(write) => write.attribute().into(),
        Step::Verify { exchange, .. } => if *exchange { "exchange" } else { "read" }.into(),
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn from_what_is_seen_to_what_is_done_and_said() {
    type Change = fn(&mut Look);
    let table: &[(&str, Change, &[&str], &str)] = &[
        ("nothing to do", |_| {}, &[], "True Ready"),
        ("new", |l| l.finalizer = false, &["hold"], "True Ready"),
        (
            "nothing in AWS",
            |l| {
                l.observed.aws = Ok(AwsState { bucket: None, provider: None });
                (l.was_ready, l.memory.verification) = (false, None);
            },
            &[
                "bucket",
                "bucket policy",
                "public-access block",
                "bucket policy",
                "JWKS",
                "discovery document",
                "OIDC provider",
            ],
            "False Publishing Reconciling",
        ),
        (
            "the API server is away: nothing is shrunk",
            |l| {
                l.observed.api = Err(ApiProblem("no answer".into()));
                l.bucket().jwks = None;
            },
            &[],
            "True Ready",
        ),
        (
            "the API server is away and there is nothing yet: no provider without documents",
            |l| {
                l.observed.api = Err(ApiProblem("no answer".into()));
                l.observed.aws = Ok(AwsState { bucket: None, provider: None });
                l.was_ready = false;
            },
            &["bucket", "bucket policy", "public-access block", "bucket policy"],
            "False APIServerUnreachable Reconciling",
        ),
        (
            "another issuer, never Ready: published all the same, said at once",
            |l| {
                l.observed.api = Ok(ApiServer { issuer: OTHER.into(), keys: keys() });
                (l.was_ready, l.memory.verification) = (false, None);
            },
            &["read"],
            "False IssuerMismatch Reconciling",
        ),
        (
            "another issuer, for the first time: it may be one restarting API server",
            |l| l.observed.api = Ok(ApiServer { issuer: OTHER.into(), keys: keys() }),
            &[],
            "True Ready",
        ),
        (
            "another issuer and none of the published keys: another cluster, whose keys must not replace those",
            |l| {
                let jwk = json!({"kty": "RSA", "kid": "two", "n": "AQAB", "e": "AQAB"});
                let keys = Keys::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
                l.observed.api = Ok(ApiServer { issuer: OTHER.into(), keys });
                l.was_ready = false;
            },
            &[],
            "False IssuerMismatch Reconciling",
        ),
        (
            "another issuer for two minutes",
            |l| {
                l.observed.api = Ok(ApiServer { issuer: OTHER.into(), keys: keys() });
                l.memory.bad_since = l.now.checked_sub(Duration::from_mins(2));
            },
            &[],
            "False IssuerMismatch Reconciling",
        ),
        (
            "keys changed",
            |l| l.bucket().jwks.as_mut().unwrap().body = b"{}".to_vec(),
            &["JWKS"],
            "True Ready",
        ),
        (
            "cached for too long",
            |l| l.bucket().discovery.as_mut().unwrap().cache_control = "max-age=86400".into(),
            &["discovery document"],
            "True Ready",
        ),
        ("ACLs are on", |l| l.bucket().owner_enforced = false, &["bucket ownership controls"], "True Ready"),
        (
            "no policy: the fence first is not needed while it is open",
            |l| l.bucket().policy = None,
            &["bucket policy"],
            "True Ready",
        ),
        (
            "closed and no policy: the fence first",
            |l| {
                l.bucket().policy = None;
                l.bucket().public_access.block_policy = true;
            },
            &["bucket policy", "public-access block", "bucket policy"],
            "True Ready",
        ),
        (
            "audiences",
            |l| {
                l.observed.aws.as_mut().unwrap().provider.as_mut().unwrap().client_ids = vec!["other".into()];
            },
            &["provider audiences", "provider audiences"],
            "True Ready",
        ),
        ("somebody else's bucket", |l| l.bucket().tags.clear(), &[], "False NotOwned Stalled"),
        (
            "somebody else's provider",
            |l| {
                let tags = &mut l.observed.aws.as_mut().unwrap().provider.as_mut().unwrap().tags;
                tags.insert(names::tag::ISSUER.into(), OTHER.into());
            },
            &[],
            "False NotOwned Stalled",
        ),
        (
            "another account in the bucket's name",
            |l| l.observed.identity = Ok(Identity { account: "999999999999".into(), arn: String::new() }),
            &[],
            "False InvalidSpec Stalled",
        ),
        (
            "AWS throttles what is Ready",
            |l| l.observed.aws = Err(aws_error(Class::Throttled)),
            &[],
            "True Ready",
        ),
        (
            "AWS throttles what is new",
            |l| {
                l.observed.aws = Err(aws_error(Class::Throttled));
                l.was_ready = false;
            },
            &[],
            "False Throttled Reconciling",
        ),
        (
            "no credentials",
            |l| {
                l.observed.identity = Err(aws_error(Class::Credentials));
                l.was_ready = false;
            },
            &[],
            "False CredentialsUnavailable Reconciling",
        ),
        (
            "no credentials, because of the issuer",
            |l| {
                l.observed.identity = Err(aws_error(Class::Credentials));
                l.observed.api = Ok(ApiServer { issuer: OTHER.into(), keys: keys() });
                l.was_ready = false;
            },
            &[],
            "False IssuerMismatch Reconciling",
        ),
        ("not verified since the start", |l| l.memory.verification = None, &["exchange"], "True Ready"),
        ("verified an hour ago", |l| l.now += Duration::from_hours(1), &["exchange"], "True Ready"),
        (
            "verified for other documents",
            |l| l.evidence().digest = "other".into(),
            &["exchange"],
            "True Ready",
        ),
        (
            "refused once",
            |l| {
                l.evidence().exchange = Some(Evidence::Bad(crds::Reason::TokenExchangeFailed, "no".into()));
            },
            &[],
            "True Ready",
        ),
        (
            "refused for two minutes",
            |l| {
                l.evidence().exchange = Some(Evidence::Bad(crds::Reason::TokenExchangeFailed, "no".into()));
                l.memory.bad_since = l.now.checked_sub(Duration::from_mins(2));
            },
            &[],
            "False TokenExchangeFailed Reconciling",
        ),
        (
            "refused right after a write: not yet",
            |l| {
                l.evidence().exchange = Some(Evidence::Bad(crds::Reason::TokenExchangeFailed, "no".into()));
                (l.memory.last_write, l.was_ready) = (Some(l.now), false);
            },
            &[],
            "False Propagating Reconciling",
        ),
        (
            "strangers cannot read, but STS can: STS is the judge",
            |l| l.evidence().public = Evidence::Bad(crds::Reason::NotPublic, "403".into()),
            &[],
            "True Ready",
        ),
        ("deletion", |l| l.deleting = true, &["let go"], "False Deleting Reconciling"),
        (
            "deletion while bindings use it",
            |l| {
                l.deleting = true;
                l.observed.dependents = vec!["vault/vault".into()];
            },
            &[],
            "False DeletionBlocked Reconciling",
        ),
    ];
    for (row, change, steps, said) in table {
        let mut look = Look::good();
        change(&mut look);
        let plan = look.plan();
        let names: Vec<String> = plan.steps.iter().map(name).collect();
        assert_eq!(
            (names, summary(&plan.conditions).as_str()),
            (steps.iter().map(|s| (*s).to_owned()).collect(), *said),
            "{row}"
        );
        let soon = !plan.steps.is_empty() || look.observed.failure().is_some();
        assert_eq!(plan.requeue.is_zero(), soon && !look.deleting, "{row}: looked at again");
    }
}

#[test]
fn what_others_changed_is_drift_and_new_keys_are_news() {
    let mut look = Look::good();
    look.bucket().jwks = None;
    assert!(look.plan().drift);
    look.published = false; // the status knows other documents
    assert!(!look.plan().drift);
    look.published = true;
    look.was_ready = false;
    assert!(!look.plan().drift);
    assert!(!Look::good().plan().drift);
}
