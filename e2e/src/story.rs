//! The main job, step by step. Each step fails unless what it shows is true.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cluster::Tokens;
use crds::names::{role_arn, role_name};

use crate::binaries::root;
use crate::flags;
use crate::lab::{ACCOUNT, BUCKET, DATA_BUCKET, Lab, REGION, SYSTEM, condition};
use crate::running_pod::RunningPod;
use crate::terminal::Terminal;

/// The file a user keeps in Git.
#[must_use]
pub fn example() -> String {
    root().join("examples/minimal.yaml").display().to_string()
}

/// What `operator bootstrap` prints when the API server signs under the issuer.
const ISSUED_ALREADY: &str = "# this API server issues tokens under it already";

/// The issuer of the file.
fn issuer_url() -> String {
    format!("https://{BUCKET}.s3.{REGION}.amazonaws.com/homelab")
}

/// As the administrator: publishes, registers, creates boundary and operator's role. Returns the flags of the API server that
/// it prints.
pub async fn bootstrap(lab: &Lab, terminal: &mut Terminal) -> anyhow::Result<Tokens> {
    terminal.step("Bootstrap, once, as administrator: operator bootstrap -f examples/minimal.yaml");
    lab.create_user_resources().await?;
    let printed = lab.operator(&["bootstrap", "-f", &example()]).await?;
    terminal.shown(&printed);
    ensure!(!printed.contains(ISSUED_ALREADY), "the API server has the issuer before its flags are switched");
    let tokens = flags::printed(&printed);
    let present = Tokens::KUBEADM_ISSUER;
    ensure!(tokens.issuers == [&*issuer_url(), present], "it prints other issuers: {:?}", tokens.issuers);
    ensure!(tokens.api_audiences == [present], "it prints other audiences: {:?}", tokens.api_audiences);
    let again = lab.operator(&["bootstrap", "-f", &example()]).await?;
    ensure!(again.contains("everything is as specified"), "a second run changes something: {again}");
    terminal.proof("run again, it changes nothing");
    terminal.done();
    Ok(tokens)
}

/// As the administrator: restarts the API server with the flags that [`bootstrap`] returned. Tokens of the former issuer stay
/// accepted, so that pods and nodes go on.
pub async fn switch_issuer(lab: &Lab, tokens: &Tokens, terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.step("Switch the API server to the issuer, live: the flags that bootstrap printed");
    let pod = RunningPod::start(lab).await?;
    lab.node.restart_api_server(tokens).await?;
    let discovery = lab.kubectl(&["get", "--raw", "/.well-known/openid-configuration"]).await?;
    let document: serde_json::Value = serde_json::from_str(&discovery)?;
    ensure!(document["issuer"] == issuer_url(), "the API server has another issuer: {discovery}");
    terminal.proof(&format!("the API server issues tokens under {}", issuer_url()));
    let again = lab.operator(&["bootstrap", "-f", &example()]).await?;
    ensure!(again.contains(ISSUED_ALREADY), "bootstrap sees another issuer: {again}");
    ensure!(
        again.contains("everything is as specified"),
        "a run after the switch changes something: {again}"
    );
    terminal.proof("bootstrap, run again, says so, too, and changes nothing");
    pod.ensure_unaffected().await.context("a pod that was running before")?;
    terminal.proof(
        "a pod that was running before goes on without a restart, and its token of the former issuer is accepted",
    );
    terminal.proof("the node was Ready all the time");
    pod.delete().await?;
    terminal.done();
    Ok(())
}

/// Installs the chart with helm, with further values (`key=value`).
pub async fn install(lab: &Lab, values: &[&str], terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.step("Install the chart with helm: operator and webhook run as pods, without a static key");
    lab.load_images().await?;
    lab.install(values).await?;
    terminal.shown(&lab.kubectl(&["get", "pods", "--namespace", SYSTEM]).await?);
    terminal.done();
    Ok(())
}

/// How long the step [`apply`] took.
#[derive(Debug, Clone, Copy)]
pub struct Applied {
    /// From apply to the issuer's Ready.
    pub issuer: Duration,
    /// From apply to the binding's Ready.
    pub binding: Duration,
}

