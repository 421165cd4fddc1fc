//! Text with a row in each line, read one line at a time in fixed memory.
//!
//! Commas, semicolons, tabs or blanks between the cells, quotes around them, any line ends. This room reads and
//! refuses; it neither orders rows nor leaves out what it cannot understand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::ops::Range;

use super::cells::{digits, separator_of, shortened, split};
use super::problem::{Problem, Wrong};
use super::row::{Column, NO_GCS, Row};
use super::time::TimeForm;
use crate::model::Steady;

/// Longest line taken.
const LONGEST_LINE: usize = 1 << 20;
/// Most names of lives remembered, and the longest of them in bytes.
const MOST_LIVES: u32 = 100_000;
const LONGEST_LIFE: usize = 128;
/// More bytes than any machine's memory: 64 TiB.
const TOO_LARGE: f64 = 7.036_874_417_766_4e13;

/// Reads the rows of one file in the order of its lines.
#[derive(Debug)]
pub(super) struct CsvRows<R> {
    source: R,
    unit: f64,
    line: Vec<u8>,
    number: u64,
    ends: bool,
    cells: Vec<Range<usize>>,
    layout: Layout,
    form: TimeForm,
    first: Option<Row>,
    lives: BTreeMap<Vec<u8>, u32>,
    life: (Vec<u8>, u32),
    cut_off: bool,
}

/// Where things are in a line.
#[derive(Debug, Clone, Default)]
struct Layout {
    separator: u8,
    count: usize,
    time: usize,
    time_name: String,
    place: BTreeMap<Column, usize>,
    resident_name: Option<String>,
}

impl Layout {
    fn name(&self, column: Column) -> &str {
        self.resident_name.as_deref().filter(|_| column == Column::Resident).unwrap_or(column.name())
    }
}

impl<R: BufRead> CsvRows<R> {
    /// Reads the header and the first row. `unit` is the size of one unit of memory in bytes.
    ///
    /// # Errors
    /// What is wrong with the file, its header or its first row.
    pub(super) fn open(source: R, unit: f64) -> Result<Self, Problem> {
        let mut rows = Self {
            source,
            unit,
            line: Vec::new(),
            number: 0,
            ends: false,
            cells: Vec::new(),
            layout: Layout::default(),
            form: TimeForm::Seconds,
            first: None,
            lives: BTreeMap::new(),
            life: (Vec::new(), 0),
            cut_off: false,
        };
        if !rows.advance()? {
            return Err(Problem::whole(Wrong::Empty));
        }
        let separator = separator_of(&rows.line);
        rows.layout.separator = separator;
        rows.split()?;
        let first = rows.cell(0)?.to_owned();
        if TimeForm::detect(&first).is_ok() {
            rows.layout = headless(separator, rows.cells.len()).map_err(|wrong| Problem::line(rows.number, wrong))?;
        } else {
            rows.layout = rows.header(separator)?;
            if !rows.advance()? {
                return Err(Problem::whole(Wrong::NoRows));
            }
            rows.split()?;
        }
        rows.check_count()?;
        let layout = &rows.layout;
        let time = rows.cell(layout.time)?;
        let (form, _) = TimeForm::detect(time).map_err(|wrong| Problem::cell(rows.number, &layout.time_name, wrong))?;
        rows.form = form;
        rows.first = Some(rows.row()?);
        Ok(rows)
    }

    /// The columns that were found.
    pub(super) fn has(&self) -> BTreeSet<Column> {
        self.layout.place.keys().copied().collect()
    }

    /// How the file writes times.
    pub(super) fn form(&self) -> TimeForm {
        self.form
    }

    /// The line that was read last.
    pub(super) fn line(&self) -> u64 {
        self.number
    }

    /// Whether the last line was cut off and left out.
    pub(super) fn cut_off(&self) -> bool {
        self.cut_off
    }

