//! How each command in the documents is proven. A command that no line stands for fails the test: add one.

use std::collections::BTreeSet;

use wildmatch::WildMatch;

/// How a command is proven. Whatever the way: the shell must be able to read it, and files, units, tests, benches and flags
/// of this project that it names must be there.
#[derive(Debug, Clone, Copy)]
pub enum Proof {
    /// It runs in the prepared place and ends with one of these exit codes.
    Ends(&'static [i32]),
    /// It runs in the prepared place and serves figures of real processes.
    Serves,
    /// It is a step of `tests/run`, which runs this test, or is that.
    Suite,
    /// Another test runs it; this file.
    Elsewhere(&'static str),
    /// It is not run here, for this reason.
    NotRun(&'static str),
}

use Proof::{Elsewhere, Ends, NotRun, Serves, Suite};

const ROOT: &str = "needs root and systemd";
const MINUTES: &str = "takes minutes, or a release build";
const FETCHES: &str = "fetches from a registry";
const APPS: &str = "changes somebody's apps; held against pm2's help";

/// `…` stands for anything, `sudo` in front is not written; the first line that fits counts.
#[rustfmt::skip]
const TABLE: &[(&str, Proof)] = &[
    ("cargo run --release", Serves),
    ("cargo run --release -- demo", Elsewhere("tests/sidecar/demo.rs")),
    ("./tests/run", Suite),
    ("./tests/run quick", NotRun("is a part of ./tests/run")),
    ("./tests/run pictures", NotRun(MINUTES)),
    ("cargo fmt --all --check", Suite),
    ("cargo clippy …", Suite),
    ("cargo build --…", NotRun(MINUTES)),
    ("cargo run --example …", Elsewhere("crates/v8-heap/tests/growth.rs")),
    ("npm start", NotRun("starts the reader's app")),
    ("leakslope status --wide", Ends(&[0])),
    ("leakslope memory …", Elsewhere("tests/sidecar/memory.rs")),
    ("leakslope open", Elsewhere("tests/sidecar/security.rs")),
    ("cargo build", NotRun("has been done: this test runs what it built")),
    ("cargo test …", NotRun("is a part of ./tests/run")),
    ("WRITE_METRICS_TABLE=1 cargo test …", NotRun("writes into the documents")),
    ("INSTA_UPDATE=always cargo test …", NotRun("writes into the snapshots")),
    ("cargo bench …", NotRun(MINUTES)),
    ("node benches/…", NotRun(MINUTES)),
    ("npm ci…", NotRun(FETCHES)),
    ("leakslope", Serves),
    ("leakslope analyze …", Ends(&[0, 3])),
    ("… | leakslope analyze -", Ends(&[0, 3])),
    ("leakslope compare …", Ends(&[0, 3, 4])),
    ("leakslope deaths …", Ends(&[0])),
    ("leakslope deaths", Ends(&[0])),
    ("leakslope heap snapshot …", Elsewhere("tests/evidence/series.rs")),
    ("leakslope heap …", Ends(&[0])),
    ("leakslope doctor …", Elsewhere("tests/sidecar/doctor.rs")),
    ("leakslope doctor", Ends(&[0, 3])),
    ("leakslope watch …", Elsewhere("tests/sidecar/watch.rs")),
    ("curl -s http://127.0.0.1:19209/…", Ends(&[0])),
    ("curl -H 'Content-Type: application/json' -d … http://127.0.0.1:19209/api/v1/evidence", Elsewhere("tests/evidence/policy.rs")),
    ("curl -OJ -H …", Elsewhere("tests/evidence/policy.rs")),
    ("promtool test rules …", Ends(&[0])),
    ("promtool check config", NotRun("the file is the reader's")),
    ("promtool check web-config", Elsewhere("tests/sidecar/web_format.rs")),
    ("openssl rand -hex 24", Ends(&[0])),
    ("systemd-analyze security …", Ends(&[0])),
    ("deploy/release/build", NotRun(MINUTES)),
    ("deploy/release/pack", Elsewhere("tests/rules/deploy_release.rs")),
    ("sh install.sh", Elsewhere("tests/rules/deploy_release.rs")),
    ("deploy/debian/build", Elsewhere("tests/rules/deploy_debian.rs")),
    ("apt-get install …leakslope…deb", Elsewhere("tests/rules/deploy_debian.rs")),
    ("apt-get remove", Elsewhere("tests/rules/deploy_debian.rs")),
    ("apt-get purge leakslope", Elsewhere("tests/rules/deploy_debian.rs")),
    ("apt-get install faketime", NotRun(ROOT)),
    ("node deploy/npm/pack.cjs …", Elsewhere("tests/rules/deploy_npm.rs")),
    ("npm install -g leakslope", Elsewhere("tests/rules/deploy_npm.rs")),
    ("pm2 install leakslope", Elsewhere("tests/rules/deploy_npm.rs")),
    ("pm2 uninstall leakslope", Elsewhere("tests/rules/deploy_npm.rs")),
    ("pm2 start \"$(npm root -g)/leakslope/ecosystem.config.cjs\"", Elsewhere("tests/rules/deploy_npm.rs")),
    ("kubectl apply -k deploy/kubernetes/base", NotRun("needs a cluster; tests/rules/deploy_kubernetes.rs builds what it applies")),
    ("kubectl …", NotRun("needs a cluster")),
    ("docker …", NotRun("needs Docker and its registry")),
    ("cargo install --locked --path .", NotRun(MINUTES)),
    ("cargo install --locked --git …", NotRun(FETCHES)),
    ("cargo install cargo-de…", NotRun("fetches from the registry; tests/run installs cargo-deb")),
    ("cargo deny check", NotRun("needs a database on GitHub; the workflow runs it")),
    ("systemctl daemon-reload", Elsewhere("tests/rules/deploy_debian.rs")),
    ("systemctl enable --now leakslope.service", Elsewhere("tests/rules/deploy_debian.rs")),
    ("systemctl …", NotRun(ROOT)),
    ("install -m …", Ends(&[0])),
    ("cp -r …", Ends(&[0])),
    ("cp dashboards/…", Ends(&[0])),
    ("mkdir -p …", Ends(&[0])),
    ("chmod g+x /home/shop", Ends(&[0])),
    ("useradd …", Elsewhere("tests/rules/deploy_debian.rs")),
    ("setfacl …", Elsewhere("tests/rules/deploy_debian.rs")),
    ("pm2 ls…", Ends(&[0])),
    ("pm2 ping", Ends(&[0])),
    ("pm2 jlist", Ends(&[0])),
    ("pm2 -s jlist", Ends(&[0])),
    ("pm2 show …", Ends(&[0])),
    ("pm2 logs … --nostream", Ends(&[0])),
    ("pm2 logs …", NotRun("goes on until it is interrupted")),
    ("pm2 save", Ends(&[0])),
    ("pm2 restart --update-env", NotRun("names no app")),
    ("pm2 restart …", Ends(&[0])),
    ("pm2 …", NotRun(APPS)),
];

/// The command as the table has it: in one line, without its comment and without `sudo`.
pub fn bare(command: &str) -> String {
    let one_line = command.replace("\\\n", " ");
    let words: Vec<&str> = one_line.split_whitespace().take_while(|word| *word != "#").collect();
    let text = words.join(" ");
    text.strip_prefix("sudo ").map_or(text.clone(), str::to_owned)
}

/// The line of the table that fits a bare command.
pub fn row(bare: &str) -> Option<&'static (&'static str, Proof)> {
    TABLE.iter().find(|(pattern, _)| WildMatch::new(&pattern.replace('…', "*")).matches(bare))
}

/// The patterns that none of these bare commands is proven by.
pub fn idle<'a>(commands: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let used: BTreeSet<&str> = commands.filter_map(row).map(|(pattern, _)| *pattern).collect();
    TABLE.iter().map(|(pattern, _)| *pattern).filter(|pattern| !used.contains(pattern)).collect()
}

/// Whether code in the text is a command: it begins with a program of the table and says more than its name.
pub fn is_command(text: &str) -> bool {
    let program = |text: &str| text.split(' ').find(|word| !word.contains('=')).map(str::to_owned);
    let bare = bare(text);
    let programs = TABLE.iter().map(|(pattern, _)| program(pattern)).filter(|program| program.as_deref() != Some("…"));
    bare.contains(' ') && programs.into_iter().any(|known| known == program(&bare))
}
