//! Signature Version 4, verified as AWS verifies it (IAM user guide, "AWS Signature Version 4 for API requests"). The
//! `aws-sigv4` crate only signs; to sign again and compare would hide errors in the client's canonical request.

use aws_lc_rs::hmac;
use http::HeaderMap;

use crate::digest::{hex, sha256_hex};
use crate::wire::{ApiError, Request};

/// The parts of an `Authorization` header.
#[derive(Debug)]
pub(crate) struct Authorization<'a> {
    pub access_key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Parses the header; `None` for an anonymous request.
    pub(crate) fn of(headers: &'a HeaderMap) -> Result<Option<Self>, ApiError> {
        let Some(header) = headers.get("authorization").and_then(|h| h.to_str().ok()) else {
            return Ok(None);
        };
        let parse = || {
            let rest = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
            let part = |name: &str| {
                rest.split(',').map(str::trim).find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
            };
            let mut scope = part("Credential")?.split('/');
            let (access_key, date, region, service) =
                (scope.next()?, scope.next()?, scope.next()?, scope.next()?);
            (scope.next()? == "aws4_request").then_some(Self {
                access_key,
                date,
                region,
                service,
                signed_headers: part("SignedHeaders")?,
                signature: part("Signature")?,
            })
        };
        parse()
            .map(Some)
            .ok_or_else(|| ApiError::new(400, "IncompleteSignature", "Authorization header is malformed"))
    }

    /// Checks the signature over the request, its time and its region.
    pub(crate) fn verify(
        &self,
        request: &Request,
        secret: &str,
        region: &str,
        now: i64,
    ) -> Result<(), ApiError> {
        let wrong = |message: &str| ApiError::new(403, "SignatureDoesNotMatch", message);
        let date = request.header("x-amz-date");
        let sent = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC))
            .map_err(|_| wrong("Date must be in ISO-8601 'basic format'"))?;
        let skew = if self.service == "s3" { 900 } else { 300 };
        if (sent.timestamp().as_second() - now).abs() > skew {
            return Err(match self.service {
                "s3" => ApiError::new(
                    403,
                    "RequestTimeTooSkewed",
                    "The difference between the request time and the current time is too large.",
                ),
                _ => wrong(&format!("Signature expired: {date} is now earlier than the allowed time")),
            });
        }
        if self.service != request.service || self.region != region {
            return Err(wrong(&format!(
                "Credential should be scoped to a valid region: {region}/{}",
                request.service
            )));
        }
        let payload = match request.header("x-amz-content-sha256") {
            "" => sha256_hex(&request.raw_body),
            stated => {
                let literal = stated.starts_with("UNSIGNED-PAYLOAD") || stated.starts_with("STREAMING-");
                if !literal && stated != sha256_hex(&request.raw_body) {
                    return Err(ApiError::new(
                        400,
                        "XAmzContentSHA256Mismatch",
                        "The provided 'x-amz-content-sha256' header does not match what was computed.",
                    ));
                }
                stated.to_owned()
            }
        };
        let mut query: Vec<&str> = request.raw_query.split('&').filter(|pair| !pair.is_empty()).collect();
        query.sort_unstable();
        let query: Vec<String> =
            query.iter().map(|p| if p.contains('=') { (*p).to_owned() } else { format!("{p}=") }).collect();
        let headers: String = self
            .signed_headers
            .split(';')
            .map(|name| {
                format!("{name}:{}\n", request.header(name).split_whitespace().collect::<Vec<_>>().join(" "))
            })
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{headers}\n{}\n{payload}",
            request.method,
            request.raw_path,
            query.join("&"),
            self.signed_headers
        );
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [self.date, self.region, self.service, "aws4_request", &to_sign] {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        if hex(&key) == self.signature {
            Ok(())
        } else {
            Err(wrong(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.",
            ))
        }
    }
}
