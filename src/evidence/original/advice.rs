//! Which builder wrote a script, and how it is told to write a source map. Pure.

/// A mark in a script's text, and what to do for a map of it.
const BUILDERS: [(&str, &str); 9] = [
    (
        "__webpack_require__",
        "webpack: set devtool to \"source-map\", or \"hidden-source-map\" (NestJS: in webpack.config.js)",
    ),
    ("webpackChunk", "webpack: set devtool to \"source-map\", or \"hidden-source-map\""),
    (
        "TURBOPACK",
        "Next: set experimental.serverSourceMaps, and name the build's folder, since standalone/ leaves its maps behind",
    ),
    ("commonjsGlobal", "rollup: set output.sourcemap (vite: build.sourcemap) to true"),
    ("__defProp", "esbuild: build with --sourcemap"),
    ("_interop_require", "swc: build with --source-maps (sourceMaps in .swcrc)"),
    ("_interopRequire", "babel: build with --source-maps"),
    ("__importDefault", "TypeScript: set sourceMap to true in tsconfig.json"),
    ("\"__esModule\"", "TypeScript: set sourceMap to true in tsconfig.json"),
];

/// Says how to make a map for a script that has none; nothing where it looks as its author wrote it.
pub(super) fn of(script: &str, minified: bool) -> Option<&'static str> {
    let known = BUILDERS.iter().find(|(mark, _)| script.contains(mark)).map(|(_, advice)| *advice);
    known.or(minified
        .then_some("it is minified: have whatever builds it write one (esbuild --sourcemap, rollup output.sourcemap)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_is_told_by_its_marks() {
        for (script, minified, start) in [
            ("var a=__webpack_require__(3)", true, Some("webpack")),
            ("Object.defineProperty(exports, \"__esModule\", { value: true });", false, Some("TypeScript")),
            ("let a=1", true, Some("it is minified")),
            ("let a = 1;", false, None),
        ] {
            let found = of(script, minified).and_then(|advice| advice.split(':').next());
            assert_eq!(found, start, "{script}");
        }
    }
}
