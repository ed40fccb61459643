//! Anonymous reads of the published documents, as AWS STS makes them.

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_http_client::tls::TlsContext;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Uri};

use super::cause::{cause, chain};
use super::setup::connector;

/// HTTP status and body of an anonymous read, or why there was no response.
pub type Answer = Result<(u16, Vec<u8>), String>;

/// Reads public URLs without credentials.
#[derive(Clone)]
pub struct PublicReader(Arc<dyn Fn(Uri) -> BoxFuture<'static, Answer> + Send + Sync>);

/// The most bytes that are read of a response. Discovery documents and key sets have a few kilobytes.
const MAX_BYTES: usize = 1 << 20;

impl PublicReader {
    /// Reads over HTTPS, through the same proxy and with the same trusted CAs as the calls of AWS.
    pub(super) fn https(tls: &TlsContext, timeout: Duration) -> Self {
        let connector = SharedHttpConnector::new(connector(tls, None));
        Self::from_fn(move |uri| {
            let read = read(connector.clone(), uri);
            let timed_out = format!("no response within {} s", timeout.as_secs());
            async move { tokio::time::timeout(timeout, read).await.unwrap_or(Err(timed_out)) }.boxed()
        })
    }

    /// Reads by a function: for tests.
    pub fn from_fn(read: impl Fn(Uri) -> BoxFuture<'static, Answer> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// One anonymous GET.
    pub async fn get(&self, url: &str) -> Answer {
        let uri = url.parse::<Uri>().map_err(|e| e.to_string())?;
        (self.0)(uri).await
    }
}

async fn read(connector: SharedHttpConnector, uri: Uri) -> Answer {
    if uri.scheme_str() != Some("https") {
        return Err("it is not an https URL".into());
    }
    let request = Request::get(uri).body(SdkBody::empty()).map_err(|e| e.to_string())?;
    let request = HttpRequest::try_from(request).map_err(|e| e.to_string())?;
    let response = connector.call(request).await.map_err(|e| causes(&e))?;
    let status = response.status().as_u16();
    let (mut body, mut stream) = (Vec::new(), ByteStream::new(response.into_body()));
    while let Some(chunk) = stream.next().await {
        body.extend_from_slice(&chunk.map_err(|e| causes(&e))?);
        if body.len() > MAX_BYTES {
            return Err(format!("the response has more than {MAX_BYTES} bytes"));
        }
    }
    Ok((status, body))
}

/// The cause where it is known, or else the error and its sources: the first one alone says only that there was an error.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let all = || chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    cause(error).map_or_else(all, |cause| cause.to_string())
}
