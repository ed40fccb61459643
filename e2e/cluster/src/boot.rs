//! Starts a node: namespaces, keys, then one daemon after another.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::json;

use crate::control_plane::etcd;
use crate::image::Image;
use crate::node::{Addresses, CLEAN_UP, Node, NodeOptions, cgroup_of, child_of};
use crate::pki::Pki;
use crate::preflight::{find, preflight};
use crate::process::{Reaper, log_tails, output, until};
use crate::tools::Tools;

pub(crate) const NODE_NAME: &str = "node";
/// An image that every node has from its start: it sleeps, and has busybox as `/busybox`.
pub const PAUSE: &str = "podidentity.local/pause:1";
/// Waiting for a part of the cluster; starts take seconds, but a loaded machine may take its time.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(2);

/// Process 1: prepares addresses and mounts, then waits; it also reaps orphaned processes.
const INIT: &str = r#"set -e
S=$1
ip link set lo up
for address in 198.18.0.1 198.18.0.2 10.0.0.1; do ip addr add $address/32 dev lo; done
mount -t tmpfs tmpfs /run
mkdir -p "$S/var-log" "$S/fake"
mount --bind "$S/var-log" /var/log
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  fake="$S/fake/$(echo $name | tr / .)"
  cat "/proc/sys/$name" >"$fake"
  mount --bind "$fake" "/proc/sys/$name"
done
mount -t tmpfs tmpfs /var/lib
mkdir -p /usr/libexec
mount -t tmpfs tmpfs /usr/libexec
mount --bind "$S/resolv.conf" /etc/resolv.conf
echo 1 >/proc/sys/net/ipv4/ip_forward || true
echo ready >"$S/ready"
sleep infinity &
wait $!
"#;

impl Node {
    /// Starts it and returns once the node is Ready. `progress` is called with each part that starts.
    pub async fn start(options: &NodeOptions, progress: &dyn Fn(&str)) -> anyhow::Result<Self> {
        preflight()?;
        let tools = Tools::node(progress)?;
        let state = options.state.clone();
        std::fs::create_dir(&state)
            .with_context(|| format!("{} must not exist: is another one running?", state.display()))?;
        let group = cgroup_of(&state);
        let mut node = Self { state, init: 0, tools, reaper: None };
        node.reaper = Some(Reaper::new(CLEAN_UP, &[&node.state.display().to_string(), &group])?);
        let started = node.boot(options, &group, progress).await;
        if let Err(error) = started {
            let error = error.context(format!("the node did not start\n{}", log_tails(&node.state)));
            node.stop().await?;
            return Err(error);
        }
        Ok(node)
    }

    async fn boot(
        &mut self,
        options: &NodeOptions,
        group: &str,
        progress: &dyn Fn(&str),
    ) -> anyhow::Result<()> {
        self.unshare().await?;
        let pki = self.keys()?;
        self.daemon("etcd", self.enter(&etcd(&self.tools, &self.state, 2379, 2380)))?;
        self.name_server(&options.outside)?;
        self.containerd()?;
        self.start_api_server(&options.tokens)?;

        let answers = || async {
            let mut command = self.ctr();
            command.arg("version");
            output(command).await.map(|_| ())
        };
        until("containerd", TIMEOUT, answers).await?;
        let busybox = find("busybox").context("busybox")?;
        let pause =
            Image { name: PAUSE, program: &busybox, arguments: &["sleep", "infinity"], files: Vec::new() };
        self.load(&pause).await?;
        self.api_server_is_ready().await?;
        progress("API server ready");

        self.controllers(&pki)?;
        self.kubelet(group)?;
        self.is_ready().await?;
        let account = || async {
            self.kubectl(&["get", "serviceaccount/default", "configmap/kube-root-ca.crt"]).await.map(|_| ())
        };
        until("the default ServiceAccount", TIMEOUT, account).await
    }

