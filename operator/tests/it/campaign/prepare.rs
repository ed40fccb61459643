//! How the scenarios of bindings begin.

use std::time::Duration;

use aws_sim::world::Role;
use crds::DeletionPolicy;
use crds::names::{boundary_arn, tag};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::binding::{
    AUDIENCE, Change, STRICT, WORKLOAD, binding, bounded, issuer_spec, others, with_own_role,
    with_role_of_another_tool,
};
use super::scenario::{Accounts, Specs};
use crate::world::{ACCOUNT, CLUSTER, Flags, QUEUE, World, issuer};

impl Change {
    /// AWS and cluster at the beginning, with a running operator. Returns once everything before the change is done.
    pub async fn prepare(
        self,
        world: &mut World,
        specs: &Specs,
        accounts: &Accounts,
        own: &aws_credential_types::Credentials,
    ) {
        accounts.restore(world);
        let no_annotations = Patch::Merge(json!({"metadata": {"annotations": null}}));
        world.accounts().patch("app", &PatchParams::default(), &no_annotations).await.unwrap();
        let mut default = issuer_spec(specs, true);
        if matches!(self, Self::MoveAudience | Self::EndMove) {
            default.audiences.push(AUDIENCE.into());
        }
        if self == Self::Relabel {
            default.grants[0].namespaces =
                serde_json::from_value(json!({"selector": {"matchLabels": {"team": "a"}}})).unwrap();
            world.label_namespace(json!({"team": "a"})).await;
        }
        if self == Self::DeleteLast {
            default.deletion_policy = DeletionPolicy::Retain;
        }
        // The statuses of all say that their grant is lost before the time is over.
        world.timings.grant_loss =
            if self == Self::Confirm { Duration::from_hours(1) } else { Duration::ZERO };
        world.apply_issuer(&default).await;
        let mut next = specs.next.clone();
        next.grants.clone_from(&default.grants);
        world.apply_issuer_as("next", &next).await;
        if self == Self::MakeElsewhere {
            world.apply_issuer_as("second", &specs.second).await;
        }
        if self == Self::Restart {
            world.deployment(WORKLOAD, "app").await;
        }
        if matches!(self, Self::Restart | Self::EndPod) {
            world.pod_of(WORKLOAD, "web-1", "app").await;
        }
        world.start_as(own.clone()).await;
        world.issuer_is("Ready").await;
        let policies = match self {
            Self::Make => return,
            Self::Grant => {
                world.apply_issuer(&issuer_spec(specs, false)).await;
                world.apply_binding("app", binding(&json!({}))).await;
                return world.binding_is("app", "WaitingForGrant").await;
            }
            Self::Free => {
                world.sim.put_role("/", &world.role_name("app"), json!({}), &[]);
                world.apply_binding("app", binding(&json!({}))).await;
                return world.binding_is("app", "NotOwned").await;
            }
            Self::MakeElsewhere => return world.issuer_named_is("second", "Ready").await,
            Self::Retain | Self::MakeAgain => json!({"deletionPolicy": "Retain"}),
            Self::Release => json!({"deletionPolicy": "Release"}),
            Self::Report | Self::DeleteChanged => json!({"driftPolicy": "ReportOnly"}),
            _ => json!({}),
        };
        let spec = match self {
            Self::MakeRole | Self::DeleteUser => with_role_of_another_tool(),
            _ => binding(&policies),
        };
        world.apply_binding("app", spec).await;
        world.binding_is("app", "Ready").await;
        self.prepare_role(world, specs, own).await;
    }

