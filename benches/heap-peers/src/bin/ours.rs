//! Reads a snapshot with leakslope: dominators, retained sizes, distances and the table by class.
//!
//! `ours FILE` prints ten rows; `ours FILE --phases` says on standard error what each phase took;
//! `ours FILE --dump OUT` writes every node as id, shallow size, retained size, distance and class;
//! `ours FILE --dump-as PEER OUT` writes id, size and retained size by the simpler rules of `v8-heap-parser` (sizes as V8
//! reports them) or `memlab` (the same, and what the app owns is not told from what the system holds).

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use leakslope::evidence::snapshot::analysis::{Analysis, analyse};
use leakslope::evidence::snapshot::bits::Bits;
use leakslope::evidence::snapshot::distance::{self, distances};
use leakslope::evidence::snapshot::dominators::dominators;
use leakslope::evidence::snapshot::references::Names;
use leakslope::evidence::snapshot::rows::{Members, rows};
use leakslope::evidence::snapshot::shallow::shallow_sizes;
use leakslope::evidence::snapshot::tree::Tree;
use leakslope::evidence::snapshot::{Heap, Limits, read};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let path = arguments.get(1).ok_or("usage: ours FILE [--phases | --dump OUT]")?;
    // Names that might be data are left in: they are compared.
    let limits = Limits {
        memory: 16 << 30,
        show_strings: argument(&arguments, 2).starts_with("--dump"),
        ..Limits::default()
    };
    let start = Instant::now();
    let heap = read(File::open(path)?, path, &limits)?;
    if arguments.get(2).is_some_and(|argument| argument == "--phases") {
        let mut last = start;
        let mut phase = |name: &str| {
            let now = Instant::now();
            eprintln!("{name:<12} {:>5} ms", (now - last).as_millis());
            last = now;
        };
        phase("read");
        let names = Names::of(&heap);
        phase("names");
        let sizes = shallow_sizes(&heap, &names);
        phase("shallow");
        let walked = distances(&heap, &names);
        phase("distances");
        let tree = dominators(&heap, &names, &walked.page);
        phase("dominators");
        let retained = tree.retained_sizes(&sizes);
        phase("retained");
        drop((sizes, walked, tree, retained, names));
        let analysis = analyse(heap, &[]);
        phase("all of it");
        let tree = Tree::of(&analysis);
        let members = Members::of(&analysis);
        let count = rows(&analysis, &tree, &members).len();
        phase("table");
        eprintln!("{count} classes");
        return Ok(());
    }
    if argument(&arguments, 2) == "--dump-as" {
        return dump_as(&heap, argument(&arguments, 3), argument(&arguments, 4));
    }
    let analysis = analyse(heap, &[]);
    let tree = Tree::of(&analysis);
    let members = Members::of(&analysis);
    let mut out = BufWriter::new(std::io::stdout().lock());
    for row in rows(&analysis, &tree, &members).iter().take(10) {
        writeln!(out, "{}\t{}\t{}\t{}", row.class, row.count, row.shallow_bytes, row.retained_bytes)?;
    }
    out.flush()?;
    if let (Some("--dump"), Some(path)) = (arguments.get(2).map(String::as_str), arguments.get(3)) {
        dump(&analysis, path)?;
    }
    Ok(())
}

fn argument(arguments: &[String], index: usize) -> &str {
    arguments.get(index).map_or("", String::as_str)
}

fn dump_as(heap: &Heap, peer: &str, path: &str) -> Result<(), Box<dyn Error>> {
    let names = Names::of(heap);
    let page = match peer {
        "memlab" => Bits::new(heap.node_count()),
        _ => distances(heap, &names).page,
    };
    let tree = dominators(heap, &names, &page);
    let mut retained = vec![0; heap.node_count()];
    for (&node, size) in tree.order.iter().zip(tree.retained_sizes(heap.self_sizes())) {
        retained[node as usize] = size;
    }
    let mut out = BufWriter::new(File::create(path)?);
    for (node, retained) in retained.iter().enumerate() {
        writeln!(out, "{}\t{}\t{retained}", heap.id(node), heap.self_size(node))?;
    }
    out.flush()?;
    Ok(())
}

fn dump(analysis: &Analysis, path: &str) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(File::create(path)?);
    for node in 0..analysis.heap.node_count() {
        let away = analysis.distance[node];
        // DevTools' own mark for a node that nothing leads to.
        let away = if away == distance::NONE { -5 } else { i64::from(away) };
        let class = analysis.classes.list[analysis.classes.of[node] as usize].name.replace(['\t', '\n', '\r'], " ");
        let (id, size, retained) = (analysis.heap.id(node), analysis.shallow.get(node), analysis.retained[node]);
        writeln!(out, "{id}\t{size}\t{retained}\t{away}\t{class}")?;
    }
    out.flush()?;
    Ok(())
}
