//! Alertmanager's formats: its webhook (payload version 4), its v2 alerts and its v2 silences.
//!
//! Pure parsing and building with a limit on everything. What comes in was written by others: one bad alert never loses
//! the rest, an alert that does not say exactly what it wants is left alone, and a silence that cannot be understood
//! counts as covering. What it reads are the policy's own types; the policy knows nothing of it. This room refuses to open
//! connections and to decide.

mod alerts;
mod silences;
mod webhook;

pub use alerts::{OutgoingAlert, build_alerts};
pub use silences::{SilencesError, parse_silences};
pub use webhook::{Ignored, Webhook, WebhookError, parse_webhook};

/// The largest body that is read, in bytes: 10,000 alerts with long annotations fit.
pub const LARGEST_BODY: usize = 16 << 20;
