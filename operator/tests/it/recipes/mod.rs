//! Every file of `examples/recipes`, applied by kubectl as a user applies it, under the grants that the file names: the binding
//! becomes Ready, its pods get what the recipe says and no more, and nothing is left when it is deleted.

mod expected;

use std::collections::BTreeSet;

use aws_config::Region;
use aws_credential_types::Credentials;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sim::policy::{Context, Query, Verdict, evaluate};
use aws_sim::{Policy, Provider, Role, State};
use crds::PodIdentityBinding;
use crds::condition::ConditionType as C;
use crds::conditions::find;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use self::expected::{EXPECTED, Expected, Request};
use crate::structure::{files, read};
use crate::world::{ACCOUNT, REGION, World, kubectl};

/// Where the recipes are.
pub const RECIPES: &str = "examples/recipes";
const ROLE_ARN: &str = "eks.amazonaws.com/role-arn";

/// A file: what it needs of the administrator, and its objects.
struct Recipe {
    name: String,
    grants: Value,
    objects: Vec<Value>,
}

impl Recipe {
    fn read(name: &str) -> Self {
        let text = read(&format!("{RECIPES}/{name}"));
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        // The grants are the issuer's in the file, or the lines of the comment that are indented.
        let fragment: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#     ")).collect();
        let issuer = objects.iter().find(|object| object["kind"] == "OidcIssuer");
        let grants = match issuer {
            Some(issuer) => issuer["spec"]["grants"].clone(),
            None if fragment.is_empty() => json!([]),
            None => serde_saphyr::from_str(&fragment.join("\n")).unwrap(),
        };
        Self { name: name.to_owned(), grants, objects }
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(all) => all.iter().collect(),
        one => vec![one],
    }
}

/// Whether a call was allowed: any other failure than a denial is one of the test.
fn admitted<T, E: ProvideErrorMetadata + std::fmt::Debug>(answer: Result<T, E>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error) if error.code() == Some("AccessDenied") => false,
        Err(error) => panic!("{error:?}"),
    }
}

impl World {
    /// The managed policies and buckets that recipes name.
    fn with_what_recipes_name(&self) {
        let allow = |action: &str, resource: &str| {
            let statement = json!({"Effect": "Allow", "Action": action, "Resource": resource});
            json!({"Version": "2012-10-17", "Statement": [statement]})
        };
        let reports = allow("s3:GetObject", "arn:aws:s3:::reports-of-example-com/*");
        self.sim.put_managed_policy("reports", reports);
        let orders = allow("dynamodb:*", "arn:aws:dynamodb:eu-central-1:111122223333:table/orders");
        self.sim.put_managed_policy("shop/orders", orders);
        for bucket in ["reports-of-example-com", "backups-of-example-com", "velero-of-example-com"] {
            self.sim.put_bucket(bucket, ACCOUNT);
        }
    }

