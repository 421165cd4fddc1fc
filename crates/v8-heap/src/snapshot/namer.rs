//! Names what a suspect is: a listener added again and again, an interval never cleared, a Map that only grows.
//!
//! A pattern is named from the heap's own structure (what Node calls its listeners and timers, how V8 links a pending
//! promise to who waits for it), never from names the app chose. What fits none is still told, without a name.

use super::analysis::Analysis;
use super::heap::{EdgeKind, Location, NodeKind};
use super::paths::{CONTEXT, Home, Step, Teller};
use super::patterns::{Finding, Kept, Pattern, Tense};
use super::suspects::{NATIVE_CONTEXT, Shape, Suspect};
use super::tree::Tree;
use crate::format::thousands;

/// The most nodes of a piece that are looked at.
const LOOK: usize = 300;

/// Names suspects.
#[derive(Debug)]
pub struct Namer<'a> {
    analysis: &'a Analysis,
    tree: &'a Tree,
    weight: &'a [u64],
    teller: &'a Teller<'a>,
    tense: Tense,
}

impl<'a> Namer<'a> {
    /// Starts to name. `weight` is what the suspects were found with.
    pub fn new(
        analysis: &'a Analysis,
        tree: &'a Tree,
        weight: &'a [u64],
        teller: &'a Teller<'a>,
        tense: Tense,
    ) -> Self {
        Self { analysis, tree, weight, teller, tense }
    }

    /// Puts a suspect in words.
    pub fn finding(&self, suspect: &Suspect) -> Finding {
        let mut holder = suspect.holder;
        let passes =
            |node: usize| self.teller.is_go_between(node) && self.analysis.heap.kind(node) != NodeKind::Synthetic;
        while passes(holder) {
            holder = self.analysis.dominator[holder] as usize;
        }
        let mut also_held_by = Vec::new();
        if suspect.shape == Shape::Fan
            && let Some(shared) = self.shared_holder(suspect)
            && shared != holder
        {
            also_held_by = self.other_holders(suspect, shared);
            holder = shared;
        }
        if holder == suspect.holder
            && let Some(loose) = self.loose(suspect)
        {
            return self.loose_finding(suspect, loose);
        }
        let way = self.teller.way(holder);
        let seen = Seen { suspect, holder, way: &way };
        let (pattern, what, code) = self.name(&seen);
        let class = self.class(suspect.class);
        let holder_name = self.holder_name(&seen);
        let mut sentence = self.sentence(&seen, pattern, &what, code.as_deref(), &holder_name);
        if let Some(other) = also_held_by.first() {
            sentence = format!("{sentence}; also held by {other}");
        }
        Finding {
            pattern,
            sentence,
            class,
            count: suspect.count,
            bytes: suspect.bytes,
            holder: holder_name,
            also_held_by,
            code,
            keeps: self.keeps(suspect),
            examples: suspect.examples.iter().take(3).map(|&node| self.analysis.heap.id(node as usize)).collect(),
            id: (!is_root(self.analysis, holder)).then(|| self.analysis.heap.id(holder)),
            sizes: Vec::new(),
            holder_node: Some(holder),
            file: self.teller.home(holder).map(|home| home.file),
            package: None,
            way,
        }
    }

    fn loose_finding(&self, suspect: &Suspect, loose: Loose) -> Finding {
        let piece = suspect.examples.first().map_or(suspect.holder, |&node| node as usize);
        let mut way = self.teller.way(piece);
        way.pop();
        if way.is_empty() {
            way = self.teller.way(suspect.holder);
        }
        let more = if self.tense == Tense::Grew { " more" } else { "" };
        let at = loose.code.as_ref().map(|code| format!(" (see {code})")).unwrap_or_default();
        let number = thousands(loose.count);
        let keeps = self.keeps(suspect);
        let sentence = format!("{number}{more} {} are kept alive by Node itself, as open handles are{at}", loose.class);
        Finding {
            pattern: Pattern::Other,
            sentence,
            class: loose.class,
            count: loose.count,
            bytes: suspect.bytes,
            holder: "Node's open handles".to_owned(),
            also_held_by: Vec::new(),
            file: loose.code.clone(),
            code: loose.code,
            keeps,
            examples: suspect.examples.iter().take(3).map(|&node| self.analysis.heap.id(node as usize)).collect(),
            id: None,
            sizes: Vec::new(),
            holder_node: None,
            package: None,
            way,
        }
    }

