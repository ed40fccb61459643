//! Two replicas of the operator at one API server and one AWS account. Whatever ends the leadership of the first, its work has
//! ended before the second one changes anything, and the second one completes all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sim::{Call, Fault, FaultKind};
use crds::PodIdentityBinding;
use crds::condition::ConditionType;
use crds::conditions::is_true;
use crds::names::LEASE;
use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use operator::run::Ended;
use serde_json::json;

use crate::world::{ACCOUNT, Reach, Replica, Sent, World};

/// The defaults divided by two and a half. Shorter ones would be lost where the API server is slow because the machine is busy.
const LEASE_DURATION: Duration = Duration::from_secs(6);
const LEASE_RENEW: Duration = Duration::from_secs(2);
const LEASE_RETRY: Duration = Duration::from_millis(800);
/// The defaults: a renewal every 2.5 s, so that only the watch of the Lease shows a change within [`STOP`].
const DEFAULTS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(5));
/// All work ends at most so long after its replica is no longer the leader.
const STOP: Duration = Duration::from_secs(1);
/// Waiting for all bindings.
const LIMIT: Duration = Duration::from_mins(2);

/// What the replicas have to do: bindings, each with so many managed policies, and how long IAM takes for each call.
#[derive(Clone, Copy)]
struct Work {
    bindings: usize,
    policies: usize,
    delay: Duration,
}

impl Work {
    /// Calls that change something in AWS, if nothing is done twice.
    fn writes(self) -> usize {
        self.bindings * (1 + self.policies)
    }
}

/// The first replica leads and is in the middle of the work, and the second one waits. Everything is there before the first one
/// starts: how long the work takes is up to IAM's delay, not to the speed of this machine.
async fn begun(work: Work, (lease_duration, lease_renew): (Duration, Duration)) -> (World, Replica, Replica) {
    let mut world = World::bootstrapped().await;
    (world.timings.lease_duration, world.timings.lease_renew, world.timings.lease_retry) =
        (lease_duration, lease_renew, LEASE_RETRY);
    let allow = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"},
    ]});
    let policies: Vec<String> = (0..work.policies)
        .map(|number| world.sim.put_managed_policy(&format!("many-{number}"), allow.clone()))
        .collect();
    for number in 0..work.bindings {
        let name = format!("app-{number}");
        world.service_account(&world.namespace, &name).await;
        let spec = json!({"serviceAccountName": name, "role": {"policyARNs": policies}});
        world.apply_binding(&name, spec).await;
    }
    let mut spec = world.spec();
    spec.grants[0].policy_arns.push(format!("arn:aws:iam::{ACCOUNT}:policy/many-*"));
    world.apply_issuer(&spec).await;
    let milliseconds = u64::try_from(work.delay.as_millis()).unwrap();
    world.sim.inject(Fault::on("iam", "", FaultKind::Delay { milliseconds }));
    world.sim.clear_calls();

    let first = world.replica("first").await;
    first.until_lease_is_asked_for(&Method::POST).await;
    // Nothing here is about the end of the second one's leadership: it must not end because the machine is busy.
    (world.timings.lease_duration, world.timings.lease_renew) = (10 * lease_duration, 10 * lease_renew);
    let second = world.replica("second").await;
    second.until_lease_is_asked_for(&Method::GET).await;
    world.until_called("CreateRole", 10).await;
    assert_eq!(world.calls_of(&second), []);
    (world, first, second)
}

/// Waits until all bindings are Ready; IAM is fast again. A failure shows what the replica that leads waits for.
async fn until_all_are_ready(world: &World, work: Work, leader: &Replica) {
    world.sim.clear_faults();
    let is_ready = |binding: Option<&PodIdentityBinding>| {
        let status = binding.and_then(|binding| binding.status.as_ref());
        status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
    };
    // A watch of each: a list of all, asked for again and again, would take the time that the replicas need.
    let all = async {
        for number in 0..work.bindings {
            await_condition(world.bindings(), &format!("app-{number}"), is_ready).await.unwrap();
        }
    };
    if tokio::time::timeout(LIMIT, all).await.is_err() {
        let unanswered: Vec<_> =
            leader.gate.work().into_iter().filter(|sent| sent.answered.is_none()).collect();
        let (calls, now) = (world.calls_of(leader), world.sim.elapsed());
        panic!(
            "not all are Ready at {now:?}; the leader has {}ended; no answer to {unanswered:#?}; {} calls, last {:#?}",
            if leader.has_ended() { "" } else { "not " },
            calls.len(),
            calls.last()
        );
    }
}

