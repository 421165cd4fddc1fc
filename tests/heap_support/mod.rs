//! Writes heap snapshots of any small graph, in the format of any Node version; runs Node for real ones.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(unreachable_pub, reason = "a module of several tests")]
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use leakslope::evidence::snapshot::analysis::{Analysis, analyse};
use leakslope::evidence::snapshot::{Limits, read};
use serde_json::{Value, json};

/// Node versions of which the description of a real snapshot is kept.
pub const VERSIONS: [u32; 5] = [16, 18, 20, 22, 24];

/// A node of a graph to be written.
#[derive(Debug, Clone)]
pub struct Node {
    pub kind: &'static str,
    pub name: String,
    pub size: u64,
    /// Kind, name (or number, for elements and hidden edges) and target.
    pub edges: Vec<(&'static str, String, usize)>,
}

/// Makes a node.
pub fn node(kind: &'static str, name: &str, size: u64, edges: &[(&'static str, &str, usize)]) -> Node {
    let edges = edges.iter().map(|&(kind, name, to)| (kind, name.to_owned(), to)).collect();
    Node { kind, name: name.to_owned(), size, edges }
}

/// Returns what a real snapshot of this Node version says of its format.
pub fn meta(version: u32) -> Value {
    let path = fixtures().join("meta").join(format!("node-{version}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/heap")
}

/// Writes a snapshot as the given version of Node does; ids are `2 * ordinal + 1`.
pub fn snapshot(nodes: &[Node], version: u32) -> String {
    let mut header = meta(version);
    let fields = |key: &str| -> Vec<String> {
        header["meta"][key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let types = |key: &str| -> Vec<String> {
        header["meta"][key][0].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let (node_fields, node_types) = (fields("node_fields"), types("node_types"));
    let (edge_fields, edge_types) = (fields("edge_fields"), types("edge_types"));
    let mut strings: Vec<String> = vec!["<dummy>".to_owned()];
    let mut string = |text: &str| {
        strings.iter().position(|known| known == text).unwrap_or_else(|| {
            strings.push(text.to_owned());
            strings.len() - 1
        })
    };
    let (mut node_numbers, mut edge_numbers) = (Vec::new(), Vec::new());
    for (ordinal, node) in nodes.iter().enumerate() {
        for field in &node_fields {
            node_numbers.push(match field.as_str() {
                "type" => node_types.iter().position(|name| name == node.kind).unwrap() as u64,
                "name" => string(&node.name) as u64,
                "id" => 2 * ordinal as u64 + 1,
                "self_size" => node.size,
                "edge_count" => node.edges.len() as u64,
                _ => 0,
            });
        }
        for (kind, name, to) in &node.edges {
            for field in &edge_fields {
                edge_numbers.push(match field.as_str() {
                    "type" => edge_types.iter().position(|name| name == kind).unwrap(),
                    "name_or_index" if matches!(*kind, "element" | "hidden") => name.parse().unwrap(),
                    "name_or_index" => string(name),
                    _ => to * node_fields.len(),
                });
            }
        }
    }
    header["node_count"] = json!(nodes.len());
    header["edge_count"] = json!(nodes.iter().map(|node| node.edges.len()).sum::<usize>());
    let list = |numbers: Vec<String>| numbers.join(",");
    format!(
        "{{\"snapshot\":{header},\n\"nodes\":[{}],\n\"edges\":[{}],\n\"trace_function_infos\":[],\n\"trace_tree\":[],\n\"samples\":[],\n\"locations\":[],\n\"strings\":{}}}",
        list(node_numbers.iter().map(ToString::to_string).collect()),
        list(edge_numbers.iter().map(ToString::to_string).collect()),
        serde_json::to_string(&strings).unwrap(),
    )
}

/// Reads and analyses a snapshot from text.
pub fn analysis(text: &str) -> Analysis {
    analyse(read(text.as_bytes(), "test", &Limits::default()).unwrap(), &[])
}

/// Reads and analyses a snapshot from a file.
pub fn analysis_of(path: &Path) -> Analysis {
    let file = std::fs::File::open(path).unwrap();
    analyse(read(file, &path.display().to_string(), &Limits::default()).unwrap(), &[])
}

/// The program of a version of Node, one of those that `tests/node` pins.
pub fn node_of(version: u32) -> PathBuf {
    let architecture = if cfg!(target_arch = "x86_64") { "x64" } else { "arm64" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/node_modules");
    let program = folder.join(format!("node-{version}-{architecture}/bin/node"));
    assert!(program.exists(), "{} is missing: run `npm ci --prefix tests/node`", program.display());
    program
}

/// Runs one of the fixture apps with the machine's Node; it leaves `OUT-1.heapsnapshot` to `-3`.
pub fn run_app(app: &str, out: &Path) -> Vec<PathBuf> {
    run_app_with(Path::new("node"), app, out)
}

/// The same with this Node.
pub fn run_app_with(node: &Path, app: &str, out: &Path) -> Vec<PathBuf> {
    run_script(node, app, out);
    (1..=3).map(|number| PathBuf::from(format!("{}-{number}.heapsnapshot", out.display()))).collect()
}

/// Runs a fixture with this Node.
///
/// Fails with the command that installs Node where there is none.
pub fn run_script(node: &Path, app: &str, out: &Path) {
    let script = fixtures().join("apps").join(format!("{app}.js"));
    let output = Command::new(node).arg(&script).arg(out).stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("cannot start {}: {error}; install it: apt-get install -y nodejs", node.display())
    });
    assert!(output.status.success(), "{app} failed: {}", String::from_utf8_lossy(&output.stderr));
}
