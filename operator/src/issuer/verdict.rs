//! PURE: the conditions of an issuer, each decided by itself from what was observed. All of them are always present, except
//! `AudiencesSeparate` and `AWSReachable`, which are present only when False.

use crds::condition::{ConditionType as C, Summary, Wanted};
use crds::names::DOCS;
use crds::{Finding, Reason};

use super::model::{Evidence, Fence, Observed, Verification, View};
use super::publication::{Publication, bucket};
use crate::api_servers::model::{ApiServers, NoAnswer};
use crate::aws::error::{AwsError, Class};
use crate::change::{Change, attributes};

/// What the conditions are decided from.
pub struct Case<'a> {
    /// The issuer.
    pub view: &'a View,
    /// What was seen.
    pub observed: &'a Observed,
    /// That the API server issues under another URL.
    pub mismatch: Option<&'a Finding>,
    /// That the published keys are of another API server.
    pub foreign: Option<&'a Finding>,
    /// What has to be changed in AWS.
    pub publication: Result<&'a Publication, &'a AwsError>,
    /// What a person should know of the keys.
    pub notes: &'a [String],
    /// Whether the documents are known, and all in AWS is as specified.
    pub published: bool,
    /// The last verification, if it was made for the published documents.
    pub verification: Option<&'a Verification>,
    /// The last verification, whatever it was made for.
    pub last_verification: Option<&'a Verification>,
    /// Whether "not yet" is an answer: AWS may not have seen the last write everywhere.
    pub window_open: bool,
    /// Whether the last verification was made while that was so.
    pub early: bool,
    /// Evidence that takes Ready back.
    pub against: Option<&'a Finding>,
}