    /// Applies a recipe: its namespaces, its grants, and the file itself by kubectl, which fails at a warning or at a field
    /// that the API server does not know.
    async fn apply_recipe(&self, recipe: &Recipe) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let names = recipe.objects.iter().filter_map(|object| object["metadata"]["namespace"].as_str());
        for name in names.collect::<BTreeSet<_>>() {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let apply = PatchParams::apply("administrator");
            namespaces.patch(name, &apply, &Patch::Apply(object)).await.unwrap();
        }
        let mut issuer = self.spec();
        issuer.grants = serde_json::from_value(recipe.grants.clone()).unwrap();
        self.apply_issuer(&issuer).await;
        let path = format!("{}/../{RECIPES}/{}", env!("CARGO_MANIFEST_DIR"), recipe.name);
        let flags = ["--server-side", "--field-manager=gitops", "--validate=strict", "--warnings-as-errors"];
        let applied = kubectl(&["apply", "-f", &path]).args(flags).output().await.unwrap();
        let said = String::from_utf8_lossy(&applied.stderr);
        assert!(applied.status.success() && said.is_empty(), "{}: {said}", recipe.name);
    }

    /// The operator's changes in IAM, sorted.
    fn iam_writes(&self) -> Vec<String> {
        let writes = self.operators().into_iter().filter(|call| call.write && call.service == "iam");
        let mut writes: Vec<String> = writes.map(|call| call.action).collect();
        writes.sort_unstable();
        writes
    }

    /// Whether a session of a role may do that: S3 is asked; for other services the role's own policies are evaluated.
    async fn may(&self, role: &Role, session: &Credentials, request: Request) -> bool {
        let (action, resource, key) = request;
        if let Some(path) = resource.strip_prefix("arn:aws:s3:::") {
            return self.s3_allows(session, action, path).await;
        }
        let mut context = Context::new();
        context.extend(key.map(|(key, value)| (key.to_lowercase(), vec![value.to_owned()])));
        let query = Query { action, resource: Some(resource), principal: None, context: &context };
        let state = self.sim.state();
        // AWS's own policies are for S3 here.
        let attached = role.attached.iter().filter_map(|arn| state.policies.get(arn)).map(Policy::document);
        let of_role: Vec<Verdict> =
            attached.chain(role.inline.values()).map(|document| evaluate(document, query)).collect();
        let boundary = evaluate(state.policies[role.boundary.as_ref().unwrap()].document(), query);
        boundary == Verdict::Allow && of_role.contains(&Verdict::Allow) && !of_role.contains(&Verdict::Deny)
    }

    /// Whether S3 answers a call of the session, and does not deny it.
    async fn s3_allows(&self, session: &Credentials, action: &str, path: &str) -> bool {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(Region::new(REGION))
            .http_client(aws_sim::sdk::http_client(&self.sim))
            .credentials_provider(session.clone())
            .build();
        let s3 = aws_sdk_s3::Client::from_conf(config);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        match action {
            "s3:GetObject" => {
                self.sim.put_object(bucket, key, "x");
                admitted(s3.get_object().bucket(bucket).key(key).send().await)
            }
            "s3:PutObject" => {
                admitted(s3.put_object().bucket(bucket).key(key).body(b"x".to_vec().into()).send().await)
            }
            "s3:DeleteObject" => admitted(s3.delete_object().bucket(bucket).key(key).send().await),
            "s3:ListBucket" => admitted(s3.list_objects_v2().bucket(bucket).send().await),
            other => panic!("{other} is not called here"),
        }
    }

    /// A binding of a recipe whose role the operator makes, from Ready on.
    async fn made_role_is_as_written(&self, binding: &Value, expected: &Expected) {
        let (name, spec) = (expected.binding, &binding["spec"]["role"]);
        let service_account = text(&binding["spec"]["serviceAccountName"]);
        let role = self.sim.state().role(&self.role_name(service_account)).cloned().unwrap();
        let attached: BTreeSet<&str> = role.attached.iter().map(String::as_str).collect();
        assert_eq!(attached, list(&spec["policyARNs"]).into_iter().map(text).collect(), "{name}");
        let inline = list(&spec["inlinePolicies"]).into_iter();
        let inline = inline.map(|policy| (text(&policy["name"]).to_owned(), policy["document"].clone()));
        assert_eq!(role.inline, inline.collect(), "{name}");
        self.boundary_covers(&role);

        // What another operator or a chart makes comes later, without these annotations.
        if self.accounts().get_opt(service_account).await.unwrap().is_none() {
            let found = self.condition(name, C::ServiceAccountAnnotated).await;
            assert_eq!(found.1, "ServiceAccountNotFound", "{name}");
            self.service_account(&self.namespace, service_account).await;
        }
        self.until_annotated(service_account, &role.arn).await;
        let session = self.exchange(&self.namespace, service_account, &role.arn).await.unwrap();
        for (requests, wanted) in [(expected.allowed, true), (expected.refused, false)] {
            assert!(!requests.is_empty(), "{name}: what the role may do and what not is not said");
            for request in requests {
                assert_eq!(self.may(&role, &session, *request).await, wanted, "{name}: {request:?}");
            }
        }
    }

    /// Nothing that the recipe allows is refused by the permissions boundary.
    fn boundary_covers(&self, role: &Role) {
        let state = self.sim.state();
        let boundary = state.policies[role.boundary.as_ref().unwrap()].document();
        let statements = role.inline.values().flat_map(|document| list(&document["Statement"]));
        for statement in statements {
            for action in list(&statement["Action"]).into_iter().map(text) {
                for resource in list(&statement["Resource"]).into_iter().map(text) {
                    let context = Context::new();
                    let query =
                        Query { action, resource: Some(resource), principal: None, context: &context };
                    assert_eq!(evaluate(boundary, query), Verdict::Allow, "{action} {resource}");
                }
            }
        }
    }

    async fn until_annotated(&self, service_account: &str, role: &str) {
        let annotated = |found: Option<&ServiceAccount>| {
            let annotations = found.and_then(|account| account.metadata.annotations.as_ref());
            annotations.and_then(|all| all.get(ROLE_ARN)).is_some_and(|arn| arn == role)
        };
        self.until(&self.accounts(), service_account, "its annotation", annotated).await;
    }

    /// A binding with a role made elsewhere: with the statement of its status, that role lets the `ServiceAccount` in.
    async fn role_elsewhere_is_used(&self, binding: &Value, expected: &Expected) {
        assert!(
            expected.allowed.is_empty() && expected.refused.is_empty(),
            "that role's policies are not ours"
        );
        let arn = text(&binding["spec"]["roleARN"]);
        let service_account = text(&binding["spec"]["serviceAccountName"]);
        if self.accounts().get_opt(service_account).await.unwrap().is_none() {
            self.service_account(&self.namespace, service_account).await;
        }
        self.until_annotated(service_account, arn).await;
        let message = self.condition(expected.binding, C::RoleReady).await.2;
        let statement: Value = serde_json::from_str(&message[message.find('{').unwrap()..]).unwrap();
        let (_, path) = arn.split_once(":role").unwrap();
        let (path, name) = path.rsplit_once('/').unwrap();
        let account = self.sim.account(crds::names::account_of_arn(arn).unwrap());
        let provider = text(&statement["Principal"]["Federated"]).to_owned();
        let url = self.spec().issuer_url().trim_start_matches("https://").to_owned();
        account.change(|state| {
            state.providers.entry(provider).or_insert_with(|| Provider {
                url,
                client_ids: vec!["sts.amazonaws.com".into()],
                tags: [].into(),
            });
        });
        let trust = json!({"Version": "2012-10-17", "Statement": [statement]});
        assert_eq!(account.put_role(&format!("{path}/"), name, trust, &[]), arn);
        self.exchange(&self.namespace, service_account, arn).await.unwrap();
        let other = self.exchange(&self.system, "podidentity-operator", arn).await;
        assert_eq!(other.unwrap_err(), "AccessDenied");
    }

    /// Deletes a binding and its `ServiceAccount`: nothing of it is left in AWS, unless the recipe says so.
    async fn recipe_ends(&self, binding: &Value) {
        let spec = &binding["spec"];
        let service_account = text(&spec["serviceAccountName"]);
        let role = || self.sim.state().role(&self.role_name(service_account)).cloned();
        let before = role();
        self.sim.clear_calls();
        self.unbind(text(&binding["metadata"]["name"])).await;
        if spec["roleARN"].is_string() {
            assert_eq!(self.operators(), []);
        } else if spec["deletionPolicy"] == "Release" {
            assert_eq!(self.iam_writes(), ["UntagRole"]);
            let released = Role { tags: before.as_ref().unwrap().tags.clone(), ..role().unwrap() };
            assert_eq!(Some(released), before, "as it was");
            assert!(role().unwrap().tags.is_empty());
        } else {
            let mut wanted = vec!["UpdateAssumeRolePolicy".to_owned(), "DeleteRole".to_owned()];
            wanted.extend(list(&spec["role"]["policyARNs"]).iter().map(|_| "DetachRolePolicy".into()));
            wanted.extend(list(&spec["role"]["inlinePolicies"]).iter().map(|_| "DeleteRolePolicy".into()));
            wanted.sort_unstable();
            assert_eq!((self.iam_writes(), role()), (wanted, None));
        }
        assert_eq!(self.annotations(service_account).await, [].into());
        self.accounts().delete(service_account, &DeleteParams::default()).await.unwrap();
    }
}

