//! leakslope: a sidecar for Node.js apps under pm2 that tells whether one leaks, how fast, until when and where.
//!
//! Data flows one way:
//!
//! ```text
//!   pm2 socket ─┐                                   ┌─ export ── http ── Prometheus, people
//!   pm2 command ├─ collect ── history ── trend ─────┼─ ui     ── http ── a browser
//!   /proc       ┘     │                             └─ policy ── actuate ── pm2
//!                     └── evidence (profiles and snapshots, on request)
//! ```
//!
//! | room           | what it is for                                              | pure |
//! |----------------|-------------------------------------------------------------|------|
//! | `crates/model` | the words every room shares                                 | yes  |
//! | `config`       | text to settings, every error with its file, line and key   | yes, but for reading the file |
//! | `collect`      | what pm2 and the system say now                             | codecs and parsers |
//! | `history`      | what is remembered, by the crates `leak-detector` and `history-store` | no   |
//! | `crates/leak-detector` | `history` in memory, `trend`: the slope and the verdict, `deaths`: why a run ended | yes  |
//! | `policy`       | when a process is restarted, and why not                    | yes  |
//! | `actuate`      | carries out what the policy orders                          | no   |
//! | `alertmanager` | Alertmanager's webhook, alerts and silences                 | yes  |
//! | `evidence`     | heap snapshots and profiles: which code holds the memory    | reading is |
//! | `export`       | snapshot and verdicts to Prometheus families                | yes  |
//! | `http`         | the crate `exporter-web`: the server and its limits         | no   |
//! | `doctor`       | what is wrong with the way apps run; its `checks` are pure | no |
//! | `ui`           | the page's files and the shapes of its views                | yes  |
//! | `runtime`      | clocks, tasks, signals: the only room that reads the time   | no   |
//! | `cli`          | commands and what they print                                | no   |
//!
//! A pure room takes its input and `now` as arguments and returns values.

pub mod actuate;
pub mod cli;
pub mod collect;
pub mod config;
pub mod doctor;
pub mod evidence;
pub mod export;
pub mod history;
pub mod runtime;
pub mod ui;

pub use ::exporter_web as http;
pub use ::model;
pub use ::restart_policy as policy;
pub use ::restart_policy::alertmanager;
pub use leak_detector::death as deaths;
pub use leak_detector::trend;

/// The source revision this binary was built from; `unknown` outside a git checkout.
pub const REVISION: &str = env!("LEAKSLOPE_REVISION");
