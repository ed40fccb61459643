//! `operator adopt`: what a tutorial, irsa-manager or Terraform made becomes the cluster's where an administrator says so.

use aws_sim::{Provider, State, Tags};
use operator::adopt::{self, BindingRole, Resource};
use operator::cli::Output;
use operator::dry_run::Ended;
use operator::installation::NamedIssuer;
use operator::terminal::Terminal;
use serde_json::{Value, json};

use crate::bootstrap::writes;
use crate::issuer::provider_arn;
use crate::world::{ACCOUNT, BUCKET, CLUSTER, STORAGE, World, issuer};

impl World {
    /// How `operator adopt` ends.
    async fn adopt(&self, what: Resource<'_>, dry_run: Option<Output>) -> anyhow::Result<Ended> {
        let accounts = self.administrator().await;
        let mut terminal = Terminal::to(Box::new(std::io::sink()));
        adopt::adopt(what, accounts.own(), dry_run, &mut terminal).await
    }

    /// The same with a refusal.
    async fn adopt_refused(&self, what: Resource<'_>) -> String {
        self.adopt(what, None).await.unwrap_err().to_string()
    }
}

fn team() -> Tags {
    Tags::from([("team".into(), "platform".into())])
}

/// What belongs to another cluster carries its tags.
fn of_another_cluster(tags: &mut Tags) {
    tags.insert("podidentity.dev/cluster".into(), "office".into());
}

#[tokio::test]
async fn bucket_and_provider_of_a_tutorial_become_the_issuers() {
    let world = World::new().await;
    let issuer: NamedIssuer = issuer("default", &world.spec());
    let missing = world.adopt_refused(Resource::Bucket(&issuer)).await;
    assert_eq!(
        missing,
        format!(
            "there is no bucket {BUCKET}, so there is nothing to take over: it will be made. Nothing was changed"
        )
    );
    world.sim.put_bucket(BUCKET, ACCOUNT);
    world.sim.put_object(BUCKET, "notes.txt", "ours");
    let url = world.spec().issuer_url();
    world.sim.change(|state| {
        state.buckets.get_mut(BUCKET).unwrap().tags = team();
        let provider = Provider { url, client_ids: vec!["sts.amazonaws.com".into()], tags: team() };
        state.providers.insert(provider_arn(), provider);
    });
    let refused = world.bootstrap(&world.spec()).await.unwrap_err().to_string();
    assert!(refused.contains("take it over with `operator adopt`"), "{refused}");

    // Another cluster's are not taken.
    for resource in [Resource::Bucket(&issuer), Resource::Provider(&issuer)] {
        let change = |state: &mut State, tagged: fn(&mut Tags)| match resource {
            Resource::Bucket(_) => tagged(&mut state.buckets.get_mut(BUCKET).unwrap().tags),
            _ => tagged(&mut state.providers.get_mut(&provider_arn()).unwrap().tags),
        };
        world.sim.change(|state| change(state, of_another_cluster));
        world.sim.clear_calls();
        let refused = world.adopt_refused(resource).await;
        assert!(
            refused.contains("of cluster office") && refused.ends_with("Nothing was changed"),
            "{refused}"
        );
        world.sim.change(|state| change(state, |tags| drop(tags.remove("podidentity.dev/cluster"))));

        assert_eq!(world.adopt(resource, Some(Output::Json)).await.unwrap(), Ended::WouldChange);
        assert_eq!(writes(&world), [""; 0]);
        assert_eq!(world.adopt(resource, None).await.unwrap(), Ended::Done);
        assert_eq!(world.adopt(resource, None).await.unwrap(), Ended::Done);
        let call = if matches!(resource, Resource::Bucket(_)) {
            "PutBucketTagging"
        } else {
            "TagOpenIDConnectProvider"
        };
        assert_eq!(writes(&world), [call]);
    }
    world.bootstrap(&world.spec()).await.unwrap();
    let state = world.sim.state();
    assert_eq!(state.buckets[BUCKET].tags["team"], "platform");
    assert_eq!(state.providers[&provider_arn()].tags["team"], "platform");
    assert!(state.buckets[BUCKET].objects.contains_key("notes.txt"));
}

#[tokio::test]
async fn a_role_of_the_bindings_name_becomes_the_bindings() {
    let mut world = World::ready().await;
    let trust: Value = json!({"Version": "2012-10-17", "Statement": []});
    let path = crds::names::role_path(CLUSTER);
    let arn = world.sim.put_role(&path, &world.role_name("app"), trust.clone(), &[]);
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "NotOwned").await;
    let id = world.role().unwrap().id;
    world.sim.clear_calls();
    let role = BindingRole::read(&world.client, &world.namespace, "app").await.unwrap();
    assert_eq!(world.adopt(Resource::Role(&role), Some(Output::Text)).await.unwrap(), Ended::WouldChange);
    assert_eq!(writes(&world), [""; 0]);
    world.adopt(Resource::Role(&role), None).await.unwrap();
    world.binding_is("app", "Ready").await;
    let adopted = world.role().unwrap();
    assert_eq!((adopted.id, adopted.arn), (id, arn.clone()), "the same role");
    assert_ne!(adopted.trust, trust);
    world.exchange(&world.namespace, "app", &arn).await.unwrap();
    world.unbind("app").await;

    // IAM cannot change a path.
    world.sim.put_role("/", &world.role_name("app"), trust, &[]);
    world.bind("app", &[STORAGE]).await;
    let role = BindingRole::read(&world.client, &world.namespace, "app").await.unwrap();
    let refused = world.adopt_refused(Resource::Role(&role)).await;
    assert!(refused.contains("IAM cannot change a path"), "{refused}");
    world.sim.change(|state| state.roles.retain(|name, _| name.contains("podidentity")));
    world.binding_is("app", "Ready").await;
    world.stop().await;
}