/// Applies the smallest issuer and binding.
pub async fn apply(lab: &Lab, terminal: &mut Terminal) -> anyhow::Result<Applied> {
    terminal.step("Apply one OidcIssuer and one PodIdentityBinding: kubectl apply -f examples/minimal.yaml");
    for namespace in ["vault", "shop"] {
        lab.kubectl(&["create", "namespace", namespace]).await?;
        lab.kubectl(&["create", "serviceaccount", namespace, "--namespace", namespace]).await?;
    }
    lab.kubectl(&["create", "serviceaccount", "nobody", "--namespace", "vault"]).await?;
    let begun = Instant::now();
    lab.kubectl(&["apply", "--filename", &example()]).await?;
    let ready = async |object: &[&str]| -> anyhow::Result<Duration> {
        let wait = ["wait", "--for=condition=Ready", "--timeout=2m"];
        if let Err(error) = lab.kubectl(&[&wait, object].concat()).await {
            let described = lab.kubectl(&[&["describe"], object].concat()).await.unwrap_or_default();
            let logs = lab.kubectl(&["logs", "deployment/podidentity-operator", "--namespace", SYSTEM]).await;
            return Err(error.context(format!("{described}\n{}", logs.unwrap_or_default())));
        }
        Ok(begun.elapsed())
    };
    let (issuer, binding) = tokio::try_join!(
        ready(&["oidcissuer/default"]),
        ready(&["podidentitybinding/vault", "--namespace=vault"])
    )?;
    terminal.proof(&format!(
        "OidcIssuer Ready after {:.1} s: a real token of this cluster was exchanged",
        issuer.as_secs_f64()
    ));
    terminal.proof(&format!(
        "PodIdentityBinding Ready after {:.1} s: its role was read back",
        binding.as_secs_f64()
    ));

    let (state, name) = (lab.state().await?, role_name("homelab", "vault", "vault"));
    let role = state.role(&name).with_context(|| format!("there is no role {name}"))?;
    ensure!(role.arn == role_arn("aws", ACCOUNT, "homelab", "vault", "vault"), "its ARN is {}", role.arn);
    ensure!(role.attached == [format!("arn:aws:iam::{ACCOUNT}:policy/vault-storage")], "{:?}", role.attached);
    let annotation = lab
        .kubectl(&[
            "get",
            "serviceaccount",
            "vault",
            "-n=vault",
            r"-o=jsonpath={.metadata.annotations.eks\.amazonaws\.com/role-arn}",
        ])
        .await?;
    ensure!(annotation == role.arn, "the ServiceAccount is annotated with {annotation:?}");
    terminal.done();
    Ok(Applied { issuer, binding })
}

/// An ordinary SDK program gets credentials where a binding says so, and nowhere else.
pub async fn workloads(lab: &Lab, terminal: &mut Terminal) -> anyhow::Result<()> {
    let read = ["get", DATA_BUCKET, "greeting"];
    terminal.step(
        "Run an ordinary AWS SDK program in a pod, without any configuration of roles, tokens or endpoints",
    );
    let ended = lab.run_pod("vault", "vault", "reader", &read).await?;
    terminal.shown(&ended.log);
    let role = role_name("homelab", "vault", "vault");
    ensure!(ended.succeeded, "it failed: {}", ended.log);
    ensure!(ended.log.contains(&format!("assumed-role/{role}/")), "it has another identity: {}", ended.log);
    ensure!(ended.log.contains("object: hello from S3"), "it read another object: {}", ended.log);
    terminal.proof("it is the binding's role, and reads the object its policy allows");
    terminal.done();

    terminal.step("The same program without a binding, and with a binding that no grant covers");
    let nobody = lab.run_pod("vault", "nobody", "reader-nobody", &read).await?;
    ensure!(
        !nobody.succeeded && nobody.log.contains("no credentials"),
        "it has credentials without a binding: {}",
        nobody.log
    );
    terminal.proof("ServiceAccount vault/nobody, without a binding: no credentials");
    lab.apply(&serde_json::json!({
        "apiVersion": "podidentity.dev/v1alpha1",
        "kind": "PodIdentityBinding",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {
            "serviceAccountName": "shop",
            "role": {"policyARNs": [format!("arn:aws:iam::{ACCOUNT}:policy/vault-storage")]},
        },
    }))
    .await?;
    let object = ["podidentitybinding/shop", "--namespace=shop"];
    lab.until_field(&object, &condition("Ready", "reason"), "WaitingForGrant").await?;
    let shop = lab.run_pod("shop", "shop", "reader", &read).await?;
    ensure!(!shop.succeeded, "it has credentials without a grant: {}", shop.log);
    let message = format!("-o=jsonpath={{{}}}", condition("Ready", "message"));
    let why = lab.kubectl(&[&["get"], object.as_slice(), &[message.as_str()]].concat()).await?;
    ensure!(why.contains("namespace shop"), "the status does not say why: {why}");
    terminal.proof(&format!("PodIdentityBinding shop/shop: no credentials, and its status says why:\n{why}"));
    ensure!(
        !lab.state().await?.roles.contains_key(&role_name("homelab", "shop", "shop")),
        "a role was created for it"
    );
    terminal.done();
    Ok(())
}

