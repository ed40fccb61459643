//! What must never happen to a role that works: it is not removed by an edit, not orphaned by a stale read, not given back the
//! rights that an incident responder took, and not reported before it exists.

use std::time::Duration;

use aws_sim::{Fault, FaultKind};
use crds::condition::ConditionType as C;
use kube::api::DeleteParams;
use serde_json::json;

use crate::world::{QUEUE, STORAGE, World};

#[tokio::test]
async fn a_role_that_is_named_by_its_own_arn_stays_as_it_is() {
    let world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap();
    world.sim.clear_calls();
    world.apply_binding("app", json!({"serviceAccountName": "app", "roleARN": role.arn})).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.role_calls(), [], "neither read nor written");
    assert_eq!(json!(world.role().unwrap()), json!(role));
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();

    // And back: it is managed again, the same role.
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), [""; 0]);

    // Deleted while it only uses the role: the role stays.
    world.apply_binding("app", json!({"serviceAccountName": "app", "roleARN": role.arn})).await;
    world.binding_is("app", "Ready").await;
    world.unbind("app").await;
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(json!(world.role().unwrap()), json!(role));
    assert_eq!(world.annotations("app").await, [].into());
}

/// IAM says for a while that a role does not exist that was just made (`outside-security.md` P-4). Everything is a tenth of
/// its length: the lags are 0, 2 s and 30 s, the confirmation 30 s, the settling 2 min.
#[tokio::test]
async fn a_stale_read_orphans_no_role() {
    for lag in [0, 200, 3000] {
        let world = World::ready_with(|t| {
            (t.role_settling, t.role_confirmation) = (Duration::from_secs(12), Duration::from_secs(3));
        })
        .await;
        world.sim.behave(|behaviour| behaviour.lag_milliseconds = lag);
        // Deleted as soon as its role is made.
        world.bind("app", &[STORAGE]).await;
        world.until_aws("the role", |s| s.role(&world.role_name("app")).is_some()).await;
        world.unbind("app").await;
        assert!(world.role().is_none(), "{lag}: the finalizer was removed and the role was left behind");

        // Another role from the moment its own is made; of another ServiceAccount, since IAM still shows the one that is gone.
        world.service_account(&world.namespace, "web").await;
        let name = world.role_name("web");
        let made = json!({"serviceAccountName": "web", "role": {"policyARNs": [STORAGE]}});
        world.apply_binding("web", made).await;
        world.until_aws("the role", |s| s.role(&name).is_some()).await;
        let elsewhere = "arn:aws:iam::999999999999:role/terraform/app";
        world.apply_binding("web", json!({"serviceAccountName": "web", "roleARN": elsewhere})).await;
        world.until_aws("the end of the role", |s| s.role(&name).is_none()).await;
        world.binding_is("web", "Ready").await;
        world.unbind("web").await;
        assert!(world.sim.state().role(&name).is_none(), "{lag}");
    }
}

#[tokio::test]
async fn a_role_that_is_missing_holds_its_binding_only_until_that_was_said_twice() {
    let world = World::ready_with(|t| {
        (t.role_settling, t.role_confirmation) = (Duration::from_secs(8), Duration::from_secs(2));
    })
    .await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.sim.change(|s| s.roles.remove(&world.role_name("app")));
    world.sim.clear_calls();
    let begun = std::time::Instant::now();
    world.unbind("app").await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    // Twice, and once more for each write of the binding itself that wakes its pass.
    let asked = world.counts()["iam:GetRole"];
    assert!((2..=4).contains(&asked), "{asked}");
    assert_eq!(world.writes(), [""; 0]);
}

/// What the IAM console's "Revoke active sessions" attaches to the role (IAM user guide).
fn revoke_older_sessions() -> serde_json::Value {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Action": ["*"], "Resource": ["*"],
        "Condition": {"DateLessThan": {"aws:TokenIssueTime": now}},
    }]})
}