    /// Tells what pieces are that no object of the app holds: handles that Node keeps open, or what carries objects of the
    /// app's own classes.
    pub fn loose(&self, suspect: &Suspect) -> Option<Loose> {
        let heap = &self.analysis.heap;
        if suspect.shape != Shape::Fan || !is_root(self.analysis, suspect.holder) {
            return None;
        }
        let first = *suspect.examples.first()? as usize;
        if self.is_of_console(first) {
            return None;
        }
        if heap.name_bytes(first) == NATIVE_CONTEXT.as_bytes() {
            let contexts =
                suspect.examples.iter().filter(|&&node| heap.name_bytes(node as usize) == NATIVE_CONTEXT.as_bytes());
            let count = suspect.count * contexts.count() as u64 / suspect.examples.len().max(1) as u64;
            return Some(Loose { class: "vm contexts".to_owned(), count, code: None });
        }
        let carried: Vec<usize> = suspect.examples.iter().filter_map(|&piece| self.carried(piece as usize)).collect();
        let class = carried.first().map(|&node| self.analysis.classes.of[node]);
        let alike: Vec<&usize> =
            carried.iter().filter(|&&node| Some(self.analysis.classes.of[node]) == class).collect();
        let of_class = |class: u32| Loose {
            class: self.class(class),
            count: suspect.count * alike.len() as u64 / suspect.examples.len().max(1) as u64,
            code: self.constructor(class),
        };
        let handle = || {
            let class = self.class(suspect.class);
            HANDLES.contains(&class.as_str()).then(|| Loose {
                class,
                count: suspect.count,
                code: self.own_function(first),
            })
        };
        class.filter(|_| alike.len() >= 2).map(of_class).or_else(handle)
    }

    /// Finds the first object in a piece whose class was not written by Node.
    fn carried(&self, piece: usize) -> Option<usize> {
        let heap = &self.analysis.heap;
        let sources = self.teller.sources();
        self.below(piece).into_iter().find(|&node| {
            heap.kind(node) == NodeKind::Object
                && heap
                    .location(node)
                    .and_then(|location| sources.file_of(location))
                    .is_some_and(|file| !file.starts_with("node:") && file.contains(['/', '\\']))
        })
    }

    /// Pieces that several things hold hang from something far above them in the dominator tree: what most of them are
    /// reached by then is the holder.
    fn shared_holder(&self, suspect: &Suspect) -> Option<usize> {
        let mut holders = std::collections::BTreeMap::<usize, usize>::new();
        for &piece in &suspect.examples {
            let mut at = self.teller.back(piece as usize)?.0;
            while self.teller.is_go_between(at) {
                at = self.teller.back(at)?.0;
            }
            *holders.entry(at).or_default() += 1;
        }
        let most = |holders: std::collections::BTreeMap<usize, usize>| {
            let (holder, count) = holders.into_iter().max_by_key(|&(_, count)| count)?;
            (count * 2 >= suspect.examples.len() && !is_root(self.analysis, holder)).then_some(holder)
        };
        most(holders)
            .or_else(|| is_root(self.analysis, suspect.holder).then(|| most(self.referrers(suspect))).flatten())
    }

    /// Counts by whom pieces are referred to that V8 itself knows as well, as it does all keys of objects.
    fn referrers(&self, suspect: &Suspect) -> std::collections::BTreeMap<usize, usize> {
        let heap = &self.analysis.heap;
        let pieces: std::collections::BTreeSet<u32> = suspect.examples.iter().copied().collect();
        let mut holders = std::collections::BTreeMap::new();
        for node in (0..heap.node_count()).filter(|&node| heap.kind(node) != NodeKind::Synthetic) {
            let count =
                heap.edges(node).filter(|edge| edge.kind != EdgeKind::Weak && pieces.contains(&edge.to)).count();
            if count == 0 {
                continue;
            }
            let mut at = node;
            while self.teller.is_go_between(at)
                && let Some((from, _)) = self.teller.back(at)
            {
                at = from;
            }
            if heap.kind(at) == NodeKind::Object {
                *holders.entry(at).or_default() += count;
            }
        }
        holders
    }

