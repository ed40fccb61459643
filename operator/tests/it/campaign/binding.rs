//! What happens to a binding: how each scenario begins, what is done, and how it ends.

use aws_sim::State;
use aws_sim::world::Role;
use crds::names::{ABANDON_ANNOTATION, CONFIRM_ANNOTATION, role_arn, tag};
use crds::{InlinePolicies, OidcIssuer, OidcIssuerSpec, PodIdentityBinding};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::scenario::Specs;
use crate::world::{ACCOUNT, CLUSTER, QUEUE, STORAGE, World};

/// What happens to a binding while its issuer is Ready.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It is made.
    Make,
    /// It is made with a role in another account.
    MakeElsewhere,
    /// A grant covers it for the first time.
    Grant,
    /// Somebody else's role of its name is removed.
    Free,
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
    /// It uses the role that it made by its ARN.
    UseOwnRole,
    /// It makes the role again that it used by its ARN.
    MakeOwnRole,
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
    /// A pod is made that runs without the identity.
    MissPod,
    /// The last pod that runs without the identity ends.
    EndPod,
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
    /// The same with another specification.
    TakeOver,
    /// It is deleted, and uses a role of another tool.
    DeleteUser,
    /// It is being deleted, and its role is taken out of an instance profile.
    Unblock,
    /// It is deleted while somebody else has attached a policy to its role, and `spec.driftPolicy` is `ReportOnly`.
    DeleteChanged,
    /// It is deleted after its issuer.
    DeleteLast,
    /// It is deleted, and its issuer is abandoned.
    Abandon,
}

pub const ALL: [Change; 35] = [
    Change::Make,
    Change::MakeElsewhere,
    Change::Grant,
    Change::Free,
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
    Change::UseOwnRole,
    Change::MakeOwnRole,
    Change::Bound,
    Change::LoseGrant,
    Change::Relabel,
    Change::Confirm,
    Change::GetGrant,
    Change::ReplaceAccount,
    Change::MissPod,
    Change::EndPod,
    Change::Restart,
    Change::Delete,
    Change::Retain,
    Change::Release,
    Change::HandOver,
    Change::TakeOver,
    Change::DeleteUser,
    Change::Unblock,
    Change::DeleteChanged,
    Change::DeleteLast,
    Change::Abandon,
];

pub(super) const AUDIENCE: &str = "vault";
pub(super) const WORKLOAD: &str = "web";
/// The name of a boundary.
pub(super) const STRICT: &str = "strict";

/// Bindings that lose their grant at once: the fewest for which an administrator is asked.
const MANY: usize = 6;

/// The issuer with a grant for everything that the bindings here ask for, or with none.
pub(super) fn issuer_spec(specs: &Specs, granted: bool) -> OidcIssuerSpec {
    let mut spec = specs.default.clone();
    spec.grants[0].inline_policies = Some(InlinePolicies::Allow);
    spec.grants[0].max_session_duration = Some(std::time::Duration::from_hours(4).into());
    spec.grants.retain(|_| granted);
    spec
}

pub(super) fn binding(fields: &Value) -> Value {
    let inline = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"}]});
    let mut spec = json!({
        "serviceAccountName": "app",
        "role": {"policyARNs": [STORAGE], "inlinePolicies": [{"name": "queue", "document": inline}]},
    });
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

/// It uses a role that another tool has made.
pub(super) fn with_role_of_another_tool() -> Value {
    json!({"serviceAccountName": "app", "roleARN": format!("arn:aws:iam::{ACCOUNT}:role/other")})
}

impl Change {
    /// What is done once trouble may come.
    pub async fn begin(self, world: &mut World, specs: &Specs, own: &aws_credential_types::Credentials) {
        match self {
            Self::Make | Self::MakeRole | Self::MakeOwnRole => {
                world.apply_binding("app", binding(&json!({}))).await;
            }
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
            Self::UseOwnRole => world.apply_binding("app", with_own_role(world)).await,
            Self::Free => {
                let name = world.role_name("app").to_lowercase();
                world.sim.change(|state| drop(state.roles.remove(&name)));
            }
            Self::Unblock => {
                let name = world.role_name("app").to_lowercase();
                world.sim.change(|state| state.roles.get_mut(&name).unwrap().instance_profiles.clear());
            }
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
            Self::Grant | Self::GetGrant => world.apply_issuer(&issuer_spec(specs, true)).await,
            Self::ReplaceAccount => {
                world.accounts().delete("app", &DeleteParams::default()).await.unwrap();
                world.service_account(&world.namespace, "app").await;
            }
            Self::MissPod => world.pod_of(WORKLOAD, "web-1", "app").await,
            Self::EndPod => {
                let at_once = DeleteParams::default().grace_period(0);
                world.pods().delete("web-1", &at_once).await.unwrap();
            }
            Self::Restart => world.annotate_binding("app", Some("true")).await,
            Self::Delete
            | Self::Retain
            | Self::Release
            | Self::HandOver
            | Self::TakeOver
            | Self::DeleteUser
            | Self::DeleteChanged => {
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
            | Self::UseOwnRole
            | Self::MakeOwnRole
            | Self::Grant
            | Self::Free
            | Self::GetGrant => world.binding_is("app", "Ready").await,
            // Its status does not change.
            Self::Repair => {
                let repaired = |role: &Role| {
                    let documents = statements(role) == 1 && role.inline.contains_key("queue");
                    documents
                        && role.boundary.as_ref().is_some_and(|arn| arn.ends_with("homelab.boundary"))
                        && role.attached == [STORAGE]
                        && role.max_session_duration == 3600
                        && role.tags.contains_key("team")
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
            Self::MissPod => drop(world.missing("app", 1).await),
            Self::EndPod => drop(world.missing("app", 0).await),
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
            | Self::TakeOver
            | Self::DeleteUser
            | Self::Unblock
            | Self::DeleteLast
            | Self::Abandon => {
                let gone = |binding: Option<&PodIdentityBinding>| binding.is_none();
                world.until(&world.bindings(), "app", "its end", gone).await;
            }
        }
        if matches!(self, Self::HandOver | Self::TakeOver) {
            world.binding_is("renamed", "Ready").await;
        }
        if self == Self::DeleteLast {
            let gone = |issuer: Option<&OidcIssuer>| issuer.is_none();
            world.until(&world.issuers(), "default", "its end", gone).await;
        }
    }
}

/// It uses the role of its name by its ARN.
pub(super) fn with_own_role(world: &World) -> Value {
    let arn = role_arn("aws", ACCOUNT, CLUSTER, &world.namespace, "app");
    json!({"serviceAccountName": "app", "roleARN": arn})
}

/// The bindings, and `ServiceAccount`s, that lose their grant together with `app`.
pub(super) fn others() -> impl Iterator<Item = String> {
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

/// Both issuers with that boundary.
pub(super) fn bounded(specs: &Specs) -> [(&'static str, OidcIssuerSpec); 2] {
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
