//! What a file is, from its first bytes: heap files are told from what is easily taken for one.

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A heap snapshot.
    Snapshot,
    /// A sampling heap profile.
    HeapProfile,
    /// A CPU profile.
    CpuProfile,
    /// A diagnostic report of Node.
    Report,
    /// A trace of Chrome or Node (`traceEvents`).
    Trace,
    /// A source map.
    SourceMap,
    /// A web page or other markup.
    Markup,
    /// Compressed by gzip.
    Gzip,
    /// Compressed otherwise, or an archive.
    Archive,
    /// The profile format of pprof, uncompressed or other binary data.
    Binary,
    /// Nothing at all.
    Empty,
    /// Some text that is none of these.
    Unknown,
}

/// The bytes of a file's start that [`kind`] looks at.
pub const LOOK: usize = 16 << 10;

/// Tells what a file is that starts with these bytes.
pub fn kind(start: &[u8]) -> FileKind {
    let start = &start[..start.len().min(LOOK)];
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let has = |key: &str| text.windows(key.len()).any(|part| part == key.as_bytes());
    let magic = |bytes: &[u8]| start.starts_with(bytes);
    if magic(&[0x1f, 0x8b]) {
        return FileKind::Gzip;
    }
    if magic(b"PK\x03\x04") || magic(&[0x28, 0xb5, 0x2f, 0xfd]) || magic(b"BZh") || magic(&[0xfd, b'7', b'z']) {
        return FileKind::Archive;
    }
    match text.first() {
        None => FileKind::Empty,
        Some(b'<') => FileKind::Markup,
        Some(b'{' | b'[') if has("\"traceEvents\"") => FileKind::Trace,
        Some(b'{') if has("\"node_fields\"") || has("\"snapshot\"") => FileKind::Snapshot,
        Some(b'{') if ["\"hitCount\"", "\"callUID\"", "\"timeDeltas\"", "\"startTime\""].into_iter().any(has) => {
            FileKind::CpuProfile
        }
        Some(b'{') if has("\"selfSize\"") => FileKind::HeapProfile,
        Some(b'{') if has("\"javascriptHeap\"") || has("\"dumpEventTime\"") => FileKind::Report,
        Some(b'{') if has("\"mappings\"") && has("\"sources\"") => FileKind::SourceMap,
        Some(_) if text.iter().any(|&byte| byte < b' ' && !byte.is_ascii_whitespace()) => FileKind::Binary,
        Some(_) => FileKind::Unknown,
    }
}

impl FileKind {
    /// Says what the file is, and what reads it, where that is not the reader of `wanted`; nothing where the reader had
    /// better say itself what is wrong.
    pub fn refusal(self, wanted: Self) -> Option<&'static str> {
        (self != wanted).then_some(())?;
        match self {
            Self::Snapshot => Some("this is a heap snapshot; `leakslope heap summary FILE` reads it"),
            Self::HeapProfile => {
                Some("this is a sampling heap profile; `leakslope heap profile-summary FILE` reads it")
            }
            Self::CpuProfile => Some(
                "this is a CPU profile, which says nothing about memory; open it with Chrome DevTools (Performance)",
            ),
            Self::Report => {
                Some("this is a diagnostic report of Node, not a heap file; read it with `jq .javascriptHeap FILE`")
            }
            Self::Trace => {
                Some("this is a trace, not a heap file; open it with Chrome DevTools (Performance) or Perfetto")
            }
            Self::SourceMap => Some("this is a source map, not a heap file; it is read by itself beside its script"),
            Self::Markup => {
                Some("this is a web page or other markup, not a heap file; was it downloaded in its place?")
            }
            Self::Archive => Some("this is an archive or compressed by something else than gzip; unpack it first"),
            Self::Binary => {
                Some("this is binary data, not a heap file; `go tool pprof FILE` reads it if it is a pprof profile")
            }
            Self::Empty => Some("the file is empty"),
            Self::Gzip | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_its_start() {
        for (start, expected) in [
            (&b"{\"snapshot\":{\"meta\":{\"node_fields\":["[..], FileKind::Snapshot),
            (b"{\"head\":{\"callFrame\":{\"functionName\":\"(root)\"},\"selfSize\":0", FileKind::HeapProfile),
            (b"{\"typeId\":\"CPU\",\"head\":{\"functionName\":\"(root)\",\"hitCount\":0", FileKind::CpuProfile),
            (b"{\"nodes\":[{\"id\":1,\"callFrame\":{},\"hitCount\":0}]", FileKind::CpuProfile),
            (b"\n{ \"header\": { \"dumpEventTime\": \"x\"", FileKind::Report),
            (b"{\"traceEvents\":[", FileKind::Trace),
            (b"{\"version\":3,\"sources\":[],\"mappings\":\"\"}", FileKind::SourceMap),
            (b"<!doctype html>", FileKind::Markup),
            (&[0x1f, 0x8b, 8, 0], FileKind::Gzip),
            (b"PK\x03\x04", FileKind::Archive),
            (&[0x0a, 0x04, 0x08, 0x01], FileKind::Binary),
            (b" \n", FileKind::Empty),
            (b"hello", FileKind::Unknown),
            (b"{\"other\":1}", FileKind::Unknown),
        ] {
            assert_eq!(kind(start), expected, "{}", String::from_utf8_lossy(start));
        }
        assert_eq!(FileKind::Snapshot.refusal(FileKind::Snapshot), None);
        assert!(FileKind::CpuProfile.refusal(FileKind::Snapshot).is_some_and(|text| text.contains("CPU profile")));
    }
}
