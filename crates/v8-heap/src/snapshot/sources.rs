//! Where code was written: file, line and column of functions, constructors and scopes.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::heap::{EdgeKind, Heap, Location, NodeKind};

/// Finds names of scripts, and remembers them.
#[derive(Debug)]
pub struct Sources<'a> {
    heap: &'a Heap,
    scripts: BTreeMap<u32, u32>,
    scopes: RefCell<Option<BTreeMap<u32, Location>>>,
}

impl<'a> Sources<'a> {
    /// Learns from every function which script its number stands for.
    pub fn of(heap: &'a Heap) -> Self {
        let mut scripts = BTreeMap::new();
        for node in 0..heap.node_count() {
            if heap.kind(node) != NodeKind::Closure {
                continue;
            }
            if let Some(location) = heap.location(node)
                && !scripts.contains_key(&location.script)
                && let Some(script) = script_of(heap, node)
            {
                scripts.insert(location.script, script);
            }
        }
        Self { heap, scripts, scopes: RefCell::new(None) }
    }

    /// Writes a place as `file:line:column`, counted from one; the script's number stands in for an unknown file.
    pub fn place(&self, location: Location) -> String {
        if let Some(original) = self.heap.original(location) {
            return format!("{}:{}:{}", original.file, original.line + 1, original.column + 1);
        }
        let (line, column) = (u64::from(location.line) + 1, u64::from(location.column) + 1);
        match self.file(location.script) {
            Some(file) => format!("{file}:{line}:{column}"),
            None => format!("script {}:{line}:{column}", location.script),
        }
    }

    /// Returns the file of a script.
    pub fn file(&self, script: u32) -> Option<String> {
        let name = self.heap.name(*self.scripts.get(&script)? as usize).into_owned();
        let name = name.strip_prefix("file://").map_or_else(|| name.clone(), str::to_owned);
        (!name.is_empty()).then_some(name)
    }

    /// Returns the file that a place was written in: the source where a map tells it, else the script.
    pub fn file_of(&self, location: Location) -> Option<String> {
        self.heap.original(location).map(|original| original.file.clone()).or_else(|| self.file(location.script))
    }

    /// Returns where a function was written, or a object's constructor.
    pub fn of_node(&self, node: usize) -> Option<String> {
        self.heap.location(node).map(|location| self.place(location))
    }

    /// Says whether a place is the app's own code: neither Node's nor unknown, nor a dependency's.
    pub fn is_own(&self, location: Location) -> bool {
        let ignored = self.heap.original(location).is_some_and(|original| original.ignored);
        !ignored
            && self.file_of(location).is_some_and(|file| {
                !file.starts_with("node:") && !file.contains("node_modules/") && file.contains(['/', '\\'])
            })
    }

    /// Returns the file in which the variables of a scope were written: the file of a function that sees them.
    pub fn of_scope(&self, context: usize) -> Option<String> {
        let mut scopes = self.scopes.borrow_mut();
        let scopes = scopes.get_or_insert_with(|| {
            let heap = self.heap;
            let mut scopes = BTreeMap::new();
            for node in (0..heap.node_count()).filter(|&node| heap.kind(node) == NodeKind::Closure) {
                if let Some(location) = heap.location(node)
                    && let Some(context) = heap.child(node, "context")
                    && let Ok(context) = u32::try_from(context)
                {
                    scopes.entry(context).or_insert(location);
                }
            }
            scopes
        });
        let location = *scopes.get(&u32::try_from(context).ok()?)?;
        self.file_of(location)
    }
}

/// Finds the node of the script that a function was written in.
fn script_of(heap: &Heap, function: usize) -> Option<u32> {
    let shared = heap.child(function, "shared")?;
    let found = heap.edges(shared).find(|edge| {
        edge.kind != EdgeKind::Weak
            && !edge.kind.is_indexed()
            && matches!(&*heap.string(edge.name), "script" | "script_or_debug_info")
    })?;
    let mut script = found.to as usize;
    if let Some(inner) = heap.child(script, "script") {
        script = inner;
    }
    (!heap.name_bytes(script).is_empty()).then(|| u32::try_from(script).unwrap_or_default())
}