    /// What a scenario needs beside a binding that is Ready.
    async fn prepare_role(self, world: &mut World, specs: &Specs, own: &aws_credential_types::Credentials) {
        let name = world.role_name("app").to_lowercase();
        let change = |sim: &aws_sim::Sim, change: fn(&mut Role)| {
            sim.change(|state| change(state.roles.get_mut(&name).unwrap()));
        };
        match self {
            Self::GetGrant => {
                world.apply_issuer(&issuer_spec(specs, false)).await;
                world.binding_is("app", "Revoked").await;
            }
            Self::HandOver => {
                world.apply_binding("renamed", binding(&json!({}))).await;
                world.binding_is("renamed", "ServedByOlderBinding").await;
            }
            Self::TakeOver => {
                let other = binding(&json!({"role": {"policyARNs": [QUEUE]}}));
                world.apply_binding("renamed", other).await;
                world.binding_is("renamed", "ServiceAccountAlreadyBound").await;
            }
            Self::MakeOwnRole => {
                world.apply_binding("app", with_own_role(world)).await;
                world.binding_is("app", "Ready").await;
            }
            Self::Unblock => {
                world.sim.change(|state| {
                    state.roles.get_mut(&name).unwrap().instance_profiles.push("node".into());
                });
                world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
                world.binding_is("app", "DeletionBlocked").await;
            }
            Self::MakeAgain => world.unbind("app").await,
            Self::Confirm => lose_grants(world, specs, own).await,
            Self::Quarantine => {
                world.stop().await;
                change(&world.sim, |role| {
                    let deny = json!({"Effect": "Deny", "Action": "*", "Resource": "*"});
                    let document = json!({"Version": "2012-10-17", "Statement": [deny]});
                    role.inline.insert("AWSRevokeOlderSessions".into(), document);
                    role.attached.push(QUEUE.into());
                    role.description = "x".into();
                });
            }
            // What no grant covers would be put back.
            Self::Report => {
                world.stop().await;
                change(&world.sim, |role| {
                    role.attached = vec![QUEUE.into()];
                    role.description = "x".into();
                });
            }
            Self::Repair => {
                world.stop().await;
                change(&world.sim, |role| {
                    role.trust = json!({"Version": "2012-10-17", "Statement": []});
                    role.boundary = Some("arn:aws:iam::aws:policy/AdministratorAccess".into());
                    role.attached = vec![QUEUE.into()];
                    role.inline.clear();
                    (role.description, role.max_session_duration) = ("x".into(), 43_200);
                    role.tags.remove("team");
                });
            }
            Self::EndMove => {
                world.apply_binding("app", binding(&json!({"audience": AUDIENCE}))).await;
                world.binding_is("app", "Ready").await;
                world.stop().await;
                change(&world.sim, |role| {
                    "1".clone_into(role.tags.get_mut(tag::FORMER_UNTIL).unwrap());
                });
            }
            Self::DeleteChanged => {
                world.stop().await;
                // The list of roles shows the description, and the role is read.
                change(&world.sim, |role| {
                    role.attached.push(QUEUE.into());
                    role.description = "x".into();
                });
                world.start().await;
                world.binding_is("app", "DriftDetected").await;
            }
            Self::Bound => {
                put_strict_boundary(world);
                let both = bounded(specs).map(|(name, spec)| issuer(name, &spec));
                world.bootstrap_all(&both, Flags::default(), &world.client).await.unwrap();
            }
            Self::Restart | Self::EndPod => {
                world.missing("app", 1).await;
            }
            _ => {}
        }
    }
}

/// Many bindings lose their grant, and none of their roles is revoked.
async fn lose_grants(world: &mut World, specs: &Specs, own: &aws_credential_types::Credentials) {
    for name in others() {
        if world.accounts().get_opt(&name).await.unwrap().is_none() {
            world.service_account(&world.namespace, &name).await;
        }
        world.apply_binding(&name, binding(&json!({"serviceAccountName": name}))).await;
    }
    for name in others() {
        world.binding_is(&name, "Ready").await;
    }
    world.apply_issuer(&issuer_spec(specs, false)).await;
    for name in others().chain(["app".into()]) {
        world.binding_is(&name, "GrantLost").await;
    }
    world.stop().await;
    world.timings.grant_loss = Duration::ZERO;
    world.start_as(own.clone()).await;
    for name in others().chain(["app".into()]) {
        world.binding_is(&name, "GrantChangeSuspicious").await;
    }
}

/// Puts a boundary that denies what ours denies, and more.
fn put_strict_boundary(world: &World) {
    let default = boundary_arn("aws", ACCOUNT, CLUSTER);
    let mut document = world.sim.state().policies[&default].document().clone();
    let more = json!({"Effect": "Deny", "Action": "ec2:*", "Resource": "*"});
    document["Statement"].as_array_mut().unwrap().push(more);
    world.sim.put_managed_policy(STRICT, document);
}
