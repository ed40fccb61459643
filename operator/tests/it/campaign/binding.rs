//! What happens to a binding: how each scenario begins, what is done, and how it ends.

use std::time::Duration;

use aws_sim::State;
use aws_sim::world::Role;
use crds::names::{ABANDON_ANNOTATION, CONFIRM_ANNOTATION, boundary_arn, tag};
use crds::{DeletionPolicy, InlinePolicies, OidcIssuer, OidcIssuerSpec, PodIdentityBinding};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::scenario::{Accounts, Specs};
use crate::world::{ACCOUNT, CLUSTER, Flags, QUEUE, STORAGE, World, issuer};

/// What happens to a binding while its issuer is Ready.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It is made.
    Make,
    /// It is made with a role in another account.
    MakeElsewhere,
    /// It is made again after its role was kept.
    MakeAgain,
    /// Policies, session limit and description are edited.
    Edit,
    /// The role was changed by somebody else in every attribute.
    Repair,
    /// The role was changed by somebody else, and `spec.driftPolicy` is `ReportOnly`.
    Report,
    /// It moves to another issuer.
    Move,
    /// It moves to another audience.
    MoveAudience,
    /// The role was changed by somebody else, among others by policies that deny.
    Quarantine,
    /// The time for which the former audience is trusted is over.
    EndMove,
    /// It uses a role of another tool instead of its own.
    UseRole,
    /// It makes its own role instead of using one of another tool.
    MakeRole,
    /// The issuer names another permissions boundary.
    Bound,
    /// No grant covers it any more.
    LoseGrant,
    /// No grant selects its namespace any more.
    Relabel,
    /// No grant covers many bindings any more, and an administrator confirms that.
    Confirm,
    /// A grant covers it again.
    GetGrant,
    /// Its `ServiceAccount` is deleted and made again.
    ReplaceAccount,
    /// Its workload, which runs without the identity, is to be restarted.
    Restart,
    /// It is deleted.
    Delete,
    /// It is deleted, and its role is kept.
    Retain,
    /// It is deleted, and its role is another tool's.
    Release,
    /// It is deleted while another one with the same specification waits.
    HandOver,
    /// It is deleted while somebody else has attached a policy to its role, and `spec.driftPolicy` is `ReportOnly`.
    DeleteChanged,
    /// It is deleted after its issuer.
    DeleteLast,
    /// It is deleted, and its issuer is abandoned.
    Abandon,
}

pub const ALL: [Change; 26] = [
    Change::Make,
    Change::MakeElsewhere,
    Change::MakeAgain,
    Change::Edit,
    Change::Repair,
    Change::Report,
    Change::Quarantine,
    Change::Move,
    Change::MoveAudience,
    Change::EndMove,
    Change::UseRole,
    Change::MakeRole,
    Change::Bound,
    Change::LoseGrant,
    Change::Relabel,
    Change::Confirm,
    Change::GetGrant,
    Change::ReplaceAccount,
    Change::Restart,
    Change::Delete,
    Change::Retain,
    Change::Release,
    Change::HandOver,
    Change::DeleteChanged,
    Change::DeleteLast,
    Change::Abandon,
];

const AUDIENCE: &str = "vault";
const WORKLOAD: &str = "web";
/// The name of a boundary.
const STRICT: &str = "strict";

/// Bindings that lose their grant at once: the fewest for which an administrator is asked.
const MANY: usize = 6;

/// The issuer with a grant for everything that the bindings here ask for, or with none.
fn issuer_spec(specs: &Specs, granted: bool) -> OidcIssuerSpec {
    let mut spec = specs.default.clone();
    spec.grants[0].inline_policies = Some(InlinePolicies::Allow);
    spec.grants[0].max_session_duration = Some(std::time::Duration::from_hours(4).into());
    spec.grants.retain(|_| granted);
    spec
}

