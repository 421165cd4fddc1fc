//! Where the configuration and the state live, decided from what the caller saw of the environment.
//!
//! The current folder is anybody's: a file in it counts only where it and the folder are ours or root's and nobody else may
//! write to them. Else whoever could lay a file there would have their commands run by whoever comes by.

use std::path::{Path, PathBuf};

use exporter_web::trust::{Readers, Untrusted, check_ours};

/// What the environment offers; the caller fills it in, so that the search itself stays pure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `--config`.
    pub flag: Option<PathBuf>,
    /// `$LEAKSLOPE_CONFIG`.
    pub variable: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, as systemd sets it; the first of several.
    pub state_directory: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`, as systemd sets it; the first of several.
    pub runtime_directory: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$PM2_HOME`.
    pub pm2_home: Option<PathBuf>,
}

/// A configuration file to read, or the embedded one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This file, named by the user: it must exist.
    Named(PathBuf),
    /// This file, found where one is looked for.
    Present(PathBuf),
    /// None: the embedded default.
    Embedded,
}

/// The files looked for when the user names none, in order.
const CANDIDATES: [&str; 2] = ["./leakslope.toml", "/etc/leakslope/leakslope.toml"];

/// What stands where a configuration file is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// No file.
    Absent,
    /// A file that may be read.
    Present,
    /// A file of the current folder that others could have laid there, and the reason.
    PassedOver(String),
}

/// The configuration file that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub found: Found,
    /// A candidate before it that does not count, and the reason.
    pub passed_over: Option<(&'static str, String)>,
}

/// Chooses the configuration file: the flag, the variable, `./leakslope.toml`, `/etc/leakslope/leakslope.toml`, else
/// the embedded default. `look_for` tells what stands at a candidate.
pub fn find(surroundings: &Surroundings, look_for: impl Fn(&str) -> Candidate) -> Choice {
    if let Some(path) = surroundings.flag.as_ref().or(surroundings.variable.as_ref()) {
        return Choice { found: Found::Named(path.clone()), passed_over: None };
    }
    let mut passed_over = None;
    for candidate in CANDIDATES {
        match look_for(candidate) {
            Candidate::Absent => {}
            Candidate::Present => return Choice { found: Found::Present(PathBuf::from(candidate)), passed_over },
            Candidate::PassedOver(why) => passed_over = Some((candidate, why)),
        }
    }
    Choice { found: Found::Embedded, passed_over }
}

/// Tells what stands at a candidate. One of the current folder has to be a file that, with the folder, only this user or root
/// may write to; nothing of it is read. That of `/etc` is checked when it is read.
pub fn look_for(candidate: &str) -> Candidate {
    let path = Path::new(candidate);
    if path.is_absolute() {
        return if path.exists() { Candidate::Present } else { Candidate::Absent };
    }
    let Ok(file) = std::fs::symlink_metadata(path) else { return Candidate::Absent };
    if !file.is_file() {
        return Candidate::PassedOver("it is no regular file".to_owned());
    }
    let folder = std::fs::metadata(".").map_err(|error| format!("the folder cannot be seen: {error}"));
    let checked = folder
        .and_then(|folder| {
            check_ours(Path::new("."), &folder, Readers::Everybody).map_err(|why| said("the folder", &why))
        })
        .and_then(|()| check_ours(path, &file, Readers::Everybody).map_err(|why| said("it", &why)));
    checked.map_or_else(Candidate::PassedOver, |()| Candidate::Present)
}

fn said(what: &str, why: &Untrusted) -> String {
    match why {
        Untrusted::Foreign { owner, .. } => {
            format!("{what} belongs to user {owner}; a copy of your own may be named by --config")
        }
        Untrusted::Writable { mend } => format!("others may write to {what}; if it is yours: {mend}"),
        Untrusted::NotAFile | Untrusted::Readable { .. } => why.to_string(),
    }
}

/// Chooses the state directory: `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/leakslope`, else
/// `~/.local/state/leakslope`; none where not even a home is known.
pub fn state_directory(surroundings: &Surroundings) -> Option<PathBuf> {
    if let Some(directory) = &surroundings.state_directory {
        return Some(directory.clone());
    }
    if let Some(directory) = surroundings.xdg_state_home.as_ref().filter(|path| path.is_absolute()) {
        return Some(directory.join("leakslope"));
    }
    surroundings.home.as_ref().map(|home| home.join(".local/state/leakslope"))
}

