//! Drift in two tiers: the list of all roles shows a change of what it contains within minutes, and a role is read whole every few hours.

use std::time::Duration;

use aws_sim::world::Role;
use crds::condition::ConditionType;
use crds::{OidcIssuerSpec, PodIdentityBinding, Reason};
use serde_json::json;

use crate::world::{QUEUE, STORAGE, World};

/// What is changed, how, and the writes that put it back.
type Row = (&'static str, fn(&mut Role), &'static [&'static str]);

/// With the default period for whole reads, only the list can show the changes.
#[tokio::test]
async fn what_the_list_of_roles_shows_is_put_back_without_a_whole_read_of_the_others() {
    let mut world = World::ready_with(|timings| timings.role_sweep = Duration::from_millis(200)).await;
    world.service_account(&world.namespace, "other").await;
    world.bind("app", &[STORAGE]).await;
    world
        .apply_binding("other", json!({"serviceAccountName": "other", "role": {"policyARNs": [STORAGE]}}))
        .await;
    for name in ["app", "other"] {
        world.binding_is(name, "Ready").await;
    }
    let (name, other) = (world.role_name("app"), world.role_name("other"));
    let as_specified = world.role().unwrap();
    let rows: [Row; 3] = [
        ("description", |role| role.description = "changed".into(), &["UpdateRole"]),
        ("session limit", |role| role.max_session_duration = 7200, &["UpdateRole"]),
        (
            "trust policy",
            |role| role.trust = json!({"Version": "2012-10-17", "Statement": []}),
            &["UpdateAssumeRolePolicy"],
        ),
    ];
    for (row, change, writes) in rows {
        // A list that shows the role as it is now.
        world.sweeps(2).await;
        world.sim.clear_calls();
        world.sim.change(|state| change(state.roles.get_mut(&name.to_lowercase()).unwrap()));
        let is_back = |state: &aws_sim::State| json!(state.role(&name)) == json!(as_specified);
        world.until_aws(row, is_back).await;
        assert_eq!(world.writes(), writes, "{row}");
        let of_other = world.role_calls().into_iter().filter(|call| call.resource.contains(&other)).count();
        assert_eq!(of_other, 0, "{row}: the list says nothing against the other one");
    }

    // A role that was deleted is created again.
    world.sweeps(2).await;
    world.sim.change(|state| drop(state.roles.remove(&name.to_lowercase())));
    world
        .until_aws("the role", |state| state.role(&name).is_some_and(|role| role.attached == [STORAGE]))
        .await;
    world.binding_is("app", "Ready").await;

    // The list does not show policies: they wait for the whole read.
    world.sweeps(2).await;
    world.sim.clear_calls();
    world.sim.change(|state| state.roles.get_mut(&name.to_lowercase()).unwrap().attached.push(QUEUE.into()));
    world.sweeps(3).await;
    assert_eq!(world.role_calls().into_iter().filter(|call| call.action != "ListRoles").count(), 0);
    world.stop().await;
    world.timings.role_resync = Duration::from_millis(200);
    world.start().await;
    world.until_aws("the specified policies", |state| state.role(&name).unwrap().attached == [STORAGE]).await;
    for name in ["app", "other"] {
        world.unbind(name).await;
    }
    world.stop().await;
}

/// `spec.tags` of the issuer: on the role from its creation, and changed in place.
#[tokio::test]
async fn the_tags_of_the_issuer_are_kept_on_the_role_and_a_new_key_waits_for_bootstrap() {
    let mut world = World::new().await;
    world.timings.role_resync = Duration::from_millis(200);
    let with = |tags: &[(&str, &str)]| OidcIssuerSpec {
        tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..world.spec()
    };
    let (platform, storage) = (with(&[("team", "platform")]), with(&[("team", "storage")]));
    let both = with(&[("team", "storage"), ("cost-center", "4711")]);
    world.bootstrap(&platform).await.unwrap();
    world.apply_issuer(&platform).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let name = world.role_name("app").to_lowercase();
    let made = world.role().unwrap();
    assert_eq!(made.tags["team"], "platform");
    let digest = |binding: &PodIdentityBinding| binding.status.as_ref()?.role_digest.clone();
    // The digest of a role whose tags are not in place is shorter. Returns the one under which all are.
    let settled = async |world: &World, former: &str| {
        let is_in_spec = |binding: Option<&PodIdentityBinding>| {
            binding.and_then(digest).is_some_and(|digest| digest.len() == 24 && digest != former)
        };
        world.until(&world.bindings(), "app", "the role as specified", is_in_spec).await;
        digest(&world.binding("app").await).unwrap()
    };
    let of_platform = settled(&world, "").await;
    let corrected = |world: &World| {
        let metrics = world.metrics.text();
        let line =
            metrics.lines().find(|line| line.contains("drift_repairs_total") && line.contains("\"tags\""));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    assert_eq!(world.writes().iter().filter(|action| *action == "TagRole").count(), 0);

    // Another value is written over the former one.
    world.sim.clear_calls();
    world.apply_issuer(&storage).await;
    world.until_aws("the value", |state| state.roles[&name].tags["team"] == "storage").await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes().iter().filter(|action| *action == "TagRole").count(), 1);
    assert_eq!(world.role().unwrap().id, made.id);
    let of_storage = settled(&world, &of_platform).await;
    assert_eq!(corrected(&world), 0, "an edit is no drift");

    // The operator adds a tag again that was removed from the role. It does not remove a tag that was added.
    world.sim.clear_calls();
    world.sim.change(|state| {
        let tags = &mut state.roles.get_mut(&name).unwrap().tags;
        tags.remove("team");
        tags.insert("owner".into(), "jane".into());
    });
    world.until_aws("the tag", |state| state.roles[&name].tags.contains_key("team")).await;
    let noted = || async {
        let notes = world.events("app", Reason::DriftCorrected).await.join("\n");
        anyhow::ensure!(notes.contains("tags"), "{notes}");
        Ok(())
    };
    cluster::until("the event", Duration::from_secs(15), noted).await.unwrap();
    assert_eq!(corrected(&world), 1);
    assert_eq!(world.writes(), ["TagRole"]);

    // The operator may not write a key that its policy does not name. The binding says so and stays Ready.
    world.apply_issuer(&both).await;
    let denied = |binding: Option<&PodIdentityBinding>| {
        let status = binding.and_then(|binding| binding.status.as_ref());
        status.is_some_and(|status| {
            status.conditions.iter().any(|condition| {
                condition.reason == Reason::OperatorPermissionMissing
                    && condition.message.contains("iam:TagRole")
            })
        })
    };
    world.until(&world.bindings(), "app", "what is denied", denied).await;
    assert_eq!(world.condition("app", ConditionType::Ready).await.0, "True");
    world.bootstrap(&both).await.unwrap();
    world.until_aws("the new key", |state| state.roles[&name].tags.contains_key("cost-center")).await;
    settled(&world, &of_storage).await;
    assert_eq!(corrected(&world), 1, "an edit is no drift, also where its first call is denied");
    // The calls before `bootstrap` were denied.
    world.sim.clear_calls();

    // A key that is removed from the issuer stays.
    world.apply_issuer(&platform).await;
    world.until_aws("the value", |state| state.roles[&name].tags["team"] == "platform").await;
    world.binding_is("app", "Ready").await;
    let tags = world.role().unwrap().tags;
    assert_eq!([&tags["cost-center"], &tags["owner"]], ["4711", "jane"]);
    world.unbind("app").await;
    world.stop().await;
}

impl World {
    /// Waits until so many more lists of roles were made.
    async fn sweeps(&self, times: usize) {
        let made = self.sim.calls().iter().filter(|call| call.action == "ListRoles").count();
        self.until_called("ListRoles", made + times).await;
    }
}
