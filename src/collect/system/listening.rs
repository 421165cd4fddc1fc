//! Where a process listens and who is connected: the sockets of its network namespace matched with its open
//! files. Whoever is connected to one of its ports can be cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::net::Shutdown;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// A table of sockets is read no further than this: 100,000 of them.
const LONGEST_TABLE: u64 = 16 << 20;
const LISTENING: u8 = 0x0a;
const CONNECTED: u8 = 0x01;
/// A UDP socket that anybody may send to.
const UNCONNECTED: u8 = 0x07;
/// Ports from here on may have been given out by the system, to a client as well.
const FIRST_GIVEN: u16 = 32_768;
/// `__SO_ACCEPTCON`: somebody listens on this Unix socket.
const ACCEPTS: u32 = 0x1_0000;
/// So many digits in a row are a pid, or drawn by lot.
const DRAWN_DIGITS: usize = 3;

/// The TCP ports that a process listens on; none where its files are not ours to see.
pub fn listening_ports(proc: &Path, pid: u32) -> BTreeSet<u16> {
    seen_ports(proc, pid).unwrap_or_default()
}

/// The TCP ports that anybody listens on in the network of this process.
pub fn taken_ports(proc: &Path, pid: u32) -> BTreeSet<u16> {
    sockets(proc, pid).into_iter().filter(|socket| socket.state == LISTENING).map(|socket| socket.port).collect()
}

/// How many connections to this port of its own a process holds.
pub fn connections(proc: &Path, pid: u32, port: u16) -> usize {
    try_own(proc, pid, CONNECTED).map_or(0, |own| own.iter().filter(|(_, socket)| socket.port == port).count())
}

/// Ends every connection to this port of a process's own, whoever is at the other end and whatever the process is at. Needs the
/// right to look into the process as a debugger does; without it nothing is ended.
pub fn cut_off(pid: u32, port: u16) {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { return };
    for (file, _) in
        try_own(Path::new("/proc"), pid, CONNECTED).unwrap_or_default().iter().filter(|own| own.1.port == port)
    {
        if let Ok(connection) = pidfd_getfd(&handle, *file, PidfdGetfdFlags::empty()) {
            let _has_ended = rustix::net::shutdown(&connection, Shutdown::Both);
        }
    }
}

/// One TCP socket, by its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    port: u16,
    state: u8,
    inode: u64,
}

/// The same as [`listening_ports`], told apart from what cannot be seen.
///
/// # Errors
/// Where the files of the process are not ours to see, or it is gone.
pub fn seen_ports(proc: &Path, pid: u32) -> std::io::Result<BTreeSet<u16>> {
    let sockets = try_own(proc, pid, LISTENING)?;
    Ok(sockets.into_iter().map(|(_, socket)| socket.port).collect())
}

/// What else a process listens on under a name that its next run has as well, in words: UDP ports that the system did not
/// give out, and Unix sockets whose path is not of one run alone.
///
/// # Errors
/// Where the files of the process are not ours to see, or it is gone.
pub fn other_sockets(proc: &Path, pid: u32) -> std::io::Result<BTreeSet<String>> {
    let open = open_sockets(proc, pid)?;
    let udp = ["net/udp", "net/udp6"].into_iter().flat_map(|name| table(proc, pid, name));
    let udp = udp.flat_map(|text| rows(&text)).filter(|socket| {
        socket.state == UNCONNECTED && socket.port < FIRST_GIVEN && socket.port > 0 && open.contains_key(&socket.inode)
    });
    let unix = table(proc, pid, "net/unix").unwrap_or_default();
    let paths = unix.lines().filter_map(accepting).filter(|(inode, path)| open.contains_key(inode) && stays(path));
    let paths = paths.map(|(_, path)| format!("the socket {path}"));
    Ok(udp.map(|socket| format!("UDP port {}", socket.port)).chain(paths).collect())
}

