//! The fence of the bucket: whether a pod could write it.

use Next::{At, LookAgain};
use issuer::model::Fence;

use super::*;

/// The next poll of the API servers.
const POLL: Next = At(Duration::from_mins(1));

#[test]
fn what_an_attempt_to_write_the_bucket_shows() {
    let table: &[(Row, Next)] = &[
        (
            (
                "a session of this issuer wrote to the bucket: reported, and Ready does not change",
                |case| case.evidence().fence = Some(Fence::Ineffective),
                &[],
                "True Ready",
                "+Verified +Verified +Verified +Verified +Verified -FenceIneffective",
            ),
            POLL,
        ),
        (
            (
                "a session of this issuer wrote to the bucket right after a write: not yet",
                |case| {
                    case.evidence().fence = Some(Fence::Ineffective);
                    case.memory.last_write = Some(case.clock.instant);
                },
                &[],
                "True Ready",
                "+Verified +Verified +Verified +Verified +Verified ?Propagating",
            ),
            POLL,
        ),
        (
            (
                "what was seen right after a write stays \"not yet\" until it is tried again",
                |case| {
                    case.evidence().fence = Some(Fence::Ineffective);
                    case.memory.last_write = Some(case.clock.instant);
                    case.clock.instant += Duration::from_secs(119);
                },
                &[],
                "True Ready",
                "+Verified +Verified +Verified +Verified +Verified ?Propagating",
            ),
            At(Duration::from_secs(1)),
        ),
        (
            (
                "and it is tried again although the window is closed then",
                |case| {
                    case.evidence().fence = Some(Fence::Ineffective);
                    case.memory.last_write = Some(case.clock.instant);
                    case.clock.instant += Duration::from_secs(121);
                },
                &["exchange"],
                "True Ready",
                "+Verified +Verified +Verified +Verified +Verified ?Propagating",
            ),
            LookAgain,
        ),
        (
            (
                "another policy than the one that was tried",
                |case| case.bucket().policy = Some("{}".into()),
                &["bucket policy"],
                "True Ready",
                "+Verified -Publishing +Verified =NotVerified =NotVerified ?Publishing",
            ),
            LookAgain,
        ),
        (
            (
                "no canary",
                |case| case.evidence().fence = Some(Fence::NoCanary),
                &[],
                "True Ready",
                "+Verified +Verified +Verified +Verified +Verified ?CanaryMissing",
            ),
            POLL,
        ),
        (
            (
                "the bucket's policy could not be tried",
                |case| case.evidence().fence = Some(Fence::NotProved("time-out".into())),
                &[],
                "True Ready",
                "+Verified +Verified +Verified +Verified +Verified ?FenceNotProved",
            ),
            POLL,
        ),
    ];
    for (row, next) in table {
        let (name, _, plan) = planned(row);
        assert_eq!(plan.next, *next, "{name}");
    }
}
