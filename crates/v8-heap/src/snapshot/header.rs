//! The snapshot's description of itself: which field stands where, and what the type numbers mean.
//!
//! V8 has moved fields between versions (Node 24 dropped `trace_node_id`), so every field is found by its name and
//! unknown ones are stepped over. It refuses a description that lacks what an analysis cannot do without.

use serde::Deserialize;
use serde_json::Value;

use super::error::HeapErrorKind;
use super::heap::{EdgeKind, NodeKind};
use super::source::MAX_ROW;
use crate::format::whole;

/// The most bytes a description may take.
pub const MAX_HEADER: usize = 1 << 20;

/// Where the fields of a node, an edge and a location stand, and what their types are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Fields of a node.
    pub node_width: usize,
    /// Column of a node's type.
    pub node_type: usize,
    /// Column of a node's name.
    pub node_name: usize,
    /// Column of a node's id.
    pub node_id: usize,
    /// Column of a node's own size.
    pub node_size: usize,
    /// Column of the number of a node's edges.
    pub node_edges: usize,
    /// Column that says whether a node is attached, where there is one.
    pub node_detached: Option<usize>,
    /// The names of the node types, by number.
    pub node_types: Vec<String>,
    /// Fields of an edge.
    pub edge_width: usize,
    /// Column of an edge's type.
    pub edge_type: usize,
    /// Column of an edge's name or index.
    pub edge_name: usize,
    /// Column of the node an edge leads to.
    pub edge_to: usize,
    /// The names of the edge types, by number.
    pub edge_types: Vec<String>,
    /// Columns of a location (node, script, line, column) and their number, where the file has locations.
    pub location: Option<LocationLayout>,
    /// The number of nodes the file announces.
    pub node_count: Option<u64>,
    /// The number of edges the file announces.
    pub edge_count: Option<u64>,
    /// The root's place in the list of node fields.
    pub root_index: u64,
    /// Bytes held outside the heap that belong to no node (Node 24).
    pub extra_native_bytes: u64,
}

/// Where the fields of a location stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocationLayout {
    /// Fields of a location.
    pub width: usize,
    /// Column of the node.
    pub node: usize,
    /// Column of the script's id.
    pub script: usize,
    /// Column of the line, counted from zero.
    pub line: usize,
    /// Column of the column, counted from zero.
    pub column: usize,
}

#[derive(Deserialize)]
struct Raw {
    meta: RawMeta,
    node_count: Option<u64>,
    edge_count: Option<u64>,
    #[serde(default)]
    root_index: u64,
    #[serde(default)]
    extra_native_bytes: f64,
}

#[derive(Deserialize)]
struct RawMeta {
    node_fields: Vec<String>,
    node_types: Vec<Value>,
    edge_fields: Vec<String>,
    edge_types: Vec<Value>,
    #[serde(default)]
    location_fields: Vec<String>,
}

/// Reads the value of the key `snapshot`.
pub fn parse(text: &[u8]) -> Result<Layout, HeapErrorKind> {
    let raw: Raw = serde_json::from_slice(text).map_err(|error| HeapErrorKind::Header(error.to_string()))?;
    let meta = raw.meta;
    check_width("node_fields", &meta.node_fields)?;
    check_width("edge_fields", &meta.edge_fields)?;
    check_width("location_fields", &meta.location_fields)?;
    let node_type = column("node_fields", &meta.node_fields, "type")?;
    let edge_type = column("edge_fields", &meta.edge_fields, "type")?;
    Ok(Layout {
        node_width: meta.node_fields.len(),
        node_type,
        node_name: column("node_fields", &meta.node_fields, "name")?,
        node_id: column("node_fields", &meta.node_fields, "id")?,
        node_size: column("node_fields", &meta.node_fields, "self_size")?,
        node_edges: column("node_fields", &meta.node_fields, "edge_count")?,
        node_detached: find(&meta.node_fields, "detachedness"),
        node_types: node_types(meta.node_types.get(node_type))?,
        edge_width: meta.edge_fields.len(),
        edge_type,
        edge_name: column("edge_fields", &meta.edge_fields, "name_or_index")?,
        edge_to: column("edge_fields", &meta.edge_fields, "to_node")?,
        edge_types: types("edge_types", meta.edge_types.get(edge_type))?,
        location: locations(&meta.location_fields),
        node_count: raw.node_count,
        edge_count: raw.edge_count,
        root_index: raw.root_index,
        extra_native_bytes: whole(raw.extra_native_bytes).min(1 << 53),
    })
}

