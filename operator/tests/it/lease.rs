//! What the leader election writes into its Lease.

use std::time::Duration;

use crds::names::LEASE;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use operator::lease::Elector;

use crate::world::World;

#[tokio::test]
async fn the_lease_says_since_when_and_after_how_many_others_its_holder_holds_it() {
    let mut world = World::new().await;
    (world.timings.lease_renew, world.timings.lease_retry) =
        (Duration::from_millis(200), Duration::from_millis(50));
    let api: Api<Lease> = Api::namespaced(world.client.clone(), &world.system);
    let spec = async || api.get(LEASE).await.unwrap().spec.unwrap();
    let candidate =
        |name: &str| Elector::new(&world.client, &world.system, name.into(), world.timings.clone());
    let until = async |what: &str, holds: &dyn Fn(&LeaseSpec) -> bool| {
        let check = || async {
            let spec = spec().await;
            anyhow::ensure!(holds(&spec), "{spec:?}");
            Ok(())
        };
        cluster::until(what, Duration::from_secs(10), check).await.unwrap();
    };

    let mut first = candidate("first");
    first.acquire().await;
    let acquired = spec().await;
    assert_eq!((acquired.holder_identity.as_deref(), acquired.lease_transitions), (Some("first"), Some(0)));
    let renewed = |spec: &LeaseSpec| spec.renew_time > acquired.renew_time;
    tokio::select! {
        () = first.renew_until_lost() => panic!("the lease was lost"),
        () = until("a renewal", &renewed) => {}
    }
    let after = spec().await;
    assert_eq!((after.acquire_time, after.lease_transitions), (acquired.acquire_time.clone(), Some(0)));

    first.release().await;
    let released = spec().await;
    assert_eq!((released.holder_identity.as_deref(), released.lease_transitions), (Some(""), Some(0)));
    let mut second = candidate("second");
    second.acquire().await;
    let taken = spec().await;
    assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("second"), Some(1)));
    assert!(taken.acquire_time > acquired.acquire_time);
    second.release().await;
}
