//! A tenant may write bindings, `ServiceAccount`s and pods in its own namespace, and nothing else. Its manifests ask for another
//! namespace, a policy that is not granted, another role, the boundary, and the issuer's bucket. Each manifest is refused by the CRD's
//! rules, or by the controller, or changes nothing but the tenant's own role. Without the CRD's rules the controller refuses the same.

mod manifests;
mod poison;
mod sessions;
mod steps;

use std::time::Duration;

use aws_sim::{Call, State};
use cluster::{ControlPlane, Options};
use crds::condition::ConditionType as C;
use crds::conditions::find;
use crds::names::{self, tag};
use crds::{OidcIssuerSpec, PodIdentityBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::{Value, json};

use self::manifests::{Grants, Manifest, manifests};
use crate::world::{CLUSTER, QUEUE, STORAGE, World, apply, with_crds};

/// A managed policy of AWS with every right.
const ADMINISTRATOR: &str = "arn:aws:iam::aws:policy/AdministratorAccess";
/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(15);
/// The tenant's name at the API server.
const TENANT: &str = "tenant";
/// The `ServiceAccount` of the tenant that the manifests bind.
const FREE: &str = "free";

/// A cluster with two tenants. The namespace of one is the test's: that one tries. The other one, the neighbour, has a role.
struct Tenancy {
    world: World,
    /// The API server as the tenant sees it.
    tenant: Client,
    /// The neighbour's namespace.
    neighbour: String,
}

impl Tenancy {
    /// Both tenants have a Ready binding `app`; roles of others exist.
    async fn new(world: World) -> Self {
        let mut world = world;
        // What waits for a grant or for another binding is refused at once.
        (world.timings.grant_grace, world.timings.conflict_grace) = (Duration::ZERO, Duration::ZERO);
        let neighbour = format!("{}-neighbour", world.namespace);
        for name in ["team/own", "Storage-2"] {
            world.sim.put_managed_policy(name, json!({"Version": "2012-10-17", "Statement": []}));
        }
        let nobody = json!({"Version": "2012-10-17", "Statement": []});
        world.sim.put_role("/", "admin", nobody.clone(), &[ADMINISTRATOR]);
        world.sim.put_role("/podidentity/office/", "office.x", nobody, &[ADMINISTRATOR]);
        world.data();
        world.bootstrap(&world.spec()).await.unwrap();
        let tenant = tenant(&world).await;
        create(&world.client, "/api/v1/namespaces", &json!({"metadata": {"name": neighbour}})).await.unwrap();
        world.service_account(&neighbour, "app").await;
        world.service_account(&world.namespace, FREE).await;
        let this = Self { world, tenant, neighbour };
        this.grant(Grants::Narrow).await;
        let mut this = this;
        this.world.start().await;
        this.world.issuer_is("Ready").await;
        let spec = json!({"serviceAccountName": "app", "role": {"policyARNs": [QUEUE]}});
        apply(&this.neighbours(), "app", spec).await.unwrap();
        this.world.bind("app", &[STORAGE]).await;
        this.world.binding_is("app", "Ready").await;
        this.neighbour_is_ready().await;
        this
    }

    /// The grants of the issuer. The neighbour's is always the same.
    async fn grant(&self, grants: Grants) {
        self.world.apply_issuer(&self.issuer(grants)).await;
    }

    fn issuer(&self, grants: Grants) -> OidcIssuerSpec {
        let own = match grants {
            Grants::Narrow => json!({
                "name": "tenant", "namespaces": {"names": [self.world.namespace]},
                "policyARNs": [STORAGE, "arn:aws:iam::111122223333:policy/team/*"],
            }),
            Grants::Wide => json!({
                "name": "tenant", "namespaces": {"names": [self.world.namespace]},
                "policyARNs": ["*"], "inlinePolicies": "Allow", "maxSessionDuration": "12h",
            }),
        };
        let neighbours = json!({
            "name": "neighbour", "namespaces": {"names": [self.neighbour]}, "policyARNs": [QUEUE],
            "inlinePolicies": "Allow", "maxSessionDuration": "12h",
        });
        let mut spec = self.world.spec();
        spec.grants = serde_json::from_value(json!([own, neighbours])).unwrap();
        spec
    }

    fn neighbours(&self) -> Api<PodIdentityBinding> {
        Api::namespaced(self.world.client.clone(), &self.neighbour)
    }

    async fn neighbour_is_ready(&self) {
        let ready = |b: Option<&PodIdentityBinding>| reason(b).as_deref() == Some("Ready");
        self.world.until(&self.neighbours(), "app", "Ready", ready).await;
    }

    /// As the tenant, what a tool sends that checks nothing itself.
    async fn apply(&self, name: &str, spec: &Value) -> Result<(), String> {
        let object = json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding", "metadata": {"name": name}, "spec": spec,
        });
        let path = format!("{}?fieldValidation=Strict", self.path());
        create(&self.tenant, &path, &object).await.map_err(|error| error.to_string())
    }

    /// The path of the tenant's bindings.
    fn path(&self) -> String {
        format!("/apis/podidentity.dev/v1alpha1/namespaces/{}/podidentitybindings", self.world.namespace)
    }

    /// Everything in AWS but the roles of the tenant's own bindings, and everything in the cluster that is another's.
    async fn others(&self) -> Value {
        let mut state = self.world.sim.state();
        let own = |tags: &aws_sim::Tags| {
            tags.get(tag::NAMESPACE) == Some(&self.world.namespace)
                && tags.get(tag::KIND).is_some_and(|kind| kind == "PodIdentityBinding")
        };
        state.roles.retain(|_, role| !own(&role.tags) || role.tags[tag::NAME] == "app");
        let accounts: Api<DynamicObject> = Api::all_with(self.world.client.clone(), &service_accounts());
        let accounts = accounts.list(&ListParams::default()).await.unwrap().items;
        let accounts = accounts.into_iter().filter(|account| {
            account.metadata.namespace.as_ref() != Some(&self.world.namespace)
                || account.metadata.name.as_deref() == Some("app")
        });
        let accounts: Vec<Value> = accounts.map(|a| json!(a.metadata)).collect();
        let neighbour = self.neighbours().get("app").await.unwrap();
        let app = self.world.binding("app").await;
        json!([state, bodies(&state), accounts, neighbour, app])
    }

    /// The operator's successful writes, each of which has to be about the role of that `ServiceAccount`.
    fn writes(&self, service_account: &str) -> Vec<String> {
        let all = self.world.operators().into_iter();
        let writes: Vec<Call> = all.filter(|call| call.write && call.status == 200).collect();
        let arn = role_arn(&self.world.namespace, service_account);
        for call in &writes {
            assert_eq!(call.resource, arn, "{}", call.action);
        }
        writes.into_iter().map(|call| call.action).collect()
    }

    /// Removes the tenant's binding and waits until it no longer exists.
    async fn remove(&self, name: &str) {
        let path = format!("{}/{name}", self.path());
        let request = http::Request::delete(&path).body(Vec::new()).unwrap();
        // As text: not every object here can be decoded.
        self.tenant.request_text(request).await.unwrap();
        let deleted = || async {
            let request = http::Request::get(&path).body(Vec::new()).unwrap();
            match self.tenant.request_text(request).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                left => anyhow::bail!("{left:?}"),
            }
        };
        cluster::until(&format!("the deletion of {name}"), LIMIT, deleted).await.unwrap();
    }
}

