//! Whether a process serves: what its sockets show, a connection that reaches it, and the probe.
//!
//! A cluster worker has no listening socket of its own. pm2's daemon holds it and hands each connection to the next worker
//! that listens, so connections are opened to the daemon's ports, without a word sent, to see by which of them one comes
//! into the worker's hands. That is done only inside of the same network. This room refuses to judge.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{hook, http};
use crate::collect::join_all;
use crate::collect::system::{SystemReader, connections, other_sockets, parse, seen_ports};
use crate::model::Life;
use crate::policy::{HookOrder, Listening, Probe, ProbeAnswer, ProbeOrder, SocketQuestion, Sockets};

/// Ports of a daemon that are tried at the most.
const MOST_PORTS: usize = 16;
/// How long a connection may take, and how long one that was made is looked for in the worker's hands.
const CONNECT: Duration = Duration::from_millis(500);
const LOOKS: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The largest answer to a probe that is read.
const LONGEST_ANSWER: usize = 1 << 20;
/// Where Node's inspector listens, which no probe is meant for.
const INSPECTOR: u16 = 9229;

/// Finds out what an order asks.
pub(super) async fn find_out(order: &ProbeOrder) -> ProbeAnswer {
    let proc = Path::new("/proc");
    let sockets = match (order.sockets, order.life) {
        (Some(SocketQuestion::Ports), Some(life)) => Some(sockets_of_tree(life.pid).await),
        (Some(SocketQuestion::Connection), Some(life)) => {
            Some(match reached(proc, life.pid, &order.ports, order.attempts).await {
                Ok(ports) => Sockets::Reached(ports),
                Err(error) => unseen(life.pid, &error),
            })
        }
        (_, None) | (None, _) => None,
    };
    let Some(probe) = &order.probe else { return ProbeAnswer { sockets, probe: None, port: None } };
    let port = match &probe.http {
        Some(address) if address.needs_port() => port_to_ask(order, sockets.as_ref()).await,
        _ => None,
    };
    ProbeAnswer { probe: Some(ask(order, probe, port).await), sockets, port }
}

fn unseen(pid: u32, error: &io::Error) -> Sockets {
    Sockets::Unseen(format!("the sockets of process {pid} cannot be seen: {error}"))
}

/// Where a process and its descendants listen: under `npm start` it is a child that serves.
async fn sockets_of_tree(pid: u32) -> Sockets {
    let look = tokio::task::spawn_blocking(move || {
        let proc = PathBuf::from("/proc");
        let tree = SystemReader::new(proc.clone()).tree(pid, None).unwrap_or_default();
        let seen = |pid| Ok::<_, io::Error>((seen_ports(&proc, pid)?, other_sockets(&proc, pid)?));
        let (mut ports, mut others) = seen(pid)?;
        for process in tree.iter().filter(|process| process.pid != pid) {
            match seen(process.pid) {
                Ok((more, yet_others)) => {
                    ports.extend(more);
                    others.extend(yet_others);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Listening { ports, others })
    });
    match look.await.map_err(io::Error::other).flatten() {
        Ok(listening) => Sockets::Listens(listening),
        Err(error) => unseen(pid, &error),
    }
}

/// The ports of pm2's daemon by which a connection has reached this worker: of `wanted`, or of all where none is named.
async fn reached(proc: &Path, pid: u32, wanted: &BTreeSet<u16>, attempts: usize) -> io::Result<BTreeSet<u16>> {
    seen_ports(proc, pid)?;
    let stat = std::fs::read(proc.join(pid.to_string()).join("stat"))?;
    let daemon = parse::stat(&stat).map(|stat| stat.parent).ok_or(io::ErrorKind::InvalidData)?;
    let mut ports = seen_ports(proc, daemon)?;
    ports.retain(|port| *port != INSPECTOR && (wanted.is_empty() || wanted.contains(port)));
    let mut found = BTreeSet::new();
    let mut look = || {
        found.extend(ports.iter().copied().filter(|port| connections(proc, pid, *port) > 0));
        found.clone()
    };
    let network = |pid: &str| std::fs::read_link(proc.join(pid).join("ns/net"));
    if network("self")? != network(&pid.to_string())? {
        return Ok(look());
    }
    let missing: Vec<u16> = ports.difference(&look()).copied().take(MOST_PORTS).collect();
    let connecting = missing.iter().flat_map(|port| std::iter::repeat_n(*port, attempts)).map(connect);
    let _open = join_all(connecting).await;
    for _ in 0..LOOKS {
        if missing.is_empty() || look().is_superset(&ports) {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(look())
}

async fn connect(port: u16) -> Option<TcpStream> {
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect((address, port))).await {
            return Some(stream);
        }
    }
    None
}

/// The port that `{port}` stands for: what the process listens on or is reached by, else what was found before.
async fn port_to_ask(order: &ProbeOrder, sockets: Option<&Sockets>) -> Option<u16> {
    let Some(life) = order.life else { return order.port };
    let ports = match sockets {
        Some(Sockets::Listens(listening)) => listening.ports.clone(),
        _ => match sockets_of_tree(life.pid).await {
            Sockets::Listens(listening) => listening.ports,
            Sockets::Reached(_) | Sockets::Unseen(_) => BTreeSet::new(),
        },
    };
    if order.port.is_some_and(|port| ports.contains(&port)) {
        return order.port;
    }
    let own = ports.into_iter().find(|port| *port != INSPECTOR);
    if own.or(order.port).is_some() {
        return own.or(order.port);
    }
    let reached = match sockets {
        Some(Sockets::Reached(ports)) => ports.clone(),
        _ => reached(Path::new("/proc"), life.pid, &BTreeSet::new(), order.attempts).await.unwrap_or_default(),
    };
    reached.into_iter().next()
}

/// Asks as a user would, as often as the app has workers that may answer.
async fn ask(order: &ProbeOrder, probe: &Probe, port: Option<u16>) -> Result<(), String> {
    if let Some(address) = &probe.http {
        if address.needs_port() && port.is_none() {
            return Err(format!("{address}: the port that the app listens on cannot be told; write it out"));
        }
        let endpoint = address.at(port.unwrap_or_default());
        for _ in 0..order.attempts {
            let ask = http::Ask {
                endpoint: &endpoint,
                path: "",
                body: None,
                headers: &[],
                deadline: probe.timeout,
                limit: LONGEST_ANSWER,
            };
            match ask.send().await {
                Ok(reply) if (200..300).contains(&reply.status) => {}
                Ok(reply) => return Err(format!("{endpoint} answered with status {}", reply.status)),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    if let Some(command) = &probe.command {
        let run = HookOrder {
            step: order.step.unwrap_or_default(),
            key: order.key.clone(),
            life: order.life.unwrap_or(Life { pid: 0, started: 0 }),
            app: order.app.clone(),
            command: command.clone(),
            timeout: probe.timeout,
        };
        hook::run(&run).await?;
    }
    Ok(())
}
