//! Several issuers of one cluster in one account: each has its own bindings, bucket and provider; role, policy and boundary
//! of the operator are unions over all.

use crds::condition::ConditionType as C;
use crds::{OidcIssuer, OidcIssuerSpec};
use kube::api::DeleteParams;
use serde_json::json;

use crate::world::{ACCOUNT, BUCKET, CLUSTER, Flags, STORAGE, World, issuer};

const SECOND_BUCKET: &str = "second-111122223333-eu-central-1-an";
const OPERATOR_ROLE: &str = "podidentity-operator.homelab";

fn second(world: &World) -> OidcIssuerSpec {
    let mut spec = world.spec();
    spec.s3.as_mut().unwrap().bucket = SECOND_BUCKET.into();
    spec
}

/// The operator's permissions, its trust policy and the boundary, as text.
fn unions(world: &World) -> [String; 3] {
    let state = world.sim.state();
    let role = state.role(OPERATOR_ROLE).unwrap();
    let boundary = state.policies.iter().find(|(arn, _)| arn.ends_with("homelab.boundary")).unwrap().1;
    let permissions = role.inline.values().next().unwrap();
    [permissions.to_string(), role.trust.to_string(), boundary.versions.last().unwrap().1.to_string()]
}

#[tokio::test]
async fn each_issuer_has_its_own_bindings_whatever_its_name() {
    let mut world = World::new().await;
    let (primary, second) = (world.spec(), second(&world));
    let file = [issuer("primary", &primary), issuer("second", &second)];
    let printed = world.bootstrap_all(&file, Flags::default(), &world.client).await.unwrap();
    let flags = printed.lines().filter(|line| line.starts_with("--")).count();
    assert_eq!(flags, 1, "an API server signs under one issuer: {printed}");
    assert!(
        printed.contains("# to issue tokens under OidcIssuer second instead, put https://second-"),
        "{printed}"
    );
    world.apply_issuer_as("primary", &primary).await;
    world.apply_issuer_as("second", &second).await;
    world.start().await;
    world.issuer_named_is("primary", "Ready").await;
    // The API server signs with one issuer only; the other is published and registered all the same.
    world.issuer_named_is("second", "IssuerMismatch").await;
    for type_ in [C::Published, C::ProviderRegistered] {
        assert_eq!(world.issuer_named_condition("second", type_).await.0, "True", "{}", type_.as_str());
    }

    world.service_account(&world.namespace, "web").await;
    let bind = async |name: &str, issuer: &str| {
        let spec = json!({
            "serviceAccountName": name, "issuerRef": {"name": issuer}, "role": {"policyARNs": [STORAGE]},
        });
        world.apply_binding(name, spec).await;
    };
    bind("app", "primary").await;
    bind("web", "second").await;
    for (name, bucket) in [("app", BUCKET), ("web", SECOND_BUCKET)] {
        world.binding_is(name, "Ready").await;
        let role = world.sim.state().role(&world.role_name(name)).cloned().unwrap();
        let host = format!("{bucket}.s3.eu-central-1.amazonaws.com/{CLUSTER}");
        let provider = format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{host}");
        assert_eq!(role.trust["Statement"][0]["Principal"]["Federated"], provider);
        assert_eq!(role.tags["podidentity.dev/issuer"], format!("https://{host}"));
    }
    let arn = |name: &str| world.sim.state().role(&world.role_name(name)).unwrap().arn.clone();
    world.exchange(&world.namespace, "app", &arn("app")).await.unwrap();
    assert!(
        world.exchange(&world.namespace, "web", &arn("web")).await.is_err(),
        "its tokens are of `primary`"
    );
    let [_, _, boundary] = unions(&world);
    assert!(boundary.contains(BUCKET) && boundary.contains(SECOND_BUCKET), "{boundary}");

    // An issuer waits for its own bindings only, also for one whose edit is refused, and is woken by the end of the last.
    assert_eq!(world.binding("web").await.status.unwrap().issuer.as_deref(), Some("second"));
    bind("web", "nowhere").await;
    world.binding_is("web", "InvalidSpec").await;
    world.issuers().delete("second", &DeleteParams::default()).await.unwrap();
    world.issuer_named_is("second", "DeletionBlocked").await;
    let (_, _, message) = world.issuer_named_condition("second", C::Ready).await;
    assert!(
        message.contains(&format!("1 PodIdentityBinding(s) still use this issuer: {}/web", world.namespace))
    );
    world.unbind("web").await;
    world.until(&world.issuers(), "second", "its deletion", |i: Option<&OidcIssuer>| i.is_none()).await;
    world.issuer_named_is("primary", "Ready").await;
    world.exchange(&world.namespace, "app", &arn("app")).await.unwrap();

    bind("web", "second").await;
    world.binding_is("web", "DependencyNotReady").await;
    let (_, _, message) = world.condition("web", C::Ready).await;
    assert!(message.contains("OidcIssuer second does not exist"), "{message}");
    // It comes back, and its bindings are woken.
    world.apply_issuer_as("second", &second).await;
    world.binding_is("web", "Ready").await;
    world.unbind("web").await;
    world.unbind("app").await;
}

