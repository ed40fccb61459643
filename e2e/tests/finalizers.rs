//! The chart's admission policies in a real API server: only the operator and cluster administrators remove our finalizer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use cluster::{ControlPlane, Options, Tools};
use e2e::binaries::root;
use e2e::terminal::progress;
use serde_json::{Value, json};

const TENANT: &str = "--as=system:serviceaccount:tenant:robot";
const OPERATOR: &str = "--as=system:serviceaccount:podidentity-system:podidentity-operator";

struct World {
    cluster: ControlPlane,
    /// The admission policies, as YAML.
    policies: String,
}

fn rendered(template: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let tools = Tools::chart(&progress).unwrap();
    let mut helm = Command::new(tools.path("helm"));
    helm.args(["template", "podidentity", "--namespace=podidentity-system"])
        .arg(root().join("charts/pod-identity-operator"))
        .arg("--set=aws.roleARN=arn:aws:iam::111122223333:role/operator,aws.region=eu-central-1")
        .arg("--set=operator.image.repository=operator,webhook.image.repository=webhook")
        .arg(format!("--show-only=templates/{template}"));
    // helm writes its own files to HOME.
    let output = helm.env("HOME", home.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl World {
    async fn start() -> Self {
        let options = Options { controllers: true, ..Options::default() };
        let cluster = ControlPlane::start(&options).await.unwrap();
        let world = Self { cluster, policies: rendered("admission-policy.yaml") };
        for file in ["oidcissuers.yaml", "podidentitybindings.yaml"] {
            let path = root().join("charts/pod-identity-operator/crd-manifests").join(file);
            world.done(&["apply", "--server-side", "-f", &path.display().to_string()]);
        }
        world.done(&["wait", "--for=condition=Established", "crd", "--all"]);
        for namespace in ["podidentity-system", "tenant"] {
            world.done(&["create", "namespace", namespace]);
        }
        world.apply(&rendered("operator-rbac.yaml"));
        // A tenant's Role with every right there is, and the rights that docs/install.md gives to tenants.
        world.apply(
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                "metadata": {"name": "everything", "namespace": "tenant"},
                "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
            })
            .to_string(),
        );
        let binding = ["create", "rolebinding", "robot", "--namespace=tenant", "--role=everything"];
        world.done(&[&binding[..], &["--serviceaccount=tenant:robot"]].concat());
        world.apply(&world.policies);
        world
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        self.cluster.kubectl(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    fn with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.cluster.kubectl(arguments);
        let mut child =
            child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn apply(&self, objects: &str) {
        let output = self.with_input(&["apply", "--server-side", "-f", "-"], objects);
        assert!(output.status.success(), "{}", text(&output));
    }

    /// A binding of the tenant with our finalizer.
    fn binding(&self, name: &str) -> Value {
        let object = json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding",
            "metadata": {
                "name": name, "namespace": "tenant",
                "finalizers": ["podidentity.dev/finalizer", "example.com/other"],
            },
            "spec": {"serviceAccountName": name, "role": {}},
        });
        self.apply(&object.to_string());
        object
    }

    fn finalizers(&self, name: &str) -> String {
        self.done(&["get", "pib", name, "-n=tenant", "-o=jsonpath={.metadata.finalizers}"])
    }

    /// Waits until the policy is in force: the API server compiles it some moments after it was applied.
    async fn in_force(&self) {
        self.binding("probe");
        let strip = ["patch", "pib", "probe", "-n=tenant", "--type=merge", "--dry-run=server", STRIP, TENANT];
        let refused = || async {
            anyhow::ensure!(!self.kubectl(&strip).status.success(), "the finalizer can be removed");
            Ok(())
        };
        cluster::until("the admission policy", Duration::from_secs(30), refused).await.unwrap();
    }
}

const STRIP: &str = r#"--patch={"metadata":{"finalizers":null}}"#;

