//! The calls of the trials, from the API server's audit log.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// A call.
struct Call {
    what: String,
    received: Timestamp,
    done: Timestamp,
    code: u64,
    message: String,
}

/// All calls that created pods, or what pods need.
pub struct Seen {
    by_namespace: BTreeMap<String, Vec<Call>>,
    issuer_known: Vec<Timestamp>,
}

impl Seen {
    pub fn new(audit: &[Value]) -> Self {
        let mut seen = Self { by_namespace: BTreeMap::new(), issuer_known: Vec::new() };
        for event in audit {
            let (object, status) = (&event["objectRef"], &event["responseStatus"]);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let time = |key: &str| text(&event[key]).parse::<Timestamp>().unwrap();
            let call = Call {
                what: text(&object["resource"]),
                received: time("requestReceivedTimestamp"),
                done: time("stageTimestamp"),
                code: status["code"].as_u64().unwrap_or_default(),
                message: text(&status["message"]),
            };
            if object["subresource"] == "status" {
                seen.issuer_known.push(call.done);
            } else {
                seen.by_namespace.entry(text(&object["namespace"])).or_default().push(call);
            }
        }
        seen
    }

    fn calls(&self, namespace: &str, what: &str) -> impl Iterator<Item = &Call> {
        self.by_namespace.get(namespace).into_iter().flatten().filter(move |call| call.what == what)
    }

    /// How often the webhook has refused a pod.
    pub fn refused(&self, namespace: &str) -> usize {
        self.calls(namespace, "pods")
            .filter(|call| call.message.contains("must have an AWS identity"))
            .count()
    }

    /// Whether the API server received its pod before it answered the creation of the binding.
    pub fn admitted_before_bound(&self, namespace: &str) -> bool {
        let made = |what| self.calls(namespace, what).find(|call| call.code == 201);
        made("pods").unwrap().received < made("podidentitybindings").unwrap().done
    }

    /// When the issuer's account was written that a pod at this time needed: after it, or else the last time before it, when
    /// the webhook's copy did not have it yet.
    pub fn issuer_known(&self, at: Timestamp) -> Timestamp {
        let after = self.issuer_known.iter().filter(|known| **known >= at).min();
        *after.or(self.issuer_known.iter().max()).expect("it is written in every round")
    }

    /// All calls for a namespace, for people.
    pub fn story(&self, namespace: &str) -> String {
        let mut story = String::new();
        for Call { what, received, done, code, message } in
            self.by_namespace.get(namespace).into_iter().flatten()
        {
            let _ = write!(story, "\n    {received}..{done} {what} {code} {message}");
        }
        story
    }
}
