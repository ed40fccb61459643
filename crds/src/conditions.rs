//! The list of conditions of a status, and the rule by which conditions are merged into it.
//!
//! On the wire a condition is a `metav1.Condition`. In memory it is half as large: type, status and reason are from closed
//! sets, and equal messages can be one text. Every object has several, and there may be tens of thousands of objects.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::condition::{ConditionType, Finding, Holds, Reason, Wanted};

/// A condition of a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// Whether it holds.
    pub status: Status,
    /// Why.
    #[serde(deserialize_with = "read_reason")]
    pub reason: Reason,
    /// For users.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    pub message: Arc<str>,
    /// Generation of the specification that it was computed for; 0 where the entry has none.
    #[serde(default)]
    pub observed_generation: i64,
    /// When the status changed last.
    pub last_transition_time: Time,
}

/// `metav1.ConditionStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known.
    Unknown,
}

impl Status {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

fn write_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn read_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(deserializer).map(Into::into)
}

fn read_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(Reason::ALL.iter().copied().find(|reason| reason.as_str() == text).unwrap_or(Reason::Other))
}

/// The conditions of a status, by type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    known: Box<[Condition]>,
    /// See [`Conditions::has_others`]. It makes such a list unequal to the one that the operator writes in its place.
    has_others: bool,
}

impl Conditions {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether the list had entries that this version cannot decode, or with a reason that it does not know.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.has_others
    }

    /// Keeps each message that `messages` has only once.
    pub fn share(&mut self, messages: &mut Messages) {
        for condition in &mut self.known {
            messages.share(&mut condition.message);
        }
    }
}

impl Deref for Conditions {
    type Target = [Condition];

    fn deref(&self) -> &[Condition] {
        &self.known
    }
}

impl FromIterator<Condition> for Conditions {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        Self { known: conditions.into_iter().collect(), has_others: false }
    }
}

impl Serialize for Conditions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.known.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Known(Condition),
            Other(IgnoredAny),
        }
        let entries = Vec::<Entry>::deserialize(deserializer)?;
        let is_other = |entry: &Entry| match entry {
            Entry::Known(condition) => condition.reason == Reason::Other,
            Entry::Other(_) => true,
        };
        let has_others = entries.iter().any(is_other);
        let known = entries.into_iter().filter_map(|entry| match entry {
            Entry::Known(condition) => Some(condition),
            Entry::Other(_) => None,
        });
        Ok(Self { known: known.collect(), has_others })
    }
}

impl JsonSchema for Conditions {
    fn schema_name() -> Cow<'static, str> {
        Vec::<v1::Condition>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<v1::Condition>::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Messages that many objects have: nearly all of them say the same.
#[derive(Debug, Default)]
pub struct Messages(HashSet<Arc<str>>);

impl Messages {
    /// More are not kept; then it begins anew.
    const MOST: usize = 256;

