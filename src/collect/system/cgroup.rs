//! The memory limit that a control group sets, and what is left below it, in version 1 and 2 and from inside a container.
//!
//! A process is bound by its own group and by every group above it, so the limit that applies is the smallest on the way
//! up. `memory.high` and soft limits slow a process down but do not end it: they are no limits here.

use std::path::{Path, PathBuf};

use crate::model::Bytes;

/// Version 1 writes "no limit" as the largest whole number of pages; nothing real is this large.
const UNLIMITED: u64 = 1 << 60;
/// Groups are not nested deeper than this; the walk up ends here in any case.
const DEEPEST: usize = 64;

/// Where the memory controller can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The file system's folder as we see it.
    point: PathBuf,
    /// The group that stands at that folder; not `/` where a container sees only a part.
    root: String,
    /// How this version names things.
    version: &'static Version,
}

/// How a version of control groups names things.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    /// The name by which `/proc/<pid>/cgroup` lists the hierarchy.
    controller: &'static str,
    /// The file that holds a group's limit, …
    limit: &'static str,
    /// … the one that holds what it uses, caches of files included, …
    usage: &'static str,
    /// … and the key in `memory.stat` of the caches that the system gives up first.
    reclaimable: &'static str,
    /// The files that count kills for want of memory, the one of the group alone first.
    kills: &'static [&'static str],
}

const VERSION_1: Version = Version {
    controller: "memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
    kills: &["memory.oom_control"],
};
const VERSION_2: Version = Version {
    controller: "",
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: "inactive_file",
    kills: &["memory.events.local", "memory.events"],
};

/// What a control group has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// How much its processes may take yet, by what they use now.
    pub left: Bytes,
    /// Its limit.
    pub limit: Bytes,
}

/// Finds the memory controllers in the text of `/proc/self/mountinfo`: version 1 where it is mounted, and version 2.
pub fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for line in mountinfo.lines() {
        let Some((fields, tail)) = line.split_once(" - ") else { continue };
        let mut fields = fields.split(' ');
        let (Some(root), Some(point)) = (fields.nth(3), fields.next()) else { continue };
        let mut tail = tail.split(' ');
        let (kind, options) = (tail.next().unwrap_or_default(), tail.nth(1).unwrap_or_default());
        let version = match kind {
            "cgroup2" => &VERSION_2,
            "cgroup" if options.split(',').any(|option| option == "memory") => &VERSION_1,
            _ => continue,
        };
        mounts.push(Mount { point: PathBuf::from(unescape(point)), root: unescape(root), version });
    }
    mounts
}

/// Undoes the octal escapes (`\040` for a blank) of mountinfo.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                plain.push(char::from(byte));
                rest = &after[3..];
            }
            _ => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

/// Returns the files that may hold a limit of the process whose `/proc/<pid>/cgroup` this is, from its own group upwards.
pub fn limit_files(mounts: &[Mount], membership: &str) -> Vec<PathBuf> {
    groups(mounts, membership).map(|(version, group)| group.join(version.limit)).collect()
}

/// Returns the files of the process's own group that may count kills for want of memory, the best first.
pub fn kill_count_files(mounts: &[Mount], membership: &str) -> Vec<PathBuf> {
    let own = mounts.iter().filter_map(|mount| folders(mount, membership).into_iter().next().map(|it| (mount, it)));
    own.flat_map(|(mount, group)| mount.version.kills.iter().map(move |name| group.join(name))).collect()
}

/// Reads the count of kills from such a file.
pub fn kill_count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The folders of the groups that bind a process, from its own group upwards.
fn groups<'a>(mounts: &'a [Mount], membership: &'a str) -> impl Iterator<Item = (&'static Version, PathBuf)> + 'a {
    mounts.iter().flat_map(|mount| folders(mount, membership).into_iter().map(|folder| (mount.version, folder)))
}

fn folders(mount: &Mount, membership: &str) -> Vec<PathBuf> {
    let group = membership.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        controllers.split(',').any(|controller| controller == mount.version.controller).then_some(group)
    });
    let Some(group) = group else { return Vec::new() };
    // The top is the mounted part itself, as a namespace shows it. A group that is not below it is that of another
    // container, and so is one that a namespace shows as `/../…`: their limits cannot be read here.
    let root = mount.root.trim_end_matches('/');
    let below = if group == "/" { Some("") } else { group.strip_prefix(root) };
    let Some(below) = below.filter(|below| below.is_empty() || below.starts_with('/')) else { return Vec::new() };
    if below.split('/').any(|part| part == "..") {
        return Vec::new();
    }
    let folder = mount.point.join(below.trim_matches('/'));
    folder.ancestors().take_while(|folder| folder.starts_with(&mount.point)).take(DEEPEST).map(Path::to_owned).collect()
}

/// Reads the content of a limit file; none where there is no limit.
pub fn limit(text: &str) -> Option<Bytes> {
    text.trim().parse().ok().filter(|limit| *limit < UNLIMITED).map(Bytes)
}

/// Reads the limit that applies to a process from the files that [`limit_files`] names.
pub fn read_limit(files: &[PathBuf], read: impl Fn(&Path) -> Option<String>) -> Option<Bytes> {
    files.iter().filter_map(|file| limit(&read(file)?)).min()
}