#[tokio::test]
async fn drift_repair_does_not_undo_an_incident_response() {
    let mut world = World::ready_with(|t| t.role_resync = Duration::from_millis(100)).await;
    world.sim.put_bucket("data", "111122223333");
    world.sim.put_object("data", "secret", "x");
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap();
    let stolen = world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    world.reads(stolen.clone()).await.unwrap();

    // `aws:TokenIssueTime` has whole seconds.
    let check = || async {
        let next = world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
        let revoke = revoke_older_sessions();
        let name = world.role_name("app");
        world.sim.change(|s| {
            let role = s.roles.get_mut(&name).unwrap();
            role.inline.insert("AWSRevokeOlderSessions".into(), revoke);
        });
        anyhow::ensure!(world.reads(stolen.clone()).await.is_err(), "the stolen session still works");
        drop(next);
        Ok(())
    };
    cluster::until("the end of the stolen session", Duration::from_secs(5), check).await.unwrap();
    let deny_all = world.sim.put_managed_policy(
        "quarantine",
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}),
    );
    world.sim.change(|s| {
        let role = s.roles.get_mut(&world.role_name("app")).unwrap();
        role.attached.push(deny_all.clone());
        role.attached.push(QUEUE.into()); // and somebody uses the moment
    });
    world.sim.clear_calls();
    world.binding_is("app", "ForeignDeny").await;
    let detached = |s: &aws_sim::State| {
        s.role(&world.role_name("app")).is_some_and(|r| !r.attached.contains(&QUEUE.to_owned()))
    };
    world.until_aws("the removal of what was added", detached).await;
    let (status, _, message) = world.condition("app", C::Ready).await;
    assert_eq!(status, "True");
    for part in ["inline policy AWSRevokeOlderSessions", "policy/quarantine"] {
        assert!(message.contains(part), "{message}");
    }
    // Several resyncs later.
    world.until_called("ListRolePolicies", 5).await;
    assert_eq!(world.writes(), ["DetachRolePolicy"]);
    assert!(world.reads(stolen.clone()).await.is_err(), "drift repair revived the stolen session");
    world.unbind("app").await;
    assert!(world.role().is_none(), "the deletion of the binding removes all of it");
    world.stop().await;
}

/// The message of Ready.
fn message(binding: Option<&crds::PodIdentityBinding>) -> Option<&str> {
    let conditions = &binding?.status.as_ref()?.conditions;
    crds::conditions::find(conditions, C::Ready).map(|ready| &*ready.message)
}

/// IAM says for a moment that a policy does not exist that it has listed.
#[tokio::test]
async fn policies_that_deny_stay_where_iam_does_not_show_their_documents_yet() {
    const TIMES: usize = 3;
    const READS: [&str; 3] = ["GetPolicy", "GetPolicyVersion", "GetRolePolicy"];
    let mut world = World::ready_with(|t| t.role_resync = Duration::from_millis(100)).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    for action in READS {
        let kind = FaultKind::Error { status: 404, code: "NoSuchEntity".into(), message: "not found".into() };
        world.sim.inject(Fault::on("iam", action, kind).times(TIMES.try_into().unwrap()));
    }
    let statement = json!({"Effect": "Deny", "Action": "s3:*", "Resource": "*"});
    let deny = json!({"Version": "2012-10-17", "Statement": [statement]});
    let managed = world.sim.put_managed_policy("quarantine", deny.clone());
    world.sim.clear_calls();
    let name = world.role_name("app").to_lowercase();
    world.sim.change(|state| {
        let role = state.roles.get_mut(&name).unwrap();
        role.inline.insert("Quarantine".into(), deny.clone());
        role.attached.push(managed.clone());
    });
    let names_both = |binding: Option<&crds::PodIdentityBinding>| {
        message(binding).is_some_and(|message| {
            let names = |part: &&str| message.contains(*part);
            ["inline policy Quarantine", "policy/quarantine"].iter().all(names)
                && !message.contains("does not show")
        })
    };
    world.until(&world.bindings(), "app", "both policies", names_both).await;
    let answers = world.sim.calls();
    for action in READS {
        let missing = answers.iter().filter(|call| call.action == action && call.status == 404).count();
        assert_eq!(missing, TIMES, "{action}");
    }
    assert_eq!(world.writes(), [""; 0]);
    world.unbind("app").await;
    world.stop().await;
}

/// IAM never shows the documents: nothing is done about these policies while the role stays, and its deletion removes them.
#[tokio::test]
async fn a_role_ends_although_iam_does_not_show_the_documents_of_its_policies() {
    let mut world = World::ready_with(|t| t.role_resync = Duration::from_millis(100)).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    for action in ["GetPolicy", "GetRolePolicy"] {
        let kind = FaultKind::Error { status: 404, code: "NoSuchEntity".into(), message: "not found".into() };
        world.sim.inject(Fault::on("iam", action, kind));
    }
    world.sim.clear_calls();
    let name = world.role_name("app").to_lowercase();
    world.sim.change(|state| {
        let role = state.roles.get_mut(&name).unwrap();
        role.inline.insert("unknown".into(), json!({"Version": "2012-10-17", "Statement": []}));
        role.attached.push(QUEUE.into());
    });
    let names_both = |binding: Option<&crds::PodIdentityBinding>| {
        let end = format!("they are read again: {QUEUE}, inline policy unknown");
        message(binding).is_some_and(|message| message.ends_with(&end))
    };
    world.until(&world.bindings(), "app", "both policies", names_both).await;
    assert_eq!(world.writes(), [""; 0]);
    world.unbind("app").await;
    assert!(world.role().is_none());
    assert_eq!(
        world.writes(),
        ["UpdateAssumeRolePolicy", "DetachRolePolicy", "DetachRolePolicy", "DeleteRolePolicy", "DeleteRole"]
    );
    world.stop().await;
}

