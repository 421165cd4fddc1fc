//! The detector of one process: signals put together, states with hysteresis, and the verdict in words.
//!
//! Evidence and urgency are two axes: the state says how sure we are, `projected_exhaustion` how soon it matters.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use crate::history::ProcessHistory;
use model::{
    Basis, Bytes, LeakState, Life, LifeSummary, Limit, Provisional, Rejection, Signal, Slope, Steady, Verdict,
};

use super::frame::Frame;
use super::limits::{Limits, time_left};
use super::pool::{Pooled, pooled};
use super::reason;
use super::reference::{Siblings, explained};
use super::settings::Settings;
use super::trial::{Finding, Garbage, Outcome, PERSISTENCE, REFERENCE, Scene, TESTS, Trial, examine};
use crate::stats::{MOST, as_f64, scaled, slope_with_interval, theil_sen_interval};

/// What is remembered of a process between evaluations: a few hundred bytes.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    life: Option<Life>,
    since: Option<Steady>,
    state: Option<LeakState>,
    growing: Latch,
    suspect: Latch,
    leaking: Latch,
    evidence: Option<Evidence>,
    evidence_at: Steady,
    growth: Option<Finding>,
    previous: Option<LeakState>,
}

/// One state's memory of when growth was found.
#[derive(Debug, Clone, Copy, Default)]
struct Latch {
    first_hit: Option<Steady>,
    last_hit: Option<Steady>,
    linger: f64,
    on: bool,
}

impl Latch {
    fn update(&mut self, hit: Option<Evidence>, now: Steady, settings: &Settings) {
        if let Some(hit) = hit {
            let first = *self.first_hit.get_or_insert(now);
            self.last_hit = Some(now);
            self.linger = hit.linger(settings);
            self.on |= now.since(first) >= settings.span(hit.persistence(settings));
        } else {
            self.first_hit = None;
            let gone = self.last_hit.is_none_or(|last| now.since(last) >= settings.span(self.linger));
            self.on &= !gone;
        }
    }
}

/// Minutes for which a state taken over from before the sidecar's restart holds without a finding.
const LINGER_RESUMED: f64 = 60.0;

/// What a state rests on.
#[derive(Debug, Clone, Copy)]
enum Evidence {
    Growth(Finding),
    Lives(Pooled, Signal),
}

impl Evidence {
    /// Minutes for which it must be found again and again: a share of its window, so that a long window, which hardly
    /// changes between two evaluations, does not count as many.
    fn persistence(self, settings: &Settings) -> f64 {
        match self {
            Self::Growth(finding) if finding.left < finding.span && finding.span < 60.0 => 0.0,
            Self::Growth(finding) => {
                (settings.enter_share * finding.span).max(f64::from(settings.enter_after)).min(finding.left / 4.0)
            }
            Self::Lives(..) => 0.0,
        }
    }

    /// Minutes without a finding after which the state is left: a tenth of the rise.
    fn linger(self, settings: &Settings) -> f64 {
        let longest = f64::from(settings.leave_after);
        match self {
            Self::Growth(finding) => (0.1 * finding.risen).clamp(f64::from(settings.enter_after).min(longest), longest),
            Self::Lives(..) => longest,
        }
    }
}

/// All signals of one evaluation.
#[derive(Debug, Clone, Copy, Default)]
struct Sight {
    suspect: Option<Evidence>,
    leaking: Option<Evidence>,
    growing: Option<Finding>,
    furthest: Option<(usize, Signal)>,
}

impl Detector {
    /// Makes a detector that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on from the state a process was in when the sidecar stopped: it holds until growth is found again, or is
    /// left after the usual time without a finding. A life that has changed meanwhile starts anew.
    pub fn resume(life: Life, state: LeakState, since: Steady, now: Steady) -> Self {
        let latch = |on: bool| Latch { first_hit: None, last_hit: on.then_some(now), linger: LINGER_RESUMED, on };
        Self {
            life: Some(life),
            since: Some(since),
            state: Some(state),
            suspect: latch(state >= LeakState::Suspect),
            leaking: latch(state >= LeakState::Leaking),
            ..Self::default()
        }
    }

