//! What is served other than reviews, and certificates from other sources.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::version::TLS13;
use webhook::serving::trust::{Trust, Trusted};

use crate::listener::{Body, NAME, Pair, Webhook, configuration, full, post};
use crate::reviews::review;

const TIMEOUT: Duration = Duration::from_secs(5);

/// As created by cert-manager's CA issuers: an RSA key, leaf and intermediate in one file; the bundle contains only the root.
#[tokio::test]
async fn a_chain_with_an_rsa_key() {
    let (webhook, _) = Webhook::ready(TIMEOUT).await;
    let ca = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        (params, KeyPair::generate().unwrap())
    };
    let ((root, root_key), (middle, middle_key)) = (ca("root"), ca("intermediate"));
    let root_certificate = root.self_signed(&root_key).unwrap();
    let middle_certificate = middle.signed_by(&middle_key, &Issuer::new(root, root_key)).unwrap();
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(middle, middle_key)).unwrap();
    let chain = Pair {
        certificate: root_certificate.der().clone(),
        pem: leaf.pem() + &middle_certificate.pem(),
        key: key.serialize_pem(),
    };
    webhook.serve(&chain);
    let (mut connection, served) = webhook.connect(&chain, &TLS13).await.unwrap();
    assert_eq!(&served, leaf.der());
    let (status, answer) = post(&mut connection, review("vault", "vault").to_string()).await;
    assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &true.into()));

    let trust = Trust::new(Arc::clone(&webhook.certificate));
    trust.apply(Some(&configuration(&[&root_certificate.pem()])));
    assert_eq!(trust.trusted(), Trusted::Yes);
    trust.apply(Some(&configuration(&[&Pair::new().pem])));
    assert_ne!(trust.trusted(), Trusted::Yes, "of another CA");
}

#[tokio::test]
async fn only_reviews_and_health_are_served() {
    let (_webhook, mut connection) = Webhook::ready(TIMEOUT).await;
    for (method, path, content_type, expected) in [
        (Method::GET, "/healthz", None, (200, "text/plain")),
        (Method::GET, "/mutate", None, (405, "text/plain")),
        (Method::PUT, "/mutate", Some("application/json"), (405, "text/plain")),
        (Method::POST, "/metrics", None, (404, "text/plain")),
        (Method::POST, "/mutate", None, (415, "application/json")),
        (Method::POST, "/mutate", Some("text/plain"), (415, "application/json")),
        // The EKS webhook accepts only `application/json` without parameters.
        (Method::POST, "/mutate", Some("application/json; charset=utf-8"), (200, "application/json")),
    ] {
        let (status, headers) = call(&mut connection, &method, path, content_type).await;
        let answered = (status.as_u16(), headers["content-type"].to_str().unwrap());
        assert_eq!(answered, expected, "{method} {path} {content_type:?}");
    }
}

async fn call(
    connection: &mut SendRequest<Body>,
    method: &Method,
    path: &str,
    content_type: Option<&str>,
) -> (StatusCode, HeaderMap) {
    let mut request = Request::builder().method(method).uri(format!("https://{NAME}{path}"));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    let request = request.body(full(review("vault", "vault").to_string())).unwrap();
    connection.ready().await.unwrap();
    let response = connection.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    body.collect().await.unwrap();
    (head.status, head.headers)
}