/// The first read after an edit fails. What was read before the edit is not used: there, the policy that denies was a specified one.
#[tokio::test]
async fn a_read_that_fails_after_an_edit_is_made_again_before_the_role_is_changed() {
    let mut world = World::ready().await;
    let deny = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]});
    let managed = world.sim.put_managed_policy("quarantine", deny.clone());
    let mut spec = world.spec();
    spec.grants[0].policy_arns.push(managed.clone());
    world.apply_issuer(&spec).await;
    world.bind("app", &[STORAGE, &managed]).await;
    world.binding_is("app", "Ready").await;
    world.stop().await;
    // What is kept of a role beside the list of roles: it has another policy that denies.
    let name = world.role_name("app").to_lowercase();
    world.sim.change(|state| {
        let role = state.roles.get_mut(&name).unwrap();
        role.inline.insert("AWSRevokeOlderSessions".into(), deny);
        role.description = "x".into();
    });
    world.start().await;
    world.binding_is("app", "ForeignDeny").await;
    world.until_idle().await;
    world.sim.clear_calls();
    // More than the SDK's own attempts.
    world.sim.inject(Fault::on("iam", "GetRole", FaultKind::throttle()).times(4));
    world.bind("app", &[STORAGE]).await;
    let names_both = |binding: Option<&crds::PodIdentityBinding>| {
        message(binding).is_some_and(|message| message.contains("policy/quarantine"))
    };
    world.until(&world.bindings(), "app", "the policy that stays", names_both).await;
    let throttled =
        world.sim.calls().iter().filter(|call| call.action == "GetRole" && call.status != 200).count();
    assert_eq!((throttled, world.writes()), (4, Vec::new()));
    world.unbind("app").await;
    world.stop().await;
}

/// A Ready role with a policy that denies is read every six hours. Whoever deletes it and makes one of that name meanwhile owns that.
#[tokio::test]
async fn a_role_that_was_made_anew_by_somebody_else_is_read_before_it_is_changed() {
    let mut world = World::ready_with(|t| t.reconcile_timeout = Duration::from_secs(2)).await;
    let name = world.role_name("app").to_lowercase();
    let deny =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]});
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.stop().await;
    world.sim.change(|state| {
        let role = state.roles.get_mut(&name).unwrap();
        role.inline.insert("Quarantine".into(), deny);
        role.description = "x".into(); // which the list of roles shows
    });
    world.start().await;
    world.binding_is("app", "ForeignDeny").await;
    world.until_idle().await;
    let read = std::time::Instant::now();
    let is_old = || async {
        anyhow::ensure!(read.elapsed() > Duration::from_secs(3), "not yet");
        Ok(())
    };
    cluster::until("a read that is old", Duration::from_secs(15), is_old).await.unwrap();

    world.sim.clear_calls();
    world.sim.change(|state| {
        let role = state.roles.get_mut(&name).unwrap();
        (role.id, role.tags) = ("AROAOTHER".into(), [("team".into(), "other".into())].into());
    });
    let state = json!(world.sim.state().roles);
    let passes = world.passes("PodIdentityBinding", None);
    // Another grant wakes the binding and changes nothing for it; another boundary would change its role.
    let mut spec = world.spec();
    spec.permissions_boundary = Some("arn:aws:iam::111122223333:policy/storage".into());
    world.apply_issuer(&spec).await;
    world.binding_is("app", "NotOwned").await;
    assert_eq!((world.writes(), json!(world.sim.state().roles)), (Vec::new(), state));
    let reads = world.counts()["iam:GetRole"];
    let passes = world.passes("PodIdentityBinding", None) - passes;
    assert!((1..=4).contains(&reads) && passes <= 8, "{reads} reads in {passes} passes");
    world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
    world.stop().await;
}