/// Reads what is left in the tightest of the groups that bind the process whose `/proc/<pid>/cgroup` this is; none where
/// none has a limit. Caches that the system gives up first count as left.
pub fn room(mounts: &[Mount], membership: &str, read: impl Fn(&Path) -> Option<String>) -> Option<Room> {
    let left = |(version, group): (&Version, PathBuf)| {
        let limit = limit(&read(&group.join(version.limit))?)?;
        let usage: u64 = read(&group.join(version.usage))?.trim().parse().ok()?;
        let stat = read(&group.join("memory.stat")).unwrap_or_default();
        let reclaimable = stat.lines().find_map(|line| line.strip_prefix(version.reclaimable)?.trim().parse().ok());
        let held = usage.saturating_sub(reclaimable.unwrap_or(0));
        Some(Room { left: limit.saturating_sub(Bytes(held)), limit })
    };
    groups(mounts, membership).filter_map(left).min_by_key(|room| room.left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn the_walk_goes_from_the_group_to_the_top() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let container_v1 = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n40 1 0:1 / /a\\040b rw - ext4 x rw";
        let cases: [(&str, &str, &[&str]); 8] = [
            (
                unified,
                "0::/system.slice/pm2.service",
                &[
                    "/sys/fs/cgroup/system.slice/pm2.service/memory.max",
                    "/sys/fs/cgroup/system.slice/memory.max",
                    "/sys/fs/cgroup/memory.max",
                ],
            ),
            // A container with a namespace of its own sees itself as the top.
            (unified, "0::/\n", &["/sys/fs/cgroup/memory.max"]),
            (unified, "0::/../outside", &[]),
            (
                HYBRID,
                "4:memory:/a/b\n0::/",
                &[
                    "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                    "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "/sys/fs/cgroup/unified/memory.max",
                ],
            ),
            // A container without a namespace of its own: the mount begins at its group.
            (
                container_v1,
                "7:cpu,memory:/docker/abc/x",
                &["/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"],
            ),
            (container_v1, "7:memory:/", &["/sys/fs/cgroup/memory/memory.limit_in_bytes"]),
            // Another container, whose processes are seen because the two share their pids.
            (container_v1, "7:memory:/docker/abcdef", &[]),
            ("", "0::/", &[]),
        ];
        for (mountinfo, membership, expected) in cases {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(limit_files(&mounts(mountinfo), membership), expected, "{membership}");
        }
    }

    #[test]
    fn the_smallest_limit_on_the_way_applies() {
        let contents = [("/c/a/b/memory.max", "max\n"), ("/c/a/memory.max", "1000\n"), ("/c/memory.max", "2000\n")];
        let read = |path: &Path| {
            contents.iter().find(|(file, _)| Path::new(file) == path).map(|(_, content)| (*content).to_owned())
        };
        let mounts = mounts("30 23 0:26 / /c rw - cgroup2 cgroup2 rw");
        assert_eq!(read_limit(&limit_files(&mounts, "0::/a/b"), read), Some(Bytes(1000)));
        assert_eq!(read_limit(&limit_files(&mounts, "0::/"), read), Some(Bytes(2000)));
        assert_eq!(read_limit(&limit_files(&mounts, "0::/a/b"), |_| Some("max".to_owned())), None);
        assert_eq!(read_limit(&limit_files(&mounts, "0::/a/b"), |_| None), None);
    }

    #[test]
    fn what_is_left_is_that_of_the_tightest_group_without_caches_that_are_given_up_first() {
        let contents = [
            ("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000\n"),
            ("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "900\n"),
            ("/sys/fs/cgroup/memory/a/memory.stat", "cache 1\ninactive_file 1\ntotal_inactive_file 300\n"),
            ("/sys/fs/cgroup/unified/x/memory.max", "5000"),
            ("/sys/fs/cgroup/unified/x/memory.current", "4700"),
            ("/sys/fs/cgroup/unified/x/memory.stat", "anon 7\ninactive_file 200\nactive_file 9\n"),
            ("/sys/fs/cgroup/unified/y/memory.max", "70"),
            ("/sys/fs/cgroup/unified/y/memory.current", "90"),
            ("/sys/fs/cgroup/unified/z/memory.max", "70"),
        ];
        let read = |path: &Path| {
            contents.iter().find(|(file, _)| Path::new(file) == path).map(|(_, content)| (*content).to_owned())
        };
        let mounts = mounts(HYBRID);
        let room_of = |membership| room(&mounts, membership, read).map(|room| (room.left.0, room.limit.0));
        assert_eq!(room_of("4:memory:/a/b\n0::/"), Some((400, 1000)), "that of the group above");
        assert_eq!(room_of("0::/x"), Some((500, 5000)));
        assert_eq!(room_of("4:memory:/a\n0::/x"), Some((400, 1000)), "the smaller of both versions");
        assert_eq!(room_of("0::/y"), Some((0, 70)), "over its limit, and without figures of caches");
        assert_eq!(room_of("0::/z"), None, "what it uses cannot be read");
        assert_eq!(room_of("4:memory:/\n0::/"), None);
    }

    #[test]
    fn no_limit_has_many_spellings() {
        for (text, expected) in [
            ("max", None),
            ("9223372036854771712", None),
            ("", None),
            ("-1", None),
            ("536870912\n", Some(Bytes(536_870_912))),
        ] {
            assert_eq!(limit(text), expected, "{text}");
        }
    }

    #[test]
    fn escapes_of_mountinfo() {
        for (text, plain) in [("/a\\040b", "/a b"), ("\\134", "\\"), ("\\", "\\"), ("\\9x", "\\9x"), ("/a", "/a")] {
            assert_eq!(unescape(text), plain);
        }
    }
}