#[tokio::test]
async fn bootstrap_and_teardown_of_one_issuer_leave_the_others_their_rights() {
    let mut world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap().arn;
    let second = second(&world);
    let file = [issuer("second", &second)];

    // The file holds the second issuer only; the cluster has the first.
    world.bootstrap_all(&file, Flags::default(), &world.client).await.unwrap();
    for text in unions(&world) {
        assert!(text.contains(BUCKET) && text.contains(SECOND_BUCKET), "{text}");
    }
    world.apply_issuer_as("second", &second).await;
    world.issuer_named_is("second", "IssuerMismatch").await;
    world.sim.clear_calls();
    let again = world.bootstrap(&world.spec()).await.unwrap();
    assert!(again.contains("everything is as specified"), "{again}");

    // Roles of the second issuer stop its teardown; those of the first do not.
    world.service_account(&world.namespace, "web").await;
    let spec =
        json!({"serviceAccountName": "web", "issuerRef": {"name": "second"}, "role": {"policyARNs": []}});
    world.apply_binding("web", spec).await;
    world.binding_is("web", "Ready").await;
    let refused = world.teardown_all(&file, false).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!(
            "1 role(s) of bindings remain under /podidentity/homelab/: {}",
            world.role_name("web")
        )),
        "{refused}"
    );
    world.unbind("web").await;
    let printed = world.teardown_all(&file, false).await.unwrap();
    assert!(printed.contains("are kept: OidcIssuer default uses them"), "{printed}");
    let state = world.sim.state();
    assert!(!state.buckets.contains_key(SECOND_BUCKET) && state.buckets.contains_key(BUCKET));
    assert!(state.role(OPERATOR_ROLE).is_some());
    world.exchange(&world.namespace, "app", &role).await.unwrap();

    // Once its object is deleted, bootstrap removes its rights.
    world.issuers().delete("second", &DeleteParams::default()).await.unwrap();
    world.until(&world.issuers(), "second", "its deletion", |i: Option<&OidcIssuer>| i.is_none()).await;
    world.bootstrap(&world.spec()).await.unwrap();
    for text in unions(&world) {
        assert!(text.contains(BUCKET) && !text.contains(SECOND_BUCKET), "{text}");
    }
    world.unbind("app").await;
    world.stop().await;
}

/// The cluster moves to another URL: role and boundary were made for the issuer that is removed.
#[tokio::test]
async fn the_issuer_that_the_operators_role_was_made_for_can_be_removed() {
    let world = World::new().await;
    let (first, second) = (world.spec(), second(&world));
    let one = [issuer("first", &first)];
    world.bootstrap_all(&one, Flags::default(), &world.client).await.unwrap();
    world.apply_issuer_as("first", &first).await;
    let two = [issuer("second", &second)];
    world.bootstrap_all(&two, Flags::default(), &world.client).await.unwrap();
    world.apply_issuer_as("second", &second).await;

    world.issuers().delete("first", &DeleteParams::default()).await.unwrap();
    world.sim.clear_calls();
    world.teardown_all(&one, false).await.unwrap();
    let written: Vec<String> = world.sim.calls().into_iter().filter(|c| c.write).map(|c| c.action).collect();
    assert_eq!(
        written,
        [
            "TagRole",
            "TagRole",
            "TagPolicy",
            "DeleteOpenIDConnectProvider",
            "DeleteObject",
            "DeleteObject",
            "DeleteObject",
            "DeleteBucket"
        ]
    );
    world.bootstrap_all(&two, Flags::default(), &world.client).await.unwrap();
    for text in unions(&world) {
        assert!(!text.contains(BUCKET) && text.contains(SECOND_BUCKET), "{text}");
    }
    world.issuers().delete("second", &DeleteParams::default()).await.unwrap();
    world.teardown_all(&two, false).await.unwrap();
    let state = world.sim.state();
    assert!(state.roles.is_empty() && state.providers.is_empty() && state.buckets.is_empty());
}

#[tokio::test]
async fn issuers_of_two_clusters_in_one_file_are_refused() {
    let world = World::new().await;
    let mut other = second(&world);
    other.cluster_name = "office".into();
    let file = [issuer("primary", &world.spec()), issuer("other", &other)];
    let refused = world.bootstrap_all(&file, Flags::default(), &world.client).await.unwrap_err().to_string();
    assert!(
        refused.contains("one cluster has one name") && refused.contains("Nothing was changed"),
        "{refused}"
    );
    assert_eq!(world.sim.calls().iter().filter(|call| call.write).count(), 0);
}