/// Shows objects, memory and AWS calls.
pub async fn look(lab: &Lab, terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.step("kubectl get oidcissuers,podidentitybindings -A");
    terminal.shown(&lab.kubectl(&["get", "oidcissuers,podidentitybindings", "-A"]).await?);
    let calls = lab.calls().await?;
    let operator: Vec<_> =
        calls.iter().filter(|c| c.principal.contains("assumed-role/podidentity-operator.homelab/")).collect();
    let denied: Vec<_> =
        operator.iter().filter(|c| c.denied).map(|c| format!("{} on {}", c.action, c.resource)).collect();
    ensure!(!operator.is_empty(), "the operator made no call under its own role");
    ensure!(denied.is_empty(), "AWS denied: {}", denied.join(", "));
    for program in ["operator", "webhook"] {
        let memory: Vec<String> =
            lab.processes(program)?.iter().map(|one| format!("{} MiB", one.memory.div_ceil(1024))).collect();
        terminal.proof(&format!("memory of {program}: {}", memory.join(", ")));
    }
    terminal
        .proof(&format!("{} AWS calls under the operator's own printed policy, 0 denied", operator.len()));
    terminal.done();
    Ok(())
}

/// Removes everything in the documented order, and nothing is left in AWS.
pub async fn leave(lab: &Lab, terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.step("Uninstall: delete workloads and bindings, then the issuer, then the chart");
    for namespace in ["vault", "shop"] {
        lab.kubectl(&["delete", "pods", "--all", "--namespace", namespace, "--wait=false"]).await?;
        lab.kubectl(&["delete", "podidentitybindings", "--all", "--namespace", namespace, "--timeout=60s"])
            .await?;
    }
    let left: Vec<String> =
        lab.state().await?.roles.into_keys().filter(|name| name.starts_with("homelab.")).collect();
    ensure!(left.is_empty(), "roles are left: {left:?}");
    terminal.proof("the bindings' roles are gone from AWS");
    lab.kubectl(&["delete", "oidcissuer", "default", "--timeout=60s"]).await?;
    lab.uninstall().await?;
    terminal.done();

    terminal.step("Tear down, as administrator: operator teardown -f examples/minimal.yaml --yes");
    terminal.shown(&lab.operator(&["teardown", "-f", &example(), "--yes"]).await?);
    let state = lab.state().await?;
    ensure!(
        state.roles.is_empty() && state.providers.is_empty(),
        "{:?} {:?}",
        state.roles.keys(),
        state.providers.keys()
    );
    ensure!(!state.buckets.contains_key(BUCKET), "the issuer's bucket is left");
    ensure!(state.policies.len() == 1, "policies are left: {:?}", state.policies.keys());
    terminal.proof("AWS is as it was: no role, no provider, no bucket, no boundary of ours");
    terminal.done();
    Ok(())
}