/// The least changes with which the roles of a recipe can be made.
fn least_writes(recipe: &Recipe) -> Vec<String> {
    let mut writes = Vec::new();
    for role in recipe.of_kind("PodIdentityBinding").map(|binding| &binding["spec"]["role"]) {
        writes.extend(role.is_object().then(|| "CreateRole".to_owned()));
        writes.extend(list(&role["policyARNs"]).iter().map(|_| "AttachRolePolicy".to_owned()));
        writes.extend(list(&role["inlinePolicies"]).iter().map(|_| "PutRolePolicy".to_owned()));
    }
    writes.sort_unstable();
    writes
}

#[tokio::test]
async fn every_recipe_does_what_it_says() {
    let mut world = World::ready().await;
    world.with_what_recipes_name();
    let mut found = Vec::new();
    for file in files(RECIPES) {
        let recipe = Recipe::read(&file);
        world.sim.clear_calls();
        world.apply_recipe(&recipe).await;
        let bindings: Vec<Value> = recipe.of_kind("PodIdentityBinding").cloned().collect();
        let at = |world: &mut World, binding: &Value| {
            text(&binding["metadata"]["namespace"]).clone_into(&mut world.namespace);
        };
        for binding in &bindings {
            at(&mut world, binding);
            world.binding_is(text(&binding["metadata"]["name"]), "Ready").await;
        }
        assert_eq!(world.iam_writes(), least_writes(&recipe), "{file}");
        for binding in &bindings {
            at(&mut world, binding);
            let name = text(&binding["metadata"]["name"]);
            let expected = EXPECTED.iter().find(|e| e.file == file && e.binding == name);
            let expected = expected.unwrap_or_else(|| panic!("{file}: nothing is expected of {name}"));
            if binding["spec"]["roleARN"].is_string() {
                world.role_elsewhere_is_used(binding, expected).await;
            } else {
                world.made_role_is_as_written(binding, expected).await;
            }
            world.recipe_ends(binding).await;
            found.push((file.clone(), name.to_owned()));
        }
    }
    let expected = EXPECTED.iter().map(|e| (e.file.to_owned(), e.binding.to_owned()));
    found.sort_unstable();
    assert_eq!(found, expected.collect::<Vec<_>>(), "each is in the directory");
    world.issuer_is("Ready").await;
    world.stop().await;
}

