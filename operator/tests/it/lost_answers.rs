//! A call that AWS carries out, and whose answer the operator never gets: what is read afterwards decides, not what was known before.

use std::time::Duration;

use aws_sim::{Fault, FaultKind};
use crds::names::REVOKED_POLICY;
use kube::api::DeleteParams;

use crate::world::{STORAGE, World, has_finalizer};

/// The grant comes back while the pass that revokes the role waits for an answer. The pass is ended at its time limit.
#[tokio::test]
async fn a_revocation_that_was_carried_out_in_a_pass_without_an_end_is_taken_back() {
    let mut world = World::ready_with(|t| {
        (t.reconcile_timeout, t.grant_loss) = (Duration::from_secs(3), Duration::ZERO);
    })
    .await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.until_idle().await;
    world.sim.clear_calls();
    world.sim.inject(Fault::on("iam", "PutRolePolicy", FaultKind::Silence).times(1));
    world.apply_issuer(&world.without_policies()).await;
    world.until_called("PutRolePolicy", 1).await;
    world.apply_issuer(&world.spec()).await;
    let name = world.role_name("app").to_lowercase();
    world.until_aws("no denial", |state| !state.roles[&name].inline.contains_key(REVOKED_POLICY)).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), ["PutRolePolicy", "DeleteRolePolicy"]);
    let arn = world.role().unwrap().arn;
    world.exchange(&world.namespace, "app", &arn).await.unwrap();
    world.unbind("app").await;
    world.stop().await;
}

/// The binding of a role that was deleted a moment ago is made again, and the answer to `CreateRole` is lost. The role that IAM shows is the
/// new one: it is used, and deleted with its binding.
#[tokio::test]
async fn a_role_that_was_made_anew_without_an_answer_is_not_taken_for_the_deleted_one() {
    for ends in [false, true] {
        let mut world = World::ready_with(|t| t.role_settling = Duration::from_mins(2)).await;
        world.bind("app", &[STORAGE]).await;
        world.binding_is("app", "Ready").await;
        let first = world.role().unwrap();
        world.unbind("app").await;
        world.sim.clear_calls();
        world.sim.inject(Fault::on("iam", "CreateRole", FaultKind::LostResponse));
        if ends {
            // The role is not read before its binding is deleted.
            world.sim.inject(Fault::on("iam", "GetRole", FaultKind::LostRequest));
        }
        world.bind("app", &[STORAGE]).await;
        world.until_called("CreateRole", 3).await; // the attempts of one step
        let made = world.role().unwrap();
        assert_ne!(made.id, first.id);
        if ends {
            assert!(has_finalizer(&world.binding("app").await));
        } else {
            world.binding_is("app", "Ready").await;
            assert_eq!(world.role().unwrap().id, made.id);
        }
        world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
        world.sim.clear_faults();
        world.until(&world.bindings(), "app", "its deletion", |binding| binding.is_none()).await;
        assert!(world.role().is_none());
        let calls = world.writes().iter().filter(|call| *call == "CreateRole").count();
        assert_eq!(calls, 3, "{:?}", world.writes());
        world.stop().await;
    }
}
