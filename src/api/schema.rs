//! The few forms of JSON Schema that the wire types need. Every property is always present; what there is none of is
//! null.

use serde_json::{Value, json};

/// An object with exactly these properties, all of them always there.
pub(super) fn object(properties: &Value) -> Value {
    let names: Vec<&String> = properties
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys())
        .collect();
    let names = json!(names);
    json!({ "type": "object", "required": names, "properties": properties, "additionalProperties": false })
}

/// A page of a list of `item`.
pub(super) fn page(item: &str) -> Value {
    object(&json!({ "items": array(&reference(item)), "next": nullable(&string()) }))
}

/// A list.
pub(super) fn array(item: &Value) -> Value {
    json!({ "type": "array", "items": item })
}

/// Any text.
pub(super) fn string() -> Value {
    json!({ "type": "string" })
}

/// A list of texts.
pub(super) fn strings() -> Value {
    array(&string())
}

/// One of these words.
pub(super) fn word(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// A point in time (RFC 3339).
pub(super) fn timestamp() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// A whole number, not negative.
pub(super) fn integer() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// Yes or no.
pub(super) fn boolean() -> Value {
    json!({ "type": "boolean" })
}

/// That, or null.
pub(super) fn nullable(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// A schema of the document, by name.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