    /// Reads the next row; none at the end. A last line without a line end and with too few cells is left out: the
    /// recorder was in the middle of writing it.
    ///
    /// # Errors
    /// What is wrong with the line, and where.
    pub(super) fn next(&mut self) -> Result<Option<Row>, Problem> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if !self.advance()? {
            return Ok(None);
        }
        let split = self.split();
        if !self.ends && (split.is_err() || self.cells.len() < self.layout.count) {
            self.cut_off = true;
            return Ok(None);
        }
        split?;
        self.check_count()?;
        self.row().map(Some)
    }

    /// Reads the next line that is neither blank nor a comment; false at the end.
    fn advance(&mut self) -> Result<bool, Problem> {
        loop {
            self.line.clear();
            let mut limited = std::io::Read::take(&mut self.source, LONGEST_LINE as u64 + 1);
            let read = limited
                .read_until(b'\n', &mut self.line)
                .map_err(|error| Problem::line(self.number + 1, Wrong::Read(error.to_string())))?;
            if read == 0 {
                return Ok(false);
            }
            self.number += 1;
            if self.number == 1 {
                self.check_kind()?;
            }
            if read > LONGEST_LINE {
                return Err(Problem::line(self.number, Wrong::TooLong(LONGEST_LINE)));
            }
            self.ends = self.line.last() == Some(&b'\n');
            while self.line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                self.line.pop();
            }
            if self.line.first() != Some(&b'#') && !self.line.iter().all(u8::is_ascii_whitespace) {
                return Ok(true);
            }
        }
    }

    /// Looks at the first line for what is no CSV at all, and takes a byte order mark away.
    fn check_kind(&mut self) -> Result<(), Problem> {
        if self.line.starts_with(&[0x1f, 0x8b]) || self.line.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(Problem::whole(Wrong::Compressed));
        }
        if self.line.starts_with(&[0xff, 0xfe]) || self.line.starts_with(&[0xfe, 0xff]) {
            return Err(Problem::whole(Wrong::Utf16));
        }
        let control = |byte: &u8| *byte < b' ' && !byte.is_ascii_whitespace();
        if self.line.iter().any(control) || std::str::from_utf8(&self.line).is_err() {
            return Err(Problem::whole(Wrong::Binary));
        }
        if self.line.starts_with(&[0xef, 0xbb, 0xbf]) {
            self.line.drain(..3);
        }
        Ok(())
    }

    fn split(&mut self) -> Result<(), Problem> {
        split(&self.line, self.layout.separator, &mut self.cells).map_err(|wrong| Problem::line(self.number, wrong))
    }

    fn check_count(&self) -> Result<(), Problem> {
        let (found, expected) = (self.cells.len(), self.layout.count);
        if found == expected { Ok(()) } else { Err(Problem::line(self.number, Wrong::Columns { found, expected })) }
    }

    fn cell(&self, index: usize) -> Result<&str, Problem> {
        let bytes = self.cells.get(index).map_or(&[][..], |range| &self.line[range.clone()]);
        std::str::from_utf8(bytes).map_err(|_invalid| Problem::line(self.number, Wrong::NotUtf8))
    }

    fn header(&self, separator: u8) -> Result<Layout, Problem> {
        let mut layout = Layout { separator, count: self.cells.len(), ..Layout::default() };
        let mut time = None;
        let mut others = Vec::new();
        for index in 0..self.cells.len() {
            let name = self.cell(index)?;
            let plain = name.to_ascii_lowercase();
            if matches!(plain.as_str(), "time" | "timestamp" | "ts") {
                if time.is_some() {
                    return Err(Problem::cell(self.number, name, Wrong::Twice));
                }
                time = Some((index, name.to_owned()));
            } else if let Some(column) = Column::ALL.into_iter().find(|column| column.name() == plain) {
                if layout.place.insert(column, index).is_some() {
                    return Err(Problem::cell(self.number, name, Wrong::Twice));
                }
            } else if !name.is_empty() {
                others.push((index, name.to_owned()));
            }
        }
        (layout.time, layout.time_name) = time.ok_or_else(|| Problem::line(self.number, Wrong::NoTime))?;
        // Of two columns the second is memory, whatever it is called.
        if layout.place.is_empty() && others.len() == 1 {
            layout.place.extend(others.iter().map(|(index, _)| (Column::Resident, *index)));
            layout.resident_name = others.pop().map(|(_, name)| name);
        }
        if layout.place.keys().all(|column| matches!(column, Column::MajorGcs | Column::Life)) {
            return Err(Problem::line(self.number, Wrong::NoMemory));
        }
        Ok(layout)
    }

    fn row(&mut self) -> Result<Row, Problem> {
        let time = self.cell(self.layout.time)?;
        let at = match plain_seconds(time).filter(|_| self.form == TimeForm::Seconds) {
            Some(at) => at,
            None => self.form.read(time).map_err(|wrong| Problem::cell(self.number, &self.layout.time_name, wrong))?,
        };
        let row = Row {
            at,
            life: self.life()?,
            major_gcs: self.count(Column::MajorGcs)?,
            resident: self.memory(Column::Resident)?,
            heap_used: self.memory(Column::HeapUsed)?,
            heap_total: self.memory(Column::HeapTotal)?,
            post_gc: self.memory(Column::PostGc)?,
        };
        Ok(row)
    }

    fn memory(&self, column: Column) -> Result<f64, Problem> {
        let Some(&index) = self.layout.place.get(&column) else { return Ok(f64::NAN) };
        let wrong = |wrong| Problem::cell(self.number, self.layout.name(column), wrong);
        let bytes = self.number(index).map_err(wrong)? * self.unit;
        if bytes > TOO_LARGE {
            return Err(wrong(Wrong::TooLarge(self.cell(index)?.to_owned())));
        }
        Ok(bytes)
    }

    fn count(&self, column: Column) -> Result<u32, Problem> {
        let Some(&index) = self.layout.place.get(&column) else { return Ok(NO_GCS) };
        let wrong = |wrong| Problem::cell(self.number, self.layout.name(column), wrong);
        let number = self.number(index).map_err(wrong)?;
        if number.is_nan() {
            return Ok(NO_GCS);
        }
        if number.fract() != 0.0 || number >= f64::from(NO_GCS) {
            return Err(wrong(Wrong::NotACount(self.cell(index)?.to_owned())));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a count below 2^32")]
        Ok(number as u32)
    }

    /// A number that is not negative; `NaN` for an empty cell.
    fn number(&self, index: usize) -> Result<f64, Wrong> {
        let bytes = self.cells.get(index).map_or(&[][..], |range| &self.line[range.clone()]);
        if let Some(whole) = digits(bytes) {
            return Ok(whole);
        }
        let text = String::from_utf8_lossy(bytes);
        if ["", "nan", "null", "none", "na", "n/a", "-"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return Ok(f64::NAN);
        }
        let decimal = if self.layout.separator == b';' { text.replace(',', ".") } else { text.clone().into_owned() };
        match decimal.parse::<f64>() {
            Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
            Ok(number) if number < 0.0 => Err(Wrong::Negative(shortened(&text))),
            _ => Err(Wrong::NotANumber(shortened(&text))),
        }
    }

    fn life(&mut self) -> Result<u32, Problem> {
        let Some(&index) = self.layout.place.get(&Column::Life) else { return Ok(0) };
        let name = &self.line[self.cells[index].clone()];
        if name.is_empty() {
            return Ok(0);
        }
        if name == self.life.0 {
            return Ok(self.life.1);
        }
        let next = u32::try_from(self.lives.len()).unwrap_or(u32::MAX).saturating_add(1);
        let number = match self.lives.get(name) {
            Some(number) => *number,
            None if name.len() > LONGEST_LIFE => {
                return Err(Problem::cell(self.number, Column::Life.name(), Wrong::TooLong(LONGEST_LIFE)));
            }
            None if next > MOST_LIVES => {
                return Err(Problem::cell(self.number, Column::Life.name(), Wrong::Lives(MOST_LIVES)));
            }
            None => {
                self.lives.insert(name.to_vec(), next);
                next
            }
        };
        self.life = (name.to_vec(), number);
        Ok(number)
    }
}