/// ARN of the role of a `ServiceAccount`.
fn role_arn(namespace: &str, service_account: &str) -> String {
    names::role_arn("aws", crate::world::ACCOUNT, CLUSTER, namespace, service_account)
}

/// What the JSON of the account leaves out.
fn bodies(state: &State) -> Vec<String> {
    let buckets = state.buckets.values();
    let bodies = buckets.flat_map(|b| {
        let objects = b.objects.values().map(|o| String::from_utf8_lossy(&o.body).into_owned());
        objects.chain([b.policy_text.clone()])
    });
    bodies.collect()
}

fn service_accounts() -> kube::core::ApiResource {
    kube::core::ApiResource::erase::<k8s_openapi::api::core::v1::ServiceAccount>(&())
}

/// The reason of Ready, if it is of the binding's current generation.
fn reason(binding: Option<&PodIdentityBinding>) -> Option<String> {
    let binding = binding?;
    let status = binding.status.as_ref()?;
    let ready = find(&status.conditions, C::Ready)?;
    (status.observed_generation == binding.metadata.generation).then(|| ready.reason.as_str().to_owned())
}

/// A client of a user who may do everything with bindings, `ServiceAccount`s and pods of the test's namespace.
async fn tenant(world: &World) -> Client {
    let group = "rbac.authorization.k8s.io";
    let path = format!("/apis/{group}/v1/namespaces/{}", world.namespace);
    let role = json!({"metadata": {"name": TENANT}, "rules": [
        {"apiGroups": ["podidentity.dev"], "resources": ["podidentitybindings"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["serviceaccounts", "pods"], "verbs": ["*"]},
    ]});
    create(&world.client, &format!("{path}/roles"), &role).await.unwrap();
    let binding = json!({
        "metadata": {"name": TENANT},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": TENANT},
        "subjects": [{"apiGroup": group, "kind": "User", "name": TENANT}],
    });
    create(&world.client, &format!("{path}/rolebindings"), &binding).await.unwrap();
    let mut config = world.config.clone();
    config.auth_info.impersonate = Some(TENANT.into());
    Client::try_from(config).unwrap()
}

/// One POST. The object may be any text: nothing checks it before the API server does.
async fn create(client: &Client, path: &str, object: &Value) -> Result<(), kube::Error> {
    let request = http::Request::post(path).body(serde_json::to_vec(object).unwrap()).unwrap();
    client.request_text(request).await.map(drop)
}

/// Takes the rules off both CRDs: CEL, patterns, lengths, limits and enumerations. Types stay, which the controller's own types have, too.
async fn without_rules(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in ["oidcissuers.podidentity.dev", "podidentitybindings.podidentity.dev"] {
        let crd = crds.get(name).await.unwrap();
        let mut versions = json!(crd.spec.versions);
        strip(&mut versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]);
        let patch = Patch::Merge(json!({"spec": {"versions": versions}}));
        crds.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

fn strip(schema: &mut Value) {
    const RULES: [&str; 11] = [
        "x-kubernetes-validations",
        "pattern",
        "enum",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
    ];
    let Some(schema) = schema.as_object_mut() else { return };
    schema.retain(|keyword, _| !RULES.contains(&keyword.as_str()));
    for child in ["items", "additionalProperties"] {
        if let Some(child) = schema.get_mut(child) {
            strip(child);
        }
    }
    for property in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        strip(property.1);
    }
}

/// Waits until the API server applies the changed CRD.
async fn until_rules_are_gone(tenancy: &Tenancy) {
    let accepted = || async {
        let object = json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding", "metadata": {"name": "probe"},
            "spec": {"serviceAccountName": "A", "driftPolicy": "Correct"},
        });
        create(&tenancy.tenant, &format!("{}?dryRun=All", tenancy.path()), &object).await?;
        Ok(())
    };
    cluster::until("the CRD without rules", LIMIT, accepted).await.unwrap();
}

