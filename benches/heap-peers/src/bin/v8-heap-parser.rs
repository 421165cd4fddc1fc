//! Reads a snapshot with v8-heap-parser and makes the table by class.
//!
//! `v8-heap-parser FILE` prints ten rows; with a second argument it writes every node as id, size and retained size.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let path = arguments.get(1).ok_or("usage: v8-heap-parser FILE [OUT]")?;
    let graph = v8_heap_parser::decode_reader(BufReader::with_capacity(1 << 20, File::open(path)?))
        .map_err(|error| format!("{error:?}"))?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for group in graph.get_class_groups(false).iter().take(10) {
        let name = graph.nodes()[group.index].weight.class_name();
        writeln!(out, "{name}\t{}\t{}\t{}", group.nodes.len(), group.self_size, group.retained_size)?;
    }
    out.flush()?;
    if let Some(path) = arguments.get(2) {
        let mut out = BufWriter::new(File::create(path)?);
        for (index, node) in graph.nodes().iter().enumerate() {
            writeln!(out, "{}\t{}\t{}", node.weight.id, node.weight.self_size, graph.retained_size(index))?;
        }
        out.flush()?;
    }
    Ok(())
}
