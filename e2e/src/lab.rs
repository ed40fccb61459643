//! The lab: a node with real pods, simulated AWS under AWS's host names in the node's network, and commands that run there
//! as the administrator.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sim_api::{Call, Credentials, NewPolicy, State};
use cluster::image::{File, Image};
use cluster::{Addresses, Node, NodeOptions, until};

use crate::binaries::{Binaries, root};
use crate::processes::{Process, processes};

/// The AWS account of `examples/minimal.yaml`.
pub const ACCOUNT: &str = "111122223333";
/// The region.
pub const REGION: &str = "eu-central-1";
/// The issuer's bucket.
pub const BUCKET: &str = "oidc-111122223333-eu-central-1-an";
/// A bucket with an object that the workload's role may read.
pub const DATA_BUCKET: &str = "vault-data-111122223333";
/// The operator's namespace.
pub const SYSTEM: &str = "podidentity-system";

/// A running lab. Dropping it ends it, unless it was detached before.
pub struct Lab {
    /// The node.
    pub node: Node,
    binaries: Binaries,
}

/// A pod that ran to its end.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Whether the program succeeded.
    pub succeeded: bool,
    /// What it printed.
    pub log: String,
}

impl Lab {
    /// Starts node and AWS. `progress` is called with each part that starts.
    pub async fn start(state: PathBuf, binaries: Binaries, progress: &dyn Fn(&str)) -> anyhow::Result<Self> {
        let node = Node::start(&NodeOptions::new(state), progress).await?;
        let lab = Self { node, binaries };
        lab.start_aws().await.context("aws-sim did not start")?;
        Ok(lab)
    }

    /// A running lab that was detached.
    pub fn attach(state: &Path) -> anyhow::Result<Self> {
        Ok(Self { node: Node::attach(state)?, binaries: Binaries::built()? })
    }

    async fn start_aws(&self) -> anyhow::Result<()> {
        let mut command = self.node.inside(self.binaries.path("aws-sim"));
        command
            .arg("serve")
            .arg(format!("--listen={}:443", Addresses::OUTSIDE))
            .arg(format!("--control={}", control_address()));
        command.arg("--ca-dir").arg(self.node.state().join("aws"));
        self.node.daemon("aws-sim", command)?;
        until("aws-sim's control API", Duration::from_secs(20), || async {
            self.control("GET", "/calls", "").await.map(|_| ())
        })
        .await
    }

