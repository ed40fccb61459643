//! Decoding that leaves out what it cannot decode. A user's object must not become invisible by one bad value: what it no longer may have
//! could not be taken from it, and its deletion would never end.

use serde::de::Error;
use serde_json::{Map, Value};

/// Decodes an object. If that fails, its members and those of its objects are added one after the other, and those that cannot be
/// decoded are left out. Returns their names, too.
///
/// # Errors
/// If the value is no object, or a `required` member is missing or cannot be decoded.
pub fn members<T, E: Error>(
    value: &Value,
    required: &[&str],
    decode: impl Fn(&Value) -> Result<T, serde_json::Error>,
) -> Result<(T, Vec<String>), E> {
    let whole = match decode(value) {
        Ok(whole) => return Ok((whole, Vec::new())),
        Err(error) => E::custom(error),
    };
    let Value::Object(members) = value else { return Err(whole) };
    let (first, others): (Map<_, _>, Map<_, _>) =
        members.clone().into_iter().partition(|(name, _)| required.contains(&name.as_str()));
    let (mut kept, mut left_out) = (Value::Object(first), Vec::new());
    for (name, member) in others {
        let inner = member.as_object().cloned();
        kept[&name] = member;
        if decode(&kept).is_ok() {
            continue;
        }
        kept[&name] = Value::Object(Map::new());
        for (inner_name, member) in inner.into_iter().flatten() {
            kept[&name][&inner_name] = member;
            if decode(&kept).is_err() {
                remove(&mut kept[&name], &inner_name);
                left_out.push(format!("{name}.{inner_name}"));
            }
        }
        if !value[&name].is_object() || decode(&kept).is_err() {
            remove(&mut kept, &name);
            left_out.push(name);
        }
    }
    Ok((decode(&kept).map_err(E::custom)?, left_out))
}

fn remove(object: &mut Value, name: &str) {
    object.as_object_mut().map(|members| members.remove(name));
}
