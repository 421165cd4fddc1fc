//! Which lives of an app are compared with which.
//!
//! Pure. Whether the difference is a fix is decided in `trend`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cli::output;
use crate::model::{AppName, Life, LifeSummary, ProcessKey, Steady};
use crate::trend::compare::{VersionName, VersionTrend, versions};

/// Fewest letters that name a revision.
const REVISION_LETTERS: usize = 4;

/// What is compared with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Split {
    /// Two versions, or revisions by their beginning; a missing one is the newest, or the newest that is not the other.
    /// Of an app without versions, the newest life of each process and those before.
    Versions {
        /// The version with the leak.
        before: Option<String>,
        /// The version that should have fixed it.
        after: Option<String>,
    },
    /// Lives that began within this span, and those that began earlier.
    Since(Duration),
}

/// Why there is nothing to compare.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    #[error("no life of it is remembered")]
    App,
    #[error("no life of version {0} is remembered; there are {1}")]
    Version(String, String),
    #[error("only version {0} is remembered: compare two spans of it with `--since`")]
    OneVersion(String),
    #[error("only its first lives are remembered")]
    FirstLives,
    #[error("no life began before that")]
    Before,
    #[error("no life has begun since")]
    After,
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Side {
    /// What it is called.
    pub(super) name: String,
    /// How it went.
    pub(super) trend: VersionTrend,
}

/// Sorts the lives of `app` into two sides, before and after.
///
/// # Errors
/// [`Missing`] where one side has no life.
pub(super) fn select(app: &str, lives: &[LifeSummary], split: &Split, now: Steady) -> Result<(Side, Side), Missing> {
    let lives = once_each(app, lives);
    if lives.is_empty() {
        return Err(Missing::App);
    }
    match split {
        Split::Since(span) => by_time(&lives, *span, now),
        Split::Versions { before: None, after: None } if lives.iter().all(|life| !is_versioned(life)) => {
            by_life(&lives)
        }
        Split::Versions { before, after } => by_version(&lives, before.as_deref(), after.as_deref()),
    }
}

/// Every life of the app once, as it was seen last, in order of their beginning.
fn once_each<'a>(app: &str, lives: &'a [LifeSummary]) -> Vec<&'a LifeSummary> {
    let mut newest: BTreeMap<(&ProcessKey, Life), &LifeSummary> = BTreeMap::new();
    for life in lives.iter().filter(|life| AppName::from(app).means(&life.app)) {
        let place = newest.entry((&life.key, life.life)).or_insert(life);
        if place.last < life.last {
            *place = life;
        }
    }
    let mut lives: Vec<_> = newest.into_values().collect();
    lives.sort_by_key(|life| life.first);
    lives
}

/// Puts lives together whatever their versions; none without a life.
fn side<'a>(name: &str, lives: impl IntoIterator<Item = &'a LifeSummary>) -> Option<Side> {
    let alike: Vec<LifeSummary> = lives
        .into_iter()
        .map(|life| LifeSummary { version: Some(name.to_owned()), revision: None, ..life.clone() })
        .collect();
    versions(&alike).pop().map(|trend| Side { name: name.to_owned(), trend })
}

fn by_time(lives: &[&LifeSummary], span: Duration, now: Steady) -> Result<(Side, Side), Missing> {
    let border = now - span;
    let (after, before): (Vec<_>, Vec<_>) = lives.iter().copied().partition(|life| life.first >= border);
    let ago = output::span(span.as_secs_f64());
    let before = side(&format!("before the last {ago}"), before).ok_or(Missing::Before)?;
    Ok((before, side(&format!("the last {ago}"), after).ok_or(Missing::After)?))
}

fn by_life(lives: &[&LifeSummary]) -> Result<(Side, Side), Missing> {
    let mut seen = BTreeSet::new();
    let (after, before): (Vec<_>, Vec<_>) = lives.iter().rev().copied().partition(|life| seen.insert(&life.key));
    let before = side("earlier lives", before).ok_or(Missing::FirstLives)?;
    Ok((before, side("newest lives", after).ok_or(Missing::FirstLives)?))
}

fn is_versioned(life: &LifeSummary) -> bool {
    life.version.is_some() || life.revision.is_some()
}

fn label(life: &LifeSummary) -> String {
    VersionName::of(life).text(|_| String::new())
}

fn is_of(life: &LifeSummary, wanted: &str) -> bool {
    let by_revision =
        |revision: &String| wanted.len() >= REVISION_LETTERS && revision.starts_with(wanted) && !wanted.is_empty();
    life.version.as_deref() == Some(wanted) || life.revision.as_ref().is_some_and(by_revision) || label(life) == wanted
}

