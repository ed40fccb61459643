//! An HTTP client for the AWS SDK that calls a [`Sim`] in the same process, without a socket. The SDK's own encoding, error
//! parsing and retries are part of the test.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::model::ConnectionLost;
use crate::sim::Sim;

/// A client whose requests this simulator answers.
#[must_use]
pub fn http_client(sim: &Sim) -> SharedHttpClient {
    SharedHttpClient::new(Connector(sim.clone()))
}

#[derive(Clone)]
struct Connector(Sim);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let sim = self.0.clone();
        HttpConnectorFuture::new(async move {
            let user = |e: Box<dyn std::error::Error + Send + Sync>| ConnectorError::user(e);
            let request = request.try_into_http1x().map_err(|e| user(e.into()))?;
            let (parts, body) = request.into_parts();
            let body: Bytes = body.collect().await.map_err(user)?.to_bytes();
            match sim.handle(http::Request::from_parts(parts, body)).await {
                Ok(response) => {
                    HttpResponse::try_from(response.map(SdkBody::from)).map_err(|e| user(e.into()))
                }
                Err(ConnectionLost) => {
                    Err(ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()))
                }
            }
        })
    }
}
