//! The page: its files, built into the binary, and the shapes of the API that only the page's views need.
//!
//! Everything the browser loads is here; nothing comes from elsewhere and [`CONTENT_SECURITY_POLICY`] holds the browser to
//! that. Pure. This room refuses to open sockets (that is `http`'s) and to know where views get their facts from.

mod compare;
mod deaths;
mod evidence;
mod restarts;
mod views;

pub use compare::{Choice, UnknownVersion};
pub use deaths::{DeathView, DeathsView};
pub use restarts::{Said, plan_of, plan_view};
pub use views::{
    ActingView, AppPolicyView, AuditView, BreakerView, CompareView, ComparisonView, EvidenceItemView,
    EvidenceTakenView, EvidenceView, FrameView, GateView, PreviewTargetView, PreviewView, RequestView, RestartsView,
    TakenView, TargetView, VersionView,
};

/// What a browser may do with the page: run and show what this server sends, talk to this server, nothing else. No
/// script may make markup out of text.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// The headers that every file of the page is sent with, beside its own type and tag.
pub const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-cache"),
];

/// One file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

impl Asset {
    /// The tag to send as `ETag` and to compare `If-None-Match` with.
    pub fn etag(&self) -> String {
        etag(self.body)
    }
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! assets {
    ($($path:literal $content_type:expr, $file:literal;)+) => {
        /// Every path of the page.
        pub const PATHS: &[&str] = &[$($path),+];

        /// Returns the file at a path; none where the page has no such path.
        pub fn asset(path: &str) -> Option<Asset> {
            let (content_type, body): (_, &[u8]) = match path {
                $($path => ($content_type, include_bytes!(concat!("assets/", $file))),)+
                _ => return None,
            };
            Some(Asset { content_type, body })
        }
    };
}

assets! {
    "/" HTML, "index.html";
    "/favicon.ico" "image/svg+xml", "icon.svg";
    "/static/icon.svg" "image/svg+xml", "icon.svg";
    "/static/style.css" STYLE, "style.css";
    "/static/parts.css" STYLE, "parts.css";
    "/static/app.js" SCRIPT, "app.js";
    "/static/api.js" SCRIPT, "api.js";
    "/static/chart.js" SCRIPT, "chart.js";
    "/static/dialog.js" SCRIPT, "dialog.js";
    "/static/doctor.js" SCRIPT, "doctor.js";
    "/static/dom.js" SCRIPT, "dom.js";
    "/static/flame.js" SCRIPT, "flame.js";
    "/static/format.js" SCRIPT, "format.js";
    "/static/overview.js" SCRIPT, "overview.js";
    "/static/picture.js" SCRIPT, "picture.js";
    "/static/process.js" SCRIPT, "process.js";
    "/static/restarts.js" SCRIPT, "restarts.js";
    "/static/verdict.js" SCRIPT, "verdict.js";
    "/static/uplot.js" SCRIPT, "uplot.js";
    "/static/uplot.css" STYLE, "uplot.css";
    "/static/uplot.LICENSE.txt" "text/plain; charset=utf-8", "uplot.LICENSE.txt";
}

/// Makes a strong entity tag of a body: 64 bits of FNV-1a and its length. Good against change, not against malice.
pub fn etag(body: &[u8]) -> String {
    let hash = body
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("\"{hash:016x}-{:x}\"", body.len())
}

/// Whether an `If-None-Match` header names the tag, so that `304 Not Modified` answers it.
pub fn not_modified(if_none_match: &str, etag: &str) -> bool {
    if_none_match.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == "*" || tag == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_page_is_small() {
        let total: usize = PATHS
            .iter()
            .filter(|path| **path != "/favicon.ico")
            .filter_map(|path| asset(path))
            .map(|file| file.body.len())
            .sum();
        assert!(total < 200_000, "{total}");
    }

    #[test]
    fn the_document_loads_only_what_is_here_and_holds_no_script_or_style_of_its_own() {
        let document = std::str::from_utf8(asset("/").unwrap().body).unwrap();
        let mut loaded = 0;
        for part in document.split(['"', '\'']).filter(|part| part.starts_with("static/")) {
            assert!(asset(&format!("/{part}")).is_some(), "{part}");
            loaded += 1;
        }
        assert!(loaded >= 4, "{loaded}");
        for forbidden in ["style=", "<style", "onclick", "onload", "javascript:", "http://", "https://"] {
            assert!(!document.contains(forbidden), "{forbidden}");
        }
        for script in document.split("<script").skip(1) {
            assert!(script.contains("src=") && script.contains("></script>"), "{script}");
        }
    }

    #[test]
    fn every_module_imports_only_what_is_here_and_writes_no_markup() {
        let own = PATHS
            .iter()
            .filter_map(|path| Some((path, asset(path)?)))
            .filter(|(path, file)| file.content_type == SCRIPT && !path.contains("uplot"));
        for (path, file) in own {
            let text = std::str::from_utf8(file.body).unwrap();
            for import in text.lines().filter_map(|line| line.split_once(" from \"./")) {
                let name = import.1.split('"').next().unwrap();
                assert!(asset(&format!("/static/{name}")).is_some(), "{path} imports {name}");
            }
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!text.contains(forbidden), "{path} holds {forbidden}");
            }
        }
    }

    #[test]
    fn no_address_begins_at_the_root_so_that_a_proxy_may_serve_the_page_below_a_path() {
        for path in PATHS.iter().filter(|path| !path.contains("uplot")) {
            let text = String::from_utf8_lossy(asset(path).unwrap().body);
            for quote in ['"', '\'', '`'] {
                for rooted in ["/api/", "/static/", "/metrics", "/favicon"] {
                    assert!(!text.contains(&format!("{quote}{rooted}")), "{path} asks for {rooted}");
                }
            }
        }
    }

    #[test]
    fn no_other_path_is_answered() {
        for path in ["", "/index.html", "/static/", "/static/../Cargo.toml", "/static/none.js", "//"] {
            assert_eq!(asset(path), None, "{path}");
        }
    }

    #[test]
    fn tags_change_with_the_body_and_are_found_in_lists() {
        let tag = etag(b"one");
        assert_ne!(tag, etag(b"two"));
        for (header, same) in [
            (tag.clone(), true),
            (format!("W/{tag}"), true),
            (format!("\"x\", {tag}"), true),
            ("*".to_owned(), true),
            ("\"x\"".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(not_modified(&header, &tag), same, "{header}");
        }
    }
}
