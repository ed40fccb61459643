//! The plans of both kinds as tables: from what was observed to what is done and said. No cluster, no AWS.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crds::condition::{ConditionType as C, Wanted};
use crds::names::{self, annotation};
use crds::{OidcIssuerSpec, PodIdentityBindingSpec};
use operator::aws::iam::{Provider, Role};
use operator::aws::s3::{CACHE_CONTROL, CONTENT_TYPE, Object};
use operator::aws::{AwsError, Class, Identity};
use operator::oidc::{Documents, Keys};
use operator::timings::Timings;
use operator::{binding, issuer};
use serde_json::json;

use crate::world::{ACCOUNT, QUEUE, STORAGE};

const OTHER: &str = "https://kubernetes.default.svc.cluster.local";

fn identity() -> Identity {
    Identity { account: ACCOUNT.into(), arn: format!("arn:aws:iam::{ACCOUNT}:user/test") }
}

fn aws_error(class: Class) -> AwsError {
    let text = || "test".to_owned();
    AwsError {
        class,
        operation: "iam:GetRole",
        resource: text(),
        code: text(),
        message: text(),
        detail: text(),
    }
}

fn issuer_spec() -> OidcIssuerSpec {
    serde_json::from_value(json!({
        "clusterName": "homelab",
        "s3": {"bucket": "oidc-111122223333-eu-central-1-an", "region": "eu-central-1"},
        "grants": [{"namespaces": {"names": ["vault"]}, "policyArns": [STORAGE, QUEUE]}],
    }))
    .unwrap()
}

/// Ready's status and reason, and the companion beside it.
fn summary(conditions: &[Wanted]) -> String {
    let of = |type_: C| conditions.iter().find(|w| w.type_ == type_);
    let ready = of(C::Ready).unwrap();
    let status = if ready.status == Some(true) { "True" } else { "False" };
    let companion = [C::Reconciling, C::Stalled].into_iter().find(|t| of(*t).is_some()).map_or("", C::as_str);
    format!("{status} {} {companion}", ready.reason.as_str()).trim().to_owned()
}

