//! `OidcIssuer`.

mod case;
mod deletion;
mod fence;

use crds::{DeletionPolicy, Management, ProviderSettings};

use case::{Case, api, keys, name, other_keys, records, refused, unreachable};
use issuer::Issuer;
use issuer::model::{AwsState, Evidence, Memory, Verification, without_grants};
use operator::api_servers::model::NoAnswer;
use operator::kind::Kind;

use super::*;

/// Two API servers, of which one has a key that is published, and another one, which is out of reach. What this issuer has
/// published has two keys.
fn one_out_of_reach(case: &mut Case) -> ApiServers {
    let mut both = keys();
    both.extend(&other_keys());
    let documents = Documents::new(&case.spec.issuer_url(), &case.spec.jwks_uri(), &both, String::new());
    case.bucket().jwks.as_mut().unwrap().body.clone_from(&documents.jwks);
    case.bucket().discovery.as_mut().unwrap().body.clone_from(&documents.discovery);
    case.evidence().digest = documents.digest();
    case.recorded = records(&both);
    let mut servers = api(&case.spec.issuer_url(), keys());
    servers.endpoints.push(("192.0.2.2:6443".into(), Err(NoAnswer { reached: false, why: "no".into() })));
    servers
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn from_what_is_observed_to_steps_and_conditions() {
    let table: &[Row] = &[
        (
            "nothing to do",
            |_| {},
            &[],
            "True Ready",
            "+Verified +Verified +Verified +Verified +Verified +Verified",
        ),
        (
            "finalizer missing",
            |case| case.finalizer = false,
            &["add finalizer"],
            "True Ready",
            "+Verified +Verified +Verified +Verified +Verified +Verified",
        ),
        (
            "nothing in AWS",
            |case| {
                case.observed.aws = Ok(AwsState { bucket: None, provider: None });
                (case.was_ready, case.memory.verification) = (false, None);
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
            "+Verified -Publishing -Publishing ?NotVerified ?NotVerified ?Publishing",
        ),
        (
            "API server unreachable: no key is removed",
            |case| {
                case.observed.api = Err(unreachable());
                case.bucket().jwks = None;
            },
            &[],
            "True Ready",
            "?APIServerUnreachable -APIServerUnreachable +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "API server unreachable, nothing in AWS: no provider without documents",
            |case| {
                case.observed.api = Err(unreachable());
                case.observed.aws = Ok(AwsState { bucket: None, provider: None });
                case.was_ready = false;
            },
            &["bucket", "bucket policy", "public-access block", "bucket policy"],
            "False APIServerUnreachable Reconciling",
            "?APIServerUnreachable -Publishing -APIServerUnreachable ?NotVerified ?NotVerified ?Publishing",
        ),
        (
            "another issuer, never Ready: published all the same, reported at once",
            |case| {
                case.observed.api = Ok(api(OTHER, keys()));
                (case.was_ready, case.memory.verification) = (false, None);
            },
            &["read"],
            "False IssuerMismatch Reconciling",
            "-IssuerMismatch +Verified +Verified ?NotVerified ?NotVerified ?NotVerified",
        ),
        (
            "another issuer, seen once: one API server may be restarting",
            |case| case.observed.api = Ok(api(OTHER, keys())),
            &[],
            "True Ready",
            "-IssuerMismatch +Verified +Verified +Verified +Verified +Verified",
        ),
        (
            "another issuer and none of the published keys: another cluster, whose keys must not replace those",
            |case| {
                case.observed.api = Ok(api(OTHER, other_keys()));
                case.was_ready = false;
            },
            &[],
            "False ForeignKeys Stalled",
            "-IssuerMismatch -ForeignKeys +Verified ?NotVerified ?NotVerified ?NotVerified",
        ),
        (
            "this issuer, and none of the published keys: a clone of the cluster must not replace them",
            Case::shows_other_keys,
            &[],
            "False ForeignKeys Stalled",
            "+Verified -ForeignKeys +Verified ?NotVerified ?NotVerified ?NotVerified",
        ),
        (
            "the same, and this process has published the former ones: all signing keys were replaced",
            |case| {
                case.shows_other_keys();
                case.memory.publishes = true;
                case.memory.spec = Some(without_grants(&case.spec));
            },
            &["JWKS"],
            "False Publishing Reconciling",
            "+Verified -Publishing +Verified ?NotVerified ?NotVerified ?NotVerified",
        ),
        (
            "the same, and it was published for another specification",
            |case| {
                case.shows_other_keys();
                case.memory.publishes = true;
                let former = OidcIssuerSpec { cluster_name: "former".into(), ..case.spec.clone() };
                case.memory.spec = Some(without_grants(&former));
            },
            &[],
            "False ForeignKeys Stalled",
            "+Verified -ForeignKeys +Verified ?NotVerified ?NotVerified ?NotVerified",
        ),
        (
            "none of the published keys, seen once: one API server may be starting",
            |case| case.observed.api = Ok(api(&case.spec.issuer_url(), other_keys())),
            &[],
            "True Ready",
            "+Verified -ForeignKeys +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "this issuer, and keys that it never published: somebody replaced them, and they are put back",
            |case| {
                let jwk = json!({"kty": "RSA", "kid": "forged", "n": "AQAB", "e": "AQAB"});
                case.bucket().jwks.as_mut().unwrap().body = json!({"keys": [jwk]}).to_string().into_bytes();
            },
            &["JWKS"],
            "True Ready",
            "+Verified -Publishing +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "another issuer for two minutes, and none of the published keys",
            |case| {
                case.observed.api = Ok(api(OTHER, other_keys()));
                case.memory.bad_since = case.clock.instant.checked_sub(Duration::from_mins(2));
            },
            &[],
            "False ForeignKeys Stalled",
            "-IssuerMismatch -ForeignKeys +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "another issuer for two minutes",
            |case| {
                case.observed.api = Ok(api(OTHER, keys()));
                case.memory.bad_since = case.clock.instant.checked_sub(Duration::from_mins(2));
            },
            &[],
            "False IssuerMismatch Reconciling",
            "-IssuerMismatch +Verified +Verified +Verified +Verified +Verified",
        ),
        (
            "keys changed",
            |case| case.bucket().jwks.as_mut().unwrap().body = b"{}".to_vec(),
            &["JWKS"],
            "True Ready",
            "+Verified -Publishing +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "cached for too long",
            |case| case.bucket().discovery.as_mut().unwrap().cache_control = "max-age=86400".into(),
            &["discovery document"],
            "True Ready",
            "+Verified -Publishing +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "encrypted by a key of KMS: unreadable for everybody",
            |case| case.bucket().jwks.as_mut().unwrap().encrypted_by_key = true,
            &["JWKS"],
            "True Ready",
            "+Verified -Publishing +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "ACLs are on",
            |case| case.bucket().owner_enforced = false,
            &["bucket ownership controls"],
            "True Ready",
            "+Verified -Publishing +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "no policy while public policies are allowed: the full policy at once",
            |case| case.bucket().policy = None,
            &["bucket policy"],
            "True Ready",
            "+Verified -Publishing +Verified =NotVerified =NotVerified ?Publishing",
        ),
        (
            "no policy while public policies are blocked: the deny policy first",
            |case| {
                case.bucket().policy = None;
                case.bucket().public_access.block_policy = true;
            },
            &["bucket policy", "public-access block", "bucket policy"],
            "True Ready",
            "+Verified -Publishing +Verified =NotVerified =NotVerified ?Publishing",
        ),
        (
            "audiences",
            |case| {
                case.observed.aws.as_mut().unwrap().provider.as_mut().unwrap().client_ids =
                    vec!["other".into()];
            },
            &["provider audiences", "provider audiences"],
            "True Ready",
            "+Verified +Verified -Publishing =NotVerified =NotVerified =NotVerified",
        ),
        (
            "somebody else's bucket",
            |case| case.bucket().tags.clear(),
            &[],
            "False NotOwned Stalled",
            "+Verified -NotOwned +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "somebody else's provider",
            |case| {
                let tags = &mut case.observed.aws.as_mut().unwrap().provider.as_mut().unwrap().tags;
                tags.insert(names::tag::ISSUER.into(), OTHER.into());
            },
            &[],
            "False NotOwned Stalled",
            "+Verified +Verified -NotOwned +Verified +Verified +Verified",
        ),
        (
            "another account in the bucket's name",
            |case| case.account = Ok("999999999999"),
            &[],
            "False InvalidSpec Stalled",
            "+Verified -InvalidSpec +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "AWS throttles what is Ready",
            |case| case.observed.aws = Err(aws_error(Class::Throttled)),
            &[],
            "True Ready",
            "+Verified =Throttled =Throttled =NotVerified =NotVerified =NotVerified AWSReachable-Throttled",
        ),
        (
            "AWS throttles what is new",
            |case| {
                case.observed.aws = Err(aws_error(Class::Throttled));
                case.was_ready = false;
            },
            &[],
            "False Throttled Reconciling",
            "+Verified ?Throttled ?Throttled ?NotVerified ?NotVerified ?NotVerified AWSReachable-Throttled",
        ),
        (
            "no credentials",
            |case| {
                case.account = Err(aws_error(Class::Credentials));
                case.observed.aws = Err(aws_error(Class::Credentials));
                case.was_ready = false;
            },
            &[],
            "False CredentialsUnavailable Reconciling",
            "+Verified ?CredentialsUnavailable ?CredentialsUnavailable ?NotVerified ?NotVerified ?NotVerified AWSReachable-CredentialsUnavailable",
        ),
        (
            "no credentials, because of the issuer",
            |case| {
                case.account = Err(aws_error(Class::Credentials));
                case.observed.aws = Err(aws_error(Class::Credentials));
                case.observed.api = Ok(api(OTHER, keys()));
                case.was_ready = false;
            },
            &[],
            "False IssuerMismatch Reconciling",
            "-IssuerMismatch ?CredentialsUnavailable ?CredentialsUnavailable ?NotVerified ?NotVerified ?NotVerified AWSReachable-CredentialsUnavailable",
        ),
        (
            "not verified since the start",
            |case| case.memory.verification = None,
            &["exchange"],
            "True Ready",
            "+Verified +Verified +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "verified an hour ago",
            |case| case.clock.instant += Duration::from_hours(1),
            &["exchange"],
            "True Ready",
            "+Verified +Verified +Verified +Verified +Verified +Verified",
        ),
        (
            "verified for other documents",
            |case| case.evidence().digest = "other".into(),
            &["exchange"],
            "True Ready",
            "+Verified +Verified +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "one API server is out of reach for less than ten minutes, and a key is missing: it may be restarting",
            |case| {
                case.observed.api = Ok(one_out_of_reach(case));
                case.memory.out_of_reach_since = case.clock.instant.checked_sub(Duration::from_mins(9));
            },
            &[],
            "True Ready",
            "+Verified +Verified +Verified +Verified +Verified +Verified",
        ),
        (
            "one API server is out of reach for ten minutes: the key is retired, with its time stored in the bucket",
            |case| {
                case.observed.api = Ok(one_out_of_reach(case));
                case.memory.out_of_reach_since = case.clock.instant.checked_sub(Duration::from_mins(10));
            },
            &["JWKS"],
            "True Ready",
            "+Verified -Publishing +Verified =NotVerified =NotVerified =NotVerified",
        ),
        (
            "the API server accepts tokens that are made for AWS: a warning",
            |case| case.evidence().api_audiences.push("sts.amazonaws.com".into()),
            &[],
            "True Ready",
            "+Verified +Verified +Verified +Verified +Verified +Verified AudiencesSeparate-AudienceOfAPIServer",
        ),
        (
            "refused once",
            |case| {
                case.evidence().exchange = Some(refused());
            },
            &[],
            "True Ready",
            "+Verified +Verified +Verified +Verified -TokenExchangeFailed +Verified",
        ),
        (
            "refused for two minutes",
            |case| {
                case.evidence().exchange = Some(refused());
                case.memory.bad_since = case.clock.instant.checked_sub(Duration::from_mins(2));
            },
            &[],
            "False TokenExchangeFailed Reconciling",
            "+Verified +Verified +Verified +Verified -TokenExchangeFailed +Verified",
        ),
        (
            "refused right after a write: not yet",
            |case| {
                case.evidence().exchange = Some(refused());
                (case.memory.last_write, case.was_ready) = (Some(case.clock.instant), false);
            },
            &[],
            "False Propagating Reconciling",
            "+Verified +Verified +Verified +Verified -Propagating +Verified",
        ),
        (
            "anonymous readers cannot read, but STS can: STS decides",
            |case| case.evidence().public = Evidence::Bad(Finding::new(Reason::NotPublic, "403")),
            &[],
            "True Ready",
            "+Verified +Verified +Verified -NotPublic +Verified +Verified",
        ),
        (
            "a duplicate changes nothing, whatever there is to do",
            |case| {
                case.untouched = Some(Finding::new(Reason::DuplicateIssuer, "older"));
                case.bucket().policy = None;
                case.memory.verification = None;
            },
            &[],
            "False DuplicateIssuer Stalled",
            "?DuplicateIssuer ?DuplicateIssuer ?DuplicateIssuer ?DuplicateIssuer ?DuplicateIssuer ?DuplicateIssuer",
        ),
        (
            "deletion",
            |case| case.deleting = true,
            &["remove finalizer"],
            "False Deleting Reconciling",
            "+Verified +Verified +Verified +Verified +Verified +Verified",
        ),
        (
            "deletion while bindings use it",
            |case| {
                case.deleting = true;
                case.observed.dependents = vec!["vault/vault".into()];
            },
            &[],
            "False DeletionBlocked Reconciling",
            "+Verified +Verified +Verified +Verified +Verified +Verified",
        ),
        (
            "deletion while bindings use it: what is published is kept as specified",
            |case| {
                case.deleting = true;
                case.observed.dependents = vec!["vault/vault".into()];
                case.bucket().policy = None;
                case.bucket().jwks.as_mut().unwrap().body = b"{}".to_vec();
                case.observed.aws.as_mut().unwrap().provider = None;
            },
            &["bucket policy", "JWKS", "OIDC provider"],
            "False DeletionBlocked Reconciling",
            "+Verified -Publishing -Publishing ?NotVerified ?NotVerified ?Publishing",
        ),
    ];
    for row in table {
        let (name, case, plan) = planned(row);
        let next = match (plan.steps.is_empty(), case.observed.failed_read()) {
            _ if case.untouched.is_some() => Next::At(Duration::from_mins(1)),
            _ if case.deleting && case.observed.dependents.is_empty() => Next::At(Duration::from_mins(1)),
            (false, _) => Next::LookAgain,
            (true, Some("credentials")) => Next::At(Duration::from_secs(10)),
            (true, Some(_)) => Next::BackOff,
            // "Not yet" is tried again after a time that grows.
            (true, None) if name == "refused right after a write: not yet" => {
                Next::At(Duration::from_secs(2))
            }
            // The next poll of the API servers.
            (true, None) => Next::At(Duration::from_mins(1)),
        };
        assert_eq!(plan.next, next, "{name}");
    }
}

/// Its name, what it changes, the steps, Ready with its reason, and the other conditions.
type Row = (&'static str, fn(&mut Case), &'static [&'static str], &'static str, &'static str);

/// The plan of a row, of which everything but the time of the next pass is compared.
fn planned((row, change, steps, ready, others): &Row) -> (&'static str, Case, issuer::model::Plan) {
    let mut case = Case::good();
    change(&mut case);
    let plan = case.plan();
    let names: Vec<String> = plan.steps.iter().map(name).collect();
    let all = [
        C::IssuerMatches,
        C::Published,
        C::ProviderRegistered,
        C::PubliclyReachable,
        C::TokenExchangeVerified,
        C::BucketFenced,
    ];
    assert_eq!(types(&plan.conditions), all, "{row}");
    assert_eq!(names, *steps, "{row}");
    assert_eq!(
        (summary(&plan.conditions).as_str(), verdicts(&plan.conditions).as_str()),
        (*ready, *others),
        "{row}"
    );
    (row, case, plan)
}

#[test]
fn changes_by_others_are_drift_and_new_keys_are_not() {
    let mut case = Case::good();
    case.bucket().jwks = None;
    assert!(case.plan().drift);
    case.published = false; // the status knows other documents
    assert!(!case.plan().drift);
    case.published = true;
    case.was_ready = false;
    assert!(!case.plan().drift);
    assert!(!Case::good().plan().drift);
}

/// Only what was read anonymously proves that the published keys are of this cluster. A pass that timed out does not take that back.
#[test]
fn documents_that_were_read_prove_whose_the_published_keys_are() {
    let good = Case::good().memory.verification.unwrap();
    let refused = Finding::new(Reason::NotVerified, "");
    for (public, proves) in
        [(Evidence::Good, true), (Evidence::Bad(refused.clone()), false), (Evidence::Unclear(refused), false)]
    {
        let mut memory = Memory::default();
        Issuer::shown(&mut memory, Verification { public, ..good.clone() }, &clock());
        Issuer::timed_out(&mut memory);
        assert_eq!(memory.publishes, proves);
    }
}
