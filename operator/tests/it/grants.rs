//! Grants that are taken away and come back, with their roles and live sessions.

use std::time::Duration;

use aws_config::Region;
use aws_credential_types::Credentials;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sim::{Fault, FaultKind};
use crds::names::{CONFIRM_ANNOTATION, REVOKED_POLICY};
use crds::{OidcIssuer, OidcIssuerSpec};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{ACCOUNT, REGION, STORAGE, World};

impl World {
    /// What a session may do: the read that policy `storage` allows. The error is AWS's code.
    pub async fn reads(&self, session: Credentials) -> Result<(), String> {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(Region::new(REGION))
            .http_client(aws_sim::sdk::http_client(&self.sim))
            .credentials_provider(session)
            .build();
        let answer =
            aws_sdk_s3::Client::from_conf(config).get_object().bucket("data").key("secret").send().await;
        answer.map(drop).map_err(|error| error.code().unwrap_or_default().to_owned())
    }

    /// A bucket that policy `storage` allows to read.
    pub fn data(&self) {
        self.sim.put_bucket("data", ACCOUNT);
        self.sim.put_object("data", "secret", "x");
    }

    pub async fn label_namespace(&self, labels: Value) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        namespaces.patch(&self.namespace, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Makes the issuer's grant allow inline policies.
    pub async fn allow_inline_policies(&self) {
        let mut spec = self.spec();
        spec.grants[0].inline_policies = Some(crds::InlinePolicies::Allow);
        self.apply_issuer(&spec).await;
    }

    /// The issuer without any policy in its grant.
    pub fn without_policies(&self) -> OidcIssuerSpec {
        let mut spec = self.spec();
        spec.grants[0].policy_arns.clear();
        spec
    }
}

#[tokio::test]
async fn a_role_that_loses_its_grant_is_revoked_later_and_restored_whole() {
    for deny_only_trust in [true, false] {
        let mut world = World::ready_with(|t| t.grant_loss = Duration::from_secs(3)).await;
        world.sim.behave(|behaviour| behaviour.deny_only_trust = deny_only_trust);
        world.data();
        world.bind("app", &[STORAGE]).await;
        world.binding_is("app", "Ready").await;
        let role = world.role().unwrap();
        let session = world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
        assert_eq!(world.reads(session.clone()).await, Ok(()));
        world.sim.clear_calls();

        world.apply_issuer(&world.without_policies()).await;
        world.binding_is("app", "GrantLost").await;
        assert!(world.binding("app").await.status.unwrap().revoke_at.is_some());
        assert_eq!(json!(world.role().unwrap()), json!(role), "frozen");
        world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
        // The time outlives the process.
        let revoke_at = world.binding("app").await.status.unwrap().revoke_at;
        world.stop().await;
        world.timings.grant_loss = Duration::from_mins(15);
        world.start().await;
        world.binding_is("app", "Revoked").await;
        assert!(k8s_openapi::jiff::Timestamp::now() >= revoke_at.unwrap().0);
        let revoked = world.role().unwrap();
        assert_eq!((&revoked.id, &revoked.attached), (&role.id, &role.attached));
        assert!(revoked.inline.contains_key(REVOKED_POLICY));
        assert_eq!(world.reads(session.clone()).await, Err("AccessDenied".into()), "a live session");
        let refused = world.exchange(&world.namespace, "app", &role.arn).await;
        assert_eq!(refused.unwrap_err(), "AccessDenied");
        assert_eq!(world.annotations("app").await, [].into());
        let writes = || world.writes().into_iter().filter(|action| action != "UpdateAssumeRolePolicy");
        assert_eq!(writes().collect::<Vec<_>>(), ["PutRolePolicy"]);
        // Another process sees nothing to do.
        world.stop().await;
        world.start().await;
        world.until_reconciled().await;
        world.binding_is("app", "Revoked").await;
        assert_eq!(world.writes(), [""; 0]);

        world.apply_issuer(&world.spec()).await;
        world.binding_is("app", "Ready").await;
        assert_eq!(json!(world.role().unwrap()), json!(role), "restored whole, the same role");
        assert_eq!(world.reads(session).await, Ok(()));
        assert!(world.binding("app").await.status.unwrap().revoke_at.is_none());
        assert_eq!(world.writes(), ["UpdateAssumeRolePolicy", "DeleteRolePolicy"]);
        world.unbind("app").await;
        world.stop().await;
    }
}

#[tokio::test]
async fn a_namespace_that_is_relabelled_loses_and_gets_its_grant() {
    let world = World::ready().await;
    let mut spec = world.spec();
    spec.grants[0].namespaces =
        serde_json::from_value(json!({"selector": {"matchLabels": {"team": "storage"}}})).unwrap();
    world.apply_issuer(&spec).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "WaitingForGrant").await;
    world.label_namespace(json!({"team": "storage"})).await;
    world.binding_is("app", "Ready").await;
    let role = json!(world.role().unwrap());
    world.sim.clear_calls();
    world.label_namespace(json!({"team": "other"})).await;
    world.binding_is("app", "GrantLost").await;
    world.label_namespace(json!({"team": "storage", "more": "x"})).await;
    world.binding_is("app", "Ready").await;
    assert_eq!((world.writes(), json!(world.role().unwrap())), (Vec::new(), role));
    world.unbind("app").await;
}