/// One condition from what was observed.
type Verdict = fn(&Case<'_>) -> Wanted;

/// Every condition beside the summary, in the order of the status.
const VERDICTS: [(C, Verdict); 6] = [
    (C::IssuerMatches, issuer_matches),
    (C::Published, published),
    (C::ProviderRegistered, provider_registered),
    (C::PubliclyReachable, publicly_reachable),
    (C::TokenExchangeVerified, token_exchange_verified),
    (C::BucketFenced, bucket_fenced),
];

/// The summary and all conditions.
#[must_use]
pub fn conditions(case: &Case<'_>, summary: &Summary) -> Vec<Wanted> {
    let mut conditions = summary.conditions();
    conditions.extend(VERDICTS.map(|(_, verdict)| verdict(case)));
    conditions.extend(audiences_shared(case));
    conditions.extend(case.publication.err().and_then(aws_unreachable));
    conditions
}

/// The summary, and all conditions as not known.
#[must_use]
pub fn unknown(summary: &Summary, why: &Finding) -> Vec<Wanted> {
    let mut conditions = summary.conditions();
    conditions.extend(VERDICTS.map(|(type_, _)| Wanted::unknown(type_, why.clone())));
    conditions
}

/// The first thing that only a person can change, or else the first that is missing.
#[must_use]
pub fn summary(case: &Case<'_>) -> Summary {
    let was_ready = case.view.object.was_ready;
    let candidates = [
        // Before the flags: with them, nothing of this cluster would work.
        case.foreign.filter(|_| !was_ready || case.against.is_some()).cloned().map(Summary::Stalled),
        // The cause of whatever else does not work yet, the operator's own credentials among it.
        case.mismatch.filter(|_| !was_ready).map(waiting),
        case.observed.api.as_ref().err().map(waiting),
        // Of what is Ready, a refusal of the operator's own token counts once it has lasted: see `against`.
        case.publication.err().filter(|error| !(was_ready && error.class == Class::LockedOut)).map(failure),
        case.publication.ok().and_then(refused),
        case.publication.ok().and_then(to_be_written),
        unverified(case),
        case.against.map(waiting),
    ];
    let mut candidates = candidates.into_iter().flatten();
    let first = candidates.next().unwrap_or_else(ready);
    let stalled = |summary: &Summary| matches!(summary, Summary::Stalled(_));
    let summary = if stalled(&first) { first } else { candidates.find(stalled).unwrap_or(first) };
    settled(summary, was_ready)
}

/// What was Ready stays Ready through everything that passes by itself.
#[must_use]
pub fn settled(summary: Summary, was_ready: bool) -> Summary {
    let takes_back = |reason| {
        matches!(reason, Reason::IssuerMismatch | Reason::TokenExchangeFailed | Reason::OperatorLockedOut)
    };
    match summary {
        Summary::Reconciling(finding) if was_ready && !takes_back(finding.reason) => ready(),
        other => other,
    }
}

fn ready() -> Summary {
    Summary::ready("a token of this cluster was exchanged for AWS credentials")
}

fn waiting(finding: &Finding) -> Summary {
    Summary::Reconciling(finding.clone())
}

/// What a failed call of AWS means.
#[must_use]
pub fn failure(error: &AwsError) -> Summary {
    if error.class.stalls() {
        Summary::Stalled(error.finding())
    } else {
        Summary::Reconciling(error.finding())
    }
}

fn refused(publication: &Publication) -> Option<Summary> {
    publication.refusal().cloned().map(Summary::Stalled)
}

fn to_be_written(publication: &Publication) -> Option<Summary> {
    let [bucket, provider] = [&publication.bucket, &publication.provider].map(|part| part.as_ref().ok());
    let first = bucket.into_iter().chain(provider).find(|changes| !changes.is_empty())?;
    Some(Summary::Reconciling(publishing(first)))
}

fn publishing(changes: &[Change]) -> Finding {
    Finding::new(Reason::Publishing, format!("to be written: {}", attributes(changes)))
}

fn unverified(case: &Case<'_>) -> Option<Summary> {
    let not_verified = |message: &str| Some(Summary::Reconciling(Finding::new(Reason::NotVerified, message)));
    let was_ready = case.view.object.was_ready;
    let Some(Verification { exchange, .. }) = case.verification.filter(|_| case.published) else {
        // What was verified stays so while there is nothing to verify: it must not hide evidence against the issuer.
        return if was_ready && !case.published {
            None
        } else {
            not_verified("publication has not been verified yet")
        };
    };
    match exchange {
        None if case.mismatch.is_none() => not_verified("the token exchange has not been tried yet"),
        Some(Evidence::Bad(finding)) if case.window_open => Some(Summary::Reconciling(not_yet(finding))),
        Some(Evidence::Unclear(finding)) => Some(waiting(finding)),
        None | Some(Evidence::Good | Evidence::Bad(_)) => None,
    }
}

fn not_yet(finding: &Finding) -> Finding {
    Finding::new(Reason::Propagating, format!("not yet: {}", finding.message))
}

/// Definite evidence of a verification against the issuer.
#[must_use]
pub fn definite(verification: Option<&Verification>, window_open: bool) -> Option<Finding> {
    match &verification?.exchange {
        Some(Evidence::Bad(finding)) if !window_open => Some(finding.clone()),
        _ => None,
    }
}

/// That STS refuses the operator's own token, and so probably those of pods.
#[must_use]
pub fn locked_out(observed: &Observed) -> Option<Finding> {
    let error = observed.aws.as_ref().err()?;
    (error.class == Class::LockedOut).then(|| error.finding())
}

/// That API servers issue under another URL, with the exact flag, since this is where most people stop.
#[must_use]
pub fn mismatch(view: &View, observed: &Observed) -> Option<Finding> {
    let (api, wanted) = (observed.api.as_ref().ok()?, view.spec().issuer_url());
    let found = &api.answers().find(|server| server.issuer != wanted)?.issuer;
    let advice = format!(
        "{}; {DOCS}/issuer-flags.md has all distributions",
        observed.distribution.advice(&wanted, found)
    );
    let endpoints = || api.endpoints.iter().filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?)));
    let others: Vec<&str> =
        endpoints().filter(|(_, server)| server.issuer != wanted).map(|(name, _)| name.as_str()).collect();
    let all = endpoints().count();
    let message = if others.is_empty() || others.len() == all {
        format!("the API server issues tokens as {found}. {advice}")
    } else {
        format!(
            "{} of {all} API servers use this issuer; {} still issue{} tokens as {found}. {advice}",
            all - others.len(),
            others.join(", "),
            if others.len() == 1 { "s" } else { "" },
        )
    };
    Some(Finding::new(Reason::IssuerMismatch, message))
}

