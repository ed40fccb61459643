//! Waits of a minute and more, which are kept in an object's memory.

use std::time::{Duration, Instant};

use crate::world::{STORAGE, World};

#[tokio::test]
async fn a_wait_of_more_than_a_minute_ends() {
    const PERIOD: Duration = Duration::from_secs(61);
    let world = World::ready_with(|t| t.role_resync = PERIOD).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let (name, begun) = (world.role_name("app"), Instant::now());
    let reads = || {
        let calls = world.sim.calls();
        calls.iter().filter(|call| call.action == "GetRole" && call.resource.contains(&name)).count()
    };
    let before = reads();
    let read = || async {
        anyhow::ensure!(reads() > before, "it was read {before} times before");
        Ok(())
    };
    // A wait is up to a fifth longer, so that many bindings do not end theirs at once; ten seconds are for a slow machine.
    cluster::until("the role to be read again", PERIOD * 6 / 5 + Duration::from_secs(10), read)
        .await
        .unwrap();
    // The binding was Ready, and the role read, shortly before.
    assert!(begun.elapsed() + Duration::from_secs(5) > PERIOD, "{:?}", begun.elapsed());
    assert_eq!(reads(), before + 1);
    world.assert_nothing_denied();
}