/// Also where a role could be revoked before the others have had a pass.
#[tokio::test]
async fn a_change_that_would_revoke_many_roles_waits_for_a_person() {
    for wait in [Duration::from_secs(1), Duration::ZERO] {
        would_revoke_many(wait).await;
    }
}

async fn would_revoke_many(wait: Duration) {
    const MANY: usize = 6;
    let world = World::ready_with(|t| t.grant_loss = wait).await;
    let names: Vec<String> = (0..MANY).map(|n| format!("app-{n}")).collect();
    for name in &names {
        let spec = json!({"serviceAccountName": name, "role": {"policyARNs": [STORAGE]}});
        world.apply_binding(name, spec).await;
    }
    for name in &names {
        world.binding_is(name, "Ready").await;
    }
    world.sim.clear_calls();
    world.apply_issuer(&world.without_policies()).await;
    for name in &names {
        world.binding_is(name, "GrantChangeSuspicious").await;
    }
    assert_eq!(world.writes(), [""; 0]);
    let generation = world.issuers().get("default").await.unwrap().metadata.generation.unwrap();
    let confirm = async |value: String| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {(CONFIRM_ANNOTATION): value}}}));
        world.issuers().patch_metadata("default", &PatchParams::default(), &patch).await.unwrap();
    };
    // The message is the command.
    let message = world.condition("app-0", crds::ConditionType::Ready).await.2;
    let command =
        format!("annotate oidcissuer default --overwrite {CONFIRM_ANNOTATION}={generation}:{MANY}.");
    assert!(message.contains(&command), "{message}");
    confirm(format!("{generation}:{MANY}")).await;
    for name in &names {
        world.binding_is(name, "Revoked").await;
    }
    let writes = world.writes();
    let count = |action: &str| writes.iter().filter(|write| *write == action).count();
    assert_eq!((count("PutRolePolicy"), count("UpdateAssumeRolePolicy")), (MANY, MANY));
    // Confirmed for this change: after the next edit the annotation says nothing.
    world.apply_issuer(&world.spec()).await;
    for name in &names {
        world.binding_is(name, "Ready").await;
    }
    world.apply_issuer(&world.without_policies()).await;
    for name in &names {
        world.binding_is(name, "GrantChangeSuspicious").await;
    }
    world.apply_issuer(&world.spec()).await;
    for name in &names {
        world.binding_is(name, "Ready").await;
        world.unbind(name).await;
    }
    world.issuer_is("Ready").await;
    let issuer: OidcIssuer = world.issuers().get("default").await.unwrap();
    assert!(issuer.metadata.deletion_timestamp.is_none());
}

/// While AWS refuses the operator's credentials, the role is not read. It was as specified, so the loss is reported, and what it has is
/// compared once it can be read; where no grant was lost, it is not read.
#[tokio::test]
async fn a_grant_that_is_lost_while_aws_refuses_the_credentials_ends_the_role_s_rights_later() {
    let mut world = World::ready_with(|timings| {
        (timings.grant_loss, timings.identity_refresh) = (Duration::from_secs(2), Duration::from_millis(100));
    })
    .await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.until_idle().await;
    world.sim.clear_calls();
    for loses in [false, true] {
        let kind = FaultKind::Error {
            status: 403,
            code: "InvalidClientTokenId".into(),
            message: "not valid".into(),
        };
        world.sim.inject(Fault::on("sts", "GetCallerIdentity", kind));
        if loses {
            world.apply_issuer(&world.without_policies()).await;
            world.binding_is("app", "GrantLost").await;
        } else {
            let passes = world.passes("PodIdentityBinding", None);
            world.annotate_binding("app", Some("false")).await;
            let another = || async {
                anyhow::ensure!(world.passes("PodIdentityBinding", None) > passes);
                Ok(())
            };
            cluster::until("a pass", Duration::from_secs(15), another).await.unwrap();
        }
        world.sim.clear_faults();
        world.binding_is("app", if loses { "Revoked" } else { "Ready" }).await;
        world.until_idle().await;
        assert_eq!(world.counts().contains_key("iam:GetRole"), loses);
    }
    assert_eq!(world.writes(), ["PutRolePolicy", "UpdateAssumeRolePolicy"]);
    world.unbind("app").await;
    world.stop().await;
}
