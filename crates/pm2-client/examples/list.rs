//! Prints the processes of a pm2 home: `cargo run -p pm2-client --example list -- ~/.pm2`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;
use std::time::Duration;

use pm2_client::socket::{Client, Deadlines};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = PathBuf::from(std::env::args().nth(1).ok_or("name the home: ~/.pm2")?);
    let second = Duration::from_secs(1);
    let deadlines = Deadlines { connect: second, write: second, reply: 5 * second };
    let mut client = Client::new(home.join("rpc.sock"), deadlines, 64 << 20);
    for process in client.list(1_000).await?.list?.entries {
        println!("{}\t{}\t{:?}\t{:?}", process.pm_id, process.app, process.status, process.pid);
    }
    Ok(())
}