/// Applies a manifest that the API server lets through, and compares what happens with the table.
async fn controller(tenancy: &Tenancy, manifest: &Manifest, failures: &mut Vec<String>) {
    let world = &tenancy.world;
    let bindings = world.bindings();
    world.sim.clear_calls();
    world.hold.arm(None);
    let decided = || async {
        let binding = bindings.get_opt("try").await?;
        let found = reason(binding.as_ref());
        let message =
            binding.and_then(|b| b.status).map(|s| find(&s.conditions, C::Ready).map(|c| c.message.clone()));
        anyhow::ensure!(found.as_deref() == Some(manifest.reason), "{found:?}: {message:?}");
        Ok(())
    };
    if let Err(error) = cluster::until(manifest.name, Duration::from_secs(5), decided).await {
        failures.push(format!("{}: {error:#}", manifest.name));
    }
    let account = manifest.spec["serviceAccountName"].as_str().unwrap_or_default();
    let writes = tenancy.writes(account);
    if writes != manifest.writes {
        failures.push(format!("{}: the writes are {writes:?}", manifest.name));
    }
    let elsewhere = format!("/namespaces/{}/", world.namespace);
    let elsewhere: Vec<String> =
        world.hold.writes().into_iter().filter(|write| !write.contains(&elsewhere)).collect();
    if !elsewhere.is_empty() {
        failures.push(format!("{}: wrote {elsewhere:?}", manifest.name));
    }
}

