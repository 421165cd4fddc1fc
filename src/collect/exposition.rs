//! The few metrics of a Node.js app that matter here, out of the text format of Prometheus as `prom-client` writes it.
//!
//! Pure and lenient: a line that cannot be read is passed over, for the rest of the app's metrics is its own affair. It
//! refuses to keep anything but the names it knows.

use crate::model::Bytes;

/// What an app exposes of its heap, each figure absent on its own.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Exposition {
    /// V8's used heap.
    pub heap_used: Option<Bytes>,
    /// V8's committed heap.
    pub heap_total: Option<Bytes>,
    /// Memory of array buffers and other external objects.
    pub external: Option<Bytes>,
    /// Used size of the new space, its large objects included.
    pub new_space: Option<Bytes>,
    /// Used size of the old space.
    pub old_space: Option<Bytes>,
    /// Used size of the large-object space.
    pub large_object_space: Option<Bytes>,
    /// Used size of every space but the new one.
    pub outside_new_space: Option<Bytes>,
    /// Collections since the start; none where the app does not count them.
    pub collections: Option<Collections>,
}

/// How often and for how long the garbage collector ran.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Collections {
    /// Major collections.
    pub major: u64,
    /// Minor collections.
    pub minor: u64,
    /// Seconds spent in collections of every kind.
    pub seconds: f64,
}

impl Exposition {
    /// Reads a body. Nothing in it is an error; what is not there is absent.
    pub fn read(body: &[u8]) -> Self {
        let mut exposition = Self::default();
        for line in body.split(|byte| *byte == b'\n') {
            if let Ok(line) = std::str::from_utf8(line) {
                exposition.take(line.trim());
            }
        }
        exposition
    }

    /// Whether there was nothing to be read at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn take(&mut self, line: &str) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            // Before the first collection the family is declared and has no series yet: none have been made.
            if declared.split_ascii_whitespace().next() == Some("nodejs_gc_duration_seconds") {
                self.collections.get_or_insert_default();
            }
            return;
        }
        let Some(series) = Series::read(line) else { return };
        let bytes = Bytes::from_f64(series.value);
        match series.name {
            "nodejs_heap_size_used_bytes" => self.heap_used = Some(bytes),
            "nodejs_heap_size_total_bytes" => self.heap_total = Some(bytes),
            "nodejs_external_memory_bytes" => self.external = Some(bytes),
            "nodejs_heap_space_size_used_bytes" => self.space(&series, bytes),
            "nodejs_gc_duration_seconds_count" => {
                let collections = self.collections.get_or_insert_default();
                match series.label("kind") {
                    Some("major") => collections.major = collections.major.saturating_add(bytes.0),
                    Some("minor") => collections.minor = collections.minor.saturating_add(bytes.0),
                    _ => {}
                }
            }
            "nodejs_gc_duration_seconds_sum" => {
                self.collections.get_or_insert_default().seconds += series.value;
            }
            _ => {}
        }
    }

    fn space(&mut self, series: &Series<'_>, bytes: Bytes) {
        let Some(space) = series.label("space") else { return };
        let add = |sum: &mut Option<Bytes>| *sum = Some(sum.unwrap_or_default().saturating_add(bytes));
        match space.strip_suffix("_space").unwrap_or(space) {
            "new" | "new_large_object" => return add(&mut self.new_space),
            "old" => add(&mut self.old_space),
            "large_object" => add(&mut self.large_object_space),
            _ => {}
        }
        add(&mut self.outside_new_space);
    }
}

/// One line: `name{label="text",…} value`. A time after the value is left unread.
struct Series<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Series<'a> {
    /// Takes a line apart; none where it is no series or its value no amount.
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
        let (name, rest) = line.split_at(end);
        if !name.starts_with("nodejs_") {
            return None;
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            // A closing brace within a label's text can only come earlier than the last one.
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest),
        };
        let value: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(Self { name, labels, value })
    }

    /// The text of a label as it is written, escapes included: the ones looked for have none.
    fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (key, quoted) = rest.split_once("=\"")?;
            let end = closing_quote(quoted)?;
            if key.trim_matches([',', ' ']) == name {
                return Some(&quoted[..end]);
            }
            rest = &quoted[end + 1..];
        }
    }
}