fn binding(fields: &Value) -> Value {
    let inline = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"}]});
    let mut spec = json!({
        "serviceAccountName": "app",
        "role": {"policyARNs": [STORAGE], "inlinePolicies": [{"name": "queue", "document": inline}]},
    });
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

/// It uses a role that another tool has made.
fn with_role_of_another_tool() -> Value {
    json!({"serviceAccountName": "app", "roleARN": format!("arn:aws:iam::{ACCOUNT}:role/other")})
}

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
            world.pod_of(WORKLOAD, "web-1", "app").await;
        }
        world.start_as(own.clone()).await;
        world.issuer_is("Ready").await;
        let policies = match self {
            Self::Make => return,
            Self::MakeElsewhere => return world.issuer_named_is("second", "Ready").await,
            Self::Retain | Self::MakeAgain => json!({"deletionPolicy": "Retain"}),
            Self::Release => json!({"deletionPolicy": "Release"}),
            Self::Report | Self::DeleteChanged => json!({"driftPolicy": "ReportOnly"}),
            _ => json!({}),
        };
        let spec = if self == Self::MakeRole { with_role_of_another_tool() } else { binding(&policies) };
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
            Self::MakeAgain => world.unbind("app").await,
            Self::Confirm => {
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
            Self::Restart => {
                world.missing("app", 1).await;
            }
            _ => {}
        }
    }

    /// What is done once trouble may come.
    pub async fn begin(self, world: &mut World, specs: &Specs, own: &aws_credential_types::Credentials) {
        match self {
            Self::Make | Self::MakeRole => world.apply_binding("app", binding(&json!({}))).await,
            Self::MakeAgain => {
                world.apply_binding("app", binding(&json!({"deletionPolicy": "Retain"}))).await;
            }
            Self::MakeElsewhere => {
                let role = json!({"policyARNs": specs.second.grants[0].policy_arns});
                let fields = json!({"issuerRef": {"name": "second"}, "role": role});
                world.apply_binding("app", binding(&fields)).await;
            }
            Self::Edit => {
                let role = json!({
                    "policyARNs": [QUEUE], "maxSessionDuration": "4h", "description": "edited",
                    "inlinePolicies": [{"name": "other", "document": {"Version": "2012-10-17", "Statement": [
                        {"Effect": "Allow", "Action": "sqs:DeleteMessage", "Resource": "*"},
                    ]}}],
                });
                world.apply_binding("app", binding(&json!({"role": role}))).await;
            }
            Self::Repair | Self::Report | Self::Quarantine | Self::EndMove => {
                world.start_as(own.clone()).await;
            }
            Self::Move => world.apply_binding("app", binding(&json!({"issuerRef": {"name": "next"}}))).await,
            Self::MoveAudience => {
                world.apply_binding("app", binding(&json!({"audience": AUDIENCE}))).await;
            }
            Self::UseRole => world.apply_binding("app", with_role_of_another_tool()).await,
            Self::Bound => {
                for (name, spec) in bounded(specs) {
                    world.apply_issuer_as(name, &spec).await;
                }
            }
            Self::LoseGrant => world.apply_issuer(&issuer_spec(specs, false)).await,
            Self::Relabel => world.label_namespace(json!({"team": null})).await,
            Self::Confirm => {
                let generation = world.issuers().get("default").await.unwrap().metadata.generation.unwrap();
                annotate_issuer(world, CONFIRM_ANNOTATION, &format!("{generation}:{MANY}")).await;
            }
            Self::GetGrant => world.apply_issuer(&issuer_spec(specs, true)).await,
            Self::ReplaceAccount => {
                world.accounts().delete("app", &DeleteParams::default()).await.unwrap();
                world.service_account(&world.namespace, "app").await;
            }
            Self::Restart => world.annotate_binding("app", Some("true")).await,
            Self::Delete | Self::Retain | Self::Release | Self::HandOver | Self::DeleteChanged => {
                world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
            }
            Self::DeleteLast => {
                world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
                world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
            }
            Self::Abandon => {
                annotate_issuer(world, ABANDON_ANNOTATION, "true").await;
                world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
            }
        }
    }

    /// Waits for its end.
    pub async fn until_done(self, world: &World) {
        match self {
            Self::Make
            | Self::MakeElsewhere
            | Self::MakeAgain
            | Self::MakeRole
            | Self::Edit
            | Self::Move
            | Self::MoveAudience
            | Self::UseRole
            | Self::GetGrant => world.binding_is("app", "Ready").await,
            // Its status does not change.
            Self::Repair => {
                let repaired = |role: &Role| {
                    let documents = statements(role) == 1 && role.inline.contains_key("queue");
                    documents
                        && role.boundary.as_ref().is_some_and(|arn| arn.ends_with("homelab.boundary"))
                        && role.attached == [STORAGE]
                        && role.max_session_duration == 3600
                };
                until_role(world, "the role as specified", repaired).await;
            }
            Self::EndMove => {
                let ended = |role: &Role| statements(role) == 1 && !role.tags.contains_key(tag::FORMER_UNTIL);
                until_role(world, "the end of the former trust", ended).await;
            }
            Self::Bound => {
                let bounded = |role: &Role| role.boundary.as_ref().is_some_and(|arn| arn.ends_with(STRICT));
                until_role(world, "the other boundary", bounded).await;
            }
            Self::Report => world.binding_is("app", "DriftDetected").await,
            Self::Quarantine => {
                until_role(world, "the role without what was added", |role| role.attached == [STORAGE]).await;
                world.binding_is("app", "ForeignDeny").await;
            }
            Self::LoseGrant | Self::Relabel => world.binding_is("app", "Revoked").await,
            Self::Confirm => {
                for name in others().chain(["app".into()]) {
                    world.binding_is(&name, "Revoked").await;
                }
            }
            Self::ReplaceAccount => {
                let annotated = |account: Option<&ServiceAccount>| {
                    account.is_some_and(|account| account.metadata.annotations.is_some())
                };
                world.until(&world.accounts(), "app", "its annotations", annotated).await;
                world.binding_is("app", "Ready").await;
            }
            Self::Restart => {
                let restarted = |deployment: Option<&Deployment>| {
                    deployment.is_some_and(|deployment| deployment.metadata.generation == Some(2))
                };
                world.until(&world.deployments(), WORKLOAD, "its restart", restarted).await;
            }
            Self::DeleteChanged => world.binding_is("app", "DeletionBlocked").await,
            Self::Delete
            | Self::Retain
            | Self::Release
            | Self::HandOver
            | Self::DeleteLast
            | Self::Abandon => {
                let gone = |binding: Option<&PodIdentityBinding>| binding.is_none();
                world.until(&world.bindings(), "app", "its end", gone).await;
            }
        }
        if self == Self::HandOver {
            world.binding_is("renamed", "Ready").await;
        }
        if self == Self::DeleteLast {
            let gone = |issuer: Option<&OidcIssuer>| issuer.is_none();
            world.until(&world.issuers(), "default", "its end", gone).await;
        }
    }
}

