//! Edits of a specification, computed from the schema of its CRD: for each field values of other types, absence, limits and what is
//! beyond them, unknown members; and for fields whose rules are CEL, which no schema tells, examples.

use serde_json::{Map, Value, json};

/// A number generator that gives the same numbers for the same seed (`SplitMix64`).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// One change of a field: its JSON pointer in the specification, and the new value; `None` removes it. Without a pointer the value has
/// several fields, of which those that are null are removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    pub pointer: String,
    pub value: Option<Value>,
}

impl Edit {
    /// Makes the change. Parents that are missing are made; a parent of another type makes the edit impossible, which changes nothing.
    pub fn apply(&self, spec: &mut Value) {
        if self.pointer.is_empty() {
            for (name, value) in self.value.iter().filter_map(Value::as_object).flatten() {
                let value = Some(value.clone()).filter(|value| !value.is_null());
                Self { pointer: format!("/{name}"), value }.apply(spec);
            }
            return;
        }
        let mut at = spec;
        let mut parts: Vec<&str> = self.pointer.split('/').skip(1).collect();
        let last = parts.pop().unwrap();
        for part in parts {
            at = match at {
                Value::Object(members) => {
                    members.entry(part).or_insert_with(|| json!({}));
                    &mut members[part]
                }
                Value::Array(elements) if !elements.is_empty() => &mut elements[0],
                _ => return,
            };
        }
        match (at, &self.value) {
            (Value::Object(members), Some(value)) => drop(members.insert(last.to_owned(), value.clone())),
            (Value::Object(members), None) => drop(members.remove(last)),
            (Value::Array(elements), Some(value)) if !elements.is_empty() => elements[0].clone_from(value),
            (Value::Array(elements), None) if !elements.is_empty() => drop(elements.remove(0)),
            _ => {}
        }
    }
}

/// Edits to these values.
pub fn of_examples(examples: Vec<(&str, Value)>) -> Vec<Edit> {
    examples
        .into_iter()
        .map(|(pointer, value)| Edit { pointer: pointer.to_owned(), value: Some(value) })
        .collect()
}

/// All edits of a specification with that schema.
pub fn of_schema(schema: &Value) -> Vec<Edit> {
    let mut all = Vec::new();
    members(schema, "", &mut all);
    let mut different: Vec<Edit> = Vec::new();
    for edit in all {
        if !different.contains(&edit) {
            different.push(edit);
        }
    }
    different
}

fn members(schema: &Value, pointer: &str, all: &mut Vec<Edit>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        field(schema, &format!("{pointer}/{name}"), all);
    }
    if schema["type"] == "object" && schema["additionalProperties"].is_null() {
        all.push(Edit { pointer: format!("{pointer}/unknownField"), value: Some(json!("x")) });
    }
}

fn field(schema: &Value, pointer: &str, all: &mut Vec<Edit>) {
    let values =
        [json!(null), json!("x"), json!(7), json!(true), json!([]), json!({}), json!([{}]), json!(1.5)];
    let values = values.into_iter().chain(limits(schema));
    all.extend(values.map(|value| Edit { pointer: pointer.to_owned(), value: Some(value) }));
    all.push(Edit { pointer: pointer.to_owned(), value: None });
    members(schema, pointer, all);
    if schema["items"].is_object() {
        field(&schema["items"], &format!("{pointer}/0"), all);
    }
}

/// Values at the limits that a schema sets, within and beyond them.
fn limits(schema: &Value) -> Vec<Value> {
    let limit = |keyword: &str| schema[keyword].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let around = |least: Option<usize>, most: Option<usize>| {
        let least = least.into_iter().flat_map(|least| [least.saturating_sub(1), least]);
        least.chain(most.into_iter().flat_map(|most| [most, most + 1])).collect::<Vec<usize>>()
    };
    match schema["type"].as_str().unwrap_or_default() {
        "string" => {
            let names = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let names = names.flat_map(|name| [name.to_owned(), name.to_lowercase()]);
            let lengths =
                around(limit("minLength"), limit("maxLength")).into_iter().map(|length| "a".repeat(length));
            let odd = ["", " ", "a b", "A", "ä", "a\n", "$", "*", "../a"].map(str::to_owned);
            names.chain(lengths).chain(odd).map(Value::from).collect()
        }
        "integer" => {
            let edges = ["minimum", "maximum"].map(|keyword| schema[keyword].as_f64());
            let edges = edges.into_iter().flatten().flat_map(|edge| [edge - 1.0, edge, edge + 1.0]);
            #[allow(clippy::cast_possible_truncation, reason = "limits of a schema are small whole numbers")]
            let edges = edges.map(|edge| json!(edge as i64));
            edges
                .chain([json!(i64::MIN), json!(i64::MAX), json!(u64::MAX), json!("600"), json!(1e30)])
                .collect()
        }
        "boolean" => vec![json!(true), json!(false), json!("true"), json!(0)],
        "array" => {
            let element = |n: usize| match schema["items"]["type"].as_str() {
                Some("object") => json!({"name": format!("n{n}"), "document": {}}),
                _ => json!(format!("arn:aws:iam::111122223333:policy/n{n}")),
            };
            let sizes = around(limit("minItems"), limit("maxItems")).into_iter();
            sizes
                .chain([2])
                .map(|size| (0..size).map(element).collect())
                .chain([json!([element(0), element(0)])])
                .collect()
        }
        "object" if schema["additionalProperties"].is_object() => {
            let sizes = around(None, limit("maxProperties")).into_iter();
            let map = |size: usize| {
                (0..size).map(|n| (format!("k{n}"), json!("v"))).collect::<Map<String, Value>>()
            };
            sizes.map(|size| Value::Object(map(size))).chain([json!({"k": 1}), json!({"k": null})]).collect()
        }
        _ => Vec::new(),
    }
}
