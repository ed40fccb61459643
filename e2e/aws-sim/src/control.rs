//! The control API, plain HTTP: tests read the account and the call log, change the account directly, and inject faults.
//! Its types are in `aws-sim-api`.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context as _;
use aws_sim_api::{Behaviour, Fault, NewPolicy, NewRole};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

use crate::sim::Sim;
use crate::wire::response;

/// Serves the control API for as long as it is polled.
pub async fn serve(sim: Sim, listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let sim = sim.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let sim = sim.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body =
                        body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                    Ok::<_, Infallible>(respond(&sim, &parts, &body).map(Full::new))
                }
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Sends one request to the control API at that address. Returns the response's body.
pub async fn call(address: SocketAddr, method: &str, path: &str, body: String) -> anyhow::Result<String> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .body(Full::new(Bytes::from(body)))?;
    let response = client.request(request).await?;
    let status = response.status();
    let text = String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?;
    anyhow::ensure!(status.is_success(), "{method} {path}: {status}: {text}");
    Ok(text)
}

fn respond(sim: &Sim, parts: &http::request::Parts, body: &Bytes) -> Response<Bytes> {
    let path = parts.uri.path();
    let json = |value: Result<String, serde_json::Error>| {
        response(200, &[("content-type", "application/json")], value.unwrap_or_default())
    };
    match (&parts.method, path) {
        (&Method::GET, "/calls") => json(serde_json::to_string(&sim.calls())),
        (&Method::GET, "/administrator") => json(serde_json::to_string(&sim.administrator())),
        (&Method::GET, "/behaviour") => json(serde_json::to_string(&sim.behaviour())),
        (&Method::GET, "/state") => json(serde_json::to_string(&sim.state())),
        _ => match change(sim, &parts.method, path, body) {
            Ok(text) => response(200, &[], text),
            Err(error) => response(400, &[], format!("{error:#}\n")),
        },
    }
}

/// Everything that changes something. Returns the response's body: an ARN, or nothing.
fn change(sim: &Sim, method: &Method, path: &str, body: &Bytes) -> anyhow::Result<String> {
    match (method.as_str(), path) {
        ("DELETE", "/calls") => sim.clear_calls(),
        ("DELETE", "/faults") => sim.clear_faults(),
        ("POST", "/faults") => sim.inject(serde_json::from_slice::<Fault>(body).context("not a fault")?),
        ("PUT", "/behaviour") => {
            let wanted = serde_json::from_slice::<Behaviour>(body).context("not a behaviour")?;
            sim.behave(|behaviour| *behaviour = wanted);
        }
        ("POST", "/roles") => {
            let NewRole { path, name, trust, attached } =
                serde_json::from_slice(body).context("not a role")?;
            let attached: Vec<&str> = attached.iter().map(String::as_str).collect();
            return Ok(sim.put_role(&path, &name, trust, &attached));
        }
        ("POST", "/policies") => {
            let NewPolicy { name, document } = serde_json::from_slice(body).context("not a policy")?;
            return Ok(sim.put_managed_policy(&name, document));
        }
        ("PUT", path) if path.starts_with("/buckets/") => match path["/buckets/".len()..].split_once('/') {
            None => sim.put_bucket(&path["/buckets/".len()..], &sim.settings().account),
            Some((bucket, key)) => sim.put_object(bucket, key, body.clone()),
        },
        ("DELETE", path) if path.starts_with("/roles/") => {
            sim.change(|state| state.roles.remove(&path["/roles/".len()..].to_lowercase()));
        }
        ("DELETE", path) if path.starts_with("/policies/") => {
            sim.change(|state| state.policies.retain(|_, p| p.name != path["/policies/".len()..]));
        }
        ("DELETE", path) if path.starts_with("/buckets/") => {
            sim.change(|state| state.buckets.remove(&path["/buckets/".len()..]));
        }
        _ => anyhow::bail!("the control API has no {method} {path}"),
    }
    Ok(String::new())
}