/// The runtime directory of the sidecar that systemd runs, for commands that are run by hand.
/// The folder of the service's sockets, which systemd makes for its user.
pub const SYSTEM_RUNTIME_DIRECTORY: &str = "/run/leakslope";
/// The part of an address that the name of a socket holds: the path of one may have 107 bytes.
const LONGEST_NAME: usize = 40;

/// Where the socket for commands of a sidecar with this first address is looked for, in order; the sidecar itself makes the first
/// one. The address stands in its name, so that a command never finds the socket of another sidecar.
pub fn control_sockets(surroundings: &Surroundings, listen_address: &str) -> Vec<PathBuf> {
    let safe = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '_' };
    let address: String = listen_address.chars().map(safe).take(LONGEST_NAME).collect();
    let own = [surroundings.runtime_directory.clone(), state_directory(surroundings)];
    let folders = own.into_iter().flatten().chain([PathBuf::from(SYSTEM_RUNTIME_DIRECTORY)]);
    folders.map(|folder| folder.join(format!("control-{address}.sock"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_comes_first_then_the_variable_then_the_candidates() {
        let mut surroundings = Surroundings {
            flag: Some(PathBuf::from("/a.toml")),
            variable: Some(PathBuf::from("/b.toml")),
            ..Surroundings::default()
        };
        let chosen = |surroundings: &Surroundings, here: Candidate, etc: Candidate| {
            find(surroundings, |path| if path.starts_with("/etc") { etc.clone() } else { here.clone() })
        };
        let (present, absent) = (Candidate::Present, Candidate::Absent);
        let named = |path: &str| Found::Named(PathBuf::from(path));
        assert_eq!(chosen(&surroundings, present.clone(), present.clone()).found, named("/a.toml"));
        surroundings.flag = None;
        assert_eq!(chosen(&surroundings, present.clone(), present.clone()).found, named("/b.toml"));
        surroundings.variable = None;
        let found = |path: &str| Found::Present(PathBuf::from(path));
        assert_eq!(chosen(&surroundings, present.clone(), present.clone()).found, found("./leakslope.toml"));
        let etc = found("/etc/leakslope/leakslope.toml");
        assert_eq!(chosen(&surroundings, absent.clone(), present.clone()).found, etc);
        assert_eq!(chosen(&surroundings, absent.clone(), absent).found, Found::Embedded);
        let choice = chosen(&surroundings, Candidate::PassedOver("theirs".to_owned()), present);
        assert_eq!(choice, Choice { found: etc, passed_over: Some(("./leakslope.toml", "theirs".to_owned())) });
    }

    #[test]
    fn state_goes_where_the_system_or_the_user_keeps_it() {
        let path = |text: &str| Some(PathBuf::from(text));
        let mut surroundings = Surroundings {
            state_directory: path("/var/lib/leakslope"),
            xdg_state_home: path("/home/a/state"),
            home: path("/home/a"),
            ..Surroundings::default()
        };
        assert_eq!(state_directory(&surroundings), path("/var/lib/leakslope"));
        surroundings.state_directory = None;
        assert_eq!(state_directory(&surroundings), path("/home/a/state/leakslope"));
        surroundings.xdg_state_home = path("relative");
        assert_eq!(state_directory(&surroundings), path("/home/a/.local/state/leakslope"));
        surroundings.home = None;
        assert_eq!(state_directory(&surroundings), None);
    }

    #[test]
    fn the_socket_for_commands_has_the_address_in_its_name() {
        let surroundings = Surroundings { state_directory: Some("/s".into()), ..Surroundings::default() };
        let first = |address: &str| control_sockets(&surroundings, address)[0].display().to_string();
        assert_eq!(first("127.0.0.1:19209"), "/s/control-127.0.0.1_19209.sock");
        assert_eq!(first("unix:/run/a.sock"), "/s/control-unix__run_a.sock.sock");
        assert!(first(&"x/".repeat(100)).len() < 60);
        let unit = Surroundings { runtime_directory: Some("/run/leakslope".into()), ..surroundings.clone() };
        assert!(control_sockets(&unit, ":1")[0].starts_with("/run/leakslope"));
        assert!(control_sockets(&surroundings, ":1").last().unwrap().starts_with("/run/leakslope"));
    }
}
