//! Files that change while the process runs. They are read again every few seconds and compared: a Secret or ConfigMap
//! volume swaps a symlink, which a watch on the file does not see, and a file that is replaced piece by piece is gone for
//! a moment, after which such a watch is lost.

use std::path::Path;
use std::time::Duration;

/// How often files are looked at.
pub const EVERY: Duration = Duration::from_secs(2);

/// Calls `take` with the files' contents now and after every change of any of them. A file that is gone counts as gone only
/// when it still is on the next look.
pub async fn follow<const N: usize>(paths: [&Path; N], mut take: impl FnMut([Option<Vec<u8>>; N])) {
    let mut taken = read_all(paths).await;
    take(taken.clone());
    let mut missing = taken.clone().map(|content| content.is_none());
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let mut found = read_all(paths).await;
        for ((found, taken), missing) in found.iter_mut().zip(&taken).zip(&mut missing) {
            if found.is_none() && !*missing {
                *missing = true;
                found.clone_from(taken);
            } else {
                *missing = found.is_none();
            }
        }
        if found != taken {
            taken.clone_from(&found);
            take(found);
        }
    }
}

async fn read_all<const N: usize>(paths: [&Path; N]) -> [Option<Vec<u8>>; N] {
    let mut contents = [const { None }; N];
    for (content, path) in contents.iter_mut().zip(paths) {
        *content = tokio::fs::read(path).await.ok();
    }
    contents
}
