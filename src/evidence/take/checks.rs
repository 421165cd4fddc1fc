//! May this process be sent SIGUSR1? Pure.
//!
//! Node opens its inspector on SIGUSR1. A program that does not catch the signal is ended by it, and one that is not Node
//! means something else by it.

use crate::collect::system::CloseUp;

/// The bit of SIGUSR1 in a mask.
const USR1: u64 = 1 << (10 - 1);

/// What speaks against looking into the process at all, and what to do instead.
pub(super) fn against_looking(seen: &CloseUp) -> Option<String> {
    if seen.namespaces != 1 {
        return Some("it runs in another pid namespace: run leakslope in the app's container".to_owned());
    }
    let (Some(executable), Some(shares_network)) = (&seen.executable, seen.shares_network) else {
        return Some("its files are not ours to see: run this as the user the app runs as, or as root".to_owned());
    };
    if !shares_network {
        return Some("it has a network of its own: run leakslope in the app's container".to_owned());
    }
    let program = executable.file_name().unwrap_or_default().to_string_lossy();
    (!program.starts_with("node"))
        .then(|| format!("it runs {program}, not node: only Node's memory can be looked into"))
}

/// What speaks against the signal, and what to do instead.
pub(super) fn against_signal(seen: &CloseUp) -> Option<String> {
    const OTHERWISE: &str = "leave pm2's agent in it (no pmx: false), which takes profiles without a signal";
    let signals = seen.signals;
    if signals.caught & USR1 == 0 {
        return Some(format!(
            "it does not catch SIGUSR1, which would end it (was it started with --disable-sigusr1 or --permission?): \
             {OTHERWISE}"
        ));
    }
    ((signals.blocked | signals.ignored) & USR1 != 0)
        .then(|| format!("it holds SIGUSR1 back, so its inspector would not open: {OTHERWISE}"))
}

/// Where the main thread sleeps, if the signal would break that off: Node hands a read of a pipe or a terminal that was
/// interrupted to the app as an error, and few apps expect one. Waiting for events or for a lock is not broken off.
pub(super) fn broken_off(seen: &CloseUp) -> Option<&str> {
    seen.sleeps_in.as_deref().filter(|place| !["epoll", "ep_poll", "futex"].iter().any(|fine| place.contains(fine)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::system::parse::SignalMasks;

    fn fine() -> CloseUp {
        CloseUp {
            start_ticks: 1,
            namespaces: 1,
            signals: SignalMasks { blocked: 0, ignored: 0x0100_1000, caught: 0x1_0000_4602 },
            sleeps_in: None,
            executable: Some("/usr/bin/node".into()),
            folder: None,
            command_line: Vec::new(),
            shares_network: Some(true),
        }
    }

    #[test]
    fn only_node_that_catches_the_signal_is_sent_it() {
        let fine = fine();
        let against = |seen: &CloseUp| against_looking(seen).or_else(|| against_signal(seen));
        assert_eq!(against(&fine), None);
        assert_eq!(against(&CloseUp { executable: Some("/opt/node-22 (deleted)".into()), ..fine.clone() }), None);
        let signals =
            |blocked, caught| CloseUp { signals: SignalMasks { blocked, ignored: 0, caught }, ..fine.clone() };
        for (seen, why) in [
            (CloseUp { namespaces: 2, ..fine.clone() }, "another pid namespace"),
            (CloseUp { executable: None, ..fine.clone() }, "not ours to see"),
            (CloseUp { shares_network: None, ..fine.clone() }, "not ours to see"),
            (CloseUp { shares_network: Some(false), ..fine.clone() }, "a network of its own"),
            (
                CloseUp { executable: Some("/usr/bin/python3.12".into()), ..fine.clone() },
                "it runs python3.12, not node",
            ),
            (signals(0, 0x1_0000_4402), "does not catch SIGUSR1"),
            (signals(0x200, 0x200), "holds SIGUSR1 back"),
        ] {
            let objection = against(&seen).unwrap_or_default();
            assert!(objection.contains(why), "{objection} | {why}");
        }
    }

    #[test]
    fn only_waiting_for_events_or_a_lock_is_not_broken_off() {
        for (place, broken) in [
            (None, false),
            (Some("ep_poll"), false),
            (Some("do_epoll_wait"), false),
            (Some("futex_wait_queue"), false),
            (Some("anon_pipe_read"), true),
            (Some("n_tty_read"), true),
            (Some("do_wait"), true),
        ] {
            let seen = CloseUp { sleeps_in: place.map(str::to_owned), ..fine() };
            assert_eq!(broken_off(&seen).is_some(), broken, "{place:?}");
        }
    }
}
