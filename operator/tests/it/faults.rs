//! Failures of AWS: a temporary failure stalls nothing, nothing is lost, and nothing is created twice.

use aws_sim::{Fault, FaultKind};
use crds::PodIdentityBinding;
use crds::Reason;
use crds::condition::ConditionType as C;
use crds::conditions::{find, is_true};
use crds::names::{self, OPERATOR_SERVICE_ACCOUNT};
use kube::Api;

use crate::world::{ACCOUNT, CLUSTER, STORAGE, World};

/// Waits until the binding `app` is Ready. Returns whether it was Stalled before.
async fn was_stalled_before_ready(world: &World) -> bool {
    let stalled = std::cell::Cell::new(false);
    let api: Api<PodIdentityBinding> = world.bindings();
    let check = || async {
        let binding = api.get("app").await?;
        let conditions = binding.status.unwrap_or_default().conditions;
        stalled.set(stalled.get() || is_true(&conditions, C::Stalled));
        anyhow::ensure!(is_true(&conditions, C::Ready), "{:?}", find(&conditions, C::Ready));
        Ok(())
    };
    cluster::until("the binding to be Ready", std::time::Duration::from_mins(1), check).await.unwrap();
    stalled.get()
}

#[tokio::test]
async fn throttling_delays_but_does_not_stall() {
    let world = World::ready().await;
    world.sim.inject(Fault::on("iam", "", FaultKind::throttle()).times(12));
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Throttled").await;
    let (_, reason, _) = world.condition("app", C::AWSReachable).await;
    assert_eq!(reason, "Throttled");
    assert!(!was_stalled_before_ready(&world).await);
    let role = world.role().unwrap();
    assert_eq!(role.attached, [STORAGE]);
    let made = world.role_calls().iter().filter(|c| c.action == "CreateRole" && c.status == 200).count();
    assert_eq!(made, 1);
    assert!(find(&world.binding("app").await.status.unwrap().conditions, C::AWSReachable).is_none());
    // Every HTTP request is counted, the SDK's retries included: as many as AWS received.
    let mut attempts = std::collections::BTreeMap::new();
    for call in world.sim.calls().into_iter().filter(|call| call.service == "iam") {
        *attempts.entry((call.action, call.status)).or_insert(0) += 1;
    }
    assert!(attempts.keys().any(|(_, status)| *status == 400), "{attempts:?}");
    let text = world.metrics.text();
    for ((action, status), count) in attempts {
        let labels = format!("service=\"iam\",operation=\"{action}\",status=\"{status}\"");
        let line = format!("podidentity_operator_aws_attempts_total{{{labels}}} {count}\n");
        assert!(text.contains(&line), "{line} is not in {text}");
    }

    // The same during the deletion.
    world.sim.inject(Fault::on("iam", "", FaultKind::throttle()).times(12));
    world.unbind("app").await;
    assert!(world.role().is_none());
}

#[tokio::test]
async fn a_ready_binding_stays_ready_while_aws_fails() {
    let world = World::ready_with(|t| t.role_resync = std::time::Duration::from_millis(100)).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.sim.inject(Fault::on("iam", "", FaultKind::server_error()));
    let unavailable = |b: Option<&PodIdentityBinding>| {
        let conditions = b.and_then(|b| b.status.as_ref()).map(|s| &s.conditions[..]);
        conditions.and_then(|c| find(c, C::AWSReachable)).is_some_and(|c| c.reason == Reason::AWSUnavailable)
    };
    world.until(&world.bindings(), "app", "AWSUnavailable", unavailable).await;
    assert_eq!(world.condition("app", C::Ready).await.0, "True");
    world.sim.clear_faults();
    let available = |b: Option<&PodIdentityBinding>| {
        let conditions = b.and_then(|b| b.status.as_ref()).map(|s| &s.conditions[..]);
        conditions.is_some_and(|c| find(c, C::AWSReachable).is_none())
    };
    world.until(&world.bindings(), "app", "the end of the failure", available).await;
    world.unbind("app").await;
}

#[tokio::test]
async fn a_lost_response_creates_nothing_twice() {
    let world = World::ready().await;
    for action in
        ["CreateRole", "AttachRolePolicy", "UpdateAssumeRolePolicy", "DetachRolePolicy", "DeleteRole"]
    {
        // As often as the SDK sends the request: the next reconcile has to read what the calls did.
        world.sim.inject(Fault::on("iam", action, FaultKind::LostResponse).times(3));
    }
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.role().unwrap().attached, [STORAGE]);
    let roles = |s: &aws_sim::State| s.roles.values().filter(|r| r.path.starts_with("/podidentity/")).count();
    assert_eq!(roles(&world.sim.state()), 1);
    world.unbind("app").await;
    assert_eq!(roles(&world.sim.state()), 0);
    // The SDK repeats a DeleteRole that has taken effect. IAM authorises the repetition for the role name without its path, and
    // the operator may only read roles without the path.
    let denied: Vec<String> = world.operators().into_iter().filter(|c| c.denied).map(|c| c.action).collect();
    assert_eq!(denied, ["DeleteRole"; 2]);
    world.sim.clear_calls();
}

