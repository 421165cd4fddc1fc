//! Which TCP ports a process listens on: the sockets of its network namespace matched with its open files.

use std::collections::BTreeSet;
use std::path::Path;

use super::read_text;

/// The TCP ports that a process listens on; none where its files are not ours to see.
pub fn listening_ports(proc: &Path, pid: u32) -> BTreeSet<u16> {
    let folder = proc.join(pid.to_string());
    let Ok(files) = std::fs::read_dir(folder.join("fd")) else { return BTreeSet::new() };
    let sockets: BTreeSet<u64> = files
        .flatten()
        .filter_map(|file| {
            let link = std::fs::read_link(file.path()).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect();
    if sockets.is_empty() {
        return BTreeSet::new();
    }
    let tables = ["net/tcp", "net/tcp6"].map(|name| read_text(&folder.join(name)).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines());
    rows.filter_map(listener).filter(|(_, inode)| sockets.contains(inode)).map(|(port, _)| port).collect()
}

/// Port and inode of a row of `/proc/net/tcp` that listens.
fn listener(row: &str) -> Option<(u16, u64)> {
    let cells: Vec<&str> = row.split_ascii_whitespace().collect();
    if *cells.get(3)? != "0A" {
        return None;
    }
    let (_, port) = cells.get(1)?.rsplit_once(':')?;
    Some((u16::from_str_radix(port, 16).ok()?, cells.get(9)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_that_listen_count() {
        let row =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100";
        assert_eq!(listener(row), Some((8080, 12345)));
        assert_eq!(listener(&row.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        assert_eq!(listener(""), None);
    }

    #[test]
    fn a_port_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(listening_ports(Path::new("/proc"), std::process::id()).contains(&port));
        drop(socket);
        assert!(!listening_ports(Path::new("/proc"), std::process::id()).contains(&port));
    }
}