/// When a replica called AWS last, or asked the API server for anything but its lease.
fn last_work(world: &World, replica: &Replica) -> (Duration, Duration) {
    let calls = world.calls_of(replica).iter().map(|call| call.at).max();
    let requests = replica.gate.work().iter().map(|sent| sent.at).max();
    (calls.expect("it called AWS"), requests.expect("it asked the API server"))
}

fn writes(calls: &[Call]) -> Vec<&Call> {
    calls.iter().filter(|call| call.write).collect()
}

/// The end of every test: nothing was done twice, and the second replica changed nothing before the first one had ended.
fn assert_one_writer_at_a_time(world: &World, work: Work, first: &Replica, second: &Replica) {
    let (of_first, of_second) = (world.calls_of(first), world.calls_of(second));
    let (last_call, last_request) = last_work(world, first);
    let took_over =
        writes(&of_second).first().map(|call| call.at).expect("the second one completed the work");
    assert!(
        last_call < took_over,
        "the first one called AWS at {last_call:?}, the second one wrote at {took_over:?}"
    );
    let in_cluster = second.gate.work().iter().find(|sent| sent.is_write()).map(|sent| sent.at).unwrap();
    assert!(last_request < in_cluster, "in the cluster: {last_request:?}, {in_cluster:?}");

    let mut created: BTreeMap<String, usize> = BTreeMap::new();
    for call in of_first.iter().chain(&of_second) {
        if call.action == "CreateRole" && call.status == 200 {
            *created.entry(call.resource.clone()).or_default() += 1;
        }
    }
    assert_eq!(created.len(), work.bindings, "roles");
    assert!(created.values().all(|times| *times == 1), "each is created once: {created:#?}");
    let succeeded = of_first.iter().chain(&of_second).filter(|call| call.write && call.status == 200).count();
    assert_eq!(succeeded, work.writes(), "no policy is attached twice, and nothing is taken back");
    let state = world.sim.state();
    let ours: Vec<_> = state.roles.values().filter(|role| role.path.starts_with("/podidentity/")).collect();
    assert_eq!(ours.len(), work.bindings);
    assert!(ours.iter().all(|role| role.attached.len() == work.policies));
}

/// Somebody else writes another holder into the Lease. The leader watches it, and does not wait for the next renewal.
#[tokio::test]
async fn a_leader_that_loses_its_lease_ends_all_work_at_once() {
    let work = Work { bindings: 64, policies: 1, delay: Duration::from_millis(300) };
    let (world, mut first, second) = begun(work, DEFAULTS).await;
    // Right after a renewal: the leader works on for as long as it can.
    first.until_lease_is_asked_for(&Method::PUT).await;
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), &world.system);
    let taken = Patch::Merge(json!({"spec": {"holderIdentity": "somebody"}}));
    let lost = world.sim.elapsed();
    leases.patch(LEASE, &PatchParams::default(), &taken).await.unwrap();
    let (ended, at) = first.ended().await;
    assert_eq!(ended, Ended::Aborted);

    until_all_are_ready(&world, work, &second).await;
    let (call, request) = last_work(&world, &first);
    eprintln!(
        "lost lease: last AWS call {:?}, last request {:?}, end {:?} after the loss",
        call.saturating_sub(lost),
        request.saturating_sub(lost),
        at.saturating_sub(lost),
    );
    assert!(call.max(request) + 2 * work.delay > lost, "it was busy when it lost the lease");
    assert!(call.max(request).max(at) < lost + STOP, "{call:?} {request:?} {at:?} {lost:?}");
    assert_one_writer_at_a_time(&world, work, &first, &second);
}

/// Somebody deletes the Lease. The leader puts it back and works on; the other replica does not take it.
#[tokio::test]
async fn a_lease_that_is_deleted_changes_no_leader() {
    let work = Work { bindings: 24, policies: 1, delay: Duration::from_millis(300) };
    let (world, first, second) = begun(work, DEFAULTS).await;
    first.until_lease_is_asked_for(&Method::PUT).await;
    let created = first.lease_requests(&Method::POST).len();
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), &world.system);
    leases.delete(LEASE, &DeleteParams::default()).await.unwrap();
    let deleted = world.sim.elapsed();
    let put_back = first.until_lease_is_asked_for(&Method::POST).await;
    assert!(put_back.at < deleted + STOP, "{put_back:?} {deleted:?}");
    until_all_are_ready(&world, work, &first).await;
    assert!(!first.has_ended());
    assert_eq!(first.lease_requests(&Method::POST).len(), created + 1);
    let of_second: Vec<_> = second.gate.sent().into_iter().filter(Sent::is_write).collect();
    assert!(of_second.is_empty(), "{of_second:?}");
    assert_eq!(world.calls_of(&second), []);
    assert_eq!(writes(&world.calls_of(&first)).len(), work.writes());
}

