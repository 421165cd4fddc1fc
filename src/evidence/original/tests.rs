use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::map::At;
use super::{Originals, Places};

const SCRIPT: &str = "function a(n){return new Array(n)}\n";
const MAP: &str = r#"{"version":3,"sources":["../src/a.ts"],"names":[],"mappings":"AAAA,SAASA",
    "sourcesContent":["function makeRow(n: number) { return new Array(n); }"]}"#;

/// What stands at 1:11 of `script`, once the files lie there.
fn resolved(files: &[(&str, &str)], script: &str, map_from: Option<&str>) -> (Option<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let moved = map_from.map(|from| (from.into(), folder.path().to_owned()));
    let places = Places { moved: moved.into_iter().collect(), maps: vec![folder.path().join("maps")] };
    let mut originals = Originals::new(places, Some(rustix::process::geteuid().as_raw()));
    let script = map_from.map_or(folder.path(), Path::new).join(script).display().to_string();
    let at = At { line: 0, column: 10 };
    let wanted = BTreeMap::from([(script.clone(), BTreeSet::from([at]))]);
    let found = originals.look_up_all(&wanted).remove(&(script, at));
    let root = folder.path().display().to_string();
    let shown = found.map(|one| {
        let name = one.name.unwrap_or_default();
        format!("{name} {}:{}{}", one.file.replace(&root, ""), one.line + 1, if one.ignored { " ignored" } else { "" })
    });
    (shown, originals.notes().map(|note| note.replace(&root, "")).collect())
}

#[test]
fn a_map_is_found_beside_linked_inline_chained_and_elsewhere() {
    use base64::Engine as _;
    let linked = format!("{SCRIPT}//# sourceMappingURL=a.js.map\n");
    let encoded = base64::engine::general_purpose::STANDARD.encode(MAP);
    let inline = format!("{SCRIPT}//# sourceMappingURL=data:application/json;charset=utf-8;base64,{encoded}");
    let text = format!(
        "var s='//# sourceMappingURL=no.map';\n{SCRIPT}//# sourceMappingURL=old.map\n//# sourceMappingURL=a.js.map\n"
    );
    let chain = r#"{"version":3,"sources":["a.js"],"names":[],"mappings":"AAAA"}"#;
    let odd = format!("{SCRIPT}//# sourceMappingURL=%5Broot%5D.map\n");
    let expected = (Some("makeRow /src/a.ts:1".to_owned()), Vec::new());
    let cases: [&[(&str, &str)]; 6] = [
        &[("dist/a.js", &linked), ("dist/a.js.map", MAP)],
        &[("dist/a.js", &inline)],
        &[("dist/a.js", SCRIPT), ("dist/a.js.map", MAP)],
        &[("dist/a.js", &odd), ("dist/[root].map", MAP)],
        &[("dist/a.js", &text), ("dist/a.js.map", MAP), ("dist/old.map", chain)],
        &[("dist/b.js", SCRIPT), ("dist/b.js.map", chain), ("dist/a.js", &linked), ("dist/a.js.map", MAP)],
    ];
    for (number, files) in cases.into_iter().enumerate() {
        let script = if number == 5 { "dist/b.js" } else { "dist/a.js" };
        assert_eq!(resolved(files, script, None), expected, "{number}");
        assert_eq!(resolved(files, script, Some("/srv/shop")), expected, "{number}, elsewhere");
    }
}

#[test]
fn names_come_from_the_map_where_it_holds_no_text_and_from_the_text_on_disk() {
    let bare = r#"{"version":3,"sources":["../src/a.ts"],"names":["makeRow"],"mappings":"AAAA,SAASA,CAAC"}"#;
    let unnamed = r#"{"version":3,"sources":["../src/a.ts"],"names":[],"mappings":"AAAA,SAAS"}"#;
    let text = "function rowOf(n: number) {}\n";
    let named = |name: &str| (Some(format!("{name} /src/a.ts:1")), Vec::new());
    assert_eq!(resolved(&[("dist/a.js", SCRIPT), ("dist/a.js.map", bare)], "dist/a.js", None), named("makeRow"));
    let files = [("dist/a.js", SCRIPT), ("dist/a.js.map", unnamed), ("src/a.ts", text)];
    assert_eq!(resolved(&files, "dist/a.js", None), named("rowOf"));
}