/// What is wrong with API servers of which others have answered, for the message of a condition.
fn unanswered(observed: &Observed) -> String {
    let Ok(api) = &observed.api else { return String::new() };
    let unlisted =
        api.unlisted.iter().map(|why| format!("the addresses of Service default/kubernetes: {why}"));
    let service = api.service.as_ref().err().map(|no| format!("the service address: {}", no.why));
    let no_answer = |(name, answer): &(String, _)| match answer {
        Err(NoAnswer { why, .. }) => Some(format!("{name}: {why}")),
        Ok(_) => None,
    };
    let endpoints = api.endpoints.iter().filter_map(no_answer);
    let all: Vec<String> = unlisted.chain(service).chain(endpoints).collect();
    if all.is_empty() { String::new() } else { format!("; without an answer: {}", all.join(", ")) }
}

fn issuer_matches(case: &Case<'_>) -> Wanted {
    match (&case.observed.api, case.mismatch) {
        (Err(problem), _) => Wanted::unknown(C::IssuerMatches, problem.clone()),
        (Ok(_), Some(mismatch)) => Wanted::no(C::IssuerMatches, mismatch.clone()),
        (Ok(_), None) => {
            let message =
                format!("the API server issues tokens under this issuer{}", unanswered(case.observed));
            Wanted::yes(C::IssuerMatches, Reason::Verified, message)
        }
    }
}

/// What a person should know of the keys, for the message of a condition.
fn notes_on_keys(case: &Case<'_>) -> String {
    let Observed { api, additional, .. } = case.observed;
    let left_out = api.iter().flat_map(ApiServers::answers).flat_map(|server| &server.left_out);
    let mut notes: Vec<&str> = Vec::new();
    for note in left_out.chain(case.notes).chain(&additional.invalid).chain(&additional.unread) {
        if !notes.contains(&note.as_str()) {
            notes.push(note);
        }
    }
    if notes.is_empty() { String::new() } else { format!("; {}", notes.join("; ")) }
}

fn published(case: &Case<'_>) -> Wanted {
    if let Some(foreign) = case.foreign {
        return Wanted::no(C::Published, foreign.clone());
    }
    if case.view.spec().s3.is_none() {
        let message = "somebody else publishes the documents: see PubliclyReachable";
        return Wanted::yes(C::Published, Reason::Verified, message);
    }
    let bucket = case.observed.aws.as_ref().ok().and_then(|aws| aws.bucket.as_ref());
    let exist = bucket.is_some_and(|bucket| bucket.discovery.is_some() && bucket.jwks.is_some());
    let changes = case.publication.map(|publication| &publication.bucket);
    let message = format!("both documents are published in the bucket{}", notes_on_keys(case));
    written(case, C::Published, changes, exist, &message)
}

fn provider_registered(case: &Case<'_>) -> Wanted {
    let exists = case.observed.aws.as_ref().is_ok_and(|aws| aws.provider.is_some());
    let changes = case.publication.map(|publication| &publication.provider);
    let message = "the OIDC provider is registered with the specified audiences";
    written(case, C::ProviderRegistered, changes, exists, message)
}

fn written(
    case: &Case<'_>,
    type_: C,
    changes: Result<&Result<Vec<Change>, Finding>, &AwsError>,
    exists: bool,
    message: &str,
) -> Wanted {
    match changes {
        Err(error) => Wanted::not_observed(type_, case.view.object.was_ready, error.finding()),
        Ok(Err(refused)) => Wanted::no(type_, refused.clone()),
        Ok(Ok(changes)) if !changes.is_empty() => Wanted::no(type_, publishing(changes)),
        Ok(Ok(_)) if exists => Wanted::yes(type_, Reason::Verified, message),
        Ok(Ok(_)) => {
            let waits = || Finding::new(Reason::Publishing, "the API server's keys are not known yet");
            Wanted::no(type_, case.observed.api.as_ref().err().cloned().unwrap_or_else(waits))
        }
    }
}

fn publicly_reachable(case: &Case<'_>) -> Wanted {
    match case.verification.filter(|_| case.published) {
        None => not_verified(case, C::PubliclyReachable),
        Some(last) => evidence(
            C::PubliclyReachable,
            &last.public,
            if case.view.spec().s3.is_some() {
                "both documents can be read without credentials and are unchanged"
            } else {
                "both documents can be read without credentials, and have this issuer and the keys of the API servers"
            },
        ),
    }
}