/// Where a label's text ends.
fn closing_quote(quoted: &str) -> Option<usize> {
    let mut escaped = false;
    quoted.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `prom-client` 15.1 wrote for a small app under Node 20.
    const CAPTURED: &[u8] = include_bytes!("../../tests/fixtures/exposition/prom-client-15.txt");

    #[test]
    fn the_default_metrics_of_prom_client_are_read() {
        assert_eq!(
            Exposition::read(CAPTURED),
            Exposition {
                heap_used: Some(Bytes(9_739_488)),
                heap_total: Some(Bytes(44_167_168)),
                external: Some(Bytes(1_958_168)),
                new_space: Some(Bytes(131_336)),
                old_space: Some(Bytes(4_471_256)),
                large_object_space: Some(Bytes(4_902_624)),
                outside_new_space: Some(Bytes(4_471_256 + 241_296 + 4_902_624)),
                collections: Some(Collections { major: 0, minor: 1, seconds: 0.001_349_093_000_404_536_6 }),
            }
        );
    }

    #[test]
    fn odd_lines_are_read_or_passed_over() {
        let used = |bytes| Exposition { heap_used: Some(Bytes(bytes)), ..Exposition::default() };
        let none = Exposition::default();
        let major = |major| Exposition {
            collections: Some(Collections { major, ..Collections::default() }),
            ..Exposition::default()
        };
        for (line, expected) in [
            ("nodejs_heap_size_used_bytes 1e6 1795411661000", used(1_000_000)),
            ("nodejs_heap_size_used_bytes{app=\"a } b\",x=\"\\\"\"} 5\r", used(5)),
            ("nodejs_heap_size_used_bytes\t7", used(7)),
            ("nodejs_heap_size_used_bytes NaN", none),
            ("nodejs_heap_size_used_bytes -3", none),
            ("nodejs_heap_size_used_bytes +Inf", none),
            ("nodejs_heap_size_used_bytes{app=\"a\" 5", none),
            ("nodejs_heap_size_used_bytes", none),
            ("nodejs_heap_size_used_bytes_more 5", none),
            ("nodejs_gc_duration_seconds_count{app=\"kind=\\\"minor\\\"\", kind=\"major\"} 3", major(3)),
            ("nodejs_gc_duration_seconds_count{kind=\"incremental\"} 3", major(0)),
            ("nodejs_gc_duration_seconds_count{kind=\"major\"} 1e300", major(9_000_000_000_000_000_000)),
            ("# TYPE nodejs_gc_duration_seconds histogram", major(0)),
            ("# TYPE nodejs_gc_duration_seconds_else histogram", none),
            ("", none),
        ] {
            assert_eq!(Exposition::read(line.as_bytes()), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            Exposition::read(&body);
        }

        #[test]
        fn nothing_alike_makes_it_panic(
            body in "(# TYPE |nodejs_(heap_(space_)?size_used_bytes|gc_duration_seconds_(count|sum)))?[{}a-d\"\\\\=, \n0-9é.]{0,40}"
        ) {
            Exposition::read(body.as_bytes());
        }

        #[test]
        fn lines_around_it_do_not_matter(before in "[^\n]{0,30}", after in "[^\n]{0,30}", used in 0_u64..1 << 50) {
            prop_assume!(!before.trim().starts_with("nodejs_") && !after.trim().starts_with("nodejs_"));
            let body = format!("{before}\nnodejs_heap_size_used_bytes {used}\n{after}");
            prop_assert_eq!(Exposition::read(body.as_bytes()).heap_used, Some(Bytes(used)));
        }
    }
}
