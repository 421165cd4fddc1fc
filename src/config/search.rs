//! Where the configuration and the state live, decided from what the caller saw of the environment.

use std::path::PathBuf;

/// What the environment offers; the caller fills it in, so that the search itself stays pure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `--config`.
    pub flag: Option<PathBuf>,
    /// `$LEAKSLOPE_CONFIG`.
    pub variable: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, as systemd sets it; the first of several.
    pub state_directory: Option<PathBuf>,
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

/// Chooses the configuration file: the flag, the variable, `./leakslope.toml`, `/etc/leakslope/leakslope.toml`, else
/// the embedded default. `exists` tells whether a candidate is there.
pub fn find(surroundings: &Surroundings, exists: impl Fn(&str) -> bool) -> Found {
    if let Some(path) = surroundings.flag.as_ref().or(surroundings.variable.as_ref()) {
        return Found::Named(path.clone());
    }
    CANDIDATES
        .into_iter()
        .find(|candidate| exists(candidate))
        .map_or(Found::Embedded, |candidate| Found::Present(PathBuf::from(candidate)))
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
        assert_eq!(find(&surroundings, |_| true), Found::Named(PathBuf::from("/a.toml")));
        surroundings.flag = None;
        assert_eq!(find(&surroundings, |_| true), Found::Named(PathBuf::from("/b.toml")));
        surroundings.variable = None;
        assert_eq!(find(&surroundings, |_| true), Found::Present(PathBuf::from("./leakslope.toml")));
        assert_eq!(
            find(&surroundings, |candidate| candidate.starts_with("/etc")),
            Found::Present(PathBuf::from("/etc/leakslope/leakslope.toml"))
        );
        assert_eq!(find(&surroundings, |_| false), Found::Embedded);
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
}
