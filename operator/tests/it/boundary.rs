//! `spec.permissionsBoundary`: a boundary that an organisation keeps itself.

use aws_sim::State;
use crds::Reason;
use crds::names::{REVOKED_POLICY, boundary_arn};
use crds::{OidcIssuerSpec, PodIdentityBinding};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::world::{ACCOUNT, CLUSTER, STORAGE, World};

/// A boundary of that name that denies what ours denies, and more.
fn strict(world: &World, name: &str) -> String {
    let default = boundary_arn("aws", ACCOUNT, CLUSTER);
    let mut document = world.sim.state().policies[&default].document().clone();
    let region = json!({"Effect": "Deny", "Action": "ec2:*", "Resource": "*"});
    document["Statement"].as_array_mut().unwrap().push(region);
    world.sim.put_managed_policy(name, document)
}

fn boundary(world: &World) -> Option<String> {
    world.role().unwrap().boundary
}

fn has(state: &State, boundary: &String) -> bool {
    state.roles.values().any(|role| role.boundary.as_ref() == Some(boundary))
}

#[tokio::test]
async fn roles_get_the_boundary_of_the_organisation_and_lose_it_again() {
    let mut world = World::ready().await;
    let default = boundary_arn("aws", ACCOUNT, CLUSTER);
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(boundary(&world), Some(default.clone()));
    let id = world.role().unwrap().id;
    let with = |boundary: Option<&String>| OidcIssuerSpec {
        permissions_boundary: boundary.cloned(),
        ..world.spec()
    };

    // One that does not exist, or denies too little, is refused before anything is changed.
    let absent = format!("arn:aws:iam::{ACCOUNT}:policy/absent");
    let refused = world.bootstrap(&with(Some(&absent))).await.unwrap_err().to_string();
    assert!(refused.contains("there is no policy") && refused.contains("Nothing was changed"), "{refused}");
    let all =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
    let weak = world.sim.put_managed_policy("weak", all);
    let refused = world.bootstrap(&with(Some(&weak))).await.unwrap_err().to_string();
    assert!(refused.contains("must deny this, too") && refused.contains("NoEscalation"), "{refused}");

    // Before bootstrap the operator has no right to put it: it says so, and the role stays as it is, Ready.
    let [one, two] = ["one", "two"].map(|name| strict(&world, name));
    world.apply_issuer(&with(Some(&one))).await;
    let denied = |binding: Option<&PodIdentityBinding>| {
        let status = binding.and_then(|binding| binding.status.as_ref());
        status.is_some_and(|status| {
            status.conditions.iter().any(|c| c.reason == Reason::OperatorPermissionMissing)
        })
    };
    world.until(&world.bindings(), "app", "the missing permission", denied).await;
    assert_eq!(boundary(&world), Some(default.clone()));
    world.bootstrap(&with(Some(&one))).await.unwrap();
    world.until_aws("the first boundary", |state| has(state, &one)).await;

    // While a role carries the former one, the operator's policy names it, so that rights can be taken from the role at any
    // time. No other role gets it.
    let named = || -> [Value; 2] {
        let policy = &world.sim.state().roles["podidentity-operator.homelab"].inline["podidentity-operator"];
        let of = |sid: &str, operator: &str| {
            let mut statements = policy["Statement"].as_array().unwrap().iter();
            let statement = statements.find(|one| one["Sid"] == sid).unwrap();
            statement["Condition"][operator]["iam:PermissionsBoundary"].clone()
        };
        let created = of("CreateRolesWithBoundaryAndTags", "StringEquals");
        [created, of("TrustAndDeleteBoundedRolesOfThisCluster", "StringEqualsIfExists")]
    };
    world.bootstrap(&with(Some(&two))).await.unwrap();
    assert_eq!(named(), [json!(two), json!([one, two])]);
    world.apply_issuer(&with(Some(&two))).await;
    world.until_aws("the second boundary", |state| has(state, &two)).await;
    world.bootstrap(&with(Some(&two))).await.unwrap();
    assert_eq!(named(), [json!(two), json!(two)]);

    // Back to the default.
    world.bootstrap(&with(None)).await.unwrap();
    assert_eq!(named(), [json!(default), json!([default, two])]);
    world.apply_issuer(&with(None)).await;
    world.until_aws("the default boundary", |state| has(state, &default)).await;
    world.bootstrap(&with(None)).await.unwrap();
    assert_eq!(named(), [json!(default), json!(default)]);
    world.binding_is("app", "Ready").await;
    assert_eq!(world.role().unwrap().id, id, "the same role, all the time");
    world.sim.clear_calls();
    world.stop().await;
}