/// The leader is cut off from the API server, not from AWS, in the middle of passes that change AWS for longer than the lease
/// is valid.
#[tokio::test]
async fn a_leader_that_is_cut_off_ends_all_work_before_its_lease_can_be_taken() {
    for reach in [Reach::Silent, Reach::Refused] {
        let work = Work { bindings: 24, policies: 10, delay: Duration::from_secs(1) };
        let (world, mut first, second) = begun(work, (LEASE_DURATION, LEASE_RENEW)).await;
        let renewed = first.until_lease_is_asked_for(&Method::PUT).await;
        first.gate.set(reach);
        let cut_off = world.sim.elapsed();
        let (ended, at) = first.ended().await;
        assert_eq!(ended, Ended::Aborted);

        until_all_are_ready(&world, work, &second).await;
        let taken = second.lease_requests(&Method::PUT)[0].clone();
        let (call, request) = last_work(&world, &first);
        eprintln!(
            "{reach:?}: after the last renewal: cut off {:?}, last AWS call {:?}, last request {:?}, end {:?}, lease taken {:?}",
            cut_off.saturating_sub(renewed.at),
            call.saturating_sub(renewed.at),
            request.saturating_sub(renewed.at),
            at.saturating_sub(renewed.at),
            taken.at.saturating_sub(renewed.at),
        );
        // It goes on for as long as it may, so that a short outage of the API server costs no leadership.
        let of_first = world.calls_of(&first);
        assert!(
            writes(&of_first).iter().any(|call| call.at > cut_off + LEASE_RENEW),
            "it was in the middle of passes"
        );
        let may_be_taken = renewed.at + LEASE_DURATION;
        assert!(taken.at >= may_be_taken, "{taken:?} {renewed:?}");
        assert!(
            call < may_be_taken && request < may_be_taken && at < may_be_taken,
            "{call:?} {request:?} {at:?}"
        );
        assert_one_writer_at_a_time(&world, work, &first, &second);
    }
}

/// SIGTERM, as at every rollout: running passes end, the lease is released, and the other replica need not wait for its end.
#[tokio::test]
async fn after_a_stop_the_other_replica_goes_on_at_once() {
    let work = Work { bindings: 48, policies: 1, delay: Duration::from_millis(400) };
    let (world, mut first, second) = begun(work, (LEASE_DURATION, LEASE_RENEW)).await;
    first.stop();
    let stopped = world.sim.elapsed();
    let (ended, at) = first.ended().await;
    assert_eq!(ended, Ended::Stopped);

    until_all_are_ready(&world, work, &second).await;
    let released = first.lease_requests(&Method::PUT).last().cloned().unwrap();
    let taken = second.lease_requests(&Method::PUT)[0].clone();
    let (call, request) = last_work(&world, &first);
    let of_second = world.calls_of(&second);
    let took_over = writes(&of_second)[0].at;
    eprintln!(
        "stop: after SIGTERM: last AWS call {:?}, last request {:?}, end {:?}; after the release: lease taken {:?}, first write \
         of the other {:?}",
        call.saturating_sub(stopped),
        request.saturating_sub(stopped),
        at.saturating_sub(stopped),
        taken.at.saturating_sub(released.at),
        took_over.saturating_sub(released.at),
    );
    // No pass was aborted: what it began it has completed.
    let unanswered: Vec<_> =
        first.gate.work().into_iter().filter(|sent| sent.is_write() && sent.answered.is_none()).collect();
    assert!(unanswered.is_empty(), "{unanswered:#?}");
    assert!(at < stopped + world.timings.shutdown_grace, "{at:?} {stopped:?}");
    assert!(call < released.at && request < released.at, "{call:?} {request:?} {released:?}");
    assert!(taken.at < released.at + LEASE_RETRY + STOP, "{taken:?} {released:?}");
    assert_one_writer_at_a_time(&world, work, &first, &second);
}
