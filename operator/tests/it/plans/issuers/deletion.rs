//! `deletionPolicy: Delete`, step by step.

use super::*;

/// How far apart two answers "it is missing" are.
const CONFIRMATION: Duration = Duration::from_secs(30);
/// How often the API servers are read.
const POLL: Duration = Duration::from_mins(1);

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn from_the_provider_to_the_finalizer() {
    let table: &[(Row, Next)] = &[
        (
            (
                "the provider first, and nothing else",
                |case| (case.deleting, case.spec.deletion_policy) = (true, DeletionPolicy::Delete),
                &["OIDC provider"],
                "False Deleting Reconciling",
                "+Verified +Verified +Verified +Verified +Verified +Verified",
            ),
            Next::LookAgain,
        ),
        (
            (
                "no provider is seen by a new process, so it may only not be shown yet",
                |case| {
                    (case.deleting, case.spec.deletion_policy) = (true, DeletionPolicy::Delete);
                    case.observed.aws.as_mut().unwrap().provider = None;
                    case.clock.started = case.clock.instant;
                },
                &[],
                "False Deleting Reconciling",
                "+Verified +Verified -Publishing ?NotVerified ?NotVerified ?NotVerified",
            ),
            Next::At(CONFIRMATION),
        ),
        (
            (
                "no provider, said once",
                |case| {
                    (case.deleting, case.spec.deletion_policy) = (true, DeletionPolicy::Delete);
                    case.observed.aws.as_mut().unwrap().provider = None;
                },
                &[],
                "False Deleting Reconciling",
                "+Verified +Verified -Publishing ?NotVerified ?NotVerified ?NotVerified",
            ),
            Next::At(CONFIRMATION),
        ),
        (
            (
                "no provider, certainly",
                |case| {
                    case.memory.missing.provider_since =
                        case.clock.instant.checked_sub(Duration::from_secs(30));
                    (case.deleting, case.spec.deletion_policy) = (true, DeletionPolicy::Delete);
                    case.observed.aws.as_mut().unwrap().provider = None;
                },
                &["discovery document", "JWKS", "canary object", "bucket"],
                "False Deleting Reconciling",
                "+Verified +Verified -Publishing ?NotVerified ?NotVerified ?NotVerified",
            ),
            Next::LookAgain,
        ),
        (
            (
                "no bucket, said once",
                |case| {
                    case.is_gone();
                    case.memory.missing.bucket_since = None;
                },
                &[],
                "False Deleting Reconciling",
                "+Verified -Publishing -Publishing ?NotVerified ?NotVerified ?Publishing",
            ),
            Next::At(CONFIRMATION),
        ),
        (
            (
                "no existing bucket, said once",
                |case| {
                    case.is_gone();
                    case.spec.s3.as_mut().unwrap().management = Management::Existing;
                    case.memory.missing.bucket_since = None;
                },
                &[],
                "False Deleting Reconciling",
                "+Verified -ExistingNotAsSpecified -Publishing ?NotVerified ?NotVerified ?NotVerified",
            ),
            Next::At(CONFIRMATION),
        ),
        (
            (
                "no bucket, said twice",
                Case::is_gone,
                &["remove finalizer"],
                "False Deleting Reconciling",
                "+Verified -Publishing -Publishing ?NotVerified ?NotVerified ?Publishing",
            ),
            Next::At(POLL),
        ),
        (
            (
                "no bucket, which this process has deleted",
                |case| {
                    case.is_gone();
                    case.memory.missing.bucket_since = None;
                    case.memory.bucket_deleted = true;
                },
                &["remove finalizer"],
                "False Deleting Reconciling",
                "+Verified -Publishing -Publishing ?NotVerified ?NotVerified ?Publishing",
            ),
            Next::At(POLL),
        ),
        (
            (
                "a provider of somebody else still trusts the bucket",
                |case| {
                    (case.deleting, case.spec.deletion_policy) = (true, DeletionPolicy::Delete);
                    case.spec.provider = Some(ProviderSettings { management: Management::Existing });
                },
                &[],
                "False DeletionBlocked Stalled",
                "+Verified +Verified +Verified +Verified +Verified +Verified",
            ),
            Next::At(POLL),
        ),
        (
            (
                "the operator's credentials rest on it",
                |case| {
                    (case.deleting, case.spec.deletion_policy) = (true, DeletionPolicy::Delete);
                    case.own_role = true;
                },
                &[],
                "False OperatorDependsOnIssuer Stalled",
                "+Verified +Verified +Verified +Verified +Verified +Verified",
            ),
            Next::At(POLL),
        ),
        (
            (
                "the API server has another issuer, and the operator's token is still of this one",
                |case| {
                    (case.deleting, case.spec.deletion_policy) = (true, DeletionPolicy::Delete);
                    (case.own_role, case.observed.own_token_issuer) = (true, Some(case.spec.issuer_url()));
                    case.observed.api = Ok(api(OTHER, keys()));
                },
                &[],
                "False OperatorDependsOnIssuer Stalled",
                "-IssuerMismatch +Verified +Verified +Verified +Verified +Verified",
            ),
            Next::At(POLL),
        ),
        (
            (
                "whether the operator's credentials rest on it is not known",
                |case| {
                    (case.deleting, case.spec.deletion_policy, case.own_role) =
                        (true, DeletionPolicy::Delete, true);
                    case.observed.api = Err(unreachable());
                },
                &[],
                "False OperatorDependsOnIssuer Stalled",
                "?APIServerUnreachable +Verified +Verified ?NotVerified ?NotVerified ?NotVerified",
            ),
            Next::BackOff,
        ),
    ];
    for (row, next) in table {
        let (name, _, plan) = planned(row);
        assert_eq!(plan.next, *next, "{name}");
    }
}
