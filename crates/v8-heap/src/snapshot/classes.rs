//! What DevTools calls an object: its constructor, or for plain objects the properties they have in common.
//!
//! Constructors of the same name written at different places are different classes. Plain objects are `{id, user}`
//! where enough of them share those properties, else `Object`.

use std::collections::{BTreeMap, HashMap};

use super::heap::{EdgeKind, Heap, Location, NodeKind, ordinal};
use super::privacy::quotable;
use super::references::Names;

/// The longest name made of properties, in UTF-16 units.
const LONGEST: usize = 120;
/// A set of properties must be shared by one plain object in this many.
const PROPORTION: usize = 1000;

/// A class of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// What DevTools calls it.
    pub name: String,
    /// Where its constructor was written, if the file says so.
    pub location: Option<Location>,
    /// What its members are (of its first member).
    pub kind: NodeKind,
}

/// A set of properties that many plain objects share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The properties in braces.
    pub name: String,
    /// The properties' names.
    pub properties: Vec<String>,
}

/// Every node's class.
#[derive(Debug, Default)]
pub struct Classes {
    /// The class of each node, as a place in `list`.
    pub of: Vec<u32>,
    /// All classes.
    pub list: Vec<Class>,
    /// The sets of properties that classes were made of.
    pub interfaces: Vec<Interface>,
}

/// Names every node. `known` are interfaces found in an earlier snapshot: they come first.
pub fn classes(heap: &Heap, names: &Names, known: &[Interface]) -> Classes {
    let mut classes = Classes { of: vec![0; heap.node_count()], ..Classes::default() };
    let shapes = Shapes::of(heap, names, &mut classes.of);
    classes.interfaces = known.to_vec();
    for interface in shapes.interfaces(heap, names) {
        if !classes.interfaces.iter().any(|other| other.properties == interface.properties) {
            classes.interfaces.push(interface);
        }
    }
    let best = shapes.best(heap, &classes.interfaces);
    let detached = super::detached::detached(heap);
    let mut table: HashMap<(Key, Option<Location>), u32> = HashMap::new();
    for node in 0..heap.node_count() {
        let kind = heap.kind(node);
        let name = heap.name_index(node);
        let key = if kind == NodeKind::Object && Some(name) == names.object {
            best[classes.of[node] as usize].map_or(Key::Named(name), Key::Interface)
        } else if kind == NodeKind::Native && detached.get(node) {
            Key::Detached(name)
        } else if matches!(kind, NodeKind::Object | NodeKind::Native) {
            Key::Named(name)
        } else {
            Key::Kind(heap.kind[node])
        };
        let location = if kind == NodeKind::Object { heap.location(node) } else { None };
        let next = ordinal(classes.list.len());
        let class = *table.entry((key, location)).or_insert_with(|| {
            let name = class_name(heap, node, key, &classes.interfaces);
            classes.list.push(Class { name, location, kind });
            next
        });
        classes.of[node] = class;
    }
    classes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Named(u32),
    Detached(u32),
    Interface(u32),
    Kind(u8),
}

fn class_name(heap: &Heap, node: usize, key: Key, interfaces: &[Interface]) -> String {
    match key {
        Key::Named(_) => heap.name(node).into_owned(),
        // Some versions of V8 write it into the name themselves.
        Key::Detached(_) if heap.name_bytes(node).starts_with(b"Detached ") => heap.name(node).into_owned(),
        Key::Detached(_) => format!("Detached {}", heap.name(node)),
        Key::Interface(index) => interfaces[index as usize].name.clone(),
        Key::Kind(_) => match heap.kind_name(node) {
            "hidden" => "(system)".to_owned(),
            "code" => "(compiled code)".to_owned(),
            "closure" => "Function".to_owned(),
            "regexp" => "RegExp".to_owned(),
            kind => format!("({kind})"),
        },
    }
}

/// The different lists of properties that plain objects have.
struct Shapes {
    /// Properties of each shape, in order, as string indexes; and how many objects have it.
    list: Vec<(Box<[u32]>, usize)>,
    objects: usize,
}