/// First it is kept and revoked, then the edit says that it is to be deleted.
#[tokio::test]
async fn a_role_that_was_retained_for_another_one_is_deleted_after_an_edit_that_says_so() {
    let mut world = World::ready_with(|t| t.reconcile_timeout = Duration::from_secs(2)).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let other = |policy: &str| {
        let arn = format!("arn:aws:iam::{}:role/other", crate::world::ACCOUNT);
        json!({"serviceAccountName": "app", "roleARN": arn, "deletionPolicy": policy})
    };
    world.apply_binding("app", other("Retain")).await;
    world.binding_is("app", "Ready").await;
    world.until_idle().await;
    assert!(world.role().is_some());
    let read = std::time::Instant::now();
    let is_old = || async {
        anyhow::ensure!(read.elapsed() > Duration::from_secs(3), "not yet");
        Ok(())
    };
    cluster::until("a read that is old", Duration::from_secs(15), is_old).await.unwrap();
    world.sim.clear_calls();
    // Whatever fails on the way, the rest is still done.
    for action in ["ListRolePolicies", "DetachRolePolicy", "DeleteRole"] {
        let kind = FaultKind::Error { status: 409, code: "DeleteConflict".into(), message: "not yet".into() };
        world.sim.inject(Fault::on("iam", action, kind).times(1));
    }
    world.apply_binding("app", other("Delete")).await;
    world.until_aws("the end of the role", |state| state.role(&world.role_name("app")).is_none()).await;
    world.binding_is("app", "Ready").await;
    let calls = world.sim.calls();
    let answers = |action: &str| -> Vec<u16> {
        calls.iter().filter(|call| call.action == action).map(|call| call.status).collect()
    };
    assert_eq!((answers("DeleteRole"), answers("CreateRole")), (vec![409, 200], vec![]));
    world.unbind("app").await;
    world.stop().await;
}

#[tokio::test]
async fn the_status_names_no_role_that_was_never_made() {
    let world = World::ready().await;
    let used = world.sim.state().roles.len();
    world.sim.behave(|behaviour| behaviour.role_quota = used);
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "QuotaExceeded").await;
    let binding = world.binding("app").await;
    let status = binding.status.clone().unwrap();
    assert_eq!((status.role_arn, status.role_name), (None, None), "the role does not exist");
    assert_eq!(world.condition("app", C::ServiceAccountAnnotated).await.0, "False");
    // The webhook takes it from there: Stalled and never had a role.
    let facts = webhook_facts(binding);
    assert!(facts.0 && !facts.1, "{facts:?}");

    world.sim.behave(|behaviour| behaviour.role_quota = used + 1);
    world.binding_is("app", "Ready").await;
    let status = world.binding("app").await.status.unwrap();
    assert_eq!(status.role_name, Some(world.role_name("app")));
    world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
}

/// What the webhook reads of a status: Stalled without a role, and with one.
fn webhook_facts(binding: crds::PodIdentityBinding) -> (bool, bool) {
    let status = binding.status.unwrap_or_default();
    let stalled = crds::conditions::is_true(&status.conditions, C::Stalled);
    (stalled && status.role_arn.is_none(), status.role_name.is_some())
}

/// After a failed step all inline policies are read, also those that this process has put: other people can have changed them.
#[tokio::test]
async fn after_a_failed_step_inline_policies_that_were_put_are_read() {
    let mut world = World::ready().await;
    world.allow_inline_policies().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.sim.clear_calls();
    // The last step is done, and its answer is lost. The next pass begins with a read that takes its time.
    world.sim.inject(Fault::on("iam", "DetachRolePolicy", FaultKind::LostResponse));
    world.sim.inject(Fault::on("iam", "GetRole", FaultKind::Delay { milliseconds: 1_500 }));
    let allows = |action: &str| json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]});
    let data = allows("s3:GetObject");
    let role = json!({"policyARNs": [], "inlinePolicies": [{"name": "data", "document": data}]});
    world.apply_binding("app", json!({"serviceAccountName": "app", "role": role})).await;
    world.until_called("DetachRolePolicy", 3).await; // the attempts of one step
    let name = world.role_name("app").to_lowercase();
    world.sim.change(|state| {
        state.roles.get_mut(&name).unwrap().inline.insert("data".into(), allows("*"));
    });
    world.until_aws("the specified document", |state| state.roles[&name].inline["data"] == data).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.role().unwrap().attached, [""; 0]);
    let writes = world.writes();
    assert_eq!(writes.iter().filter(|write| **write == "PutRolePolicy").count(), 2, "{writes:?}");
    world.sim.clear_faults();
    world.unbind("app").await;
    world.stop().await;
}