fn by_version(lives: &[&LifeSummary], before: Option<&str>, after: Option<&str>) -> Result<(Side, Side), Missing> {
    let versioned: Vec<&LifeSummary> = lives.iter().copied().filter(|life| is_versioned(life)).collect();
    let of = |wanted: &str| {
        side(wanted, versioned.iter().copied().filter(|life| is_of(life, wanted))).ok_or_else(|| {
            let mut known: Vec<String> = Vec::new();
            for name in versioned.iter().map(|life| label(life)).filter(|name| !name.is_empty()) {
                if !known.contains(&name) {
                    known.push(name);
                }
            }
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Missing::Version(wanted.to_owned(), known)
        })
    };
    let newest_but = |other: Option<&str>| {
        let mut rest = versioned.iter().rev().filter(|life| other.is_none_or(|other| !is_of(life, other)));
        rest.next().map(|life| label(life))
    };
    let after = match after.map(str::to_owned).or_else(|| newest_but(before)) {
        Some(after) => of(&after)?,
        None => return Err(Missing::OneVersion(before.unwrap_or_default().to_owned())),
    };
    let before = match before.map(str::to_owned).or_else(|| newest_but(Some(&after.name))) {
        Some(before) => of(&before)?,
        None => return Err(Missing::OneVersion(after.name)),
    };
    Ok((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LifeEnd;

    const HOUR: i64 = 3_600_000;

    fn life(version: &str, pm_id: u32, start: i64, hours: i64) -> LifeSummary {
        LifeSummary {
            key: ProcessKey { daemon: "default".into(), pm_id },
            app: "api".into(),
            life: Life { pid: 7, started: start },
            version: Some(version.to_owned()).filter(|version| !version.is_empty()),
            revision: None,
            first: Steady(start * HOUR),
            last: Steady((start + hours) * HOUR),
            end: LifeEnd::Restarted,
            floors: Vec::new(),
            resident_floors: Vec::new(),
            resident_max: 1e8,
            slope: None,
        }
    }

    fn names(lives: &[LifeSummary], split: &Split) -> Result<Found, Missing> {
        let (before, after) = select("api", lives, split, Steady(100 * HOUR))?;
        Ok((before.name, before.trend.lives, after.name, after.trend.lives))
    }

    type Found = (String, usize, String, usize);

    fn found(before: &str, before_lives: usize, after: &str, after_lives: usize) -> Found {
        (before.to_owned(), before_lives, after.to_owned(), after_lives)
    }

    fn versions_of(before: Option<&str>, after: Option<&str>) -> Split {
        Split::Versions { before: before.map(str::to_owned), after: after.map(str::to_owned) }
    }

    #[test]
    fn versions_are_found_by_order_by_name_and_by_revision() {
        let mut lives = vec![life("1", 0, 0, 20), life("2", 0, 30, 20), life("2", 0, 51, 20), life("3", 0, 80, 20)];
        lives.push(LifeSummary { app: "other".into(), ..life("9", 0, 200, 20) });
        // The same life as the store held it earlier.
        lives.push(LifeSummary { last: Steady(31 * HOUR), ..lives[1].clone() });
        assert_eq!(names(&lives, &versions_of(None, None)), Ok(found("2", 2, "3", 1)));
        assert_eq!(names(&lives, &versions_of(Some("1"), None)), Ok(found("1", 1, "3", 1)));
        assert_eq!(names(&lives, &versions_of(Some("3"), None)), Ok(found("3", 1, "2", 2)));
        assert_eq!(names(&lives, &versions_of(None, Some("2"))), Ok(found("3", 1, "2", 2)));
        assert_eq!(names(&lives, &versions_of(Some("1"), Some("2"))), Ok(found("1", 1, "2", 2)));
        let missing = Missing::Version("7".to_owned(), "1, 2, 3".to_owned());
        assert_eq!(names(&lives, &versions_of(Some("7"), None)), Err(missing));
        assert_eq!(names(&lives[..1], &versions_of(None, None)), Err(Missing::OneVersion("1".to_owned())));
        assert_eq!(names(&lives[..1], &versions_of(Some("1"), None)), Err(Missing::OneVersion("1".to_owned())));
        assert_eq!(names(&[], &versions_of(None, None)), Err(Missing::App));
        lives[3] = LifeSummary { revision: Some("deadbeefcafe".to_owned()), ..life("2", 0, 80, 20) };
        assert_eq!(names(&lives, &versions_of(None, Some("dead"))), Ok(found("2", 3, "dead", 1)));
        assert_eq!(names(&lives, &versions_of(None, None)), Ok(found("2", 3, "2 (deadbee)", 1)));
    }

    #[test]
    fn spans_and_newest_lives_split_what_has_no_version() {
        let lives = [life("", 0, 0, 20), life("", 1, 0, 90), life("", 0, 30, 20), life("", 0, 80, 20)];
        assert_eq!(names(&lives, &versions_of(None, None)), Ok(found("earlier lives", 2, "newest lives", 2)));
        assert_eq!(names(&lives[..2], &versions_of(None, None)), Err(Missing::FirstLives));
        let since = |hours| Split::Since(Duration::from_hours(hours));
        assert_eq!(names(&lives, &since(24)), Ok(found("before the last 1d", 3, "the last 1d", 1)));
        assert_eq!(names(&lives, &since(1)), Err(Missing::After));
        assert_eq!(names(&lives, &since(9000)), Err(Missing::Before));
        let missing = Missing::Version("2".to_owned(), "none".to_owned());
        assert_eq!(names(&lives, &versions_of(Some("1"), Some("2"))), Err(missing));
    }
}
