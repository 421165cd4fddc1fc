//! Which apps lose connections when they are restarted, and the lines that end it.

use serde::Serialize;

use super::facts::{App, Facts};

/// What a restart costs an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restart {
    /// The daemon, or the ecosystem file.
    pub daemon: String,
    /// The app.
    pub app: String,
    /// pm2's numbers of its processes.
    pub pm_ids: Vec<u32>,
    /// What happens.
    pub what: String,
    /// The lines that make it a cluster app of one instance; none where it cannot be one.
    pub change: Vec<String>,
}

/// The apps that refuse connections while they are restarted: those in fork mode that listen.
pub fn restarts(facts: &Facts) -> Vec<Restart> {
    let mut found: Vec<Restart> = Vec::new();
    for daemon in &facts.daemons {
        for app in daemon.apps.iter().filter(|app| !app.settings.cluster && !app.settings.module) {
            let Some(restart) = lost(&daemon.name, app) else { continue };
            match found.iter_mut().find(|one| (&one.daemon, &one.app) == (&restart.daemon, &restart.app)) {
                Some(one) => one.pm_ids.extend(restart.pm_ids),
                None => found.push(restart),
            }
        }
    }
    found
}

fn lost(daemon: &str, app: &App) -> Option<Restart> {
    let settings = &app.settings;
    let listens = match &app.live {
        Some(live) => live.listens?,
        // A file does not say who listens.
        None => settings.pm_id.is_none(),
    };
    if !listens {
        return None;
    }
    let can = settings.is_node();
    let instances = settings.instances.filter(|instances| *instances > 1).unwrap_or(1);
    let (what, change) = if can {
        (
            "in fork mode pm2 ends the old process before it starts the new one, and connections are refused in between: a quarter \
             to two thirds of requests were lost in our tests, none in cluster mode",
            vec!["exec_mode: \"cluster\",".to_owned(), format!("instances: {instances},")],
        )
    } else {
        (
            "pm2 ends the old process before it starts the new one, and only a Node.js script can run in cluster mode",
            Vec::new(),
        )
    };
    let what = if app.live.is_some() { what.to_owned() } else { format!("if it listens on a port: {what}") };
    Some(Restart {
        daemon: daemon.to_owned(),
        app: settings.name.clone(),
        pm_ids: settings.pm_id.into_iter().collect(),
        what,
        change,
    })
}