#[tokio::test]
async fn the_message_names_a_denied_call_and_its_resource() {
    let world = World::ready().await;
    let reason = "User: arn:aws:sts::111122223333:assumed-role/podidentity-operator.homelab/x is not authorized to perform: \
               iam:CreateRole on resource: role because no identity-based policy allows the iam:CreateRole action";
    let denied = FaultKind::Error { status: 403, code: "AccessDenied".into(), message: reason.into() };
    world.sim.inject(Fault::on("iam", "CreateRole", denied));
    world.bind("app", &[]).await;
    world.binding_is("app", "OperatorPermissionMissing").await;
    let (_, _, message) = world.condition("app", C::Ready).await;
    for part in ["iam:CreateRole", &world.role_name("app"), "operator iam-policy"] {
        assert!(message.contains(part), "{message}");
    }
    world.sim.clear_faults();
    world.binding_is("app", "Ready").await;
    world.unbind("app").await;
}

#[tokio::test]
async fn a_missing_boundary_is_named_with_what_to_do() {
    let world = World::ready().await;
    let boundary = world.sim.change(|s| {
        let arn = s.policies.keys().find(|arn| arn.ends_with("homelab.boundary")).unwrap().clone();
        (s.policies.remove(&arn).unwrap(), arn)
    });
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "BoundaryMissing").await;
    let (_, _, message) = world.condition("app", C::Stalled).await;
    assert!(message.contains(&boundary.1) && message.contains("operator bootstrap"), "{message}");
    assert!(world.role().is_none());
    world.bootstrap(&world.spec()).await.unwrap();
    world.binding_is("app", "Ready").await;

    // It is lost later, together with the role's own.
    world.sim.change(|s| {
        s.policies.remove(&boundary.1);
        s.roles.get_mut(&world.role_name("app")).unwrap().boundary = None;
    });
    world.bind("app", &[]).await; // an edit makes the operator look again
    world.binding_is("app", "BoundaryMissing").await;
    world.bootstrap(&world.spec()).await.unwrap();
    world.binding_is("app", "Ready").await;
    world.unbind("app").await;
}

/// A role that the operator may not read is not a missing one.
#[tokio::test]
async fn a_denied_read_of_a_role_ends_no_deletion() {
    let world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let denied = FaultKind::Error {
        status: 403,
        code: "AccessDenied".into(),
        message: "User: x is not authorized to perform: iam:GetRole on resource: role".into(),
    };
    world.sim.inject(Fault::on("iam", "GetRole", denied));
    world.bindings().delete("app", &kube::api::DeleteParams::default()).await.unwrap();
    world.binding_is("app", "DeletionBlocked").await;
    let (_, _, message) = world.condition("app", C::Ready).await;
    assert!(message.contains("iam:GetRole"), "{message}");
    assert!(world.role().is_some());
    world.sim.clear_faults();
    world.until(&world.bindings(), "app", "its deletion", |b: Option<&PodIdentityBinding>| b.is_none()).await;
    assert!(world.role().is_none());
}

#[tokio::test]
async fn an_edit_of_grants_neither_asks_aws_nor_takes_ready_during_an_outage() {
    let world = World::ready().await;
    world.sim.clear_calls();
    let mut spec = world.spec();
    spec.grants[0].policy_arns.pop();
    world.apply_issuer(&spec).await;
    world.issuer_is("Ready").await;
    assert_eq!(world.operators(), [], "grants concern bindings only");

    // AWS does not answer, and what is known of it is old.
    let mut world = world;
    world.stop().await;
    world.timings.issuer_resync = std::time::Duration::from_millis(300);
    world.start().await;
    world.until_called("GetBucketTagging", 1).await;
    world.sim.inject(Fault::on("s3", "", FaultKind::server_error()));
    world.sim.inject(Fault::on("iam", "", FaultKind::server_error()));
    let failing = |i: Option<&crds::OidcIssuer>| {
        let conditions = i.and_then(|i| i.status.as_ref()).map(|s| &s.conditions[..]);
        conditions.is_some_and(|c| find(c, C::AWSReachable).is_some())
    };
    world.until(&world.issuers(), "default", "AWSReachable=False", failing).await;
    world.apply_issuer(&world.spec()).await;
    world.issuer_is("Ready").await;
    let (status, _, _) = world.issuer_condition(C::AWSReachable).await;
    assert_eq!(status, "False", "and it says that AWS fails");
    world.sim.clear_faults();
    world.stop().await;
}

