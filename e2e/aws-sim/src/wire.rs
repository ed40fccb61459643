//! Requests parsed, responses and errors written: the query protocol of IAM and STS, and S3's REST with XML.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use percent_encoding::percent_decode_str;
use quick_xml::escape::escape;

/// A request, parsed once.
#[derive(Debug)]
pub(crate) struct Request {
    pub service: &'static str,
    pub method: String,
    /// The bucket, for S3.
    pub bucket: Option<String>,
    /// The object's key, decoded; empty for a bucket.
    pub key: String,
    pub raw_path: String,
    pub raw_query: String,
    pub headers: HeaderMap,
    /// As it was sent.
    pub raw_body: Bytes,
    /// Without aws-chunked framing.
    pub body: Bytes,
    parameters: Vec<(String, String)>,
}

impl Request {
    /// Parses a request. The host name decides the service, as on AWS.
    pub(crate) fn new(request: http::Request<Bytes>) -> Result<Self, ApiError> {
        let (parts, raw_body) = request.into_parts();
        let host = parts.headers.get("host").and_then(|h| h.to_str().ok()).map(str::to_owned);
        let host = host.or_else(|| parts.uri.authority().map(ToString::to_string)).unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default().to_owned();
        let labels: Vec<&str> = host.split('.').collect();
        let path = parts.uri.path();
        let bare = path.strip_prefix('/').unwrap_or(path);
        let (service, bucket, key) = match labels.as_slice() {
            ["iam", ..] => ("iam", None, ""),
            ["sts", ..] => ("sts", None, ""),
            ["s3", ..] => {
                let (bucket, key) = bare.split_once('/').unwrap_or((bare, ""));
                ("s3", Some(bucket.to_owned()).filter(|b| !b.is_empty()), key)
            }
            [bucket @ .., "s3", _, "amazonaws", "com"] if !bucket.is_empty() => {
                ("s3", Some(bucket.join(".")), bare)
            }
            _ => {
                return Err(ApiError::new(
                    400,
                    "InvalidHost",
                    format!("aws-sim does not serve the host {host}"),
                ));
            }
        };
        let raw_query = parts.uri.query().unwrap_or_default().to_owned();
        let mut parameters = pairs(&raw_query);
        if service != "s3" {
            parameters.extend(pairs(&String::from_utf8_lossy(&raw_body)));
        }
        let chunked = parts.headers.get("content-encoding").is_some_and(|e| e.as_bytes() == b"aws-chunked");
        let mut headers = parts.headers.clone();
        if let (false, Ok(value)) = (headers.contains_key("host"), host.parse()) {
            headers.insert("host", value); // HTTP/2 carries it as :authority
        }
        Ok(Self {
            service,
            method: parts.method.to_string(),
            bucket,
            key: percent_decode_str(key).decode_utf8_lossy().into_owned(),
            raw_path: path.to_owned(),
            raw_query,
            body: if chunked { unchunk(&raw_body) } else { raw_body.clone() },
            headers,
            raw_body,
            parameters,
        })
    }

    /// A header, empty where absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|h| h.to_str().ok()).unwrap_or_default()
    }

    /// A parameter of the query or the form.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that must not be absent.
    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.parameter(name).ok_or_else(|| {
            let field = name[..1].to_lowercase() + &name[1..];
            ApiError::validation(format!("1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"))
        })
    }

    /// `<name>.member.1`, `<name>.member.2`, …
    pub(crate) fn members(&self, name: &str) -> Vec<String> {
        (1..).map_while(|n| self.parameter(&format!("{name}.member.{n}")).map(str::to_owned)).collect()
    }

    /// `Tags.member.N.Key` and `.Value`.
    pub(crate) fn tags(&self) -> Vec<(String, String)> {
        (1..)
            .map_while(|n| {
                let key = self.parameter(&format!("Tags.member.{n}.Key"))?;
                Some((
                    key.to_owned(),
                    self.parameter(&format!("Tags.member.{n}.Value")).unwrap_or_default().to_owned(),
                ))
            })
            .collect()
    }

    /// Names of the query's parameters, S3's subresources included.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| name.as_str())
    }
}

fn pairs(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

/// aws-chunked: `<hex size>[;…]\r\n<data>\r\n`…, then trailers, which are checksums.
fn unchunk(body: &Bytes) -> Bytes {
    let (mut out, mut rest) = (Vec::new(), body.as_ref());
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size = usize::from_str_radix(head.split(';').next().unwrap_or_default(), 16).unwrap_or(0);
        let from = end + 2;
        if size == 0 || rest.len() < from + size {
            break;
        }
        out.extend_from_slice(&rest[from..from + size]);
        rest = rest.get(from + size + 2..).unwrap_or_default();
    }
    out.into()
}

/// An error with AWS's status, code and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: u16,
    pub code: String,
    pub message: String,
    /// Whether the evaluation of policies refused the call.
    pub denied: bool,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), denied: false }
    }

    /// The evaluation of policies refused the call.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self { denied: true, ..Self::new(403, "AccessDenied", message) }
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationError", message)
    }

    pub(crate) fn no_such(what: &str, name: &str) -> Self {
        Self::new(404, "NoSuchEntity", format!("The {what} with name {name} cannot be found."))
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(400, "MalformedPolicyDocument", message)
    }

    pub(crate) fn response(&self, request: Option<&Request>) -> Response<Bytes> {
        let (code, message) = (escape(&self.code), escape(&self.message));
        let s3 = request.is_some_and(|r| r.service == "s3");
        let head = request.is_some_and(|r| r.method == "HEAD");
        let xml = if head {
            String::new()
        } else if s3 {
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>SIM</RequestId></Error>"
            )
        } else {
            let kind = if self.status < 500 { "Sender" } else { "Receiver" };
            format!(
                "<ErrorResponse><Error><Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>00000000-0000-4000-8000-000000000000</RequestId></ErrorResponse>"
            )
        };
        response(self.status, &[("content-type", if s3 { "application/xml" } else { "text/xml" })], xml)
    }
}

/// A response.
pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::try_from(*name), http::HeaderValue::try_from(*value))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A successful response of the query protocol.
pub(crate) fn query_response(service: &str, action: &str, inner: &str) -> Response<Bytes> {
    let (namespace, id) = match service {
        "iam" => ("https://iam.amazonaws.com/doc/2010-05-08/", "00000000-0000-4000-8000-000000000000"),
        _ => ("https://sts.amazonaws.com/doc/2011-06-15/", "00000000-0000-4000-8000-000000000001"),
    };
    let xml = format!(
        "<{action}Response xmlns=\"{namespace}\"><{action}Result>{inner}</{action}Result><ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
    );
    response(200, &[("content-type", "text/xml"), ("x-amzn-requestid", id)], xml)
}

/// `<name>escaped text</name>`.
pub(crate) fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escape(text))
}

/// The text of the first element of that name, at any depth.
pub(crate) fn xml_text(body: &[u8], name: &str) -> Option<String> {
    xml_texts(body, name).into_iter().next()
}

/// The texts of all elements of that name, in order.
pub(crate) fn xml_texts(body: &[u8], name: &str) -> Vec<String> {
    use quick_xml::events::Event;
    let text = String::from_utf8_lossy(body);
    let mut reader = quick_xml::Reader::from_str(&text);
    let (mut found, mut inside) = (Vec::new(), false);
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => inside = start.local_name().as_ref() == name,
            Ok(Event::Text(text)) if inside => {
                found.push(text.to_string());
            }
            Ok(Event::End(_)) => inside = false,
            Ok(Event::Eof) | Err(_) => return found,
            Ok(_) => {}
        }
    }
}