    /// Judges a process at `now`. To be called every [`Settings::evaluate_every`] minutes; more often does no harm.
    /// `siblings` gives the running lives of the same app's other processes ([`ProcessHistory::summary`]); it is asked only
    /// where they matter.
    pub fn evaluate(
        &mut self,
        history: &ProcessHistory,
        siblings: impl FnOnce() -> Vec<LifeSummary>,
        limits: &Limits,
        now: Steady,
        settings: &Settings,
    ) -> Verdict {
        let life = history.current().map(|current| current.life);
        if life != self.life {
            // What the run before was found to be outlasts the runs that were too short for a verdict of their own.
            let previous = self.state.filter(|state| *state != LeakState::Learning).or(self.previous);
            *self = Self { life, previous: previous.filter(|state| *state >= LeakState::Suspect), ..Self::default() };
        }
        let Some(frame) = Frame::of(history) else {
            return self.learning(now, settings, None, history, limits);
        };
        let siblings: Siblings<'_> = LazyCell::new(Box::new(siblings));
        let sight = look(history, &siblings, &frame, limits, now, settings);
        self.suspect.update(sight.suspect, now, settings);
        self.leaking.update(sight.leaking, now, settings);
        if let Some(evidence) = sight.leaking.or(sight.suspect) {
            self.evidence = Some(evidence);
            self.evidence_at = now;
        }
        let growth = sight.growing.map(Evidence::Growth).or(sight.suspect);
        self.growing.update(growth, now, settings);
        if let Some(Evidence::Growth(finding)) = growth {
            self.growth = Some(finding);
        }
        let state = match (self.leaking.on, self.suspect.on, self.growing.on) {
            (true, _, _) => LeakState::Leaking,
            (_, true, _) => LeakState::Suspect,
            _ if frame.len() < first_answer(settings) => {
                return self.learning(now, settings, Some(&frame), history, limits);
            }
            (_, _, true) => LeakState::Growing,
            _ if is_open(&frame, settings) => return self.learning(now, settings, Some(&frame), history, limits),
            _ => LeakState::Stable,
        };
        self.enter(state, now);
        self.verdict(state, &sight, &frame, history, limits, now, settings)
    }

    /// The state of the last evaluation; [`LeakState::Learning`] before the first.
    pub fn state(&self) -> LeakState {
        self.state.unwrap_or(LeakState::Learning)
    }

    fn enter(&mut self, state: LeakState, now: Steady) {
        if self.state != Some(state) {
            self.state = Some(state);
            self.since = Some(now);
        }
    }

