//! Files that change while the process runs. They are read every few seconds and compared: a Secret or ConfigMap volume
//! swaps a symlink, which a watch on the file does not notice, and a file that is deleted and created again ends such a
//! watch.

use std::path::Path;
use std::time::Duration;

/// How often files are read.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// Calls `apply` with the files' contents now and after every change of any of them; a missing file has none. A file counts
/// as missing only if it is missing twice in a row.
pub async fn follow<const N: usize>(paths: [&Path; N], mut apply: impl FnMut([Option<Vec<u8>>; N])) {
    let mut applied = read_all(paths).await;
    apply(applied.clone());
    let mut missing = applied.clone().map(|content| content.is_none());
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let mut found = read_all(paths).await;
        for ((found, applied), missing) in found.iter_mut().zip(&applied).zip(&mut missing) {
            if found.is_none() && !*missing {
                *missing = true;
                found.clone_from(applied);
            } else {
                *missing = found.is_none();
            }
        }
        if found != applied {
            applied.clone_from(&found);
            apply(found);
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