    /// Names what else refers to the first piece; what belongs to the piece itself does not count.
    fn other_holders(&self, suspect: &Suspect, holder: usize) -> Vec<String> {
        let heap = &self.analysis.heap;
        let Some(&piece) = suspect.examples.first() else { return Vec::new() };
        let own = self.below(piece as usize);
        let mut names = Vec::new();
        for node in 0..heap.node_count() {
            if !heap.edges(node).any(|edge| edge.to == piece && edge.kind != EdgeKind::Weak) || own.contains(&node) {
                continue;
            }
            let mut at = node;
            while self.teller.is_go_between(at)
                && let Some((from, _)) = self.teller.back(at)
            {
                at = from;
            }
            if at != holder
                && heap.kind(at) != NodeKind::Synthetic
                && let Some(step) = self.teller.way(at).last()
            {
                names.push(step.to_string());
            }
        }
        names.sort();
        names.dedup();
        names.truncate(4);
        names
    }

    fn class(&self, class: u32) -> String {
        self.analysis.classes.list[class as usize].name.clone()
    }

    /// Finds the pattern, what it is about (an event, a function, a variable) and the place in the code.
    fn name(&self, seen: &Seen<'_>) -> (Pattern, String, Option<String>) {
        let first = seen.suspect.examples.first().map_or(seen.holder, |&node| node as usize);
        let class = self.class(seen.suspect.class);
        if self.is_of_console(first) {
            return (Pattern::Console, class, self.constructor(seen.suspect.class));
        }
        if let Some(event) = self.event(seen.holder) {
            return (Pattern::Listener, event, self.own_function(first));
        }
        if matches!(class.as_str(), "Timeout" | "Immediate") || seen.way.last().is_some_and(|s| s.what == "TimersList")
        {
            let callback = self.analysis.heap.child(first, "_onTimeout");
            let callback = callback.or_else(|| self.analysis.heap.child(first, "_onImmediate"));
            let code = callback.and_then(|node| self.teller.sources().of_node(node));
            return (Pattern::Timer, self.timer(first), code.or_else(|| self.own_function(first)));
        }
        if let Some((waiting, code)) = seen.suspect.examples.iter().find_map(|&piece| self.waiting(piece as usize)) {
            return (Pattern::Promise, waiting, code);
        }
        if let Some((variable, code)) = self.scope(seen.suspect) {
            return (Pattern::ClosureScope, variable, code);
        }
        let code = self.constructor(seen.suspect.class).or_else(|| self.own_function(first));
        if matches!(seen.suspect.shape, Shape::Chain(_) | Shape::Web) {
            return (Pattern::List, self.link(seen.suspect), code);
        }
        let pattern = match self.teller.what(seen.holder).as_str() {
            "Map" | "WeakMap" => Pattern::Map,
            "Set" | "WeakSet" => Pattern::Set,
            "Array" => Pattern::Array,
            what if self.analysis.heap.kind(seen.holder) == NodeKind::Object
                && (what == "Object" || what.starts_with('{'))
                && (seen.suspect.count > 16 || seen.suspect.shape == Shape::Inside) =>
            {
                Pattern::Table
            }
            _ => Pattern::Other,
        };
        (pattern, class, code)
    }

    /// Says whether the inspector's console holds a piece.
    fn is_of_console(&self, piece: usize) -> bool {
        let console = |(from, edge)| self.teller.edge_name(from, edge).as_deref() == Some("DevTools console");
        self.teller.back(piece).is_some_and(console)
    }

    /// Returns the event whose listeners a holder has, empty if there is no telling which: an `EventEmitter` keeps them
    /// in `_events` by name, an `EventTarget` in a Map under a symbol.
    fn event(&self, holder: usize) -> Option<String> {
        let heap = &self.analysis.heap;
        let mut at = holder;
        let mut name = None;
        for _ in 0..5 {
            // Beyond a function or a scope it is somebody else's listener.
            if heap.kind(at) == NodeKind::Closure || self.teller.what(at) == CONTEXT {
                return None;
            }
            let (from, edge) = self.teller.back(at)?;
            if !edge.kind.is_indexed() {
                match heap.string(edge.name).as_ref() {
                    "_events" => return Some(name.unwrap_or_default()),
                    "<symbol kEvents>" => return Some(String::new()),
                    _ => {}
                }
            }
            if name.is_none() {
                name = self.teller.edge_name(from, edge);
            }
            at = from;
        }
        None
    }

