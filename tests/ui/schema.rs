//! The part of JSON Schema that `docs/openapi.yaml` uses, and no more: a keyword it does not know is an error, so that
//! nothing in the file goes unchecked. Objects are held to their exact fields.

use serde_json::Value;

/// Keywords that say nothing about a value.
const SILENT: [&str; 2] = ["description", "example"];

/// The document.
pub(crate) struct Document(pub(crate) Value);

impl Document {
    /// Reads the file in the repository.
    pub(crate) fn read() -> Self {
        let text = include_str!("../../docs/openapi.yaml");
        Self(serde_saphyr::from_str(text).expect("docs/openapi.yaml is YAML"))
    }

    /// Returns every way in which a value is not what `#/components/schemas/{name}` says.
    pub(crate) fn faults(&self, name: &str, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(&self.0["components"]["schemas"][name], value, name, &mut faults);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        let Some(keywords) = schema.as_object() else {
            faults.push(format!("{place}: there is no schema"));
            return;
        };
        for (keyword, rule) in keywords {
            match keyword.as_str() {
                "$ref" => match self.resolve(rule) {
                    Some(target) => self.check(target, value, place, faults),
                    None => faults.push(format!("{place}: {rule} leads nowhere")),
                },
                "type" => {
                    let allowed = rule.as_array().map_or_else(|| vec![rule], |list| list.iter().collect());
                    if !allowed.iter().any(|kind| is_of_type(value, kind.as_str().unwrap_or_default())) {
                        faults.push(format!("{place}: {value} is not of type {rule}"));
                    }
                }
                "enum" if !rule.as_array().is_some_and(|list| list.contains(value)) => {
                    faults.push(format!("{place}: {value} is none of {rule}"));
                }
                "anyOf" => {
                    let fits = |option: &Value| {
                        let mut own = Vec::new();
                        self.check(option, value, place, &mut own);
                        own
                    };
                    let tried: Vec<Vec<String>> = rule.as_array().into_iter().flatten().map(fits).collect();
                    if tried.iter().all(|own| !own.is_empty()) {
                        faults.extend(tried.into_iter().next().unwrap_or_default());
                    }
                }
                "minimum" | "exclusiveMinimum" => {
                    let (least, strict) = (rule.as_f64().unwrap_or(f64::NAN), keyword != "minimum");
                    if value.as_f64().is_some_and(|number| number < least || (strict && number <= least)) {
                        faults.push(format!("{place}: {value} is below {rule}"));
                    }
                }
                "maxItems" if value.as_array().is_some_and(|list| Some(list.len() as u64) > rule.as_u64()) => {
                    faults.push(format!("{place}: more than {rule} items"));
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{place}[{index}]"), faults);
                    }
                }
                "required" => {
                    for field in rule.as_array().into_iter().flatten().filter_map(Value::as_str) {
                        if value.is_object() && value.get(field).is_none() {
                            faults.push(format!("{place}: {field} is missing"));
                        }
                    }
                }
                "properties" => {
                    for (field, inner) in rule.as_object().into_iter().flatten() {
                        if let Some(held) = value.get(field) {
                            self.check(inner, held, &format!("{place}.{field}"), faults);
                        }
                    }
                }
                "additionalProperties" => {
                    let known = |field: &str| keywords.get("properties").is_some_and(|held| held.get(field).is_some());
                    for (field, held) in value.as_object().into_iter().flatten().filter(|(field, _)| !known(field)) {
                        if rule == &Value::Bool(false) {
                            faults.push(format!("{place}: {field} is not documented"));
                        } else {
                            self.check(rule, held, &format!("{place}.{field}"), faults);
                        }
                    }
                }
                "enum" | "maxItems" => {}
                other if SILENT.contains(&other) => {}
                other => faults.push(format!("{place}: the keyword {other} is not known to this test")),
            }
        }
    }

    pub(crate) fn resolve(&self, pointer: &Value) -> Option<&Value> {
        self.0.pointer(pointer.as_str()?.strip_prefix('#')?)
    }
}

fn is_of_type(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
