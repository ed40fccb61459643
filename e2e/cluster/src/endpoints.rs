//! Where the API servers of a control plane are reached: ports that stay theirs, and the `EndpointSlice`s of Service
//! default/kubernetes.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::Context;
use serde_json::json;
use tokio::net::TcpSocket;

/// A TCP port that no other program gets while this value exists, even while its API server does not run. A server shares it
/// by `SO_REUSEPORT` (`--permit-port-sharing`); connections go to the server alone, since this socket does not listen.
pub(crate) struct ReservedPort {
    pub(crate) number: u16,
    _socket: TcpSocket,
}

impl ReservedPort {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind(([0, 0, 0, 0], 0).into())?;
        Ok(Self { number: socket.local_addr()?.port(), _socket: socket })
    }
}

/// Arguments of kubectl that print the addresses in the `EndpointSlice`s of Service default/kubernetes. A single API server is
/// there shortly after it is ready: Kubernetes' own reconciler lists it then, and takes it out while it ends.
pub(crate) const LISTED: [&str; 5] = [
    "get",
    "endpointslices",
    "--namespace=default",
    "--selector=kubernetes.io/service-name=kubernetes",
    "--output=jsonpath={.items[*].endpoints[*].addresses[*]}",
];

/// This machine's own address, other than loopback: Kubernetes refuses loopback in `EndpointSlice`s.
pub(crate) fn host_address() -> anyhow::Result<IpAddr> {
    // Nothing is sent: the connection of a UDP socket only chooses the source address. 192.0.2.1 is for documentation.
    let choose = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    choose().context("this machine has no address but loopback, which Kubernetes refuses for an API server")
}

/// The `EndpointSlice`s that list these servers as endpoints of Service default/kubernetes: one each, since the port belongs
/// to the slice.
pub(crate) fn endpoint_slices(servers: impl Iterator<Item = SocketAddr>) -> serde_json::Value {
    let slice = |(index, address): (usize, SocketAddr)| {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("kubernetes-{index}"),
                "namespace": "default",
                // The label makes it one of the Service's.
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": servers.enumerate().map(slice).collect::<Vec<_>>()})
}
