//! How the API server is reached: as kube infers it, but through a proxy only where the kubeconfig names one.

use http::Uri;
use kube::Config;
use kube::config::{InferConfigError, Kubeconfig};

/// The kubeconfig (`KUBECONFIG`, or `~/.kube/config`), or else a pod's `ServiceAccount`. `HTTPS_PROXY` is for AWS: kube would use it
/// for the API server, too, and compares `NO_PROXY` with the proxy's own host instead of the API server's.
pub async fn config() -> Result<Config, InferConfigError> {
    let mut config = Config::infer().await?;
    config.proxy_url = Kubeconfig::read().ok().and_then(|kubeconfig| proxy_of(&kubeconfig));
    Ok(config)
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
}