/// An issuer names another boundary before `bootstrap` knows it, or one that does not exist: what a binding gives up lets nobody in
/// nevertheless.
#[tokio::test]
async fn a_role_that_is_given_up_is_closed_although_the_boundary_cannot_be_put_in_place_yet() {
    let mut world = World::ready().await;
    let strict = strict(&world, "strict");
    for (exists, policy) in [(true, "Delete"), (false, "Delete"), (true, "Retain")] {
        let spec =
            json!({"serviceAccountName": "app", "role": {"policyARNs": [STORAGE]}, "deletionPolicy": policy});
        world.apply_binding("app", spec).await;
        world.binding_is("app", "Ready").await;
        world.sim.clear_calls();
        let named = with_boundary(&world, exists.then_some(&strict));
        world.apply_issuer(&named).await;
        let name = world.role_name("app").to_lowercase();
        world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
        let is_closed = |state: &State| state.roles[&name].trust.to_string().contains("Deny");
        world.until_aws("the end of its trust", is_closed).await;
        world.binding_is("app", "DeletionBlocked").await;
        let counts = world.counts();
        assert_eq!((counts["iam:UpdateAssumeRolePolicy"], counts.get("iam:DeleteRole")), (1, None));
        assert_eq!(world.role().unwrap().inline.contains_key(REVOKED_POLICY), policy == "Retain");
        if exists {
            world.bootstrap(&named).await.unwrap();
        } else {
            world.apply_issuer(&world.spec()).await;
        }
        let gone = |binding: Option<&PodIdentityBinding>| binding.is_none();
        world.until(&world.bindings(), "app", "its end", gone).await;
        assert_eq!(world.role().is_some(), policy == "Retain");
        world.bootstrap(&world.spec()).await.unwrap();
        world.apply_issuer(&world.spec()).await;
        world.issuer_is("Ready").await;
        world.sim.clear_calls(); // what was denied is expected
    }
    world.stop().await;
}

/// The same for a role that loses its grant.
#[tokio::test]
async fn a_role_is_revoked_although_the_boundary_cannot_be_put_in_place_yet() {
    let mut world = World::ready_with(|timings| timings.grant_loss = std::time::Duration::ZERO).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.sim.clear_calls();
    let mut named = with_boundary(&world, None);
    named.grants[0].policy_arns.clear();
    world.apply_issuer(&named).await;
    let is_revoked = |role: &aws_sim::world::Role| {
        role.inline.contains_key(REVOKED_POLICY) && role.trust.to_string().contains("Deny")
    };
    world
        .until_aws("the revocation", |state| state.role(&world.role_name("app")).is_some_and(is_revoked))
        .await;
    let counts = world.counts();
    assert_eq!((counts["iam:PutRolePolicy"], counts["iam:UpdateAssumeRolePolicy"]), (1, 1));
    world.apply_issuer(&world.spec()).await;
    world.binding_is("app", "Ready").await;
    world.sim.clear_calls(); // what was denied is expected
    world.unbind("app").await;
    world.stop().await;
}

/// The issuer with a boundary of that ARN, or with one that does not exist.
fn with_boundary(world: &World, arn: Option<&String>) -> OidcIssuerSpec {
    let absent = || format!("arn:aws:iam::{ACCOUNT}:policy/absent");
    OidcIssuerSpec { permissions_boundary: Some(arn.cloned().unwrap_or_else(absent)), ..world.spec() }
}
