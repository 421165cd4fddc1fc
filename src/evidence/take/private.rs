//! A session that is nobody else's: the app itself connects to us and carries on there what was begun at its inspector, which
//! is closed before anything is done. So the port, which every user of the machine can use, is open for a moment only, also
//! for a series of snapshots.
//!
//! The app shows a secret that only its inspector was told, and goes on only with whoever shows the other one. If we are gone,
//! at whatever moment, the session ends, and so does an inspector that is still open. It refuses to leave anything in the app.

use std::net::Ipv4Addr;
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::evidence::inspector::Inspector;
use crate::http::{SECRET_DIGITS, secret};

/// How long whoever connects may take to show it, …
const SHOWN: Duration = Duration::from_secs(5);
/// … and how many may be waited for at a time.
const MOST: usize = 32;

/// Runs in the app, with what is filled in below: connects to us, and carries messages of a session with its own inspector, one a line.
const BRIDGE: &str = "((inspector, net, fs, port, ours, theirs) => {
    const session = new inspector.Session();
    const nap = new Int32Array(new SharedArrayBuffer(4));
    const close = () => { try { inspector.close(); } catch { /* closed already */ } };
    const socket = net.connect(port, '127.0.0.1');
    let rest = '', known = false;
    const carry = (line) => {
        const { id, method, params } = JSON.parse(line);
        session.post(method, params, (error, result) =>
            socket.write(JSON.stringify(error ? { id, error: { message: error.message } } : { id, result }) + '\\n'));
    };
    // The event loop stands still while a snapshot is taken, so its pieces are handed over at once and none is kept in the app.
    const hand = ({ method, params }) => {
        const text = Buffer.from(JSON.stringify({ method, params }) + '\\n');
        if (socket.writableLength) return socket.write(text);
        let late = 0;
        for (let at = 0; at < text.length && !socket.destroyed;) {
            try {
                at += fs.writeSync(socket._handle.fd, text, at);
                late = 0;
            } catch (error) {
                late += 1;
                if (error.code !== 'EAGAIN' || late > 10000) socket.destroy();
                else Atomics.wait(nap, 0, 0, 1);
            }
        }
    };
    session.on('HeapProfiler.addHeapSnapshotChunk', hand);
    const hear = (line) => {
        if (known) return carry(line);
        if (line !== theirs) return socket.destroy();
        known = true;
        session.connect();
        close();
    };
    socket.unref();
    socket.setEncoding('utf8');
    socket.on('connect', () => socket.write(ours));
    socket.on('data', (text) => {
        const lines = (rest + text).split('\\n');
        rest = lines.pop();
        lines.forEach(hear);
    });
    socket.on('error', () => {});
    socket.on('close', () => {
        session.disconnect();
        close();
        globalThis[Symbol.for('leakslope.inlining')]?.();
    });
    return true;
})";

/// Has the app connect to us, and returns the session once it has; the other one has ended by then.
///
/// # Errors
/// A sentence.
pub(super) async fn carried_over(mut inspector: Inspector, pid: u32, step: Duration) -> Result<Inspector, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let (ours, theirs) = secret().zip(secret()).ok_or("the system gives no random bytes")?;
    let expression =
        format!("{BRIDGE}(require('inspector'), require('net'), require('fs'), {port}, '{ours}', '{theirs}')");
    inspector.evaluate(&expression, true, step).await.map_err(|error| error.to_string())?;
    let mut stream = timeout(step, connected(&listener, &ours))
        .await
        .map_err(|_elapsed| format!("it did not connect to 127.0.0.1:{port} within {} s", step.as_secs()))??;
    // Closing an inspector waits for whoever is attached to it.
    drop(inspector);
    stream.write_all(format!("{theirs}\n").as_bytes()).await.map_err(|error| error.to_string())?;
    Ok(Inspector::over(stream, format!("pid {pid}")))
}

/// The first connection that shows the secret; whoever else connects delays nobody.
async fn connected(listener: &TcpListener, secret: &str) -> Result<TcpStream, String> {
    let mut others = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if others.len() < MOST => {
                let (stream, _) = accepted.map_err(|error| error.to_string())?;
                others.spawn(timeout(SHOWN, shown(stream, secret.to_owned())));
            }
            Some(ended) = others.join_next() => {
                if let Ok(Ok(Some(stream))) = ended {
                    return Ok(stream);
                }
            }
        }
    }
}

async fn shown(mut stream: TcpStream, secret: String) -> Option<TcpStream> {
    let mut bytes = [0; SECRET_DIGITS];
    stream.read_exact(&mut bytes).await.ok()?;
    bool::from(bytes.ct_eq(secret.as_bytes())).then_some(stream)
}