mod issuers {
    use issuer::decide::{Step, Subject, decide};
    use issuer::observe::{
        ApiProblem, ApiServer, AwsState, Bucket, Evidence, Memory, Observed, Verification,
    };
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
            (
                "ACLs are on",
                |l| l.bucket().owner_enforced = false,
                &["bucket ownership controls"],
                "True Ready",
            ),
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
                    l.observed.aws.as_mut().unwrap().provider.as_mut().unwrap().client_ids =
                        vec!["other".into()];
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
                    l.evidence().exchange =
                        Some(Evidence::Bad(crds::Reason::TokenExchangeFailed, "no".into()));
                },
                &[],
                "True Ready",
            ),
            (
                "refused for two minutes",
                |l| {
                    l.evidence().exchange =
                        Some(Evidence::Bad(crds::Reason::TokenExchangeFailed, "no".into()));
                    l.memory.bad_since = l.now.checked_sub(Duration::from_mins(2));
                },
                &[],
                "False TokenExchangeFailed Reconciling",
            ),
            (
                "refused right after a write: not yet",
                |l| {
                    l.evidence().exchange =
                        Some(Evidence::Bad(crds::Reason::TokenExchangeFailed, "no".into()));
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
            assert_eq!(
                plan.requeue.is_zero(),
                !plan.steps.is_empty() && !look.deleting,
                "{row}: looked at again"
            );
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
}

mod bindings {
    use binding::decide::{Due, Holder, Issuer, Step, Subject, decide, due};
    use binding::observe::{Account, Memory, Observed, Policies, RoleState};

    use super::*;

    #[allow(clippy::struct_excessive_bools, reason = "each is what a row may change")]
    struct Look {
        issuer: Option<OidcIssuerSpec>,
        issuer_deleting: bool,
        spec: PodIdentityBindingSpec,
        namespace: &'static str,
        generation: i64,
        age: Duration,
        deleting: bool,
        finalizer: bool,
        was_ready: bool,
        holder: Option<Holder>,
        observed: Observed,
        memory: Memory,
    }

    impl Look {
        fn subject(&self) -> Subject<'_> {
            Subject {
                namespace: self.namespace,
                name: "vault",
                spec: &self.spec,
                generation: self.generation,
                age: self.age,
                deleting: self.deleting,
                finalizer: self.finalizer,
                was_ready: self.was_ready,
                issuer: self.issuer.as_ref().map(|spec| Issuer {
                    name: "default",
                    spec,
                    deleting: self.issuer_deleting,
                }),
                holder: self.holder.clone(),
                operator_namespace: "podidentity-system",
            }
        }

        /// Ready, and nothing to do.
        fn good() -> Self {
            let spec = serde_json::from_value(
                json!({"serviceAccountName": "vault", "role": {"policyArns": [STORAGE]}}),
            );
            let mut look = Self {
                issuer: Some(issuer_spec()),
                issuer_deleting: false,
                spec: spec.unwrap(),
                namespace: "vault",
                generation: 1,
                age: Duration::from_hours(1),
                deleting: false,
                finalizer: true,
                was_ready: true,
                holder: None,
                observed: Observed { identity: Ok(identity()), role: Ok(None), account: None },
                memory: Memory::default(),
            };
            let plan = look.plan();
            let Some(Step::CreateRole(new)) = plan.steps.first() else { panic!("{plan:?}") };
            let arn = names::role_arn("aws", ACCOUNT, "homelab", "vault", "vault");
            let role = Role {
                arn: arn.clone(),
                trust: new.trust.clone(),
                boundary: new.boundary.clone(),
                tags: new.tags.clone(),
            };
            let policies = Policies { attached: vec![STORAGE.into()], inline: Vec::new() };
            look.observed.role = Ok(Some(RoleState::Found(role, Some(policies))));
            let annotations = BTreeMap::from([
                (annotation::ROLE_ARN.to_owned(), arn),
                (annotation::STS_REGIONAL_ENDPOINTS.to_owned(), "true".to_owned()),
            ]);
            look.observed.account = Some(Account {
                uid: "1".into(),
                version: "1".into(),
                ours: annotations.keys().cloned().collect(),
                annotations,
            });
            look
        }

        fn plan(&self) -> binding::decide::Plan {
            decide(&self.subject(), &self.observed, &self.memory, &Timings::default())
        }

        fn role(&mut self) -> &mut Role {
            match &mut self.observed.role {
                Ok(Some(RoleState::Found(role, _))) => role,
                other => panic!("{other:?}"),
            }
        }

        fn policies(&mut self) -> &mut Policies {
            match &mut self.observed.role {
                Ok(Some(RoleState::Found(_, Some(policies)))) => policies,
                other => panic!("{other:?}"),
            }
        }

        fn wants(&mut self, policies: &[&str]) {
            let role = self.spec.role.as_mut().unwrap();
            role.policy_arns = policies.iter().map(|p| (*p).to_owned()).collect();
        }
    }

    fn name(step: &Step) -> String {
        let last = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_owned();
        match step {
            Step::AddFinalizer => "hold".into(),
            Step::RemoveFinalizer => "let go".into(),
            Step::CreateRole(_) => "create".into(),
            Step::PutTrust(document) => {
                format!("trust {}", document["Statement"][0]["Effect"].as_str().unwrap())
            }
            Step::PutBoundary(_) => "boundary".into(),
            Step::Attach(arn) => format!("attach {}", last(arn)),
            Step::Detach(arn) => format!("detach {}", last(arn)),
            Step::DeleteInline(name) => format!("remove {name}"),
            Step::DeleteRole => "delete".into(),
            Step::Annotate { annotations, .. } => format!("annotate {}", annotations.len()),
        }
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn from_what_is_seen_to_what_is_done_and_said() {
        type Change = fn(&mut Look);
        let table: &[(&str, Change, &[&str], &str)] = &[
            ("nothing to do", |_| {}, &[], "True Ready"),
            (
                "new: the call that makes it is the question whether it is there",
                |l| {
                    (l.finalizer, l.was_ready) = (false, false);
                    l.observed.role = Ok(None);
                    l.observed.account.as_mut().unwrap().annotations.clear();
                },
                &["hold", "create", "attach storage", "annotate 2"],
                "False Progressing Reconciling",
            ),
            (
                "gone",
                |l| l.observed.role = Ok(Some(RoleState::Missing)),
                &["create", "attach storage"],
                "False Progressing Reconciling",
            ),
            ("trust", |l| l.role().trust = "{}".into(), &["trust Allow"], "False Progressing Reconciling"),
            (
                "boundary before trust",
                |l| {
                    l.role().boundary = None;
                    l.role().trust = "{}".into();
                },
                &["boundary", "trust Allow"],
                "False Progressing Reconciling",
            ),
            (
                "attach before detach",
                |l| l.wants(&[QUEUE]),
                &["attach queue", "detach storage"],
                "False Progressing Reconciling",
            ),
            (
                "detach before attach where the quota asks for it",
                |l| {
                    l.policies().attached =
                        (0..10).map(|n| format!("arn:aws:iam::{ACCOUNT}:policy/p{n}")).collect();
                },
                &[
                    "detach p0",
                    "detach p1",
                    "detach p2",
                    "detach p3",
                    "detach p4",
                    "detach p5",
                    "detach p6",
                    "detach p7",
                    "detach p8",
                    "detach p9",
                    "attach storage",
                ],
                "False Progressing Reconciling",
            ),
            (
                "named twice, attached once",
                |l| {
                    l.wants(&[QUEUE, QUEUE]);
                    l.policies().attached.clear();
                },
                &["attach queue"],
                "False Progressing Reconciling",
            ),
            (
                "inline",
                |l| l.policies().inline.push("backdoor".into()),
                &["remove backdoor"],
                "False Progressing Reconciling",
            ),
            ("somebody else's", |l| l.role().tags.clear(), &[], "False NotOwned Stalled"),
            (
                "of another cluster with this name",
                |l| {
                    l.role().tags.insert(names::tag::ISSUER.into(), OTHER.into());
                },
                &[],
                "False NotOwned Stalled",
            ),
            ("no issuer", |l| l.issuer = None, &[], "False DependencyNotReady Reconciling"),
            (
                "the issuer goes, and this one is new",
                |l| {
                    (l.issuer_deleting, l.finalizer) = (true, false);
                },
                &[],
                "False DependencyNotReady Reconciling",
            ),
            ("the issuer goes, and this one stands", |l| l.issuer_deleting = true, &[], "True Ready"),
            (
                "an audience nobody registered",
                |l| l.spec.audience = Some("other".into()),
                &[],
                "False InvalidSpec Stalled",
            ),
            (
                "no grant, and new",
                |l| {
                    l.issuer.as_mut().unwrap().grants.clear();
                    (l.finalizer, l.age) = (false, Duration::ZERO);
                },
                &[],
                "False WaitingForGrant Reconciling",
            ),
            (
                "no grant for two minutes",
                |l| {
                    l.issuer.as_mut().unwrap().grants.clear();
                    (l.finalizer, l.age) = (false, Duration::from_mins(2));
                },
                &[],
                "False NotGranted Stalled",
            ),
            (
                "a grant that is taken away freezes the role",
                |l| {
                    l.issuer.as_mut().unwrap().grants.clear();
                    l.role().trust = "{}".into();
                },
                &[],
                "False NotGranted Stalled",
            ),
            (
                "held by another, for a moment",
                |l| {
                    l.holder = Some(Holder { name: "older".into(), deleting: false });
                    l.age = Duration::ZERO;
                },
                &[],
                "False ServiceAccountAlreadyBound Reconciling",
            ),
            (
                "held by another",
                |l| l.holder = Some(Holder { name: "older".into(), deleting: false }),
                &[],
                "False ServiceAccountAlreadyBound Stalled",
            ),
            (
                "held by another on its way out",
                |l| l.holder = Some(Holder { name: "older".into(), deleting: true }),
                &[],
                "False ServiceAccountAlreadyBound Reconciling",
            ),
            (
                "the operator's own",
                |l| {
                    l.namespace = "podidentity-system";
                    l.spec.service_account_name = "podidentity-operator".into();
                },
                &[],
                "False ReservedServiceAccount Stalled",
            ),
            ("AWS is away", |l| l.observed.role = Err(aws_error(Class::Transient)), &[], "True Ready"),
            (
                "AWS is away, and this one is new",
                |l| {
                    l.observed.role = Err(aws_error(Class::Transient));
                    l.was_ready = false;
                },
                &[],
                "False AWSUnavailable Reconciling",
            ),
            (
                "denied",
                |l| {
                    l.observed.role = Err(aws_error(Class::Denied));
                    l.was_ready = false;
                },
                &[],
                "False OperatorPermissionMissing Reconciling",
            ),
            ("no ServiceAccount", |l| l.observed.account = None, &[], "True Ready"),
            (
                "another role in the annotation",
                |l| {
                    l.observed
                        .account
                        .as_mut()
                        .unwrap()
                        .annotations
                        .insert(annotation::ROLE_ARN.into(), "x".into());
                },
                &["annotate 2"],
                "True Ready",
            ),
            (
                "somebody else owns the annotation: not tried again on this version",
                |l| {
                    let account = l.observed.account.as_mut().unwrap();
                    account.annotations.insert(annotation::ROLE_ARN.into(), "x".into());
                    (l.memory.conflict, l.memory.generation) = (Some(("1".into(), "argocd".into())), 1);
                },
                &[],
                "True Ready",
            ),
            (
                "made elsewhere",
                |l| {
                    (l.spec.role, l.spec.role_arn) = (None, Some("arn:aws:iam::999999999999:role/x".into()));
                    l.observed.role = Ok(None);
                },
                &["annotate 2"],
                "True Ready",
            ),
            (
                "made elsewhere, after a role of its own",
                |l| {
                    (l.spec.role, l.spec.role_arn) = (None, Some("arn:aws:iam::999999999999:role/x".into()));
                    l.generation = 2;
                },
                &["trust Deny", "detach storage", "delete", "annotate 2"],
                "True Ready",
            ),
            (
                "deletion: the door first, the finalizer last",
                |l| l.deleting = true,
                &["trust Deny", "annotate 0", "detach storage", "delete", "let go"],
                "False Deleting Reconciling",
            ),
            (
                "deletion: the operator may only touch bounded roles",
                |l| {
                    l.deleting = true;
                    l.role().boundary = None;
                },
                &["trust Deny", "boundary", "annotate 0", "detach storage", "delete", "let go"],
                "False Deleting Reconciling",
            ),
            (
                "deletion: nothing was made",
                |l| {
                    (l.deleting, l.finalizer) = (true, false);
                },
                &[],
                "False Deleting Reconciling",
            ),
            (
                "deletion: already gone",
                |l| {
                    l.deleting = true;
                    l.observed.role = Ok(Some(RoleState::Missing));
                },
                &["annotate 0", "let go"],
                "False Deleting Reconciling",
            ),
            (
                "deletion: somebody else's role stays",
                |l| {
                    l.deleting = true;
                    l.role().tags.clear();
                },
                &["annotate 0", "let go"],
                "False Deleting Reconciling",
            ),
            (
                "deletion: AWS is away",
                |l| {
                    l.deleting = true;
                    l.observed.role = Err(aws_error(Class::Transient));
                },
                &[],
                "False DeletionBlocked Reconciling",
            ),
            (
                "deletion: without its issuer nobody knows whose role that is",
                |l| {
                    (l.deleting, l.issuer) = (true, None);
                    l.observed.role = Ok(None);
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
        }
    }

    #[test]
    fn aws_is_read_when_there_is_a_reason() {
        type Change = fn(&mut Look);
        let both = Due { role: true, policies: true };
        let now = Instant::now();
        let fresh = |look: &mut Look, age: Duration| {
            let at = now.checked_sub(age).unwrap();
            look.memory.generation = look.generation;
            look.memory.role = Some((None, at));
            look.memory.policies = Some((Policies::default(), at));
        };
        let table: &[(&str, Change, u64, Due)] = &[
            ("read a minute ago", |_| {}, 60, Due::default()),
            ("read ten minutes ago", |_| {}, 600, both),
            ("edited", |l| l.generation = 2, 60, both),
            ("about to be destroyed", |l| (l.deleting, l.generation) = (true, 2), 60, both),
            (
                "its policies were changed",
                |l| l.memory.policies = None,
                60,
                Due { role: false, policies: true },
            ),
            ("nobody has acted on it", |l| l.finalizer = false, 600, Due::default()),
            ("made elsewhere from the first day", |l| l.spec.role = None, 600, Due::default()),
            (
                "made elsewhere from the first day, and deleted",
                |l| {
                    l.spec.role = None;
                    (l.deleting, l.generation) = (true, 2);
                },
                600,
                Due::default(),
            ),
            (
                "made elsewhere since an edit",
                |l| {
                    l.spec.role = None;
                    l.generation = 2;
                },
                60,
                both,
            ),
        ];
        for (row, change, age, expected) in table {
            let mut look = Look::good();
            fresh(&mut look, Duration::from_secs(*age));
            change(&mut look);
            assert_eq!(due(&look.subject(), &look.memory, now, &Timings::default()), *expected, "{row}");
        }
    }
}
