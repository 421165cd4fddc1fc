//! The report as JUnit XML: one test case for each process. A leak is a failure, a run that is too short an error. Pure.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::report::{ProcessReport, Report};
use crate::trend::ShortAnswer;

/// Writes the document.
pub(super) fn document(report: &Report) -> anyhow::Result<Vec<u8>> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let whole = [ProcessReport {
        pid: None,
        name: report.command.clone(),
        answer: report.answer,
        signal: crate::model::Signal::Resident,
        reason: report.reason.clone(),
        signals: Vec::new(),
        evidence: None,
    }];
    let cases = if report.processes.is_empty() { &whole[..] } else { &report.processes };
    let count = |answer| cases.iter().filter(|case| case.answer == answer).count().to_string();
    let (failures, errors) = (count(ShortAnswer::Leak), count(ShortAnswer::TooShort));
    let seconds = format!("{:.3}", report.duration_seconds);
    let tests = cases.len().to_string();
    let totals = [("tests", tests.as_str()), ("failures", &failures), ("errors", &errors), ("time", &seconds)];
    writer.create_element("testsuites").with_attributes(totals).write_inner_content(|writer| {
        writer
            .create_element("testsuite")
            .with_attribute(("name", "leakslope watch"))
            .with_attributes(totals)
            .write_inner_content(|writer| {
                for case in cases {
                    write_case(writer, case, &allowed(&report.command), &seconds)?;
                }
                Ok(())
            })?;
        Ok(())
    })?;
    let mut text = writer.into_inner();
    text.push(b'\n');
    Ok(text)
}

fn write_case(writer: &mut Writer<Vec<u8>>, case: &ProcessReport, class: &str, seconds: &str) -> std::io::Result<()> {
    let title = allowed(&case.title());
    let reason = allowed(&case.reason);
    let element = writer.create_element("testcase").with_attributes([
        ("name", title.as_str()),
        ("classname", class),
        ("time", seconds),
    ]);
    let (name, kind) = match case.answer {
        ShortAnswer::Leak => ("failure", "leak"),
        ShortAnswer::TooShort => ("error", "too_short"),
        ShortAnswer::NoLeak => {
            return element
                .write_inner_content(|writer| {
                    writer.create_element("system-out").write_text_content(BytesText::new(&reason))?;
                    Ok(())
                })
                .map(drop);
        }
    };
    let mut details = reason.clone();
    if let Some(evidence) = &case.evidence {
        details.push_str(&allowed(&format!("\n{}", evidence.path)));
        for line in evidence.lines() {
            details.push_str(&allowed(&format!("\n{line}")));
        }
    }
    element
        .write_inner_content(|writer| {
            writer
                .create_element(name)
                .with_attributes([("message", reason.as_str()), ("type", kind)])
                .write_text_content(BytesText::new(&details))?;
            Ok(())
        })
        .map(drop)
}

/// Text without the characters that XML 1.0 forbids, escaped or not.
fn allowed(text: &str) -> String {
    let fits = |c: char| matches!(c, '\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'..);
    text.chars().map(|c| if fits(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Signal;

    #[test]
    fn any_text_makes_a_document_that_reads_back() {
        let reason = "grew <b>&\"fast\"' ]]> \u{1b}[31m\u{0}\nnext";
        let case = |answer| ProcessReport {
            pid: Some(7),
            name: "a<b>&\"c\"\u{1}".to_owned(),
            answer,
            signal: Signal::Heap,
            reason: reason.to_owned(),
            signals: Vec::new(),
            evidence: None,
        };
        let report = Report {
            command: "node 'x' > \"y\" & z".to_owned(),
            answer: ShortAnswer::Leak,
            reason: reason.to_owned(),
            duration_seconds: 12.5,
            warm_up_seconds: 3.0,
            interval_seconds: 1.0,
            max_slope_bytes_per_second: None,
            load: None,
            processes: vec![case(ShortAnswer::Leak), case(ShortAnswer::NoLeak), case(ShortAnswer::TooShort)],
            notes: Vec::new(),
        };
        let text = String::from_utf8(document(&report).unwrap()).unwrap();
        insta::assert_snapshot!(text);
        let mut reader = quick_xml::Reader::from_str(&text);
        let mut cases = 0;
        loop {
            let event = reader.read_event().unwrap();
            if let Event::Start(element) = &event
                && element.name().as_ref() == b"testcase"
            {
                let name = element.try_get_attribute("name").unwrap().unwrap();
                let name = quick_xml::escape::unescape(std::str::from_utf8(&name.value).unwrap()).unwrap().into_owned();
                assert_eq!(name, "a<b>&\"c\"\u{fffd} (pid 7)");
                cases += 1;
            } else if event == Event::Eof {
                break;
            }
        }
        assert_eq!(cases, 3);
    }
}
