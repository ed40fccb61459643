//! PURE: which distribution of Kubernetes a cluster is, by what its nodes show, and where its API server's issuer is set. The
//! texts come from each distribution's documentation; docs/issuer-flags.md has them at length.

/// What is looked at of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `spec.providerID`.
    pub provider_id: String,
    /// `status.nodeInfo.kubeletVersion`.
    pub kubelet_version: String,
    /// `status.nodeInfo.osImage`.
    pub os_image: String,
    /// Keys of labels and annotations.
    pub keys: Vec<String>,
}

/// A distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "names of products")]
pub enum Distribution {
    K3d,
    K3s,
    Rancher,
    Rke2,
    K0s,
    Talos,
    Kind,
    Minikube,
    OpenShift,
    MicroK8s,
    Kops,
    Kubeadm,
    /// A service whose API server's flags cannot be set, by its name.
    Managed(&'static str),
    /// None of these, or no node could be read.
    #[default]
    Unknown,
}

impl Distribution {
    /// The distribution of a cluster with these nodes.
    #[must_use]
    pub fn of(nodes: &[NodeFacts]) -> Self {
        nodes.iter().map(of_node).find(|found| *found != Self::Unknown).unwrap_or_default()
    }

    /// Where the issuer is set, with the exact values. `new` is to sign, `old` signs now and stays accepted.
    #[must_use]
    pub fn advice(self, new: &str, old: &str) -> String {
        match self {
            Self::K3s | Self::Rke2 => {
                let (name, service) =
                    if self == Self::K3s { ("k3s", "k3s") } else { ("rke2", "rke2-server") };
                format!(
                    "In /etc/rancher/{name}/config.yaml of each server set kube-apiserver-arg: [service-account-issuer={new}, \
                     service-account-issuer={old}], and run systemctl restart {service}, one server after the other"
                )
            }
            Self::Rancher => format!(
                "In Rancher, edit the cluster as YAML: under spec.rkeConfig.machineGlobalConfig set kube-apiserver-arg: \
                 [service-account-issuer={new}, service-account-issuer={old}]"
            ),
            Self::K3d => format!(
                "Make the cluster anew with k3d cluster create --k3s-arg \
                 '--kube-apiserver-arg=service-account-issuer={new}@server:*'"
            ),
            Self::K0s => format!(
                "In /etc/k0s/k0s.yaml of each controller set spec.api.extraArgs.service-account-issuer: {new} and \
                 spec.api.rawArgs: [--service-account-issuer={old}], and restart k0s"
            ),
            Self::Talos => format!(
                "Patch the machine configuration of each control-plane node: cluster.apiServer.extraArgs: \
                 {{service-account-issuer: [{new}, {old}], api-audiences: {old}}}; clusters that Talos 1.14 or newer generated \
                 have a document KubeServiceAccountConfig for it"
            ),
            Self::Kind => format!(
                "Make the cluster anew with kubeadmConfigPatches: a ClusterConfiguration with \
                 apiServer.extraArgs.service-account-issuer: {new}"
            ),
            Self::Minikube => {
                format!("Run minikube start --extra-config=apiserver.service-account-issuer={new}")
            }
            Self::OpenShift => format!(
                "Run oc patch authentication.config.openshift.io cluster --type=merge -p \
                 '{{\"spec\":{{\"serviceAccountIssuer\":\"{new}\"}}}}'; OpenShift keeps the former issuer accepted for a day"
            ),
            Self::MicroK8s => format!(
                "In /var/snap/microk8s/current/args/kube-apiserver of each node set --service-account-issuer={new} above \
                 --service-account-issuer={old}, and --api-audiences={old}; then run microk8s stop && microk8s start"
            ),
            Self::Kops => format!(
                "Run kops edit cluster: under spec.kubeAPIServer set serviceAccountIssuer: {new}, \
                 additionalServiceAccountIssuers: [{old}] and apiAudiences: [{old}]; then update and roll the cluster"
            ),
            Self::Kubeadm => format!(
                "In /etc/kubernetes/manifests/kube-apiserver.yaml of each control-plane node set {}; and the same in ConfigMap \
                 kube-system/kubeadm-config, so that upgrades keep it",
                flags(new, old)
            ),
            Self::Managed(service) => format!(
                "The issuer of {service} cannot be set, and its documents are public already: use an OidcIssuer with issuerURL: \
                 {old} and without s3"
            ),
            Self::Unknown => format!("Start the API server with {}", flags(new, old)),
        }
    }
}

fn flags(new: &str, old: &str) -> String {
    format!(
        "--service-account-issuer={new} --service-account-issuer={old} (the first signs, the second stays accepted) and, unless \
         it is set already, --api-audiences={old}"
    )
}

/// The distribution of one node. What is built on another one is looked for before it.
fn of_node(node: &NodeFacts) -> Distribution {
    let NodeFacts { provider_id, kubelet_version, os_image, keys } = node;
    let has = |key: &str| keys.iter().any(|found| found == key);
    let has_domain = |domain: &str| {
        keys.iter().any(|key| key.split('/').next().is_some_and(|found| found.ends_with(domain)))
    };
    let managed = [
        (kubelet_version.contains("-eks-"), "Amazon EKS"),
        (has("cloud.google.com/gke-nodepool"), "Google GKE"),
        (has("kubernetes.azure.com/cluster"), "Azure AKS"),
        (has_domain("doks.digitalocean.com"), "DigitalOcean Kubernetes"),
        (has_domain("lke.linode.com"), "Linode Kubernetes Engine"),
        (has_domain("k8s.scaleway.com"), "Scaleway Kapsule"),
    ];
    let distributions = [
        (provider_id.starts_with("k3s://k3d-"), Distribution::K3d),
        (kubelet_version.contains("+k3s"), Distribution::K3s),
        (kubelet_version.contains("+rke2") && has_domain("rke.cattle.io"), Distribution::Rancher),
        (kubelet_version.contains("+rke2"), Distribution::Rke2),
        (kubelet_version.contains("+k0s"), Distribution::K0s),
        (os_image.starts_with("Talos"), Distribution::Talos),
        (provider_id.starts_with("kind://"), Distribution::Kind),
        (has("minikube.k8s.io/name"), Distribution::Minikube),
        (has("node.openshift.io/os_id"), Distribution::OpenShift),
        (has("microk8s.io/cluster"), Distribution::MicroK8s),
        (has("kops.k8s.io/instancegroup"), Distribution::Kops),
        (has("kubeadm.alpha.kubernetes.io/cri-socket"), Distribution::Kubeadm),
    ];
    let managed = managed.into_iter().find(|(is, _)| *is).map(|(_, name)| Distribution::Managed(name));
    let found = || distributions.into_iter().find(|(is, _)| *is).map(|(_, found)| found);
    managed.or_else(found).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "https://new.example.com/lab";
    const OLD: &str = "https://kubernetes.default.svc";

    fn node(provider_id: &str, kubelet_version: &str, os_image: &str, keys: &[&str]) -> NodeFacts {
        NodeFacts {
            provider_id: provider_id.into(),
            kubelet_version: kubelet_version.into(),
            os_image: os_image.into(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    /// A node as each distribution shows it, and what its advice must say.
    #[test]
    fn each_distribution_is_found_by_its_nodes_and_has_the_exact_text() {
        let kubeadm = "kubeadm.alpha.kubernetes.io/cri-socket";
        let plain = "v1.37.2";
        for (node, expected, says) in [
            (
                node("", plain, "Debian", &[kubeadm]),
                Distribution::Kubeadm,
                "/etc/kubernetes/manifests/kube-apiserver.yaml",
            ),
            (
                node("kind://docker/kind/kind-control-plane", plain, "Debian", &[kubeadm]),
                Distribution::Kind,
                "kubeadmConfigPatches",
            ),
            (
                node("", plain, "Ubuntu", &["minikube.k8s.io/name", kubeadm]),
                Distribution::Minikube,
                "--extra-config",
            ),
            (
                node("k3s://lab", "v1.36.1+k3s1", "Debian", &[]),
                Distribution::K3s,
                "/etc/rancher/k3s/config.yaml",
            ),
            (
                node("k3s://k3d-lab-server-0", "v1.36.1+k3s1", "K3s", &[]),
                Distribution::K3d,
                "k3d cluster create",
            ),
            (
                node("rke2://lab", "v1.36.1+rke2r1", "SLES", &[]),
                Distribution::Rke2,
                "systemctl restart rke2-server",
            ),
            (
                node("rke2://lab", "v1.36.1+rke2r1", "SLES", &["rke.cattle.io/machine"]),
                Distribution::Rancher,
                "machineGlobalConfig",
            ),
            (node("", "v1.36.1+k0s", "Alpine", &[]), Distribution::K0s, "/etc/k0s/k0s.yaml"),
            (node("", plain, "Talos (v1.13.0)", &[]), Distribution::Talos, "cluster.apiServer.extraArgs"),
            (
                node("", plain, "Red Hat", &["node.openshift.io/os_id"]),
                Distribution::OpenShift,
                "oc patch authentication",
            ),
            (
                node("", plain, "Ubuntu", &["microk8s.io/cluster"]),
                Distribution::MicroK8s,
                "/var/snap/microk8s",
            ),
            (
                node("aws:///a/i-1", plain, "Ubuntu", &["kops.k8s.io/instancegroup"]),
                Distribution::Kops,
                "kops edit cluster",
            ),
            (
                node("aws:///a/i-1", "v1.36.1-eks-1a2b3c", "AL", &[]),
                Distribution::Managed("Amazon EKS"),
                "without s3",
            ),
            (
                node("gce://p/z/n", plain, "COS", &["cloud.google.com/gke-nodepool"]),
                Distribution::Managed("Google GKE"),
                "without s3",
            ),
            (
                node("azure:///x", plain, "Ubuntu", &["kubernetes.azure.com/cluster"]),
                Distribution::Managed("Azure AKS"),
                "without s3",
            ),
            (
                node("", plain, "Debian", &["kubernetes.io/hostname"]),
                Distribution::Unknown,
                "Start the API server with",
            ),
        ] {
            let found = Distribution::of(&[NodeFacts::default(), node]);
            assert_eq!(found, expected);
            let advice = found.advice(NEW, OLD);
            assert!(advice.contains(says), "{found:?}: {advice}");
            let names = if matches!(found, Distribution::Managed(_)) { OLD } else { NEW };
            assert!(advice.contains(names), "{found:?}: {advice}");
            assert!(advice.len() < 700, "a condition's message has 1,024 bytes: {advice}");
        }
        assert_eq!(Distribution::of(&[]), Distribution::Unknown);
    }
}