#[test]
fn sources_that_a_build_named_from_elsewhere_and_maps_left_behind_are_found() {
    let chain = r#"{"version":3,"sources":["out/tsc/a.js"],"names":[],"mappings":"AAAA"}"#;
    let middle = r#"{"version":3,"sources":["../../src/a.ts"],"names":[],"mappings":"AAAA,SAASA",
        "sourcesContent":["function makeRow(n: number) {}"]}"#;
    let expected = (Some("makeRow /src/a.ts:1".to_owned()), Vec::new());
    let files =
        [("out/min/a.js", SCRIPT), ("out/min/a.js.map", chain), ("out/tsc/a.js", SCRIPT), ("out/tsc/a.js.map", middle)];
    assert_eq!(resolved(&files, "out/min/a.js", None), expected);
    let linked = format!("{SCRIPT}//# sourceMappingURL=a.js.map\n");
    let left = [("dist/a.js", linked.as_str()), ("maps/dist/a.js.map", MAP)];
    assert_eq!(resolved(&left, "dist/a.js", None), expected);
    let (found, notes) = resolved(&[("dist/a.js", &format!("var __defProp;{SCRIPT}"))], "dist/a.js", None);
    assert!(found.is_none() && notes[0].ends_with("esbuild: build with --sourcemap"), "{notes:?}");
}

#[test]
fn a_profile_that_names_what_its_app_may_not_read_learns_nothing() {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    const APP: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let (script, map) = (folder.path().join("a.js"), folder.path().join("a.js.map"));
    let set = |path: &Path, owner: u32, mode: u32| {
        chown(path, Some(owner), None).expect("this test needs a second user: run it as root");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let named = || {
        let mut originals = Originals::new(Places::default(), Some(APP));
        let at = At { line: 0, column: 10 };
        let file = script.display().to_string();
        let found = originals.look_up_all(&BTreeMap::from([(file.clone(), BTreeSet::from([at]))]));
        (found.contains_key(&(file, at)), originals.notes().map(str::to_owned).collect::<Vec<_>>().join(" "))
    };
    std::fs::write(&script, format!("{SCRIPT}//# sourceMappingURL=a.js.map")).unwrap();
    std::fs::write(&map, MAP).unwrap();
    for (owner, mode, is_read) in [
        (APP, 0o600, true),
        (0, 0o644, true),
        (0, 0o600, false),
        (0, 0o640, false),
        (0, 0o664, true),
        (0, 0o646, false),
        (1, 0o644, false),
    ] {
        set(&map, owner, mode);
        set(&script, APP, 0o600);
        let (found, notes) = named();
        assert_eq!(found, is_read, "the map: {owner} {mode:o}");
        assert_eq!(notes.contains("it belongs to user"), !is_read, "{notes}");
        set(&map, APP, 0o600);
        set(&script, owner, mode);
        assert_eq!(named().0, is_read, "the script: {owner} {mode:o}");
    }
    set(&script, APP, 0o600);
    let put = |make: &dyn Fn()| {
        std::fs::remove_file(&map).unwrap();
        make();
        let (found, notes) = named();
        assert!(!found);
        notes
    };
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), MAP).unwrap();
    assert!(put(&|| symlink(secret.path(), &map).unwrap()).contains("it leads out of the script's folder"));
    assert!(put(&|| symlink("/dev/zero", &map).unwrap()).contains("it leads out of the script's folder"));
    let pipe = || rustix::fs::mknodat(rustix::fs::CWD, &map, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
    assert!(put(&pipe).contains("it is a pipe"));
    std::fs::remove_file(&script).unwrap();
    symlink(secret.path(), &script).unwrap();
    assert!(!named().0, "the script itself is a link to what is not theirs");
}

#[test]
fn what_is_missing_or_leads_out_costs_the_name_and_is_told() {
    let link = |to: &str| format!("{SCRIPT}//# sourceMappingURL={to}\n");
    for (to, note) in [
        ("gone.map", "gone.map cannot be read"),
        ("../../../etc/passwd", "is outside its folder"),
        ("https://example.org/a.map", "not on this machine"),
        ("data:application/json;base64,!!", "its inline source map"),
        ("b.map", "cannot be read: EOF"),
    ] {
        let (found, notes) = resolved(&[("dist/a.js", &link(to)), ("dist/b.map", "{")], "dist/a.js", None);
        assert_eq!(found, None, "{to}");
        assert!(notes.len() == 1 && notes[0].contains(note), "{to}: {notes:?}");
    }
    assert_eq!(resolved(&[("dist/a.js", SCRIPT)], "dist/a.js", None), (None, Vec::new()));
    let ring = r#"{"version":3,"sources":["a.js"],"names":[],"mappings":"AAAA"}"#;
    let (found, _) = resolved(&[("a.js", SCRIPT), ("a.js.map", ring)], "a.js", None);
    assert_eq!(found.as_deref(), Some("a /a.js:1"), "a map of itself ends");
}
