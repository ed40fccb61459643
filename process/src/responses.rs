//! Responses of the API server in a form that can be decoded, whatever users have put into their objects. A list is decoded as a whole:
//! one object that cannot be would hide all others, and with them every tenant's.
//!
//! - What is nested more than [`DEEPEST`] levels is replaced by `null`. The API server stores a thousand levels in a field without a
//!   schema; the decoder gives up at 128.
//! - `managedFields` is emptied unless [`ManagedFields`] asks for it. Users may write any time of Go's into it, and those of the last day of
//!   the year 9999 cannot be decoded. It is also most of what is sent.

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;

/// Fields of both kinds with a schema are less than 20 levels deep in a list, and policy documents of IAM 10 more.
const DEEPEST: u32 = 64;
const MANAGED_FIELDS: &[u8] = b"managedFields";
/// How deep `managedFields` is in an object, in an event of a watch, and in a list.
const DEPTHS: std::ops::RangeInclusive<u32> = 2..=4;

/// Extension of a request whose response keeps `managedFields`.
#[derive(Debug, Clone, Copy)]
pub struct ManagedFields;

/// The same client with such responses.
#[must_use]
pub fn decodable(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let send = move |request: Request<Body>| {
        let client = client.clone();
        let empties = request.extensions().get::<ManagedFields>().is_none();
        async move {
            let response = client.send(request).await?;
            let mut cut = Cut::new(empties);
            let body =
                |body: Body| body.map_frame(move |frame| frame.map_data(|data: Bytes| cut.feed(&data)));
            Ok::<_, kube::Error>(response.map(body))
        }
    };
    Client::new(tower::service_fn(send), namespace)
}

/// Whether a place is within a string.
#[derive(Debug, Clone, Copy, Default)]
enum Text {
    #[default]
    Outside,
    /// So many bytes of it are those of [`MANAGED_FIELDS`].
    Begun(usize),
    /// It is another one.
    Other,
}

/// What comes before a place outside of strings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Before {
    #[default]
    Other,
    /// The string [`MANAGED_FIELDS`].
    Name,
    /// That string and a colon, where its value is to be emptied.
    Colon,
}

/// Where in a text of JSON the last chunk ended.
#[derive(Debug, Default)]
struct Cut {
    /// Whether `managedFields` is emptied.
    empties: bool,
    depth: u32,
    text: Text,
    is_escaped: bool,
    before: Before,
    /// What is deeper than this is left out.
    above: Option<u32>,
}

impl Cut {
    fn new(empties: bool) -> Self {
        Self { empties, ..Self::default() }
    }

    fn feed(&mut self, chunk: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(chunk.len());
        for &byte in chunk {
            self.take(byte, &mut out);
        }
        out.into()
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        if !matches!(self.text, Text::Outside) {
            self.in_string(byte);
            self.keep(byte, out);
            return;
        }
        match byte {
            b'"' => {
                (self.text, self.before) = (Text::Begun(0), Before::Other);
                self.keep(byte, out);
            }
            b'{' | b'[' => {
                let empties = std::mem::take(&mut self.before) == Before::Colon && byte == b'[';
                if self.above.is_none() && (empties || self.depth >= DEEPEST) {
                    out.extend_from_slice(if empties { b"[]" } else { b"null" });
                    self.above = Some(self.depth);
                }
                self.keep(byte, out);
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.keep(byte, out);
                if self.above == Some(self.depth) {
                    self.above = None;
                }
            }
            b':' => {
                let empties = self.empties && self.before == Before::Name && DEPTHS.contains(&self.depth);
                self.before = if empties { Before::Colon } else { Before::Other };
                self.keep(byte, out);
            }
            _ => {
                if !byte.is_ascii_whitespace() {
                    self.before = Before::Other;
                }
                self.keep(byte, out);
            }
        }
    }

    fn in_string(&mut self, byte: u8) {
        self.text = match (byte, self.text) {
            _ if self.is_escaped => {
                self.is_escaped = false;
                Text::Other
            }
            (b'\\', _) => {
                self.is_escaped = true;
                Text::Other
            }
            (b'"', text) => {
                if matches!(text, Text::Begun(length) if length == MANAGED_FIELDS.len()) {
                    self.before = Before::Name;
                }
                Text::Outside
            }
            (_, Text::Begun(at)) if MANAGED_FIELDS.get(at) == Some(&byte) => Text::Begun(at + 1),
            _ => Text::Other,
        };
    }

    fn keep(&self, byte: u8, out: &mut Vec<u8>) {
        if self.above.is_none() {
            out.push(byte);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// The text in chunks of every size up to its own.
    fn cut(text: &str) -> String {
        let whole = Cut::new(true).feed(text.as_bytes());
        for size in 1..=text.len().min(40) {
            let mut cut = Cut::new(true);
            let parts: Vec<u8> = text.as_bytes().chunks(size).flat_map(|chunk| cut.feed(chunk)).collect();
            assert_eq!(parts, whole, "in chunks of {size}");
        }
        String::from_utf8(whole.to_vec()).unwrap()
    }

    fn nested(depth: usize) -> String {
        format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
    }

    #[test]
    fn what_is_too_deep_is_null_and_the_rest_stays() {
        assert_eq!(cut(&nested(64)), nested(64));
        assert_eq!(cut(&nested(200)), nested(64).replace('1', "null"));
        let arrays = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(cut(&arrays), format!("{}null{}", "[".repeat(64), "]".repeat(64)));
        // Two events of a watch, one after the other, with brackets in strings.
        let events = format!("{}\n{}\n", nested(100), r#"{"b":"}]\\\"{[","c":[1,2]}"#);
        let expected = format!("{}\n{}\n", nested(64).replace('1', "null"), r#"{"b":"}]\\\"{[","c":[1,2]}"#);
        assert_eq!(cut(&events), expected);
    }

    #[test]
    fn managed_fields_are_emptied_unless_they_are_asked_for() {
        let object = |fields: &str| {
            format!(r#"{{"metadata":{{"name":"x","managedFields" : {fields},"uid":"u"}},"spec":1}}"#)
        };
        let full = r#"[{"time":"9999-12-31T23:59:59Z","fieldsV1":{"f:a":{}}},{"manager":"]"}]"#;
        assert_eq!(cut(&object(full)), object("[]"));
        assert_eq!(Cut::new(false).feed(object(full).as_bytes()), object(full));
        let list = |fields: &str| format!(r#"{{"items":[{},{}]}}"#, object(fields), object(fields));
        assert_eq!(cut(&list(full)), list("[]"));
        let event = |fields: &str| format!(r#"{{"type":"ADDED","object":{}}}"#, object(fields));
        assert_eq!(cut(&event(full)), event("[]"));
        // A value of that text, a null, and a field of that name elsewhere.
        for text in [
            r#"{"items":[{"metadata":{"name":"managedFields","labels":["x"]}}]}"#,
            r#"{"items":[{"metadata":{"managedFields":null,"x":[1]}}]}"#,
            r#"{"items":[{"metadata":{"managedFields":"x","y":[1]}}]}"#,
            r#"{"items":[{"spec":{"role":{"managedFields":[1]}}}]}"#,
        ] {
            assert_eq!(cut(text), text);
        }
    }
}