impl Shapes {
    /// Finds the shapes; leaves each plain object's shape in `of`.
    fn of(heap: &Heap, names: &Names, of: &mut [u32]) -> Self {
        let mut shapes = Self { list: Vec::new(), objects: 0 };
        let Some(object) = names.object else { return shapes };
        let mut known: HashMap<Box<[u32]>, u32> = HashMap::new();
        let mut properties = Vec::new();
        for (node, of) in of.iter_mut().enumerate() {
            if heap.name_index(node) != object || heap.kind(node) != NodeKind::Object {
                continue;
            }
            shapes.objects += 1;
            properties.clear();
            properties.extend(heap.edges(node).filter(|edge| edge.kind == EdgeKind::Property).map(|edge| edge.name));
            let shape = known.get(properties.as_slice()).copied().unwrap_or_else(|| {
                let shape = ordinal(shapes.list.len());
                known.insert(properties.as_slice().into(), shape);
                shapes.list.push((properties.as_slice().into(), 0));
                shape
            });
            shapes.list[shape as usize].1 += 1;
            *of = shape;
        }
        shapes
    }

    /// Picks the lists of properties that are common enough to be a class of their own, the commonest first.
    fn interfaces(&self, heap: &Heap, names: &Names) -> Vec<Interface> {
        let mut lengths: HashMap<u32, usize> = HashMap::new();
        let mut candidates: HashMap<&[u32], (usize, usize)> = HashMap::new();
        let mut trimmed: Vec<Vec<u32>> = Vec::new();
        for (properties, _) in &self.list {
            let mut length = 1;
            let mut kept = Vec::new();
            for &name in properties {
                if Some(name) == names.proto {
                    continue;
                }
                let own =
                    *lengths.entry(name).or_insert_with(|| format_property(&heap.string(name)).encode_utf16().count());
                if length > 1 && length + own > LONGEST {
                    break;
                }
                length += own + if length == 1 { 0 } else { 2 };
                kept.push(name);
            }
            trimmed.push(kept);
        }
        for (order, (kept, (_, objects))) in trimmed.iter().zip(&self.list).enumerate() {
            if !kept.is_empty() {
                candidates.entry(kept).or_insert((0, order)).0 += objects;
            }
        }
        let least = 2.max(self.objects.div_ceil(PROPORTION));
        let mut chosen: Vec<(&[u32], (usize, usize))> =
            candidates.into_iter().filter(|(_, (objects, _))| *objects >= least).collect();
        chosen.sort_unstable_by_key(|(_, (objects, order))| (std::cmp::Reverse(*objects), *order));
        chosen
            .into_iter()
            .map(|(properties, _)| {
                let properties: Vec<String> = properties.iter().map(|&name| heap.string(name).into_owned()).collect();
                let shown: Vec<String> = properties
                    .iter()
                    .map(|name| format_property(&quotable(name.into(), heap.shows_strings())))
                    .collect();
                Interface { name: format!("{{{}}}", shown.join(", ")), properties }
            })
            .collect()
    }

    /// Finds for each shape the interface with the most properties of which it has all.
    fn best(&self, heap: &Heap, interfaces: &[Interface]) -> Vec<Option<u32>> {
        let mut wanted: BTreeMap<&[u8], u32> =
            interfaces.iter().flat_map(|one| &one.properties).map(|name| (name.as_bytes(), u32::MAX)).collect();
        for index in 0..u32::try_from(heap.strings.len()).unwrap_or(u32::MAX) {
            if let Some(found) = wanted.get_mut(heap.strings.bytes(index))
                && *found == u32::MAX
            {
                *found = index;
            }
        }
        // Interfaces by one of their properties: the last that they all list, so that few share a list.
        let mut by_property: HashMap<u32, Vec<(u32, Vec<u32>)>> = HashMap::new();
        for (index, interface) in interfaces.iter().enumerate() {
            let needed: Vec<u32> = interface.properties.iter().map(|name| wanted[name.as_bytes()]).collect();
            if let Some(&key) = needed.last()
                && !needed.contains(&u32::MAX)
            {
                by_property.entry(key).or_default().push((ordinal(index), needed));
            }
        }
        let mut sorted = Vec::new();
        self.list
            .iter()
            .map(|(properties, _)| {
                sorted.clear();
                sorted.extend_from_slice(properties);
                sorted.sort_unstable();
                properties
                    .iter()
                    .filter_map(|name| by_property.get(name))
                    .flatten()
                    .filter(|(_, needed)| needed.iter().all(|name| sorted.binary_search(name).is_ok()))
                    .max_by_key(|(index, needed)| (needed.len(), std::cmp::Reverse(*index)))
                    .map(|(index, _)| *index)
            })
            .collect()
    }
}

/// Writes a property's name so that it cannot be mistaken for several.
fn format_property(name: &str) -> String {
    if name.contains([',', '\'', '"', '{', '}']) {
        serde_json::to_string(name).unwrap_or_default()
    } else {
        name.to_owned()
    }
}
