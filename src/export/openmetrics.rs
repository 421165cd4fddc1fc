//! OpenMetrics out of the text format, for whoever asks for it: families by their own name, units, and since when a counter
//! counts.
//!
//! The series are the same in both; a scrape loses nothing by either.

use std::collections::HashMap;

use super::catalogue::{Descriptor, Kind, catalogue};

/// The media type.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counters that begin at zero with a start that the body tells, and the family that tells it.
const BEGIN: [(&str, &str); 6] = [
    ("pm2_process_cpu_seconds_total", "pm2_process_start_time_seconds"),
    ("pm2_process_gc_seconds_total", "pm2_process_start_time_seconds"),
    ("process_cpu_seconds_total", "process_start_time_seconds"),
    ("leakslope_collections_total", "process_start_time_seconds"),
    ("leakslope_http_requests_total", "process_start_time_seconds"),
    ("pm2_process_deaths_total", "process_start_time_seconds"),
];

/// Units that a family's name may end in, the longest first.
const UNITS: [&str; 3] = ["bytes_per_second", "seconds", "bytes"];

/// Whether a reader would rather have OpenMetrics than the text format, by its `Accept`.
pub fn is_preferred(accept: &str) -> bool {
    let best = |wanted: &str| {
        let qualities = accept.split(',').filter_map(|choice| {
            let mut parts = choice.split(';').map(str::trim);
            let named = parts.next()?.eq_ignore_ascii_case(wanted);
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok()).unwrap_or(1.0);
            named.then_some(quality)
        });
        qualities.fold(0.0, f64::max)
    };
    let open = best("application/openmetrics-text");
    open > 0.0 && open >= best("text/plain")
}

/// Writes bodies of the text format, which have no family in common, as one of OpenMetrics.
pub fn write(parts: &[&str]) -> String {
    let starts = starts(parts);
    let mut body = String::with_capacity(parts.iter().map(|part| part.len() + part.len() / 4).sum());
    let mut begin: Option<(&str, &str)> = None;
    for line in parts.iter().flat_map(|part| part.lines()) {
        if let Some(head) = line.strip_prefix("# HELP ") {
            let (name, help) = head.split_once(' ').unwrap_or((head, ""));
            begin = BEGIN.into_iter().find(|(counter, _)| *counter == name);
            write_head(&mut body, name, help);
        } else if !line.starts_with('#') {
            body.extend([line, "\n"]);
            if let Some((counter, start)) = begin {
                write_created(&mut body, line, counter, start, &starts);
            }
        }
    }
    body.push_str("# EOF\n");
    body
}

fn write_head(body: &mut String, name: &str, help: &str) {
    let is_counter =
        catalogue().iter().any(|Descriptor { name: known, kind, .. }| *known == name && *kind == Kind::Counter);
    let (family, kind) = match name.strip_suffix("_total") {
        Some(family) if is_counter => (family, "counter"),
        _ => (name, "gauge"),
    };
    body.extend(["# TYPE ", family, " ", kind, "\n"]);
    if let Some(unit) = UNITS.into_iter().find(|unit| family.ends_with(&format!("_{unit}"))) {
        body.extend(["# UNIT ", family, " ", unit, "\n"]);
    }
    body.extend(["# HELP ", family, " ", &help.replace('"', "\\\""), "\n"]);
}

/// What tells a start: its family with the labels, and the value.
fn starts<'a>(parts: &[&'a str]) -> HashMap<&'a str, &'a str> {
    let lines = parts.iter().flat_map(|part| part.lines());
    let tells = |line: &&str| {
        line.starts_with("pm2_process_start_time_seconds") || line.starts_with("process_start_time_seconds")
    };
    lines.filter(tells).filter_map(|line| line.rsplit_once(' ')).collect()
}

fn write_created(body: &mut String, line: &str, counter: &str, start: &str, starts: &HashMap<&str, &str>) {
    let Some((series, _)) = line.rsplit_once(' ') else { return };
    let labels = series.strip_prefix(counter).unwrap_or_default();
    let own = starts.get(format!("{start}{labels}").as_str());
    // The sidecar's own start has no labels.
    if let Some(at) = own.or_else(|| starts.get(start)) {
        body.extend([counter.trim_end_matches("_total"), "_created", labels, " ", at, "\n"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_prefers_it_is_read_from_accept() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", false),
            ("text/plain, application/openmetrics-text;q=0.5", false),
            ("application/openmetrics-text;q=0", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(is_preferred(accept), expected, "{accept}");
        }
    }

    #[test]
    fn a_counter_has_its_start_and_a_family_its_unit() {
        let text = "# HELP pm2_process_cpu_seconds_total CPU \"time\".\n# TYPE pm2_process_cpu_seconds_total counter\n\
            pm2_process_cpu_seconds_total{app=\"a b\"} 2\n# HELP pm2_process_start_time_seconds Start.\n\
            # TYPE pm2_process_start_time_seconds gauge\npm2_process_start_time_seconds{app=\"a b\"} 17\n";
        let own = "# HELP pm2_up Up.\n# TYPE pm2_up gauge\npm2_up 1\n";
        let expected = "# TYPE pm2_process_cpu_seconds counter\n# UNIT pm2_process_cpu_seconds seconds\n\
            # HELP pm2_process_cpu_seconds CPU \\\"time\\\".\npm2_process_cpu_seconds_total{app=\"a b\"} 2\n\
            pm2_process_cpu_seconds_created{app=\"a b\"} 17\n# TYPE pm2_process_start_time_seconds gauge\n\
            # UNIT pm2_process_start_time_seconds seconds\n# HELP pm2_process_start_time_seconds Start.\n\
            pm2_process_start_time_seconds{app=\"a b\"} 17\n# TYPE pm2_up gauge\n# HELP pm2_up Up.\npm2_up 1\n# EOF\n";
        assert_eq!(write(&[text, own]), expected);
    }
}