    fn learning(
        &mut self,
        now: Steady,
        settings: &Settings,
        frame: Option<&Frame>,
        history: &ProcessHistory,
        limits: &Limits,
    ) -> Verdict {
        self.enter(LeakState::Learning, now);
        let basis = frame.map_or(Basis::ResidentOnly, |frame| frame.basis);
        let signal = default_signal(basis);
        let age = settings.span(frame.map_or(0.0, |frame| as_f64(frame.age())));
        let needed = settings.span(as_f64(first_answer(settings)));
        let nearest = frame.and_then(|frame| {
            let resident = history.peak(60).or(frame.latest(Signal::Resident))?;
            limits.nearest(resident, frame.latest(Signal::Heap), signal)
        });
        let provisional = frame.and_then(|frame| provisional(frame, nearest.map(|(_, room)| room), settings));
        let limit = nearest.map(|(limit, _)| limit);
        Verdict {
            state: LeakState::Learning,
            since: self.since.unwrap_or(now),
            at: now,
            signal,
            basis,
            slopes: BTreeMap::new(),
            window: age,
            floor: None,
            limit,
            projected_exhaustion: None,
            provisional,
            first_verdict_at: needed.checked_sub(age).filter(|left| !left.is_zero()).map(|left| now + left),
            previous: self.previous,
            rejection: Some(Rejection { signal, test: TESTS[0] }),
            reason: reason::learning(age, needed, provisional, limit, self.previous),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one evaluation, used here only")]
    fn verdict(
        &self,
        state: LeakState,
        sight: &Sight,
        frame: &Frame,
        history: &ProcessHistory,
        limits: &Limits,
        now: Steady,
        settings: &Settings,
    ) -> Verdict {
        let alarmed = matches!(state, LeakState::Suspect | LeakState::Leaking);
        let evidence = self.evidence.filter(|_| alarmed);
        let grown = match evidence {
            Some(Evidence::Growth(finding)) => Some(finding),
            Some(Evidence::Lives(..)) => None,
            None => self.growth.filter(|_| state == LeakState::Growing),
        };
        let (signal, window, polled) = match (grown, evidence) {
            (Some(finding), _) => (finding.signal, finding.span, finding.polled),
            (None, Some(Evidence::Lives(pooled, signal))) => (signal, pooled.lasted, false),
            (None, _) => (default_signal(frame.basis), slope_window(frame, settings), false),
        };
        let per_second = 1.0 / settings.minute_seconds();
        let mut slopes = BTreeMap::new();
        for each in Signal::ALL {
            let width =
                if each == signal && state >= LeakState::Growing { window } else { slope_window(frame, settings) };
            if let Some(slope) = slope_of(frame, each, width, polled && each == signal) {
                slopes.insert(each, scaled(slope, per_second));
            }
        }
        if let Some(Evidence::Lives(pooled, _)) = evidence {
            let typical = pooled.slope * per_second;
            slopes.insert(signal, Slope { bytes_per_second: typical, low: typical.min(0.0), high: 2.0 * typical });
        }
        let slope = slopes.get(&signal).copied();
        let resident = history.peak(60).or(frame.latest(Signal::Resident)).unwrap_or(0.0);
        let heap = frame.latest(Signal::Heap);
        let nearest = limits.nearest(resident, heap, signal);
        let left = nearest.zip(slope).filter(|_| state >= LeakState::Growing).and_then(|((_, room), slope)| {
            let amplification = amplification(frame, signal, resident);
            time_left(
                room,
                slope.bytes_per_second * settings.minute_seconds(),
                amplification,
                settings.minute_seconds(),
            )
        });
        let limit = nearest.map(|(limit, _)| limit);
        let floor = frame.latest(default_signal(frame.basis)).map(Bytes::from_f64);
        let span = settings.span(window);
        let rejection = match (state, sight.furthest) {
            (LeakState::Leaking, _) => None,
            (LeakState::Stable | LeakState::Growing, _) if sight.suspect.is_some() => {
                Some(Rejection { signal: default_signal(frame.basis), test: TESTS[PERSISTENCE] })
            }
            (_, Some((test, signal))) => Some(Rejection { signal, test: TESTS[test] }),
            (_, None) => None,
        };
        let reason = self.sentence(
            state,
            evidence,
            signal,
            slope,
            span,
            limit.map(|limit| (limit, left)),
            rejection,
            floor,
            now,
        );
        Verdict {
            state,
            since: self.since.unwrap_or(now),
            at: now,
            signal,
            basis: frame.basis,
            slopes,
            window: span,
            floor,
            limit,
            projected_exhaustion: left,
            provisional: None,
            first_verdict_at: None,
            previous: None,
            rejection,
            reason,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one sentence, used here only")]
    fn sentence(
        &self,
        state: LeakState,
        evidence: Option<Evidence>,
        signal: Signal,
        slope: Option<Slope>,
        span: std::time::Duration,
        limit: Option<(Limit, Option<std::time::Duration>)>,
        rejection: Option<Rejection>,
        floor: Option<Bytes>,
        now: Steady,
    ) -> String {
        let flat = Slope { bytes_per_second: 0.0, low: 0.0, high: 0.0 };
        let text = match evidence {
            Some(Evidence::Growth(finding)) => reason::growing(&finding, slope.unwrap_or(flat), span, limit),
            Some(Evidence::Lives(pooled, _)) => reason::lives(&pooled, slope.unwrap_or(flat), span, limit),
            None if state >= LeakState::Suspect => {
                return reason::resumed(state, slope.map(|slope| (signal, slope, span)));
            }
            None if state == LeakState::Growing => {
                return reason::not_yet(signal, slope.unwrap_or(flat), span, limit, rejection);
            }
            None => {
                return reason::stable(rejection, slope.map(|slope| (signal, slope, span)), floor);
            }
        };
        if matches!(state, LeakState::Suspect | LeakState::Leaking) && now > self.evidence_at {
            return reason::fading(now.since(self.evidence_at), &text);
        }
        text
    }
}

/// How long a life has to be watched before its first verdict.
pub fn first_verdict_after(settings: &Settings) -> std::time::Duration {
    settings.span(as_f64(first_answer(settings)))
}

/// Minutes of a life before the first answer.
fn first_answer(settings: &Settings) -> usize {
    settings.warm_up as usize + settings.ladder.first().map_or(30, |shortest| *shortest as usize)
}

/// Whether nothing speaks for *stable* yet: what collections leave has no slope, and resident memory rises.
fn is_open(frame: &Frame, settings: &Settings) -> bool {
    let slope = |signal| slope_of(frame, signal, slope_window(frame, settings), false);
    slope(default_signal(frame.basis)).is_none() && slope(Signal::Resident).is_none_or(|slope| slope.low > 0.0)
}

/// Puts the signals together.
fn look(
    history: &ProcessHistory,
    siblings: &Siblings<'_>,
    frame: &Frame,
    limits: &Limits,
    now: Steady,
    settings: &Settings,
) -> Sight {
    let mut sight = Sight::default();
    let Some(level) = frame.latest(Signal::Resident) else { return sight };
    let peak = history.peak(60).unwrap_or(level);
    let pool_signal = if frame.basis == Basis::ResidentOnly { Signal::Resident } else { Signal::Footprint };
    let ceiling = limits.nearest(level, None, Signal::Native).map(|(limit, _)| limit.bytes.as_f64());
    let now_growing = || {
        let floors = frame.series(pool_signal).floors(frame.len().min(1), frame.len(), MOST);
        if frame.len() < 5 || floors.len() < 4 { 0.0 } else { theil_sen_interval(floors.at(), floors.value(), 1.0).1 }
    };
    if let Some(pooled) = pooled(history.earlier(), pool_signal, ceiling, now_growing, now, settings)
        && as_f64(frame.age()) < 2.0 * pooled.lasted + 60.0
    {
        let evidence = Some(Evidence::Lives(pooled, pool_signal));
        return Sight { suspect: evidence, leaking: evidence, ..Sight::default() };
    }
    let heap_growth = amplification(frame, Signal::Footprint, peak);
    let base = Trial {
        signal: Signal::Resident,
        polled: false,
        garbage: Garbage::None,
        share: settings.smallest_share,
        least: settings.smallest_growth.as_f64(),
        points: 10,
        soon: f64::INFINITY,
        amplification: 1.0,
        weight: 1.0,
    };
    let heap = Trial { amplification: heap_growth, ..base };
    let trials: &[Trial] = match frame.basis {
        Basis::MajorGc => &[
            Trial { signal: Signal::Footprint, points: 5, ..heap },
            Trial { signal: Signal::Heap, points: 5, weight: 0.3, ..heap },
            Trial { signal: Signal::Native, points: 7, ..base },
            Trial { signal: Signal::Footprint, polled: true, garbage: Garbage::Known, points: 7, ..heap },
            Trial { signal: Signal::Heap, polled: true, garbage: Garbage::Known, points: 7, weight: 0.3, ..heap },
            Trial { garbage: Garbage::Known, ..base },
            // Fast leaks that outrun the collector.
            Trial { share: 0.20, soon: 180.0, ..base },
        ],
        Basis::SampledHeap => &[
            Trial { signal: Signal::Footprint, garbage: Garbage::Seen, points: 7, ..heap },
            Trial { signal: Signal::Heap, garbage: Garbage::Seen, points: 7, weight: 0.3, ..heap },
            Trial { signal: Signal::Native, points: 7, ..base },
            Trial { garbage: Garbage::Seen, ..base },
            Trial { share: 0.20, soon: 180.0, ..base },
        ],
        // Nobody can tell garbage from growth here: only what V8 would hardly let pile up counts.
        Basis::ResidentOnly => &[Trial { share: 0.15, least: base.least.max(12e6), ..base }],
    };
    for trial in trials {
        let headroom =
            limits.nearest(peak, frame.latest(Signal::Heap), trial.signal).map_or(f64::INFINITY, |(_, room)| room);
        let mut outcome = examine(frame, Scene { level, headroom }, *trial, settings);
        if outcome.suspect.is_some() && explained(history, siblings, frame, trial.signal, settings) {
            outcome = Outcome { furthest: Some(REFERENCE), ..Outcome::default() };
        }
        sight.suspect = sight.suspect.or(outcome.suspect.map(Evidence::Growth));
        sight.leaking = sight.leaking.or(outcome.leaking.map(Evidence::Growth));
        sight.growing = sight.growing.or(outcome.growing);
        if let Some(test) = outcome.furthest
            && sight.furthest.is_none_or(|(before, _)| test > before)
        {
            sight.furthest = Some((test, trial.signal));
        }
    }
    sight
}

/// Minutes after the start from which on growth is told, provisionally.
const PROVISIONAL_FROM: usize = 3;

/// Growth of a run that is too young for a verdict, from its third minute on.
fn provisional(frame: &Frame, room: Option<f64>, settings: &Settings) -> Option<Provisional> {
    if frame.len() < PROVISIONAL_FROM {
        return None;
    }
    // Garbage counts while no collection has told it apart.
    let signal = if frame.basis == Basis::SampledHeap { Signal::Footprint } else { Signal::Resident };
    let floors = frame.series(signal).floors(0, frame.len(), frame.len());
    if floors.len() < PROVISIONAL_FROM {
        return None;
    }
    let (middle, low, high) = theil_sen_interval(floors.at(), floors.value(), 1.0);
    let minute = settings.minute_seconds();
    let exhaustion = room.filter(|_| low > 0.0).and_then(|room| time_left(room, middle, 1.0, minute));
    let slope = scaled(Slope { bytes_per_second: middle, low, high }, 1.0 / minute);
    Some(Provisional { signal, slope, window: settings.span(as_f64(frame.len())), exhaustion })
}

/// The signal a verdict rests on where nothing is found.
fn default_signal(basis: Basis) -> Signal {
    match basis {
        Basis::MajorGc | Basis::SampledHeap => Signal::Footprint,
        Basis::ResidentOnly => Signal::Resident,
    }
}

/// Minutes the slope is fitted over where nothing is found.
fn slope_window(frame: &Frame, settings: &Settings) -> f64 {
    let usable = frame.len().saturating_sub(frame.warm(settings.warm_up));
    as_f64(usable.min(settings.slope_window as usize))
}

/// The slope of a signal in bytes per minute over the last `width` minutes: zero where the trend is within chance.
/// `polled` takes the heap as polled although collections are known.
fn slope_of(frame: &Frame, signal: Signal, width: f64, polled: bool) -> Option<Slope> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a window is a few thousand minutes")]
    let from = frame.len().saturating_sub(width.max(0.0) as usize);
    let series = if polled { frame.polled(signal) } else { frame.series(signal) };
    slope_with_interval(&series.floors(from, frame.len(), MOST))
}

/// How much resident memory grows for each byte of heap that is kept.
fn amplification(frame: &Frame, signal: Signal, resident: f64) -> f64 {
    if signal == Signal::Native || signal == Signal::Resident {
        return 1.0;
    }
    match (frame.latest(Signal::Native), frame.latest(Signal::Heap)) {
        (Some(native), Some(heap)) if heap > 0.0 => ((resident - native) / heap).clamp(1.0, 4.0),
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{About, Retention, Sample};
    use model::ProcessKey;

    const LIFE: Life = Life { pid: 9, started: 9 };

    fn flat(minutes: i64) -> ProcessHistory {
        let key = ProcessKey { daemon: "d".into(), pm_id: 0 };
        let mut history = ProcessHistory::new(key, "shop".into(), Retention::default());
        let about = About { app: "shop".into(), version: None, revision: None };
        for minute in 0..minutes {
            let sample = Sample { held: Some(Bytes(100 << 20)), ..Sample::empty(LIFE) };
            history.push(&sample, &about, Steady(minute * 60_000));
        }
        history
    }

    #[test]
    fn a_state_survives_a_restart_of_the_sidecar_and_is_left_without_new_growth() {
        let history = flat(300);
        let at = |minute: i64| Steady(minute * 60_000);
        let mut detector = Detector::resume(LIFE, LeakState::Leaking, at(100), at(200));
        let settings = Settings::default();
        let verdict = detector.evaluate(&history, Vec::new, &Limits::default(), at(205), &settings);
        assert_eq!((verdict.state, verdict.since), (LeakState::Leaking, at(100)));
        assert!(verdict.reason.contains("before leakslope restarted"), "{}", verdict.reason);
        let later = detector.evaluate(&history, Vec::new, &Limits::default(), at(261), &settings);
        assert_eq!((later.state, later.since), (LeakState::Stable, at(261)));
    }

    #[test]
    fn a_young_or_absent_life_is_learning() {
        let mut detector = Detector::new();
        let young = detector.evaluate(&flat(10), Vec::new, &Limits::default(), Steady(600_000), &Settings::default());
        assert_eq!(young.state, LeakState::Learning);
        assert!(young.reason.contains("a first answer takes 30 min"), "{}", young.reason);
        let mut gone = flat(100);
        gone.end(model::LifeEnd::Stopped);
        let verdict = detector.evaluate(&gone, Vec::new, &Limits::default(), Steady(0), &Settings::default());
        assert_eq!((verdict.state, verdict.slopes.len()), (LeakState::Learning, 0));
    }

    /// Runs of `minutes` minutes each that grow by 40 MiB a minute from 60 MiB, judged every minute.
    fn fast_runs(runs: u32, minutes: i64) -> Vec<Verdict> {
        let key = ProcessKey { daemon: "d".into(), pm_id: 0 };
        let mut history = ProcessHistory::new(key, "shop".into(), Retention::default());
        let about = About { app: "shop".into(), version: None, revision: None };
        let limit = Limit { kind: model::LimitKind::MaxMemoryRestart, bytes: Bytes(512 << 20) };
        let (mut detector, mut verdicts, mut minute) = (Detector::new(), Vec::new(), 0);
        for run in 0..runs {
            let life = Life { pid: run + 1, started: i64::from(run) };
            for age in 0..minutes {
                let held = Bytes(u64::try_from(60 + 40 * age).expect("small") << 20);
                history.push(&Sample { held: Some(held), ..Sample::empty(life) }, &about, Steady(minute * 60_000));
                minute += 1;
                let at = Steady(minute * 60_000);
                history.settle(at);
                let limits = Limits::new([limit]);
                verdicts.push(detector.evaluate(&history, Vec::new, &limits, at, &Settings::default()));
            }
        }
        verdicts
    }

    #[test]
    fn a_fast_leak_is_warned_of_before_its_first_death_and_found_before_its_second() {
        let verdicts = fast_runs(2, 12);
        let third = &verdicts[2];
        assert_eq!(third.state, LeakState::Learning);
        let growth = third.provisional.expect("growth is told");
        assert!(growth.slope.low > 0.0 && growth.exhaustion.is_some(), "{growth:?}");
        assert!(third.reason.contains("; too early to call it a leak"), "{}", third.reason);
        assert!(third.first_verdict_at > Some(third.at));
        let last = verdicts.last().expect("some");
        assert_eq!(last.state, LeakState::Leaking, "{}", last.reason);
        assert!(last.reason.contains("until the limit was met"), "{}", last.reason);
    }

    #[test]
    fn a_flat_run_is_not_called_a_leak_for_what_came_before() {
        let mut detector = Detector::resume(LIFE, LeakState::Leaking, Steady(0), Steady(0));
        let mut history = flat(300);
        let about = About { app: "shop".into(), version: None, revision: None };
        let next = Life { pid: 10, started: 10 };
        for minute in 300..306 {
            let sample = Sample { held: Some(Bytes(100 << 20)), ..Sample::empty(next) };
            history.push(&sample, &about, Steady(minute * 60_000));
        }
        let verdict =
            detector.evaluate(&history, Vec::new, &Limits::default(), Steady(306 * 60_000), &Settings::default());
        assert_eq!((verdict.state, verdict.previous), (LeakState::Learning, Some(LeakState::Leaking)));
        assert!(verdict.reason.ends_with("the run before was leaking when it ended"), "{}", verdict.reason);
    }

    #[test]
    fn a_flat_process_is_stable_with_slopes_and_a_reason() {
        let mut detector = Detector::new();
        let verdict =
            detector.evaluate(&flat(300), Vec::new, &Limits::default(), Steady(18_000_000), &Settings::default());
        assert_eq!(verdict.state, LeakState::Stable);
        let slope = verdict.slopes[&Signal::Resident];
        assert!(slope.bytes_per_second.abs() < f64::EPSILON && slope.low <= 0.0 && slope.high >= 0.0);
        assert_eq!(verdict.projected_exhaustion, None);
        assert!(verdict.reason.starts_with("resident memory is flat over"), "{}", verdict.reason);
    }
}
