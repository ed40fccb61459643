//! The Go commands of a cluster, and those that test a chart: built from the modules under `e2e/tools` and kept for the next
//! run, or taken from `KUBEBUILDER_ASSETS` where that is set.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Where each command is.
#[derive(Debug, Clone)]
pub struct Tools {
    paths: BTreeMap<&'static str, PathBuf>,
}

struct Module {
    directory: &'static str,
    tags: &'static str,
    /// Whether the binaries carry Kubernetes' version.
    stamped: bool,
    commands: &'static [(&'static str, &'static str)],
}

/// The version of all Kubernetes commands.
const KUBERNETES: &str = "1.37.2";

const CONTROL_PLANE: Module = Module {
    directory: "kubernetes",
    tags: "",
    stamped: true,
    commands: &[
        ("etcd", "go.etcd.io/etcd/server/v3"),
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
};

const HELM: Module =
    Module { directory: "helm", tags: "", stamped: false, commands: &[("helm", "helm.sh/helm/v4/cmd/helm")] };

/// Without Prometheus' service discovery, which links every cloud's SDK.
const PROMETHEUS: Module = Module {
    directory: "prometheus",
    tags: "remove_all_sd",
    stamped: false,
    commands: &[("promtool", "github.com/prometheus/prometheus/cmd/promtool")],
};

const NODE: [Module; 4] = [
    Module {
        directory: "kubernetes",
        tags: "",
        stamped: true,
        commands: &[
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ],
    },
    Module {
        directory: "containerd",
        tags: "no_btrfs no_aufs no_zfs no_devmapper netgo osusergo static_build",
        stamped: false,
        commands: &[
            ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        ],
    },
    Module {
        directory: "cni",
        tags: "",
        stamped: false,
        commands: &[
            ("ptp", "github.com/containernetworking/plugins/plugins/main/ptp"),
            ("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
            ("loopback", "github.com/containernetworking/plugins/plugins/main/loopback"),
        ],
    },
    HELM,
];

impl Tools {
    /// etcd, kube-apiserver and kubectl. `progress` is called with each command that is built.
    pub fn control_plane(progress: &dyn Fn(&str)) -> anyhow::Result<Self> {
        if let Some(tools) = Self::assets(&[&CONTROL_PLANE]) {
            return Ok(tools);
        }
        Self::build(&[&CONTROL_PLANE], progress)
    }

    /// Everything a node needs, and helm. `KUBEBUILDER_ASSETS` is used only if it has all of Kubernetes at one version.
    pub fn node(progress: &dyn Fn(&str)) -> anyhow::Result<Self> {
        let modules: Vec<&Module> = std::iter::once(&CONTROL_PLANE).chain(&NODE).collect();
        if let Some(tools) = Self::assets(&modules).filter(Self::of_one_version) {
            return Ok(tools);
        }
        Self::build(&modules, progress)
    }

    /// What a chart is tested with: helm and promtool.
    pub fn chart(progress: &dyn Fn(&str)) -> anyhow::Result<Self> {
        Self::build(&[&HELM, &PROMETHEUS], progress)
    }

    /// A command's file.
    ///
    /// # Panics
    /// For a command that is not part of the set.
    #[must_use]
    pub fn path(&self, name: &str) -> &Path {
        self.paths.get(name).unwrap_or_else(|| panic!("{name} is not among these tools"))
    }

    fn assets(modules: &[&Module]) -> Option<Self> {
        let directory = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?);
        let names = modules.iter().flat_map(|m| m.commands).map(|(name, _)| *name);
        let paths: BTreeMap<_, _> = names.map(|name| (name, directory.join(name))).collect();
        paths.values().all(|path| path.is_file()).then_some(Self { paths })
    }

    fn of_one_version(&self) -> bool {
        let version = |name: &str| {
            let output = Command::new(self.path(name)).arg("--version").output().ok()?;
            String::from_utf8(output.stdout).ok()?.split_whitespace().last().map(str::to_owned)
        };
        let names = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"];
        let versions: Vec<_> = names.into_iter().map(version).collect();
        versions.iter().all(|v| v.is_some() && *v == versions[0])
    }

    fn build(modules: &[&Module], progress: &dyn Fn(&str)) -> anyhow::Result<Self> {
        let cache = cache()?;
        std::fs::create_dir_all(&cache)?;
        // Two processes that build the same at once would each take twice as long.
        let guard = File::create(cache.join("lock"))?;
        guard.lock()?;
        let go = go_version()?;
        let mut paths = BTreeMap::new();
        let mut missing = Vec::new();
        for module in modules {
            let target = cache.join(module.key(&go)?);
            for (name, package) in module.commands {
                let path = target.join(name);
                if !path.is_file() {
                    missing.push((*module, *name, *package, path.clone()));
                }
                paths.insert(*name, path);
            }
        }
        let (count, begun) = (missing.len(), Instant::now());
        for (number, (module, name, package, path)) in missing.into_iter().enumerate() {
            let seconds = begun.elapsed().as_secs();
            progress(&format!(
                "building {name} ({}/{count}, {}m{:02}s so far)",
                number + 1,
                seconds / 60,
                seconds % 60
            ));
            module.build(package, &path).with_context(|| format!("cannot build {name}"))?;
        }
        Ok(Self { paths })
    }
}

impl Module {
    fn directory(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools").join(self.directory)
    }

    /// A folder name that changes with everything the binaries depend on.
    fn key(&self, go: &str) -> anyhow::Result<String> {
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum"] {
            let path = self.directory().join(file);
            hash.update(std::fs::read(&path).with_context(|| path.display().to_string())?);
        }
        hash.update([go, self.tags, &self.linker_flags()].join("\0"));
        let digest: String = HEXLOWER.encode(&hash.finalize()[..6]);
        Ok(format!("{}-{digest}", self.directory))
    }

    fn linker_flags(&self) -> String {
        let version = "k8s.io/component-base/version";
        let stamps = [
            ("gitVersion", &*format!("v{KUBERNETES}")),
            ("gitMajor", "1"),
            ("gitMinor", "37"),
            ("gitTreeState", "clean"),
            ("gitCommit", "0000000000000000000000000000000000000000"),
            ("buildDate", "1970-01-01T00:00:00Z"),
        ];
        let stamps = stamps
            .iter()
            .filter(|_| self.stamped)
            .map(|(name, value)| format!(" -X {version}.{name}={value}"));
        "-s -w".to_owned() + &stamps.collect::<String>()
    }

    fn build(&self, package: &str, path: &Path) -> anyhow::Result<()> {
        let unfinished = path.with_extension("unfinished");
        let output = Command::new("go")
            .args(["build", "-trimpath", "-tags", self.tags, "-ldflags", &self.linker_flags(), "-o"])
            .arg(&unfinished)
            .arg(package)
            .current_dir(self.directory())
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=mod")
            .output()
            .context("Go is needed: https://go.dev/dl")?;
        if !output.status.success() {
            bail!("go build {package}: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::fs::rename(unfinished, path)?;
        Ok(())
    }
}

fn cache() -> anyhow::Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("podidentity/tools"))
}

fn go_version() -> anyhow::Result<String> {
    let output = Command::new("go").arg("version").output().context("Go is needed: https://go.dev/dl")?;
    Ok(String::from_utf8(output.stdout)?)
}