/// Applies all manifests, and returns how many the API server refused and accepted.
async fn apply_all(tenancy: &Tenancy, has_rules: bool) -> (usize, usize) {
    let mut failures = Vec::new();
    let (mut refused, mut accepted) = (0, 0);
    let all = manifests(tenancy);
    assert!(all.len() >= 30, "{}", all.len());
    for grants in [Grants::Narrow, Grants::Wide] {
        tenancy.grant(grants).await;
        tenancy.world.issuer_is("Ready").await;
        let others = tenancy.others().await;
        for manifest in all.iter().filter(|manifest| manifest.grants == grants) {
            let answer = tenancy.apply("try", &manifest.spec).await;
            match (manifest.refused.filter(|_| has_rules), &answer) {
                (Some(says), Err(error)) if error.contains(says) => refused += 1,
                (None, Ok(())) => {
                    accepted += 1;
                    controller(tenancy, manifest, &mut failures).await;
                }
                (_, answer) => failures.push(format!("{}: the API server says {answer:?}", manifest.name)),
            }
            if answer.is_ok() {
                tenancy.remove("try").await;
            }
            let after = tenancy.others().await;
            if after != others {
                failures.push(format!("{}: changed what is another's", manifest.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), all.len(), failures.join("\n"));
    (refused, accepted)
}

/// Edits the tenant's working binding to each manifest that only the CRD's rules refuse. Returns how many.
async fn edit_all(tenancy: &Tenancy) -> usize {
    let world = &tenancy.world;
    let good = json!(world.binding("app").await.spec);
    let role = json!(world.role());
    let all = manifests(tenancy);
    let invalid =
        all.iter().filter(|manifest| manifest.refused.is_some() && manifest.reason == "InvalidSpec");
    let mut number = 0;
    for manifest in invalid {
        let mut spec = manifest.spec.clone();
        if spec["serviceAccountName"] == FREE {
            spec["serviceAccountName"] = json!("app");
        }
        world.sim.clear_calls();
        tenancy.edit("app", &spec).await;
        world.binding_is("app", manifest.reason).await;
        assert_eq!((world.writes(), json!(world.role())), (Vec::new(), role.clone()), "{}", manifest.name);
        world.exchange(&world.namespace, "app", role["arn"].as_str().unwrap()).await.unwrap();
        tenancy.edit("app", &good).await;
        world.binding_is("app", "Ready").await;
        assert_eq!((world.writes(), json!(world.role())), (Vec::new(), role.clone()), "{}", manifest.name);
        number += 1;
    }
    number
}

/// An edit to what the controller cannot decode keeps a role neither from its revocation nor from its end, and gives it nothing. With an
/// unknown policy for its end it is retained.
async fn undecodable_edits_escape_nothing(tenancy: &mut Tenancy) {
    let good = json!({"serviceAccountName": FREE, "role": {"policyARNs": [STORAGE]}});
    for (bad, restarts) in [
        (json!({"driftPolicy": "Never"}), false),
        (json!({"deletionPolicy": "Keep"}), false),
        (
            json!({"role": {"policyARNs": [STORAGE, ADMINISTRATOR], "maxSessionDuration": "99999999999999999999h"}}),
            true,
        ),
    ] {
        tenancy.apply("try", &good).await.unwrap();
        tenancy.world.binding_is("try", "Ready").await;
        tenancy.world.sim.clear_calls();
        let mut spec = good.clone();
        spec.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        tenancy.edit("try", &spec).await;
        tenancy.world.binding_is("try", "InvalidSpec").await;
        if restarts {
            tenancy.world.stop().await;
            tenancy.world.start().await;
            tenancy.world.issuer_is("Ready").await;
        }
        assert_eq!(tenancy.writes(FREE), [""; 0]);
        let mut issuer = tenancy.issuer(Grants::Narrow);
        issuer.grants.remove(0);
        tenancy.world.apply_issuer(&issuer).await;
        tenancy.world.binding_is("try", "Revoked").await;
        assert_eq!(tenancy.writes(FREE), ["PutRolePolicy", "UpdateAssumeRolePolicy"]);
        tenancy.remove("try").await;
        let name = tenancy.world.role_name(FREE);
        let left = tenancy.world.sim.state().role(&name).cloned();
        assert_eq!(left.is_some(), !bad["deletionPolicy"].is_null(), "{left:?}");
        tenancy.world.sim.change(|state| drop(state.roles.remove(&name.to_lowercase())));
        tenancy.grant(Grants::Narrow).await;
        tenancy.world.issuer_is("Ready").await;
    }
}

#[tokio::test]
async fn a_tenants_manifests_reach_nothing_that_is_anothers() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let (refused, accepted) = apply_all(&tenancy, true).await;
    eprintln!("{refused} manifests refused by the CRD's rules, {accepted} left to the controller");
    tenancy.world.sim.clear_calls();
    tenancy.world.stop().await;
}

#[tokio::test]
async fn without_the_rules_of_the_crd_the_controller_refuses_the_same_manifests() {
    let cluster = with_crds(ControlPlane::start(&Options::default()).await.unwrap());
    let mut tenancy = Tenancy::new(World::on(&cluster).await).await;
    without_rules(&tenancy.world.client).await;
    until_rules_are_gone(&tenancy).await;
    let (refused, accepted) = apply_all(&tenancy, false).await;
    assert_eq!(refused, 0);
    let edits = edit_all(&tenancy).await;
    eprintln!("{accepted} manifests left to the controller, {edits} of them edits of a working binding, too");
    tenancy.remove("app").await; // it would lose its grant, too
    tenancy.world.stop().await;
    tenancy.world.timings.grant_loss = Duration::ZERO;
    tenancy.world.start().await;
    undecodable_edits_escape_nothing(&mut tenancy).await;
    tenancy.world.sim.clear_calls();
    tenancy.world.stop().await;
}