    fn share(&mut self, message: &mut Arc<str>) {
        if let Some(known) = self.0.get(&**message) {
            *message = Arc::clone(known);
            return;
        }
        if self.0.len() == Self::MOST {
            self.0.clear();
        }
        self.0.insert(Arc::clone(message));
    }
}

/// Longer messages are cut, in bytes. The API server accepts 32,768 (`metav1.Condition`); people do not read that much.
const MESSAGE_LIMIT: usize = 1024;

/// The new list of conditions of a status: exactly `wanted`, each with `generation`. `lastTransitionTime` is `now` where the
/// status changed.
#[must_use]
pub fn merge(prior: &[Condition], wanted: Vec<Wanted>, generation: i64, now: &Time) -> Conditions {
    let merged = |Wanted { type_, holds, finding }: Wanted| {
        let before = prior.iter().find(|condition| condition.type_ == type_);
        let status = match holds {
            Holds::True => Status::True,
            Holds::False => Status::False,
            Holds::Unknown | Holds::AsBefore => Status::Unknown,
        };
        let known = before.filter(|before| before.reason != Reason::Other);
        if let (Holds::AsBefore, Some(before)) = (holds, known) {
            return Condition { observed_generation: generation, ..before.clone() };
        }
        let Finding { reason, mut message } = finding;
        let is_failure =
            type_ == ConditionType::Ready && status == Status::False && !reason.passes_by_itself();
        let url = if is_failure { format!(". See {}", reason.url()) } else { String::new() };
        message.truncate(message.floor_char_boundary(MESSAGE_LIMIT - url.len()));
        message.push_str(&url);
        let unchanged = before.filter(|before| before.status == status);
        Condition {
            type_,
            status,
            reason,
            message: message.into(),
            observed_generation: generation,
            last_transition_time: unchanged
                .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
        }
    };
    wanted.into_iter().map(merged).collect()
}

/// The condition of that type, if the list has one.
#[must_use]
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of that type is True.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: ConditionType) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == Status::True)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::condition::Summary;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).expect("a time"))
    }

    fn not_ready(reason: Reason, message: &str) -> Wanted {
        Wanted::no(ConditionType::Ready, Finding::new(reason, message))
    }

    #[test]
    fn transition_time_changes_only_with_the_status() {
        let first = merge(&[], vec![not_ready(Reason::Progressing, "a")], 1, &at(1));
        let second = merge(&first, vec![not_ready(Reason::Throttled, "b")], 2, &at(2));
        assert_eq!(second[0].last_transition_time, at(1));
        assert_eq!((second[0].reason, second[0].observed_generation), (Reason::Throttled, 2));
        let third = merge(&second, vec![Wanted::yes(ConditionType::Ready, Reason::Ready, "c")], 2, &at(3));
        assert_eq!(third[0].last_transition_time, at(3));
    }

    #[test]
    fn a_condition_that_was_not_observed_does_not_change_while_the_object_is_ready() {
        let read = Wanted::yes(ConditionType::Published, Reason::Verified, "read");
        let prior = merge(&[], vec![read], 1, &at(1));
        let later = |was_ready| {
            let finding = Finding::new(Reason::NotVerified, "not read");
            merge(&prior, vec![Wanted::not_observed(ConditionType::Published, was_ready, finding)], 1, &at(2))
        };
        assert_eq!(later(true), prior);
        let unknown = &later(false)[0];
        assert_eq!((unknown.status, unknown.reason), (Status::Unknown, Reason::NotVerified));
        let finding = Finding::new(Reason::NotVerified, "never read");
        let never =
            merge(&[], vec![Wanted::not_observed(ConditionType::Published, true, finding)], 1, &at(2));
        assert_eq!(never[0].status, Status::Unknown);
    }

    #[test]
    fn reconciling_and_stalled_exclude_each_other_and_are_present_only_when_true() {
        for summary in [
            Summary::ready("r"),
            Summary::Reconciling(Finding::new(Reason::Throttled, "t")),
            Summary::Stalled(Finding::new(Reason::NotGranted, "n")),
        ] {
            let conditions = summary.conditions();
            let of = |t| conditions.iter().filter(|w: &&Wanted| w.type_ == t).count();
            assert_eq!(of(ConditionType::Ready), 1);
            assert!(of(ConditionType::Reconciling) + of(ConditionType::Stalled) <= 1);
            assert!(conditions.iter().skip(1).all(|w| w.holds == Holds::True));
        }
    }

    #[test]
    fn a_list_is_written_as_kubernetes_does_and_has_only_what_this_program_writes() {
        let list = json!([
            {"type": "Ready", "status": "True", "reason": "Ready", "message": "as specified", "observedGeneration": 3,
             "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Stalled", "status": "False", "reason": "NotGranted", "message": "ä",
             "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]);
        let read = |list: &Value| serde_json::from_value::<Conditions>(list.clone()).unwrap();
        let conditions = read(&list);
        let mut written = serde_json::to_value(&conditions).unwrap();
        written[1].as_object_mut().unwrap().remove("observedGeneration");
        assert_eq!((&written, conditions.has_others()), (&list, false));
        assert_eq!(serde_json::from_str::<Conditions>(&list.to_string()).unwrap(), conditions);
        for (name, other) in [
            ("type", json!("Healthy")),
            ("reason", json!("Restored")),
            ("status", json!("Maybe")),
            ("lastTransitionTime", json!("yesterday")),
            ("message", json!(7)),
        ] {
            let mut foreign = list.clone();
            foreign[1][name] = other;
            let with_other = read(&foreign);
            // Of another version's reason the rest counts: a binding that is Stalled stays so.
            let kept = if name == "reason" { 2 } else { 1 };
            assert_eq!((with_other.len(), with_other.has_others()), (kept, true), "{name}");
            let own: Conditions = with_other.iter().cloned().collect();
            assert_ne!(with_other, own, "{name}: it is replaced");
        }
        assert!(serde_json::from_value::<Conditions>(json!("x")).is_err());
    }

    #[test]
    fn a_reason_of_another_version_is_never_written() {
        let list = json!([{"type": "Published", "status": "True", "reason": "New", "message": "",
            "lastTransitionTime": "1970-01-01T00:00:01Z"}]);
        let prior: Conditions = serde_json::from_value(list).unwrap();
        assert_eq!(prior[0].reason, Reason::Other);
        let finding = Finding::new(Reason::NotVerified, "not read");
        let wanted = Wanted::not_observed(ConditionType::Published, true, finding);
        let next = merge(&prior, vec![wanted], 1, &at(2));
        assert_eq!((next[0].status, next[0].reason), (Status::Unknown, Reason::NotVerified));
    }

    #[test]
    fn a_message_is_in_memory_once_and_not_more_than_256_are_known() {
        let mut messages = Messages::default();
        let mut share = |text: String| {
            let mut message = Arc::from(text);
            messages.share(&mut message);
            message
        };
        let first = share("same".into());
        assert!(Arc::ptr_eq(&first, &share("same".into())));
        for other in 0..Messages::MOST {
            share(other.to_string());
        }
        assert!(!Arc::ptr_eq(&first, &share("same".into())), "it begins anew");
        assert!(messages.0.len() <= Messages::MOST);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "ä".repeat(2000);
        let merged = merge(&[], vec![Wanted::yes(ConditionType::Ready, Reason::Ready, long)], 1, &at(1));
        assert_eq!(merged[0].message.len(), MESSAGE_LIMIT);
    }
}