fn headless(separator: u8, count: usize) -> Result<Layout, Wrong> {
    if count != 2 {
        return Err(Wrong::NoHeader(count));
    }
    let place = [(Column::Resident, 1)].into();
    Ok(Layout {
        separator,
        count,
        time_name: "column 1".to_owned(),
        resident_name: Some("column 2".to_owned()),
        place,
        ..Layout::default()
    })
}

fn plain_seconds(text: &str) -> Option<Steady> {
    let seconds = digits(text.as_bytes()).filter(|seconds| *seconds < 1e12)?;
    #[allow(clippy::cast_possible_truncation, reason = "checked to be below 10^12")]
    Some(Steady(seconds as i64 * 1000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8], unit: f64) -> Result<(Vec<Row>, bool), Problem> {
        let mut rows = CsvRows::open(text, unit)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(row);
        }
        Ok((all, rows.cut_off()))
    }

    fn figures(text: &str, unit: f64) -> Vec<(i64, f64)> {
        let (rows, _) = read(text.as_bytes(), unit).expect(text);
        rows.iter().map(|row| (row.at.0, row.resident)).collect()
    }

    #[test]
    fn the_same_rows_in_many_spellings() {
        let expected = vec![(0, 1_048_576.0), (60_500, 2_097_152.0)];
        for text in [
            "time,resident_memory_bytes\n0,1048576\n60.5,2097152\n",
            "time,resident_memory_bytes\r\n0,1048576\r\n60.5,2097152\r\n",
            "\u{feff}time;resident_memory_bytes;\n0;1048576,0;\n60.5;2097152;\n",
            "\"Time\"\t\"RESIDENT_MEMORY_BYTES\"\n\"0\"\t\"1048576\"\n60.5\t 2097152 ",
            "# written by hand\n\n0,1048576\n\n60.5,2097152",
            "0 1048576\n60.5   2097152  \n",
            "external_memory_bytes,resident_memory_bytes,time\n7,1048576,0\nwhatever,2097152,60.5\n",
            "timestamp,rss\n0,1048576\n60.5,2.097152e6\n",
        ] {
            assert_eq!(figures(text, 1.0), expected, "{text}");
        }
        assert_eq!(figures("0,1\n60.5,2\n", 1_048_576.0), expected);
        assert_eq!(figures("1970-01-01T00:00:00Z,1048576\n1970-01-01T00:01:00.5Z,2097152\n", 1.0), expected);
    }

    #[test]
    fn every_column_is_read_and_empty_cells_are_not_measured() {
        let text = "time,resident_memory_bytes,heap_used_bytes,heap_total_bytes,external_memory_bytes,\
                    post_gc_heap_used_bytes,major_gcs,life\n1,9,8,7,6,5,4,a\n2,,NaN,null,,,,\n3,9,8,7,6,5,4,b\n";
        let (rows, _) = read(text.as_bytes(), 1.0).expect("valid");
        let first = rows[0];
        assert_eq!((first.resident, first.heap_used, first.heap_total), (9.0, 8.0, 7.0));
        assert_eq!((first.post_gc, first.major_gcs, first.life), (5.0, 4, 1));
        assert!(rows[1].resident.is_nan() && rows[1].heap_used.is_nan() && rows[1].heap_total.is_nan());
        assert_eq!((rows[1].major_gcs, rows[1].life, rows[2].life), (NO_GCS, 0, 2));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let long = format!("time,rss\n0,{}\n", "1".repeat(LONGEST_LINE));
        for (text, message) in [
            ("", "there is nothing in it"),
            ("\n  \n# only this\n", "there is nothing in it"),
            ("time,rss\n", "there is a header but no row"),
            ("\u{1f}\u{8b}", ""),
            ("abc\u{0}def", "it is not text"),
            ("1,2,3\n", "line 1: no header, and 3 columns: only time and bytes can go without one"),
            ("when,rss\n1,2\n", "line 1: the header has no column \"time\""),
            (
                "time,life,x\n1,2,3\n",
                "line 1: the header names nothing to judge: \"resident_memory_bytes\", \"heap_used_bytes\", \
                 \"heap_total_bytes\" or \"post_gc_heap_used_bytes\"",
            ),
            ("time,rss,time\n1,2,3\n", "line 1: time: named twice in the header"),
            ("time,rss\n1,2\n3\n4,5\n", "line 3: 1 columns instead of 2"),
            ("time,rss\n1,2\n3,4,5\n", "line 3: 3 columns instead of 2"),
            ("time,rss\n1,abc\n", "line 2: rss: \"abc\" is not a number"),
            ("1,2\n2,-3\n", "line 2: column 2: \"-3\" is negative"),
            ("1,2\n2,inf\n", "line 2: column 2: \"inf\" is not a number"),
            ("1,2\n2,\"3\n", "line 2: a quote is not closed"),
            ("1,2\n2,\"3\"4\n", "line 2: a quote is not closed"),
            (
                "1,99999999999999999999\n",
                "line 1: column 2: \"99999999999999999999\" is more memory than any machine has: is `--unit` right?",
            ),
            (
                "time,rss\nyesterday,2\n",
                "line 2: time: \"yesterday\" is not a time: write unix seconds or RFC 3339 like 2026-01-31T12:00:00Z",
            ),
            (
                "1,2\n2026-01-01T00:00:00Z,2\n",
                "line 2: column 1: \"2026-01-01T00:00:00Z\" is not a time in unix seconds, as in the rows before",
            ),
            ("time,resident_memory_bytes,major_gcs\n1,2,1.5\n", "line 2: major_gcs: \"1.5\" is not a count"),
            (long.as_str(), "line 2: longer than 1048576 bytes"),
        ] {
            let problem = read(text.as_bytes(), 1.0).expect_err(message);
            if !message.is_empty() {
                assert_eq!(problem.to_string(), message);
            }
        }
        for (bytes, wrong) in [(&[0x1f, 0x8b, 8, 0][..], Wrong::Compressed), (&[0xff, 0xfe, b't', 0][..], Wrong::Utf16)]
        {
            assert_eq!(read(bytes, 1.0), Err(Problem::whole(wrong)));
        }
        assert_eq!(read(b"time,rss\n\xff,2\n", 1.0), Err(Problem::line(2, Wrong::NotUtf8)));
    }

    #[test]
    fn a_last_line_that_is_cut_off_is_left_out() {
        let (rows, cut_off) = read(b"time,rss\n1,2\n17", 1.0).expect("valid");
        assert_eq!((rows.len(), cut_off), (1, true));
        let (rows, cut_off) = read(b"time,rss\n1,2\n17,3", 1.0).expect("valid");
        assert_eq!((rows.len(), cut_off), (2, false));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(prop::sample::select(&b"0159.-e,;\t \"\n\r#tTZ:\xef\xbb\xbf\x00timers"[..]), 0..120)) {
            let _ = read(&text, 1.0);
        }

        #[test]
        fn numbers_are_read_as_written(values in prop::collection::vec((0_u32..2_000_000_000, 0_u64..1_000_000_000_000), 1..30)) {
            let lines: Vec<String> = values.iter().map(|(at, bytes)| format!("{at},{bytes}")).collect();
            let text = lines.join("\n");
            #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
            let expected: Vec<(i64, f64)> = values.iter().map(|(at, bytes)| (i64::from(*at) * 1000, *bytes as f64)).collect();
            prop_assert_eq!(figures(&text, 1.0), expected);
        }
    }
}