    /// The private CA that signs the certificates of AWS's host names.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.node.state().join("aws/ca.crt")
    }

    /// Sends a request to aws-sim's control API, and returns the response.
    pub async fn control(&self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let mut command = self.node.inside(self.binaries.path("aws-sim"));
        command.args(["call", &format!("--control={}", control_address()), method, path, body]);
        self.node.run(command).await
    }

    /// Everything in the AWS account.
    pub async fn state(&self) -> anyhow::Result<State> {
        Ok(serde_json::from_str(&self.control("GET", "/state", "").await?)?)
    }

    /// All calls to AWS.
    pub async fn calls(&self) -> anyhow::Result<Vec<Call>> {
        Ok(serde_json::from_str(&self.control("GET", "/calls", "").await?)?)
    }

    /// A command of the administrator: kubeconfig, AWS keys and the private CA are in its environment.
    pub async fn administrator(&self, program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
        let keys: Credentials = serde_json::from_str(&self.control("GET", "/administrator", "").await?)?;
        let mut command = self.node.inside(program);
        command
            .env("PATH", self.node.search_path())
            .env("KUBECONFIG", self.node.kubeconfig())
            .env("AWS_ACCESS_KEY_ID", keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", keys.secret_access_key)
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_CA_BUNDLE", self.ca())
            .env("SSL_CERT_FILE", self.ca());
        Ok(command)
    }

    /// Runs `operator` as the administrator.
    pub async fn operator(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.administrator(self.binaries.path("operator")).await?;
        command.args(arguments);
        self.node.run(command).await
    }

    /// kubectl as the administrator.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.node.kubectl(arguments).await
    }

    /// Applies objects.
    pub async fn apply(&self, objects: &serde_json::Value) -> anyhow::Result<()> {
        let file = self.node.state().join("apply.json");
        std::fs::write(&file, objects.to_string())?;
        self.kubectl(&["apply", "--filename", &file.display().to_string()]).await.map(|_| ())
    }

    /// Creates what a user has before: a bucket with data, and a policy that allows to read it.
    pub async fn create_user_resources(&self) -> anyhow::Result<()> {
        self.control("PUT", &format!("/buckets/{DATA_BUCKET}"), "").await?;
        self.control("PUT", &format!("/buckets/{DATA_BUCKET}/greeting"), "hello from S3").await?;
        let document = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{DATA_BUCKET}/*"),
            }],
        });
        let policy = NewPolicy { name: "vault-storage".into(), document };
        self.control("POST", "/policies", &serde_json::to_string(&policy)?).await.map(|_| ())
    }

    /// Imports the images of operator, webhook and workload into the node.
    pub async fn load_images(&self) -> anyhow::Result<()> {
        let roots = std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        let private = std::fs::read(self.ca())?;
        // The workload's image trusts the private CA; the operator gets it by the chart's extraCA.
        for (program, certificates) in [("operator", roots), ("webhook", Vec::new()), ("workload", private)] {
            let files = vec![File {
                path: "etc/ssl/certs/ca-certificates.crt".into(),
                content: certificates,
                mode: 0o644,
            }];
            let (name, path) = (image(program), self.binaries.path(program));
            self.node.load(&Image { name: &name, program: &path, arguments: &[], files }).await?;
        }
        Ok(())
    }

    /// Installs the chart with real helm and waits until both components are ready.
    pub async fn install(&self, values: &[&str]) -> anyhow::Result<()> {
        let role = crds::names::operator_role_arn("aws", ACCOUNT, "homelab");
        let mut command = self.administrator(self.node.tools().path("helm")).await?;
        command.args(["install", "podidentity"]).arg(root().join("charts/pod-identity-operator"));
        command.args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout=3m"]);
        for program in ["operator", "webhook"] {
            command.arg("--set").arg(format!("{program}.image.repository=podidentity.local/{program}"));
            command.arg("--set").arg(format!("{program}.image.tag=demo,{program}.image.pullPolicy=Never"));
        }
        command.arg("--set").arg(format!("aws.roleARN={role},aws.region={REGION}"));
        command.arg("--set-file").arg(format!("extraCA={}", self.ca().display()));
        for value in values {
            command.arg("--set").arg(value);
        }
        // helm keeps its own files in HOME.
        command.env("HOME", self.node.state());
        if let Err(error) = self.node.run(command).await {
            let pods = self.kubectl(&["get", "pods,events", "--namespace", SYSTEM]).await.unwrap_or_default();
            let logs = self
                .kubectl(&["logs", "--namespace", SYSTEM, "--selector=app.kubernetes.io/part-of=podidentity"])
                .await;
            return Err(error.context(format!("{pods}\n{}", logs.unwrap_or_default())));
        }
        Ok(())
    }

    /// Upgrades the installed chart with further values, and waits until both components are ready.
    pub async fn upgrade(&self, values: &[&str]) -> anyhow::Result<()> {
        let mut command = self.administrator(self.node.tools().path("helm")).await?;
        command.args(["upgrade", "podidentity"]).arg(root().join("charts/pod-identity-operator"));
        command.args(["--namespace", SYSTEM, "--reuse-values", "--wait", "--timeout=3m"]);
        for value in values {
            command.arg("--set").arg(value);
        }
        // helm keeps its own files in HOME.
        command.env("HOME", self.node.state());
        self.node.run(command).await.map(|_| ())
    }

    /// Uninstalls the chart.
    pub async fn uninstall(&self) -> anyhow::Result<()> {
        let mut command = self.administrator(self.node.tools().path("helm")).await?;
        command
            .args(["uninstall", "podidentity", "--namespace", SYSTEM, "--wait"])
            .env("HOME", self.node.state());
        self.node.run(command).await.map(|_| ())
    }

    /// Every process of a program in this lab's pods.
    pub fn processes(&self, program: &str) -> anyhow::Result<Vec<Process>> {
        processes(&self.node.cgroup(), program)
    }

    /// Starts the workload under a `ServiceAccount`.
    pub async fn start_pod(
        &self,
        namespace: &str,
        service_account: &str,
        name: &str,
        arguments: &[&str],
    ) -> anyhow::Result<()> {
        self.apply(&pod(namespace, service_account, name, arguments)).await?;
        let ready = ["wait", "--for=condition=Ready", "pod", name, "--namespace", namespace, "--timeout=1m"];
        self.kubectl(&ready).await.map(|_| ())
    }

    /// Runs the workload under a `ServiceAccount` to its end.
    pub async fn run_pod(
        &self,
        namespace: &str,
        service_account: &str,
        name: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Ended> {
        self.apply(&pod(namespace, service_account, name, arguments)).await?;
        let phase = || async {
            self.kubectl(&["get", "pod", name, "-n", namespace, "-o=jsonpath={.status.phase}"]).await
        };
        let ended = || async {
            let phase = phase().await?;
            ensure!(phase == "Succeeded" || phase == "Failed", "its phase is {phase}");
            Ok(())
        };
        until(&format!("pod {namespace}/{name} to end"), Duration::from_mins(2), ended).await?;
        let succeeded = phase().await? == "Succeeded";
        let log = self.kubectl(&["logs", name, "-n", namespace]).await?;
        Ok(Ended { succeeded, log })
    }

    /// Waits until a jsonpath of an object has a value.
    pub async fn until_field(&self, object: &[&str], path: &str, wanted: &str) -> anyhow::Result<()> {
        let what = format!("{} to have {path}={wanted}", object.join(" "));
        let output = format!("--output=jsonpath={{{path}}}");
        let holds = || async {
            let found = self.kubectl(&[&["get"], object, &[output.as_str()]].concat()).await?;
            ensure!(found == wanted, "it is {found:?}");
            Ok(())
        };
        until(&what, Duration::from_mins(2), holds).await
    }
}

/// A jsonpath to a condition's field.
#[must_use]
pub fn condition(type_: &str, field: &str) -> String {
    format!(".status.conditions[?(@.type==\"{type_}\")].{field}")
}

fn control_address() -> String {
    format!("{}:8080", Addresses::OUTSIDE)
}

fn image(program: &str) -> String {
    format!("podidentity.local/{program}:demo")
}

/// An ordinary pod, without any AWS configuration.
fn pod(namespace: &str, service_account: &str, name: &str, arguments: &[&str]) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "serviceAccountName": service_account,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app", "image": image("workload"), "imagePullPolicy": "Never", "args": arguments,
            }],
        },
    })
}