/// What the guide says of `grants.yaml`: a team that asks for more gets no role, and the message says what is missing.
#[tokio::test]
async fn a_team_gets_no_more_than_one_grant_gives() {
    let mut world = World::ready().await;
    world.with_what_recipes_name();
    let recipe = Recipe::read("grants.yaml");
    world.apply_recipe(&recipe).await;
    for binding in recipe.of_kind("PodIdentityBinding") {
        text(&binding["metadata"]["namespace"]).clone_into(&mut world.namespace);
        let name = text(&binding["metadata"]["name"]);
        world.binding_is(name, "Ready").await;
        world.unbind(name).await;
    }
    world.sim.clear_calls();
    let document = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"},
    ]});
    let inline = json!({"inlinePolicies": [{"name": "x", "document": document}]});
    let [reports, orders] = ["reports", "shop/orders"].map(|p| format!("arn:aws:iam::{ACCOUNT}:policy/{p}"));
    for (namespace, role, says) in [
        ("reports", json!({"policyARNs": [orders]}), "the closest, reports, does not allow arn:aws:iam"),
        ("reports", inline.clone(), "reports, does not allow inline policies"),
        ("shop", json!({"policyARNs": [reports]}), "the closest, shop, does not allow arn:aws:iam"),
        ("shop", json!({"maxSessionDuration": "8h"}), "shop, does not allow sessions of 28800 s"),
        ("databases", json!({"policyARNs": [reports]}), "databases, does not allow arn:aws:iam"),
        ("shop-dev", json!({"policyARNs": ["arn:aws:iam::aws:policy/AmazonS3FullAccess"]}), "sandbox, does"),
        ("kube-system", json!({}), "no grant of OidcIssuer default covers namespace kube-system"),
    ] {
        namespace.clone_into(&mut world.namespace);
        world.apply_binding("more", json!({"serviceAccountName": "more", "role": role})).await;
        world.binding_is("more", "WaitingForGrant").await;
        let message = world.condition("more", C::Granted).await.2;
        assert!(message.contains(says), "{namespace}: {message}");
        world.unbind("more").await;
    }
    assert_eq!(world.iam_writes(), [""; 0]);

    // A grant that another owner adds by server-side apply stays beside these.
    let team = json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": {"name": "default"},
        "spec": {"grants": [{"name": "team", "namespaces": {"names": ["kube-system"]}}]},
    });
    let issuer = world.issuers().patch("default", &PatchParams::apply("team"), &Patch::Apply(team)).await;
    let names: Vec<String> = issuer.unwrap().spec.grants.into_iter().map(|grant| grant.name).collect();
    assert_eq!(names, ["reports", "shop", "databases", "sandbox", "team"]);
    world.apply_binding("more", json!({"serviceAccountName": "more", "role": {}})).await;
    world.binding_is("more", "Ready").await;
    assert_eq!(world.iam_writes(), ["CreateRole"]);
    world.unbind("more").await;
    world.stop().await;
}