    /// Makes the namespaces.
    async fn unshare(&mut self) -> anyhow::Result<()> {
        let state = self.state.display().to_string();
        std::fs::write(self.state.join("resolv.conf"), format!("nameserver {}\n", Addresses::NODE))?;
        std::fs::create_dir_all(self.state.join("log"))?;
        let log = std::fs::File::create(self.state.join("log/init.log"))?;
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--pid",
                "--net",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--propagation",
                "private",
            ])
            .args(["sh", "-c", INIT, "init", &state]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().context("unshare")?;
        std::fs::write(self.state.join("pid"), child.id().to_string())?;
        let ready = self.state.join("ready");
        let made = || async {
            ready.is_file().then_some(()).ok_or_else(|| anyhow!("init has not prepared them yet"))
        };
        until("the namespaces", Duration::from_secs(10), made).await?;
        self.init = child_of(child.id())?;
        Ok(())
    }

    fn keys(&self) -> anyhow::Result<PathBuf> {
        let directory = self.state.join("pki");
        let pki = Pki::new(&directory)?;
        let names = [
            Addresses::API_SERVER,
            Addresses::NODE,
            "127.0.0.1",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        pki.server("apiserver", "kube-apiserver", "", &names)?;
        pki.server(
            "kubelet-serving",
            &format!("system:node:{NODE_NAME}"),
            "system:nodes",
            &[Addresses::NODE, NODE_NAME],
        )?;
        pki.client("apiserver-kubelet-client", "apiserver-kubelet-client", "system:masters")?;
        pki.client("admin", "admin", "system:masters")?;
        pki.client("kube-controller-manager", "system:kube-controller-manager", "")?;
        pki.client("kube-scheduler", "system:kube-scheduler", "")?;
        pki.client("kubelet", &format!("system:node:{NODE_NAME}"), "system:nodes")?;
        let server = format!("https://{}", Addresses::API_SERVER);
        for name in ["admin", "kube-controller-manager", "kube-scheduler", "kubelet"] {
            std::fs::write(self.state.join(format!("{name}.kubeconfig")), pki.kubeconfig(&server, name)?)?;
        }
        Ok(directory)
    }

    fn name_server(&self, outside: &[String]) -> anyhow::Result<()> {
        let mut command = Command::new(find("dnsmasq").context("dnsmasq")?);
        command.args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
        ]);
        command.arg("--conf-file=/dev/null").arg(format!("--listen-address={}", Addresses::NODE));
        for suffix in outside {
            command.arg(format!("--address=/{suffix}/{}", Addresses::OUTSIDE));
        }
        self.daemon("dnsmasq", self.enter(&command))
    }

    fn containerd(&self) -> anyhow::Result<()> {
        let (state, socket) = (self.state.display(), self.socket());
        let runc = find("runc").context("runc")?;
        let plugins = self.tools.path("ptp").parent().unwrap_or(Path::new("/")).display().to_string();
        std::fs::create_dir_all(self.state.join("cni"))?;
        let network = json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [{
            "type": "ptp", "ipMasq": false,
            "ipam": {
                "type": "host-local", "subnet": "10.88.0.0/24", "dataDir": self.state.join("ipam"),
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }]});
        std::fs::write(self.state.join("cni/10-pods.conflist"), network.to_string())?;
        // restrict_oom_score_adj: without CAP_SYS_RESOURCE runc dies while it sets a negative score.
        let configuration = format!(
            r#"version = 3
root = "{state}/containerd/root"
state = "{state}/containerd/run"
disabled_plugins = ["io.containerd.snapshotter.v1.blockfile","io.containerd.snapshotter.v1.btrfs","io.containerd.snapshotter.v1.zfs","io.containerd.snapshotter.v1.devmapper","io.containerd.snapshotter.v1.erofs","io.containerd.internal.v1.opt","io.containerd.nri.v1.nri","io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{socket}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        Root = "{state}/containerd/runc"
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{plugins}"]
    conf_dir = "{state}/cni"
"#,
            socket = socket.display(),
            runc = runc.display(),
        );
        let file = self.state.join("containerd.toml");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(self.tools.path("containerd"));
        command.arg("--config").arg(file).args(["--log-level", "warn"]);
        let mut command = self.enter(&command);
        command.env("PATH", self.search_path()); // the shim is found by name
        self.daemon("containerd", command)
    }

    fn controllers(&self, pki: &Path) -> anyhow::Result<()> {
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let kubeconfig = self.state.join(format!("{name}.kubeconfig"));
            let mut command = Command::new(self.tools.path(name));
            for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
                command.arg(format!("--{flag}={}", kubeconfig.display()));
            }
            command.args(["--bind-address=127.0.0.1", "--leader-elect=false"]);
            command.arg(format!("--cert-dir={}", self.state.join(name).display()));
            if name == "kube-controller-manager" {
                command
                    .arg(format!("--service-account-private-key-file={}", pki.join("sa.key").display()))
                    .arg(format!("--root-ca-file={}", pki.join("ca.crt").display()))
                    .args([
                        "--use-service-account-credentials",
                        "--kube-api-qps=1000",
                        "--kube-api-burst=1000",
                    ]);
            }
            self.daemon(name, self.enter(&command))?;
        }
        Ok(())
    }

    fn kubelet(&self, group: &str) -> anyhow::Result<()> {
        make_cgroup(group)?;
        let pki = |file: &str| self.state.join("pki").join(file);
        let configuration = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{group}"),
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "address": Addresses::NODE,
            "readOnlyPort": 0,
            "healthzPort": 0,
            "tlsCertFile": pki("kubelet-serving.crt"),
            "tlsPrivateKeyFile": pki("kubelet-serving.key"),
            "authentication": {
                "anonymous": {"enabled": false}, "webhook": {"enabled": false}, "x509": {"clientCAFile": pki("ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "makeIPTablesUtilChains": false,
            "localStorageCapacityIsolation": false,
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": self.state.join("pod-logs"),
            "volumePluginDir": self.state.join("kubelet/plugins"),
            "resolvConf": "/etc/resolv.conf",
            "oomScoreAdj": 0,
            // A projected Secret or token is mounted on the next look.
            "syncFrequency": "5s",
        });
        let file = self.state.join("kubelet.json");
        std::fs::write(&file, configuration.to_string())?;
        let mut command = Command::new(self.tools.path("kubelet"));
        command
            .arg(format!("--config={}", file.display()))
            .arg(format!("--kubeconfig={}", self.state.join("kubelet.kubeconfig").display()))
            .arg(format!("--root-dir={}", self.state.join("kubelet").display()))
            .arg(format!("--cert-dir={}", self.state.join("kubelet/pki").display()))
            .args([&format!("--hostname-override={NODE_NAME}"), &format!("--node-ip={}", Addresses::NODE)]);
        let mut command = self.enter(&command);
        command.env("PATH", self.search_path());
        self.daemon("kubelet", command)
    }
}

fn make_cgroup(group: &str) -> anyhow::Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").is_file() {
        // Version 2: controllers are handed down.
        std::fs::create_dir_all(root.join(group))?;
        for folder in [root.to_owned(), root.join(group)] {
            for controller in ["cpu", "cpuset", "memory", "pids", "io"] {
                let _ = std::fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        return Ok(());
    }
    for entry in std::fs::read_dir(root)? {
        let controller = entry?.path();
        if !controller.join("cgroup.procs").is_file() {
            continue;
        }
        let own = controller.join(group);
        std::fs::create_dir_all(&own)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read(controller.join(file)) {
                std::fs::write(own.join(file), value)?;
            }
        }
    }
    Ok(())
}