/// The inode and the path of a Unix socket on which somebody listens.
fn accepting(row: &str) -> Option<(u64, &str)> {
    let mut rest = row;
    let mut cell = || {
        let (cell, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(cell)
    };
    let cells: Vec<&str> = std::iter::from_fn(&mut cell).take(7).collect();
    let flags = u32::from_str_radix(cells.get(3)?, 16).ok()?;
    (flags & ACCEPTS != 0).then_some((cells.get(6)?.parse().ok()?, rest))
}

/// Whether a socket's path is likely to be the same in the next run: no pid in it, and in no folder that was made for one.
fn stays(path: &str) -> bool {
    let drawn = path.split(|letter: char| !letter.is_ascii_digit()).any(|digits| digits.len() >= DRAWN_DIGITS);
    let of_one_run =
        ["/tmp/", "/var/tmp/"].iter().any(|place| path.strip_prefix(place).is_some_and(|it| it.contains('/')));
    !path.is_empty() && !drawn && !of_one_run
}

/// The sockets of a process in this state, each with the number of its open file.
fn try_own(proc: &Path, pid: u32, state: u8) -> std::io::Result<Vec<(i32, Socket)>> {
    let open = open_sockets(proc, pid)?;
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let in_state = sockets(proc, pid).into_iter().filter(|socket| socket.state == state);
    Ok(in_state.filter_map(|socket| Some((*open.get(&socket.inode)?, socket))).collect())
}

/// The inodes of the sockets that a process has open, each with the number of its file.
fn open_sockets(proc: &Path, pid: u32) -> std::io::Result<BTreeMap<u64, i32>> {
    let files = std::fs::read_dir(proc.join(pid.to_string()).join("fd"))?;
    let open = files
        .flatten()
        .filter_map(|file| {
            let link = std::fs::read_link(file.path()).ok()?;
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
            Some((inode, file.file_name().to_str()?.parse().ok()?))
        })
        .collect();
    Ok(open)
}

fn sockets(proc: &Path, pid: u32) -> Vec<Socket> {
    let tables = ["net/tcp", "net/tcp6"].into_iter().flat_map(|name| table(proc, pid, name));
    tables.flat_map(|text| rows(&text)).collect()
}

/// One of the kernel's tables of sockets, as far as it is read; what is not text in it is replaced.
fn table(proc: &Path, pid: u32, name: &str) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(proc.join(pid.to_string()).join(name))?.take(LONGEST_TABLE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn rows(table: &str) -> Vec<Socket> {
    table.lines().filter_map(row).collect()
}

fn row(row: &str) -> Option<Socket> {
    let cells: Vec<&str> = row.split_ascii_whitespace().collect();
    let (_, port) = cells.get(1)?.rsplit_once(':')?;
    Some(Socket {
        port: u16::from_str_radix(port, 16).ok()?,
        state: u8::from_str_radix(cells.get(3)?, 16).ok()?,
        inode: cells.get(9)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table_are_read() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100";
        assert_eq!(row(line), Some(Socket { port: 8080, state: LISTENING, inode: 12345 }));
        assert_eq!(row(&line.replace(" 0A ", " 01 ")).unwrap().state, CONNECTED);
        assert_eq!(row("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        assert_eq!(row(""), None);
    }

    #[test]
    fn sockets_with_a_name_that_stays_are_found() {
        let folder = tempfile::tempdir_in("/var").unwrap();
        let open = |name: &str| std::os::unix::net::UnixListener::bind(folder.path().join(name)).unwrap();
        let (_web, _of_one_run) = (open("a b.sock"), open("web-12345.sock"));
        let _client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp = (20_000..FIRST_GIVEN).find_map(|port| std::net::UdpSocket::bind(("127.0.0.1", port)).ok()).unwrap();
        let port = udp.local_addr().unwrap().port();
        let found = other_sockets(Path::new("/proc"), std::process::id()).unwrap();
        let path = folder.path().join("a b.sock");
        assert_eq!(found, [format!("UDP port {port}"), format!("the socket {}", path.display())].into());
        for path in ["/tmp/.X/lock", "/run/app/4711.sock", ""] {
            assert!(!stays(path), "{path}");
        }
        assert!(stays("/tmp/app-0.sock") && stays("@shop"));
    }

    #[test]
    fn a_port_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let (proc, own) = (Path::new("/proc"), std::process::id());
        assert!(listening_ports(proc, own).contains(&port));
        assert!(taken_ports(proc, own).contains(&port));
        assert_eq!(connections(proc, own, port), 0);
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = socket.accept().unwrap();
        assert_eq!(connections(proc, own, port), 1);
        cut_off(own, port);
        assert_eq!(connections(proc, own, port), 0);
        drop((socket, client, server));
        assert!(!listening_ports(proc, own).contains(&port));
    }
}