    /// Tells intervals, which have a number to repeat after, from timeouts, which have null.
    fn timer(&self, timer: usize) -> String {
        let heap = &self.analysis.heap;
        let null = heap.child(timer, "_repeat").is_some_and(|value| heap.kind(value) != NodeKind::Number);
        if heap.child(timer, "_onImmediate").is_some() {
            "immediates"
        } else if null {
            "timeouts"
        } else {
            "intervals"
        }
        .to_owned()
    }

    /// Finds the asynchronous function or handler that waits in a piece for a promise that is not settled.
    fn waiting(&self, piece: usize) -> Option<(String, Option<String>)> {
        let heap = &self.analysis.heap;
        let below = self.below(piece);
        let reaction = below.iter().copied().find(|&node| heap.name_bytes(node) == b"system / PromiseReaction")?;
        let named = |function: usize| (self.teller.what(function), self.teller.sources().of_node(function));
        let generator = below.iter().copied().filter(|&node| heap.kind(node) == NodeKind::Object).find_map(|node| {
            let function = heap.child(node, "function")?;
            (heap.kind(function) == NodeKind::Closure).then_some(function)
        });
        if let Some(function) = generator {
            return Some(named(function));
        }
        let handler = heap
            .edges(reaction)
            .map(|edge| edge.to as usize)
            .find(|&node| heap.kind(node) == NodeKind::Closure && heap.location(node).is_some());
        Some(handler.map_or_else(|| ("a handler".to_owned(), self.own_function(piece)), named))
    }

    /// Returns the variable through which functions keep most of the weight, if their scope does.
    fn scope(&self, suspect: &Suspect) -> Option<(String, Option<String>)> {
        let heap = &self.analysis.heap;
        let function = suspect.examples.iter().map(|&node| node as usize).find(|&node| {
            heap.kind(node) == NodeKind::Closure
                && self
                    .tree
                    .children(node)
                    .any(|child| self.teller.what(child) == CONTEXT && self.weight[child] * 2 >= self.weight[node])
        })?;
        let context = heap.child(function, "context")?;
        let variable = heap
            .edges(context)
            .filter(|edge| edge.kind == EdgeKind::Context)
            .max_by_key(|edge| self.weight[edge.to as usize])?;
        let name = heap.string(variable.name).into_owned();
        let text = format!("{} through its scope's `{name}`", self.teller.what(function));
        Some((text, self.teller.sources().of_node(function)))
    }

    /// Returns the property that links a chain.
    fn link(&self, suspect: &Suspect) -> String {
        let heap = &self.analysis.heap;
        let names: Vec<String> = suspect
            .examples
            .windows(2)
            .rev()
            .filter_map(|pair| {
                let edge = heap.edges(pair[0] as usize).find(|edge| edge.to == pair[1])?;
                self.teller.edge_name(pair[0] as usize, edge)
            })
            .collect();
        names
            .into_iter()
            .next()
            .or_else(|| {
                let &node = suspect.examples.first()?;
                let class = self.analysis.classes.of[node as usize];
                let edge =
                    heap.edges(node as usize).find(|edge| self.analysis.classes.of[edge.to as usize] == class)?;
                self.teller.edge_name(node as usize, edge)
            })
            .unwrap_or_else(|| "its next".to_owned())
    }

    fn constructor(&self, class: u32) -> Option<String> {
        self.analysis.classes.list[class as usize].location.map(|location| self.teller.sources().place(location))
    }

    /// Finds the first function of the app in a piece, else of a package.
    fn own_function(&self, piece: usize) -> Option<String> {
        let heap = &self.analysis.heap;
        let sources = self.teller.sources();
        let below = self.below(piece);
        let function = |wanted: &dyn Fn(Location) -> bool| {
            let place = |node: usize| {
                let location = heap.location(node).filter(|_| heap.kind(node) == NodeKind::Closure)?;
                wanted(location).then(|| sources.place(location))
            };
            below
                .iter()
                .find_map(|&node| place(node).or_else(|| heap.edges(node).find_map(|edge| place(edge.to as usize))))
        };
        let of_package =
            |location| sources.file_of(location).is_some_and(|file: String| file.contains("node_modules/"));
        function(&|location| sources.is_own(location)).or_else(|| function(&of_package))
    }