#[tokio::test]
async fn a_blocked_deletion_names_the_cause_and_is_retried_with_growing_delays() {
    let world = World::ready_with(|t| {
        (t.backoff_min, t.backoff_max) =
            (std::time::Duration::from_millis(50), std::time::Duration::from_mins(1));
    })
    .await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    // A person has added the role to an instance profile.
    let profiles = |names: &[&str]| {
        world.sim.change(|state| {
            for role in state.roles.values_mut() {
                role.instance_profiles = names.iter().map(|name| (*name).to_owned()).collect();
            }
        });
    };
    profiles(&["web-nodes", "batch-nodes"]);
    world.bindings().delete("app", &kube::api::DeleteParams::default()).await.unwrap();
    world.binding_is("app", "DeletionBlocked").await;
    let (_, _, message) = world.condition("app", C::Ready).await;
    assert!(message.contains("Instance profiles: batch-nodes, web-nodes"), "{message}");
    world.until_called("DeleteRole", 6).await;
    // The delays are 50, 100, 200, 400 and 800 ms; without them there would be hundreds of calls.
    let tried = world.sim.calls().iter().filter(|c| c.action == "DeleteRole").count();
    assert!(tried < 10, "{tried}");
    profiles(&[]);
    world.until(&world.bindings(), "app", "its deletion", |b: Option<&PodIdentityBinding>| b.is_none()).await;
    assert!(world.role().is_none());
}

#[tokio::test]
async fn a_role_that_is_not_propagated_yet_does_not_stall() {
    let world = World::ready().await;
    let lag = FaultKind::Error {
        status: 404,
        code: "NoSuchEntity".into(),
        message: "The role with name app cannot be found.".into(),
    };
    world.sim.inject(Fault::on("iam", "AttachRolePolicy", lag).times(3));
    world.bind("app", &[STORAGE]).await;
    assert!(!was_stalled_before_ready(&world).await);
    world.unbind("app").await;
}

#[tokio::test]
async fn the_identity_is_asked_for_once_by_all_and_kept_while_sts_fails() {
    let mut world = World::ready().await;
    for number in 0..10 {
        let name = format!("app-{number}");
        world.apply_binding(&name, serde_json::json!({"serviceAccountName": name, "role": {}})).await;
    }
    for number in 0..10 {
        world.binding_is(&format!("app-{number}"), "Ready").await;
    }
    world.stop().await;
    // Long enough for eleven passes, and below the limit of a wait.
    world.timings.identity_refresh = std::time::Duration::from_secs(8);
    world.timings.issuer_resync = std::time::Duration::from_millis(500);
    world.start().await;
    world.until_reconciled().await;
    let all = "podidentity_operator_reconciles_total{kind=\"PodIdentityBinding\",outcome=\"ok\"} 10";
    let check = || async {
        anyhow::ensure!(world.metrics.text().contains(all), "{}", world.metrics.text());
        Ok(())
    };
    cluster::until("a pass of every binding", std::time::Duration::from_secs(15), check).await.unwrap();
    // The status says that the roles were as specified, and the list that they have not changed since.
    let of_roles: Vec<String> = world.role_calls().into_iter().map(|call| call.action).collect();
    assert_eq!(of_roles, [""; 0]);
    let asked = |world: &World| world.sim.calls().iter().filter(|c| c.action == "GetCallerIdentity").count();
    assert_eq!(asked(&world), 1, "eleven passes at once");

    world.sim.inject(Fault::on("sts", "GetCallerIdentity", FaultKind::server_error()));
    world.until_called("GetCallerIdentity", 2).await;
    world.bind("late", &[STORAGE]).await;
    world.binding_is("late", "Ready").await;
    assert!(find(&world.binding("late").await.status.unwrap().conditions, C::AWSReachable).is_none());
    world.stop().await;
}

/// A code that no list has: the status says that AWS itself failed, not the specification.
#[tokio::test]
async fn an_unlisted_code_with_status_503_does_not_stall() {
    let mut world = World::ready().await;
    let outage = FaultKind::Error { status: 503, code: "ServiceOutage".into(), message: String::new() };
    world.sim.inject(Fault::on("iam", "CreateRole", outage));
    world.bind("app", &[]).await;
    world.binding_is("app", "AWSUnavailable").await;
    world.sim.clear_faults();
    assert!(!was_stalled_before_ready(&world).await);
    world.unbind("app").await;
    world.stop().await;
}

#[tokio::test]
async fn a_host_that_iam_cannot_reach_delays_but_does_not_stall() {
    let mut world = World::bootstrapped().await;
    let role = names::operator_role_arn("aws", ACCOUNT, CLUSTER);
    let credentials = world.exchange(&world.system, OPERATOR_SERVICE_ACCOUNT, &role).await.unwrap();
    world.sim.change(|s| s.providers.clear());
    let unreachable = FaultKind::Error {
        status: 400,
        code: "OpenIdIdpCommunicationError".into(),
        message: "IO error while communicating with the identity provider".into(),
    };
    world.sim.inject(Fault::on("iam", "CreateOpenIDConnectProvider", unreachable));
    world.apply_issuer(&world.spec()).await;
    world.start_as(credentials).await;
    world.issuer_is("IssuerUnreachable").await;
    let (_, _, message) = world.issuer_condition(C::Ready).await;
    assert!(message.contains(&format!("AWS IAM could not reach {}", world.spec().issuer_url())), "{message}");
    let conditions = world.issuers().get("default").await.unwrap().status.unwrap().conditions;
    assert!(find(&conditions, C::Stalled).is_none(), "{conditions:?}");
    world.sim.clear_faults();
    world.issuer_is("Ready").await;
    assert_eq!(world.writes(), ["CreateOpenIDConnectProvider"]);
    world.stop().await;
}
