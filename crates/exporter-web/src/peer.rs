//! The other end of a connection, and which user of this machine it is: told by the kernel, never by the other end.
//!
//! A Unix socket says it by itself (`SO_PEERCRED`). Of a TCP connection over loopback both ends stand in
//! `/proc/net/tcp{,6}`: the row of the other end names the user who opened that socket. It refuses to guess: a row that
//! is missing, of a socket that nobody holds any more, or that changes while it is read is nobody's.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::unix::UCred;
use tokio::sync::{OnceCell, Semaphore};

/// A table of sockets is read no further than this: 100,000 of them.
const LONGEST_TABLE: u64 = 16 << 20;
/// Tables that are read at a time.
static READING: Semaphore = Semaphore::const_new(2);
/// The number that stands for every user who has none in our user namespace.
const OVERFLOW_UID: u32 = 65_534;

/// The other end of a connection. Clones are one: what is found out of it is found out once.
#[derive(Debug, Clone)]
pub struct Peer {
    end: End,
    user: Arc<OnceCell<Option<LocalUser>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Tcp { peer: SocketAddr, local: SocketAddr },
    Unix,
}

/// A user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalUser {
    /// The user's number.
    pub uid: u32,
    /// The group that the process ran in, where the socket tells.
    pub gid: Option<u32>,
}

/// Whom limits are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerKey {
    /// A user of this machine.
    User(u32),
    /// An address; of IPv6 the network, for one machine has all of it.
    Address(IpAddr),
    /// A process of this machine of which the user is not known.
    Unknown,
}

impl Peer {
    /// The other end of a TCP connection.
    pub fn tcp(peer: SocketAddr, local: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let end = End::Tcp { peer: canonical(peer), local: canonical(local) };
        Self { end, user: Arc::default() }
    }

    /// The other end of a Unix socket, as the kernel names it.
    pub fn unix(credentials: Option<UCred>) -> Self {
        let user = credentials.map(|it| LocalUser { uid: it.uid(), gid: Some(it.gid()) }).filter(is_somebody);
        Self { end: End::Unix, user: Arc::new(OnceCell::new_with(Some(user))) }
    }

    /// Our own port, where the connection is a TCP one.
    pub fn local_port(&self) -> Option<u16> {
        match self.end {
            End::Tcp { local, .. } => Some(local.port()),
            End::Unix => None,
        }
    }

    /// The user of this machine who asks; none where another machine asks, or it cannot be told.
    pub async fn user(&self) -> Option<LocalUser> {
        let find = || async {
            let End::Tcp { peer, local } = self.end else { return None };
            if !peer.ip().is_loopback() {
                return None;
            }
            let _turn = READING.acquire().await.ok()?;
            tokio::task::spawn_blocking(move || owner(peer, local)).await.ok()?
        };
        *self.user.get_or_init(find).await
    }

    /// Whom limits are counted for.
    pub async fn key(&self) -> PeerKey {
        match (self.user().await, self.end) {
            (Some(user), _) => PeerKey::User(user.uid),
            (None, End::Tcp { peer, .. }) if !peer.ip().is_loopback() => PeerKey::Address(network(peer.ip())),
            (None, End::Tcp { .. } | End::Unix) => PeerKey::Unknown,
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Whether a number names one user: in a user namespace of its own everybody from outside has the same one.
fn is_somebody(user: &LocalUser) -> bool {
    let all_are_mapped = || {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    };
    user.uid != OVERFLOW_UID || all_are_mapped()
}

/// The user who opened the socket at `peer` that is connected with `local`. The row is read twice: a socket whose holder goes
/// meanwhile counts as root's for a moment, and has no inode in the second one.
fn owner(peer: SocketAddr, local: SocketAddr) -> Option<LocalUser> {
    let read = || {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().map(table).collect::<Option<Vec<_>>>()?;
        row_of(tables.iter().flat_map(|table| table.lines()), peer, local)
    };
    let row = read()?;
    let user = LocalUser { uid: row.uid, gid: None };
    (read() == Some(row) && is_somebody(&user)).then_some(user)
}

fn table(path: &str) -> Option<String> {
    let mut text = String::new();
    let file = match File::open(path) {
        Ok(file) => file,
        // A kernel without IPv6 has no such table.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(text),
        Err(_unreadable) => return None,
    };
    file.take(LONGEST_TABLE).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What a row says of the one who holds the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    uid: u32,
    inode: u64,
}

/// The one row of the socket at `peer` that is connected with `local` and that somebody holds.
fn row_of<'a>(rows: impl Iterator<Item = &'a str>, peer: SocketAddr, local: SocketAddr) -> Option<Row> {
    let mut found = rows.filter_map(|row| {
        let cells: Vec<&str> = row.split_ascii_whitespace().collect();
        (address(cells.get(1)?)? == peer && address(cells.get(2)?)? == local).then_some(())?;
        Some(Row { uid: cells.get(7)?.parse().ok()?, inode: cells.get(9)?.parse().ok()? })
    });
    let row = found.next().filter(|row| row.inode != 0)?;
    found.next().is_none().then_some(row)
}

/// An address as the table writes it: words in the order of the machine's bytes.
fn address(cell: &str) -> Option<SocketAddr> {
    let (address, port) = cell.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.as_flattened()).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        2: 0100007F:ED21 0100007F:BAAA 01 00000000:00000000 00:00000000 00000000     0        0 46263 1 0\n\
        3: 0100007F:BAAA 0100007F:ED21 01 00000000:00000000 00:00000000 00000000 65533        0 45604 2 0\n\
        4: 0100007F:BAAB 0100007F:ED21 05 00000000:00000000 03:00001760 00000000     0        0 0 3 0\n\
        5: 0000000000000000FFFF00000100007F:BAAC 0000000000000000FFFF00000100007F:ED21 01 0:0 00:0 0 1000 0 7 1 0\n";

    #[test]
    fn only_a_socket_that_somebody_holds_has_an_owner() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0xED21));
        for (port, expected) in [
            (0xBAAA, Some(Row { uid: 65_533, inode: 45_604 })),
            (0xBAAB, None),
            (0xBAAC, Some(Row { uid: 1000, inode: 7 })),
            (0xBAAD, None),
        ] {
            let peer = SocketAddr::from(([127, 0, 0, 1], port));
            assert_eq!(row_of(TABLE.lines(), peer, local), expected, "{port:x}");
        }
        assert_eq!(address("00000000000000000000000001000000:0001"), Some("[::1]:1".parse().unwrap()));
    }

    #[tokio::test]
    async fn this_process_is_told_by_its_connection_and_nobody_once_it_is_closed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = rustix::process::geteuid().as_raw();
        let client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let seen = Peer::tcp(peer, server.local_addr().unwrap());
        assert_eq!((seen.user().await.map(|user| user.uid), seen.key().await), (Some(own), PeerKey::User(own)));
        let late = Peer::tcp(peer, server.local_addr().unwrap());
        drop(client);
        assert_eq!((late.user().await, late.key().await), (None, PeerKey::Unknown));
        assert_eq!(seen.user().await.map(|user| user.uid), Some(own), "what was seen stays");
        let elsewhere = Peer::tcp("[2001:db8::1]:9".parse().unwrap(), address);
        assert_eq!(elsewhere.key().await, PeerKey::Address("2001:db8::".parse().unwrap()));
    }
}