fn token_exchange_verified(case: &Case<'_>) -> Wanted {
    const TYPE: C = C::TokenExchangeVerified;
    let Some(last) = case.verification.filter(|_| case.published) else {
        return not_verified(case, TYPE);
    };
    match &last.exchange {
        None => Wanted::unknown(
            TYPE,
            Finding::new(
                Reason::NotVerified,
                "the API server does not issue tokens under this URL yet: see IssuerMatches",
            ),
        ),
        Some(Evidence::Bad(finding)) if case.window_open => Wanted::no(TYPE, not_yet(finding)),
        Some(exchange) => {
            evidence(TYPE, exchange, "AWS STS gave credentials for a real token of this cluster")
        }
    }
}

/// Whether pods are kept from writing the bucket, by what was tried with the last token exchange. It never takes part in Ready.
fn bucket_fenced(case: &Case<'_>) -> Wanted {
    const TYPE: C = C::BucketFenced;
    let changes = case.publication.ok().and_then(|publication| publication.bucket.as_ref().ok());
    if changes.is_some_and(|changes| changes.iter().any(|change| change.attribute == bucket::POLICY)) {
        let message = "the bucket's policy is not the one that was tried: see Published";
        return Wanted::unknown(TYPE, Finding::new(Reason::Publishing, message));
    }
    let Some(last) = case.verification.filter(|_| case.published) else {
        return not_verified(case, TYPE);
    };
    let unknown = |reason, message: &str| Wanted::unknown(TYPE, Finding::new(reason, message));
    match &last.fence {
        None => unknown(Reason::NotVerified, "it is tried together with the token exchange"),
        Some(Fence::Holds) => Wanted::yes(
            TYPE,
            Reason::Verified,
            "a session of this issuer that may write by its own policy was denied",
        ),
        // The policy may not be in force yet.
        Some(Fence::Ineffective) if case.early => unknown(
            Reason::Propagating,
            "not yet: a session of this issuer wrote to the bucket, whose policy may not be in force everywhere; it is tried again",
        ),
        Some(Fence::Ineffective) => Wanted::no(
            TYPE,
            Finding::new(
                Reason::FenceIneffective,
                "a session of this issuer wrote to the bucket: pods with a role that allows it can replace the signing keys. Check \
                 that no role outside /podidentity/ that trusts this issuer may write to the bucket, and report this: the \
                 bucket's policy rests on a condition key that AWS does not fill as documented",
            ),
        ),
        Some(Fence::NoCanary) => unknown(
            Reason::CanaryMissing,
            "the role or the object with which the bucket's policy is tried is missing: run `operator bootstrap` again",
        ),
        Some(Fence::NotManaged) => unknown(
            Reason::NotManaged,
            "the bucket's policy is not kept by the operator: whoever keeps it has to see that no pod may write the documents",
        ),
        Some(Fence::NotProved(why)) => unknown(Reason::FenceNotProved, why),
    }
}

/// The warning that the API server accepts tokens for AWS; none where it does not, or is not known to.
fn audiences_shared(case: &Case<'_>) -> Option<Wanted> {
    let last = case.last_verification?;
    let shared = case.view.spec().audiences.iter().find(|audience| last.api_audiences.contains(audience))?;
    let message = format!(
        "{shared} is an audience of the API server itself, so it accepts tokens that pods show to AWS. Set --api-audiences of the API server without it: {DOCS}/issuer-flags.md"
    );
    Some(Wanted::no(C::AudiencesSeparate, Finding::new(Reason::AudienceOfAPIServer, message)))
}

/// What was verified stays so until it is verified again.
fn not_verified(case: &Case<'_>, type_: C) -> Wanted {
    let finding = Finding::new(Reason::NotVerified, "see Published and ProviderRegistered");
    Wanted::not_observed(type_, case.view.object.was_ready, finding)
}

fn evidence(type_: C, evidence: &Evidence, good: &str) -> Wanted {
    match evidence {
        Evidence::Good => Wanted::yes(type_, Reason::Verified, good),
        Evidence::Bad(finding) => Wanted::no(type_, finding.clone()),
        Evidence::Unclear(finding) => Wanted::unknown(type_, finding.clone()),
    }
}

/// The condition of an AWS that cannot be asked; none where AWS answered.
#[must_use]
pub fn aws_unreachable(error: &AwsError) -> Option<Wanted> {
    (!error.class.is_answer() && !error.class.stalls()).then(|| Wanted::no(C::AWSReachable, error.finding()))
}

/// Whether a failed step decides a condition anew.
#[must_use]
pub const fn is_replaced_by_failure(type_: C) -> bool {
    matches!(type_, C::Ready | C::Reconciling | C::Stalled | C::AWSReachable)
}