    /// Returns what a piece alone keeps alive, nearest first, up to a few hundred nodes.
    fn below(&self, piece: usize) -> Vec<usize> {
        let mut list = vec![piece];
        let mut at = 0;
        while let Some(&node) = list.get(at)
            && list.len() < LOOK
        {
            at += 1;
            let room = LOOK - list.len();
            list.extend(self.tree.children(node).take(room));
        }
        list
    }

    fn keeps(&self, suspect: &Suspect) -> Vec<Kept> {
        let mut bytes = std::collections::BTreeMap::<u32, u64>::new();
        let pieces: &[u32] = match suspect.shape {
            Shape::Inside => return Vec::new(),
            Shape::Fan | Shape::Web => &suspect.examples[..suspect.examples.len().min(16)],
            Shape::Chain(_) => &suspect.examples,
        };
        for &piece in pieces {
            let nodes = match suspect.shape {
                Shape::Fan | Shape::Inside => self.below(piece as usize),
                // The next turn of a chain hangs below this one: count what hangs beside it.
                Shape::Chain(_) | Shape::Web => {
                    let heaviest = self.tree.children(piece as usize).max_by_key(|&child| self.weight[child]);
                    let beside = self.tree.children(piece as usize).filter(|&child| Some(child) != heaviest);
                    std::iter::once(piece as usize).chain(beside).collect()
                }
            };
            for node in nodes {
                *bytes.entry(self.analysis.classes.of[node]).or_default() += self.analysis.shallow.get(node);
            }
        }
        let turns = match suspect.shape {
            Shape::Fan | Shape::Web | Shape::Inside => pieces.len() as u64,
            Shape::Chain(_) => 1,
        };
        let mut kept: Vec<Kept> = bytes
            .into_iter()
            .map(|(class, bytes)| Kept { class: self.class(class), bytes_per_piece: bytes / turns.max(1) })
            .filter(|kept| kept.bytes_per_piece > 0)
            .collect();
        kept.sort_by(|one, other| (other.bytes_per_piece, &one.class).cmp(&(one.bytes_per_piece, &other.class)));
        kept.truncate(4);
        kept
    }

    /// Names the holder by the variable or property that leads to it, the class that this belongs to, and that class's file
    /// or the scope's.
    fn holder_name(&self, seen: &Seen<'_>) -> String {
        let Some(last) = seen.way.last() else { return String::new() };
        let container = matches!(last.what.as_str(), "Map" | "Set" | "Array");
        let mut name = match &last.by {
            Some(by) if container => format!("`{by}`"),
            Some(by) => format!("{by} ({})", last.what),
            None => last.what.clone(),
        };
        if last.by.is_none()
            && let Some(above) = seen.way[..seen.way.len() - 1].iter().rev().find(|step| step.by.is_some())
        {
            name = format!("{name} in {above}");
        }
        match self.teller.home(seen.holder) {
            Some(Home { class: Some(class), file }) if class != last.what => {
                format!("{name} of {class} in {}", readable(&file))
            }
            Some(Home { file, .. }) => format!("{name} in {}", readable(&file)),
            None => name,
        }
    }

    fn sentence(&self, seen: &Seen<'_>, pattern: Pattern, what: &str, code: Option<&str>, holder: &str) -> String {
        let number = thousands(seen.suspect.count);
        let class = self.class(seen.suspect.class);
        let at = code.map(|code| format!(" at {code}")).unwrap_or_default();
        let more = match self.tense {
            Tense::Holds => "",
            Tense::Grew => " more",
        };
        let grows = match self.tense {
            Tense::Holds => "holds",
            Tense::Grew => "only grows: by",
        };
        let several = seen.suspect.holders.len() > 1;
        if seen.suspect.shape == Shape::Inside || several && Self::is_container(pattern) {
            return self.of_containers(seen, pattern, holder);
        }
        match pattern {
            Pattern::Listener => {
                let emitter = Self::emitter(seen.way);
                let event = if what.is_empty() { String::new() } else { format!(" for '{what}'") };
                format!("{number}{more} listeners{event} on {emitter}: one is added again and again{at}, none removed")
            }
            Pattern::Timer => format!("{number}{more} {what} that nobody cleared, set with the callback{at}"),
            Pattern::Promise => {
                format!("{number}{more} calls of {what}{at} wait for a promise that does not settle, held by {holder}")
            }
            Pattern::Console => {
                format!("{number}{more} {class} kept by the inspector's console, which was shown them{at}")
            }
            Pattern::ClosureScope => match seen.suspect.shape {
                Shape::Chain(_) => {
                    format!("{number}{more} functions in a row, each keeping the one before: {what}{at}, from {holder}")
                }
                Shape::Fan | Shape::Web | Shape::Inside => {
                    format!("{number}{more} functions in {holder}, each keeping its scope: {what}{at}")
                }
            },
            Pattern::Map => format!("the Map {holder} {grows} {class} × {number}"),
            Pattern::Set => format!("the Set {holder} {grows} {class} × {number}"),
            Pattern::Array => format!("the array {holder} {grows} {class} × {number}"),
            Pattern::Table => format!("the object {holder}, used as a table, {grows} {class} × {number}"),
            Pattern::List => format!("a list linked by `{what}` from {holder} {grows} {class} × {number}"),
            Pattern::Other | Pattern::Detached => format!("{holder} {grows} {class} × {number}"),
        }
    }