#[tokio::test]
async fn only_the_operator_and_cluster_administrators_remove_our_finalizer() {
    let world = World::start().await;
    world.in_force().await;
    let object = world.binding("app");
    let patch = |who: &str, patch: &str| {
        world.kubectl(&["patch", "pib", "app", "-n=tenant", "--type=merge", patch, who])
    };

    // A tenant: by a patch, and by a PUT that forgets the finalizers.
    let refused = text(&patch(TENANT, STRIP));
    assert!(refused.contains("use `kubectl apply`"), "{refused}");
    let others_only = r#"--patch={"metadata":{"finalizers":["example.com/other"]}}"#;
    assert!(!patch(TENANT, others_only).status.success());
    let mut without = object.clone();
    without["metadata"]["finalizers"] = json!([]);
    let put = world.with_input(&["replace", "-f", "-", TENANT], &without.to_string());
    assert!(!put.status.success() && text(&put).contains("use `kubectl apply`"), "{}", text(&put));
    let put = world.with_input(&["replace", "--subresource=status", "-f", "-", TENANT], &without.to_string());
    assert!(put.status.success(), "a write of the status is not judged: {}", text(&put));
    assert!(world.finalizers("app").contains("podidentity.dev/finalizer"));

    // The same for OidcIssuer, by a user who may update oidcissuers but not oidcissuers/finalizers.
    let editor = "--as=editor";
    world.done(&[
        "create",
        "clusterrole",
        "editor",
        "--verb=get,patch,update",
        "--resource=oidcissuers.podidentity.dev",
    ]);
    world.done(&["create", "clusterrolebinding", "editor", "--clusterrole=editor", "--user=editor"]);
    world.apply(
        &json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer",
            "metadata": {"name": "default", "finalizers": ["podidentity.dev/finalizer"]},
            "spec": {"clusterName": "homelab", "s3": {"bucket": "oidc", "region": "eu-central-1"}},
        })
        .to_string(),
    );
    let strip = ["patch", "oidcissuer", "default", "--type=merge", STRIP];
    let refused = text(&world.kubectl(&[&strip[..], &[editor]].concat()));
    assert!(refused.contains("only the operator removes the finalizer"), "{refused}");
    world.done(&[&strip[..], &[OPERATOR]].concat());

    // What is not the loss of our finalizer passes.
    for change in [
        r#"--patch={"metadata":{"finalizers":["podidentity.dev/finalizer"]}}"#,
        r#"--patch={"metadata":{"labels":{"a":"b"}}}"#,
        r#"--patch={"spec":{"tokenExpirationSeconds":3600}}"#,
    ] {
        let output = patch(TENANT, change);
        assert!(output.status.success(), "{change}: {}", text(&output));
    }

    // The garbage collector removes its own finalizer of a foreground deletion; ours keeps the object.
    world.done(&["delete", "pib", "app", "-n=tenant", "--cascade=foreground", "--wait=false", TENANT]);
    let collected = || async {
        let left = world.finalizers("app");
        anyhow::ensure!(left == r#"["podidentity.dev/finalizer"]"#, "{left}");
        Ok(())
    };
    cluster::until("the garbage collector", Duration::from_secs(30), collected).await.unwrap();
    assert!(!patch(TENANT, STRIP).status.success(), "also while it is being deleted");

    // The operator.
    let output = patch(OPERATOR, STRIP);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!world.kubectl(&["get", "pib", "app", "-n=tenant"]).status.success());

    // The deletion of the namespace waits for our finalizer, and an administrator can end it.
    world.done(&["delete", "pib", "probe", "-n=tenant", "--wait=false"]);
    world.done(&["patch", "pib", "probe", "-n=tenant", "--type=merge", STRIP]);
    world.binding("last");
    world.done(&["delete", "namespace", "tenant", "--wait=false"]);
    let deleting = || async {
        let at =
            world.done(&["get", "pib", "last", "-n=tenant", "-o=jsonpath={.metadata.deletionTimestamp}"]);
        anyhow::ensure!(!at.is_empty(), "the namespace controller has not deleted it yet");
        Ok(())
    };
    cluster::until("the deletion of its objects", Duration::from_secs(30), deleting).await.unwrap();
    let last = ["patch", "pib", "last", "-n=tenant", "--type=merge", STRIP];
    assert!(!world.kubectl(&[&last[..], &[TENANT]].concat()).status.success());

    // After `helm uninstall`, which removes the policies, an administrator is still able to.
    let removed = world.with_input(&["delete", "-f", "-"], &world.policies);
    assert!(removed.status.success(), "{}", text(&removed));
    world.done(&last);
    world.done(&["wait", "--for=delete", "namespace/tenant", "--timeout=60s"]);
}

#[tokio::test]
async fn a_label_without_effect_is_warned_of() {
    let options = Options::default();
    let cluster = ControlPlane::start(&options).await.unwrap();
    let world = World { cluster, policies: rendered("admission-policy.yaml") };
    world.apply(&world.policies);
    world.done(&["create", "namespace", "strict"]);
    let label = |value: &str| {
        let label = format!("podidentity.dev/require={value}");
        world.done(&["label", "--overwrite", "namespace", "strict", &label])
    };
    let warned = || async {
        label("false"); // kubectl sends nothing where the label is the same
        anyhow::ensure!(label("True").contains("has no effect with this value"), "no warning");
        Ok(())
    };
    cluster::until("the warning", Duration::from_secs(30), warned).await.unwrap();
    assert!(!label("true").contains("Warning"));
}
