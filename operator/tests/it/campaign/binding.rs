//! What happens to a binding: how each scenario begins, what is done, and how it ends.

use aws_sim::State;
use crds::{InlinePolicies, OidcIssuerSpec, PodIdentityBinding};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::scenario::{Accounts, Specs};
use crate::world::{QUEUE, STORAGE, World};

/// What happens to a binding while its issuer is Ready.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It is made.
    Make,
    /// Policies, session limit and description are edited.
    Edit,
    /// The role was changed by somebody else in every attribute.
    Repair,
    /// It moves to another issuer.
    Move,
    /// No grant covers it any more.
    LoseGrant,
    /// A grant covers it again.
    GetGrant,
    /// It is deleted.
    Delete,
    /// It is deleted, and its role is kept.
    Retain,
    /// It is deleted, and its role is another tool's.
    Release,
    /// It is deleted while another one with the same specification waits.
    HandOver,
}

pub const ALL: [Change; 10] = [
    Change::Make,
    Change::Edit,
    Change::Repair,
    Change::Move,
    Change::LoseGrant,
    Change::GetGrant,
    Change::Delete,
    Change::Retain,
    Change::Release,
    Change::HandOver,
];

/// The issuer with a grant for everything that the bindings here ask for, or with none.
fn issuer(specs: &Specs, granted: bool) -> OidcIssuerSpec {
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

impl Change {
    /// AWS and cluster at the beginning, with a running operator. Returns once everything before the change is done.
    pub async fn prepare(
        self,
        world: &mut World,
        specs: &Specs,
        accounts: &Accounts,
        own: &aws_credential_types::Credentials,
    ) {
        world.sim.change(|state| state.clone_from(&accounts.own));
        let no_annotations = Patch::Merge(json!({"metadata": {"annotations": null}}));
        world.accounts().patch("app", &PatchParams::default(), &no_annotations).await.unwrap();
        world.apply_issuer(&issuer(specs, true)).await;
        let mut next = specs.next.clone();
        next.grants.clone_from(&issuer(specs, true).grants);
        world.apply_issuer_as("next", &next).await;
        world.start_as(own.clone()).await;
        world.issuer_is("Ready").await;
        if self == Self::Make {
            return;
        }
        let policy = match self {
            Self::Retain => "Retain",
            Self::Release => "Release",
            _ => "Delete",
        };
        world.apply_binding("app", binding(&json!({"deletionPolicy": policy}))).await;
        world.binding_is("app", "Ready").await;
        match self {
            Self::GetGrant => {
                world.apply_issuer(&issuer(specs, false)).await;
                world.binding_is("app", "Revoked").await;
            }
            Self::HandOver => {
                world.apply_binding("renamed", binding(&json!({}))).await;
                world.binding_is("renamed", "ServedByOlderBinding").await;
            }
            Self::Repair => {
                let name = world.role_name("app").to_lowercase();
                world.stop().await;
                world.sim.change(|state| {
                    let role = state.roles.get_mut(&name).unwrap();
                    role.trust = json!({"Version": "2012-10-17", "Statement": []});
                    role.boundary = Some("arn:aws:iam::aws:policy/AdministratorAccess".into());
                    role.attached = vec![QUEUE.into()];
                    role.inline.clear();
                    (role.description, role.max_session_duration) = ("x".into(), 43_200);
                });
            }
            _ => {}
        }
    }

    /// What is done once trouble may come.
    pub async fn begin(self, world: &mut World, specs: &Specs, own: &aws_credential_types::Credentials) {
        match self {
            Self::Make => world.apply_binding("app", binding(&json!({}))).await,
            Self::Edit => {
                let role = json!({
                    "policyARNs": [QUEUE], "maxSessionDuration": "4h", "description": "edited",
                    "inlinePolicies": [{"name": "other", "document": {"Version": "2012-10-17", "Statement": [
                        {"Effect": "Allow", "Action": "sqs:DeleteMessage", "Resource": "*"},
                    ]}}],
                });
                world.apply_binding("app", binding(&json!({"role": role}))).await;
            }
            Self::Repair => world.start_as(own.clone()).await,
            Self::Move => world.apply_binding("app", binding(&json!({"issuerRef": {"name": "next"}}))).await,
            Self::LoseGrant => world.apply_issuer(&issuer(specs, false)).await,
            Self::GetGrant => world.apply_issuer(&issuer(specs, true)).await,
            Self::Delete | Self::Retain | Self::Release | Self::HandOver => {
                world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
            }
        }
    }

    /// Waits for its end.
    pub async fn until_done(self, world: &World) {
        match self {
            Self::Make | Self::Edit | Self::Move | Self::GetGrant => world.binding_is("app", "Ready").await,
            // Its status does not change.
            Self::Repair => {
                let name = world.role_name("app");
                let repaired = |state: &State| {
                    let role = state.role(&name).unwrap();
                    let documents = role.trust["Statement"].as_array().map(Vec::len) == Some(1)
                        && role.inline.contains_key("queue");
                    documents
                        && role.boundary.as_ref().is_some_and(|arn| arn.ends_with("homelab.boundary"))
                        && role.attached == [STORAGE]
                        && role.max_session_duration == 3600
                };
                world.until_aws("the role as specified", repaired).await;
            }
            Self::LoseGrant => world.binding_is("app", "Revoked").await,
            Self::Delete | Self::Retain | Self::Release | Self::HandOver => {
                let gone = |binding: Option<&PodIdentityBinding>| binding.is_none();
                world.until(&world.bindings(), "app", "its end", gone).await;
            }
        }
        if self == Self::HandOver {
            world.binding_is("renamed", "Ready").await;
        }
    }
}
