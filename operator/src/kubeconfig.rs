//! How the API server is reached: as kube infers it, but through a proxy only where the kubeconfig names one.

use http::Uri;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::cli::ClusterArgs;

/// How a cluster is reached, and the name of that way.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The configuration.
    pub config: Config,
    /// The kubeconfig's context; `None` in a pod.
    pub context: Option<String>,
}

impl Cluster {
    /// A client of it, to which no user's object hides others.
    ///
    /// # Errors
    /// If the configuration has something that cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(process::responses::decodable(Client::try_from(self.config.clone())?))
    }

    /// The cluster for a person to recognise: context, server, and the uid of namespace kube-system, which no other cluster
    /// has.
    pub async fn describe(&self, client: &Client) -> String {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let found = namespaces.get_opt("kube-system").await.ok().flatten();
        let uid = found.and_then(|namespace| namespace.metadata.uid);
        let context = self.context.as_deref().unwrap_or("the pod's own");
        let uid = uid.map_or_else(|| "not readable".to_owned(), |uid| format!("uid {uid}"));
        format!("{context}, {}, kube-system {uid}", self.config.cluster_url)
    }
}

/// The named kubeconfig and context, or else `KUBECONFIG`, `~/.kube/config`, or a pod's `ServiceAccount`. `HTTPS_PROXY` is for AWS:
/// kube would use it for the API server, too, and compares `NO_PROXY` with the proxy's own host instead of the API server's.
///
/// # Errors
/// If none of them can be read, or the kubeconfig has no such context.
pub async fn cluster(args: &ClusterArgs) -> anyhow::Result<Cluster> {
    let kubeconfig = match &args.kubeconfig {
        Some(file) => Some(Kubeconfig::read_from(file)?),
        None if args.context.is_some() => Some(Kubeconfig::read()?),
        None => Kubeconfig::read().ok(), // a pod has none
    };
    if args.context.is_none() && args.kubeconfig.is_none() {
        let mut config = Config::infer().await?;
        config.proxy_url = kubeconfig.as_ref().and_then(proxy_of);
        return Ok(Cluster { config, context: kubeconfig.and_then(|kubeconfig| kubeconfig.current_context) });
    }
    let mut kubeconfig = kubeconfig.unwrap_or_default();
    kubeconfig.current_context = args.context.clone().or(kubeconfig.current_context);
    let (proxy, context) = (proxy_of(&kubeconfig), kubeconfig.current_context.clone());
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = proxy;
    Ok(Cluster { config, context })
}

/// PURE: `proxy-url` of the current context's cluster.
fn proxy_of(kubeconfig: &Kubeconfig) -> Option<Uri> {
    let context_name = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *context_name)?;
    let cluster_name = &context.context.as_ref()?.cluster;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == *cluster_name)?;
    cluster.cluster.as_ref()?.proxy_url.as_ref().filter(|url| !url.is_empty())?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_that_of_the_current_context_s_cluster() {
        let kubeconfig = |current: &str, own: &str| {
            let text = format!(
                "current-context: {current}\n\
                 contexts: [{{name: here, context: {{cluster: own, user: u}}}}, {{name: there, context: {{cluster: other}}}}]\n\
                 clusters: [{{name: own, cluster: {{server: 'https://a'{own}}}}}, \
                 {{name: other, cluster: {{server: 'https://b', proxy-url: 'http://other:3128'}}}}]\n"
            );
            Kubeconfig::from_yaml(&text).unwrap()
        };
        for (current, own, proxy) in [
            ("here", "", None),
            ("here", ", proxy-url: ''", None),
            ("here", ", proxy-url: 'http://own:3128'", Some("http://own:3128/")),
            ("there", "", Some("http://other:3128/")),
            ("nowhere", "", None),
        ] {
            let found = proxy_of(&kubeconfig(current, own)).map(|proxy| proxy.to_string());
            assert_eq!(found.as_deref(), proxy, "{current}{own}");
        }
    }

    #[tokio::test]
    async fn the_named_context_of_the_named_file_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: one\n\
                    contexts: [{name: one, context: {cluster: one, user: u}}, {name: two, context: {cluster: two, user: u}}]\n\
                    clusters: [{name: one, cluster: {server: 'https://one:6443'}}, {name: two, cluster: {server: \
                    'https://two:6443', proxy-url: 'http://proxy:3128'}}]\nusers: [{name: u, user: {}}]\n";
        std::fs::write(&file, text).unwrap();
        let args = |context: Option<&str>| ClusterArgs {
            context: context.map(str::to_owned),
            kubeconfig: Some(file.clone()),
        };
        for (context, name, server, proxy) in [
            (None, "one", "https://one:6443/", None),
            (Some("one"), "one", "https://one:6443/", None),
            (Some("two"), "two", "https://two:6443/", Some("http://proxy:3128/")),
        ] {
            let Cluster { config, context } = cluster(&args(context)).await.unwrap();
            assert_eq!((context.as_deref(), config.cluster_url.to_string().as_str()), (Some(name), server));
            assert_eq!(config.proxy_url.map(|proxy| proxy.to_string()).as_deref(), proxy);
        }
        cluster(&args(Some("three"))).await.unwrap_err();
    }
}
