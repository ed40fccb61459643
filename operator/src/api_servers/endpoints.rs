//! Every API server of the cluster: the addresses of Service `default/kubernetes`, and the service address. Each API server
//! signs with keys of its own configuration, and shows only those that it accepts.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crds::issuer::{DISCOVERY_PATH, JWKS_PATH};
use futures::future::join_all;
use http::Request;
use http::uri::InvalidUri;
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
use kube::api::ListParams;
use kube::{Api, Client, Config};

use super::model::{ApiServer, ApiServers, NoAnswer};
use crate::aws::cause::stable_cause;
use crate::oidc::{Discovery, OidcError, ReadKeys};

/// The label by which a Service's slices are found (`discovery.k8s.io/v1`).
const SLICES: &str = "kubernetes.io/service-name=kubernetes";
/// A name that every API server's certificate has, whatever its address (kubeadm, k3s, RKE2, Talos and k0s set it).
const TLS_NAME: &str = "kubernetes.default.svc";

/// Reads the issuer and the keys of every API server.
pub struct Endpoints {
    service: Client,
    config: Config,
    timeout: Duration,
    /// One client for each address, so that connections are reused between polls.
    clients: Mutex<BTreeMap<String, Client>>,
}

impl Endpoints {
    /// `config`: how `service` reaches the API server. Its credentials and CA are used for every endpoint.
    #[must_use]
    pub fn new(service: Client, config: Config, timeout: Duration) -> Self {
        Self { service, config, timeout, clients: Mutex::default() }
    }

    /// One poll of all of them.
    pub async fn read(&self) -> ApiServers {
        let (service, addresses) = tokio::join!(self.ask(&self.service), self.addresses());
        let (addresses, unlisted) = match addresses {
            Ok(addresses) => (addresses, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let clients = self.clients(&addresses);
        let answers = join_all(clients.iter().map(|client| async {
            match client {
                Ok(client) => self.ask(client).await,
                Err(why) => Err(why.clone()),
            }
        }));
        let endpoints = addresses.into_iter().zip(answers.await).collect();
        ApiServers { service, endpoints, unlisted }
    }

    /// `address:port` of every endpoint, sorted.
    async fn addresses(&self) -> Result<Vec<String>, String> {
        if self.config.accept_invalid_certs {
            // Credentials are sent only to a server whose certificate proves that it is an API server of this cluster.
            return Err("not asked, since the kubeconfig does not verify certificates".into());
        }
        let slices: Api<EndpointSlice> = Api::namespaced(self.service.clone(), "default");
        let parameters = ListParams::default().labels(SLICES);
        let list = tokio::time::timeout(self.timeout, slices.list(&parameters));
        let list =
            list.await.map_err(|_| "no response".to_owned())?.map_err(|error| no_answer(&error).why)?;
        let mut addresses: Vec<String> = list.into_iter().flat_map(of_slice).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    /// A client for each address. Those of addresses that are gone are dropped.
    fn clients(&self, addresses: &[String]) -> Vec<Result<Client, NoAnswer>> {
        let mut known = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|address, _| addresses.contains(address));
        let client = |address: &String| {
            if let Some(client) = known.get(address) {
                return Ok(client.clone());
            }
            let client = self.connect(address)?;
            known.insert(address.clone(), client.clone());
            Ok(client)
        };
        addresses.iter().map(client).collect()
    }

    fn connect(&self, address: &str) -> Result<Client, NoAnswer> {
        let mut config = self.config.clone();
        config.cluster_url =
            format!("https://{address}").parse().map_err(|error: InvalidUri| unreached(&error))?;
        config.tls_server_name = Some(TLS_NAME.into());
        config.connect_timeout = Some(self.timeout);
        Client::try_from(config).map_err(|error| unreached(&error))
    }

    async fn ask(&self, client: &Client) -> Result<ApiServer, NoAnswer> {
        let asked = tokio::time::timeout(self.timeout, ask(client)).await;
        asked.unwrap_or_else(|_| Err(NoAnswer { reached: false, why: "no response".into() }))
    }
}

/// The two documents of one API server.
async fn ask(client: &Client) -> Result<ApiServer, NoAnswer> {
    let get = |path: &'static str| async move {
        let request = Request::get(format!("/{path}")).body(Vec::new()).map_err(|error| unreached(&error))?;
        client.request_text(request).await.map_err(|error| no_answer(&error))
    };
    let broken = |error: OidcError| NoAnswer { reached: true, why: error.to_string() };
    let (discovery, jwks) = tokio::try_join!(get(DISCOVERY_PATH), get(JWKS_PATH))?;
    let issuer = Discovery::parse(discovery.as_bytes()).map_err(broken)?.issuer;
    let ReadKeys { keys, left_out } = ReadKeys::from_jwks(jwks.as_bytes()).map_err(broken)?;
    Ok(ApiServer { issuer, keys, left_out })
}

fn no_answer(error: &kube::Error) -> NoAnswer {
    match error {
        kube::Error::Api(status) => {
            NoAnswer { reached: true, why: format!("{} {}", status.code, status.message) }
        }
        other => unreached(other),
    }
}

fn unreached(error: &(dyn Error + 'static)) -> NoAnswer {
    NoAnswer { reached: false, why: stable_cause(error) }
}

/// The addresses of a slice. One that is not ready is left out: its API server is not (yet, or any more) in use.
fn of_slice(slice: EndpointSlice) -> Vec<String> {
    let ports = slice.ports.unwrap_or_default();
    // The Service has one port, `https`.
    let port = ports.iter().find(|port| port.name.as_deref() == Some("https")).or(ports.first());
    let port = port.and_then(|port| port.port).unwrap_or(443);
    let is_ready = |conditions: Option<&EndpointConditions>| {
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let host = |address: String| if address.contains(':') { format!("[{address}]") } else { address };
    slice
        .endpoints
        .into_iter()
        .filter(|endpoint| is_ready(endpoint.conditions.as_ref()))
        .flat_map(|endpoint| endpoint.addresses)
        .map(|address| format!("{}:{port}", host(address)))
        .collect()
}
