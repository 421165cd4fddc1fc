//! PromQL gates: an instant query to Prometheus, and whether its answer opens the gate.
//!
//! A gate opens only on a clear yes: at least one sample that is a number, or a scalar that is a number other than zero.
//! Errors, warnings (an answer may then be partial), other types and anything unreadable keep it closed.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::http::Ask;
use crate::policy::Endpoint;

use crate::model::plain;

/// The longest answer that is read: a gate's expression is expected to return a handful of samples.
const LARGEST_ANSWER: usize = 4 << 20;

#[derive(Deserialize)]
struct Answer<'a> {
    status: &'a str,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<IgnoredAny>,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "resultType")]
    kind: &'a str,
    #[serde(borrow)]
    result: &'a serde_json::value::RawValue,
}

#[derive(Deserialize)]
struct Sample {
    #[serde(default)]
    value: Option<(f64, String)>,
    #[serde(default)]
    histogram: Option<IgnoredAny>,
}

/// Builds the form that `POST /api/v1/query` takes.
pub fn encode_query(expression: &str, deadline: Duration) -> Vec<u8> {
    let mut form = b"query=".to_vec();
    for byte in expression.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(byte);
        } else {
            form.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    form.extend_from_slice(format!("&timeout={}ms", deadline.as_millis()).as_bytes());
    form
}

/// Reads an instant query's answer: whether the expression returns anything.
pub fn read_instant(body: &[u8]) -> Result<bool, String> {
    let unreadable = |error: serde_json::Error| format!("unreadable: {error}");
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(unreadable)?;
    if answer.status != "success" {
        return Err(format!("it answered with an error: {}", plain(&answer.error.unwrap_or_default(), 200)));
    }
    if !answer.warnings.is_empty() {
        return Err("it answered with warnings, so the answer may be partial".to_owned());
    }
    let data = answer.data.ok_or_else(|| "it answered without data".to_owned())?;
    let number = |text: &str| text.parse::<f64>().ok().filter(|value| !value.is_nan());
    match data.kind {
        "vector" => {
            let samples: Vec<Sample> = serde_json::from_str(data.result.get()).map_err(unreadable)?;
            let is_one = |sample: &Sample| {
                sample.histogram.is_some() || sample.value.as_ref().is_some_and(|(_, text)| number(text).is_some())
            };
            Ok(samples.iter().any(is_one))
        }
        "scalar" => {
            let (_, text): (f64, String) = serde_json::from_str(data.result.get()).map_err(unreadable)?;
            Ok(number(&text).is_some_and(|value| value != 0.0))
        }
        other => Err(format!("it answered with a {}", other.chars().take(20).collect::<String>())),
    }
}

/// Asks Prometheus for every expression in turn.
pub(super) async fn ask(endpoint: &Endpoint, expressions: &[String], deadline: Duration) -> Result<Vec<bool>, String> {
    let mut answers = Vec::with_capacity(expressions.len());
    for expression in expressions {
        let body = encode_query(expression, deadline);
        let ask = Ask {
            endpoint,
            path: "/api/v1/query",
            body: Some(("application/x-www-form-urlencoded", body)),
            headers: &[],
            deadline,
            limit: LARGEST_ANSWER,
        };
        let reply = ask.send().await.map_err(|error| error.to_string())?;
        answers.push(read_instant(&reply.body).map_err(|why| format!("status {}: {why}", reply.status))?);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn success(kind: &str, result: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
    }

    #[test]
    fn only_a_clear_yes_opens() {
        let sample = |value: &str| format!(r#"[{{"metric":{{"a":"b"}},"value":[1741608000.1,"{value}"]}}]"#);
        for (body, expected) in [
            (success("vector", &sample("1")), Ok(true)),
            (success("vector", &sample("0")), Ok(true)),
            (success("vector", &sample("+Inf")), Ok(true)),
            (success("vector", &sample("NaN")), Ok(false)),
            (success("vector", "[]"), Ok(false)),
            (success("scalar", r#"[1741608000.1,"1"]"#), Ok(true)),
            (success("scalar", r#"[1741608000.1,"0"]"#), Ok(false)),
            (success("scalar", r#"[1741608000.1,"NaN"]"#), Ok(false)),
            (success("string", r#"[1741608000.1,"yes"]"#), Err("a string")),
            (success("matrix", "[]"), Err("a matrix")),
            (success("vector", "[{}]"), Ok(false)),
            (
                r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#.to_owned(),
                Err("query timed out"),
            ),
            (
                success("vector", &sample("1")).replace("\"data\"", "\"warnings\":[\"one store is down\"],\"data\""),
                Err("warnings"),
            ),
            (r#"{"status":"success"}"#.to_owned(), Err("without data")),
            ("<html>".to_owned(), Err("unreadable")),
        ] {
            match (read_instant(body.as_bytes()), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{body}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{found}: {body}"),
                (found, _) => panic!("{found:?}: {body}"),
            }
        }
    }

    #[test]
    fn an_expression_cannot_leave_its_field() {
        let form = encode_query("up{a=\"b&time=0\"} + 1", Duration::from_secs(10));
        assert_eq!(form, b"query=up%7Ba%3D%22b%26time%3D0%22%7D%20%2B%201&timeout=10000ms");
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_instant(&bytes);
        }
    }
}