impl Layout {
    /// Returns what each node type's number stands for.
    pub fn node_kinds(&self) -> Vec<NodeKind> {
        self.node_types.iter().map(|name| NodeKind::from_name(name)).collect()
    }

    /// Returns what each edge type's number stands for.
    pub fn edge_kinds(&self) -> Vec<EdgeKind> {
        self.edge_types.iter().map(|name| EdgeKind::from_name(name)).collect()
    }
}

fn find(fields: &[String], wanted: &str) -> Option<usize> {
    fields.iter().position(|field| field == wanted)
}

fn column(list: &str, fields: &[String], wanted: &str) -> Result<usize, HeapErrorKind> {
    find(fields, wanted).ok_or_else(|| HeapErrorKind::Header(format!("{list} lacks \"{wanted}\"")))
}

fn check_width(list: &str, fields: &[String]) -> Result<(), HeapErrorKind> {
    if fields.len() > MAX_ROW {
        let count = fields.len();
        return Err(HeapErrorKind::Header(format!("{list} has {count} fields, at most {MAX_ROW} are read")));
    }
    Ok(())
}

fn types(list: &str, value: Option<&Value>) -> Result<Vec<String>, HeapErrorKind> {
    let Some(Value::Array(names)) = value else {
        return Err(HeapErrorKind::Header(format!("{list} does not list the names of the types")));
    };
    if names.len() > usize::from(u8::MAX) {
        return Err(HeapErrorKind::Header(format!("{list} names {} types, at most 255 are read", names.len())));
    }
    Ok(names.iter().map(|name| name.as_str().unwrap_or_default().to_owned()).collect())
}

/// Node 8 writes symbols with the number after the last type that it lists.
fn node_types(value: Option<&Value>) -> Result<Vec<String>, HeapErrorKind> {
    let mut names = types("node_types", value)?;
    if names.last().is_some_and(|last| last == "sliced string") {
        names.push("symbol".to_owned());
    }
    Ok(names)
}

fn locations(fields: &[String]) -> Option<LocationLayout> {
    Some(LocationLayout {
        width: fields.len(),
        node: find(fields, "object_index")?,
        script: find(fields, "script_id")?,
        line: find(fields, "line")?,
        column: find(fields, "column")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(node_fields: &str, more: &str) -> String {
        format!(
            r#"{{"meta":{{"node_fields":{node_fields},"node_types":[["hidden","object"]],"edge_fields":["type","name_or_index","to_node"],"edge_types":[["context","weak"],"string_or_number","node"]}}{more}}}"#
        )
    }

    #[test]
    fn fields_are_found_by_name_wherever_they_stand() {
        let old = header(r#"["type","name","id","self_size","edge_count","trace_node_id","detachedness"]"#, "");
        let new =
            header(r#"["type","name","id","self_size","edge_count","detachedness"]"#, r#","extra_native_bytes":12"#);
        let old = parse(old.as_bytes()).unwrap();
        let new = parse(new.as_bytes()).unwrap();
        assert_eq!((old.node_width, old.node_detached, old.extra_native_bytes), (7, Some(6), 0));
        assert_eq!((new.node_width, new.node_detached, new.extra_native_bytes), (6, Some(5), 12));
    }

    #[test]
    fn a_missing_field_is_named() {
        let text = header(r#"["type","name","id","edge_count"]"#, "");
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(r#"node_fields lacks "self_size""#), "{error}");
    }
}