/// What the guide says of `report-only.yaml`: a change in AWS is named and stays, unless it gives more than a grant does.
#[tokio::test]
async fn with_report_only_a_change_is_named_and_stays() {
    let mut world = World::ready_with(|t| t.role_resync = std::time::Duration::from_millis(200)).await;
    world.with_what_recipes_name();
    world.apply_recipe(&Recipe::read("report-only.yaml")).await;
    "reports".clone_into(&mut world.namespace);
    world.binding_is("auditor", "Ready").await;
    world.sim.clear_calls();
    let name = world.role_name("auditor").to_lowercase();
    let describe = |text: String| world.sim.change(|s| s.roles.get_mut(&name).unwrap().description = text);
    let described = world.sim.state().roles[&name].description.clone();
    describe("of the auditors".into());
    world.binding_is("auditor", "DriftDetected").await;
    let stalled = |found: Option<&PodIdentityBinding>| {
        let status = found.and_then(|binding| binding.status.as_ref());
        let stalled = status.and_then(|status| find(&status.conditions, C::Stalled));
        stalled.is_some_and(|stalled| stalled.message.contains("description"))
    };
    world.until(&world.bindings(), "auditor", "the name of the attribute", stalled).await;
    assert_eq!(world.iam_writes(), [""; 0]);
    describe(described);
    world.binding_is("auditor", "Ready").await;

    // A right that no grant covers does not stay.
    let orders = format!("arn:aws:iam::{ACCOUNT}:policy/shop/orders");
    world.sim.change(|s| s.roles.get_mut(&name).unwrap().attached.push(orders.clone()));
    let is_taken = |s: &State| !s.roles[&name].attached.contains(&orders);
    world.until_aws("the end of the right that is not granted", is_taken).await;
    world.binding_is("auditor", "Ready").await;
    assert_eq!(world.iam_writes(), ["DetachRolePolicy"]);
    world.unbind("auditor").await;
    world.accounts().delete("auditor", &DeleteParams::default()).await.unwrap();
    world.stop().await;
}