/// The bindings, and `ServiceAccount`s, that lose their grant together with `app`.
fn others() -> impl Iterator<Item = String> {
    (1..MANY).map(|number| format!("app-{number}"))
}

async fn annotate_issuer(world: &World, annotation: &str, value: &str) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {(annotation): value}}}));
    world.issuers().patch_metadata("default", &PatchParams::default(), &patch).await.unwrap();
}

/// How often each workload was changed, itself included. Deletes all of them, and their pods.
pub async fn remove_workloads(world: &World) -> Vec<Option<i64>> {
    let all = world.deployments().list(&ListParams::default()).await.unwrap();
    let everything = (DeleteParams::default().grace_period(0), ListParams::default());
    world.deployments().delete_collection(&everything.0, &everything.1).await.unwrap();
    world.pods().delete_collection(&everything.0, &everything.1).await.unwrap();
    all.into_iter().map(|deployment| deployment.metadata.generation).collect()
}

/// Puts a boundary that denies what ours denies, and more.
fn put_strict_boundary(world: &World) {
    let default = boundary_arn("aws", ACCOUNT, CLUSTER);
    let mut document = world.sim.state().policies[&default].document().clone();
    let more = json!({"Effect": "Deny", "Action": "ec2:*", "Resource": "*"});
    document["Statement"].as_array_mut().unwrap().push(more);
    world.sim.put_managed_policy(STRICT, document);
}

/// Both issuers with that boundary.
fn bounded(specs: &Specs) -> [(&'static str, OidcIssuerSpec); 2] {
    let with = |spec: &OidcIssuerSpec| OidcIssuerSpec {
        permissions_boundary: Some(format!("arn:aws:iam::{ACCOUNT}:policy/{STRICT}")),
        grants: issuer_spec(specs, true).grants,
        ..spec.clone()
    };
    [("default", with(&specs.default)), ("next", with(&specs.next))]
}

fn statements(role: &Role) -> usize {
    role.trust["Statement"].as_array().map_or(0, Vec::len)
}

async fn until_role(world: &World, what: &str, holds: impl Fn(&Role) -> bool) {
    let name = world.role_name("app");
    world.until_aws(what, |state: &State| state.role(&name).is_some_and(&holds)).await;
}