    fn is_container(pattern: Pattern) -> bool {
        matches!(pattern, Pattern::Map | Pattern::Set | Pattern::Array | Pattern::Table | Pattern::Other)
    }

    /// Tells of containers that grow by values kept inside them, or of several that grow alike.
    fn of_containers(&self, seen: &Seen<'_>, pattern: Pattern, holder: &str) -> String {
        let kind = match pattern {
            Pattern::Map => "Map",
            Pattern::Set => "Set",
            Pattern::Array => "array",
            Pattern::Listener
            | Pattern::Timer
            | Pattern::Promise
            | Pattern::Console
            | Pattern::ClosureScope
            | Pattern::Table
            | Pattern::List
            | Pattern::Detached
            | Pattern::Other => "object",
        };
        let many = seen.suspect.holders.len();
        let pieces = format!("{} × {}", self.class(seen.suspect.class), thousands(seen.suspect.count));
        let inside = seen.suspect.shape == Shape::Inside;
        match (self.tense, many, inside) {
            (Tense::Holds, 1, true) => format!("the {kind} {holder} is large itself: its values lie inside it"),
            (Tense::Grew, 1, true) => format!("the {kind} {holder} only grows: by values that lie inside it"),
            (Tense::Holds, ..) => format!("{many} {kind}s like {holder} hold {pieces}"),
            (Tense::Grew, _, true) => format!("{many} {kind}s like {holder} only grow: by values that lie inside them"),
            (Tense::Grew, ..) => format!("{many} {kind}s like {holder} only grow: by {pieces}"),
        }
    }

    /// The emitter is the step before `_events`.
    fn emitter(way: &[Step]) -> String {
        let events = way.iter().rposition(|step| matches!(step.by.as_deref(), Some("_events" | "<symbol kEvents>")));
        match events.and_then(|index| way[..index].last()) {
            Some(Step { by: Some(by), what, .. }) => format!("{by} ({what})"),
            Some(step) => step.what.clone(),
            None => "an emitter".to_owned(),
        }
    }
}

/// What pieces are that only Node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose {
    class: String,
    count: u64,
    code: Option<String>,
}

/// A file of a package from its package on, which says more than where it is installed.
fn readable(file: &str) -> &str {
    file.rsplit_once("node_modules/").map_or(file, |(_, path)| path)
}

/// Classes of handles that Node keeps alive as long as they are open.
const HANDLES: [&str; 15] = [
    "FSEvent",
    "FileHandle",
    "HTTPCLIENTREQUEST",
    "HTTPINCOMINGMESSAGE",
    "HTTPParser",
    "Http2Session",
    "Http2Stream",
    "MessagePort",
    "Pipe",
    "Process",
    "StatWatcher",
    "TCP",
    "TLSWrap",
    "UDP",
    "Worker",
];

struct Seen<'a> {
    suspect: &'a Suspect,
    holder: usize,
    way: &'a [Step],
}

/// Says whether a node is a root of some kind: what hangs from it directly has no single holder.
pub fn is_root(analysis: &Analysis, node: usize) -> bool {
    analysis.heap.kind(node) == NodeKind::Synthetic
        || analysis.dominator[node] as usize == analysis.heap.root() && analysis.distance[node] == 1
}
