//! What a release hands on, packed around the binary of this build, served by HTTP and installed from there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::sidecar::Place;
use crate::support::stripped_binary;

/// Serves the files of a folder to one client at a time, until the test ends.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let path = lines
                .next()
                .unwrap_or_default()
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .trim_start_matches('/')
                .to_owned();
            let _rest: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let (status, body) = match fs::read(folder.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_absent) => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let mut stream = &stream;
            let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    format!("http://{address}")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_release_is_packed_installed_and_serves_its_page_and_a_changed_archive_is_refused() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("leakslope");
    // In a copy, for it makes a folder beside the sources.
    fs::create_dir_all(&root).unwrap();
    let copied =
        Command::new("cp").args(["-r", "deploy", "Cargo.toml", "LICENSE"]).arg(&root).current_dir(sources).status();
    assert!(copied.unwrap().success());
    let platform = if cfg!(target_arch = "x86_64") { "linux-x64" } else { "linux-arm64" };
    let named = folder.path().join("leakslope-binary/leakslope");
    fs::create_dir_all(named.parent().unwrap()).unwrap();
    stripped_binary(named.parent().unwrap());
    let packed = Command::new(root.join("deploy/release/pack"))
        .arg(format!("{platform}={}", named.display()))
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    assert!(packed.status.success(), "{}", text(&packed));
    let dist = root.join("dist");
    let sums = fs::read_to_string(dist.join("SHA256SUMS")).unwrap();
    for file in [
        &format!("leakslope-{platform}.tar.gz"),
        "install.sh",
        concat!("leakslope-", env!("CARGO_PKG_VERSION"), ".tgz"),
    ] {
        assert!(sums.lines().any(|line| line.ends_with(&format!("  {file}"))), "no {file} in {sums}");
    }
    assert!(dist.join("image/leakslope").exists() && dist.join("image/Dockerfile").exists());

    let from = serve(dist.clone());
    let to = folder.path().join("bin");
    let install = || {
        let mut command = Command::new("sh");
        command.arg(dist.join("install.sh")).env("LEAKSLOPE_FROM", &from).env("LEAKSLOPE_TO", &to);
        command.output().unwrap()
    };
    let installed = install();
    assert!(installed.status.success(), "{}", text(&installed));
    let home = tempfile::tempdir().unwrap();
    let place = Place::new(home.path(), "");
    let mut command = place.program(to.join("leakslope").to_str().unwrap());
    command.arg("--config").arg(place.configuration()).args(["--web.listen-address", "127.0.0.1:0"]);
    let sidecar = place.spawn(command).ready();
    assert!(sidecar.get("/").contains("<title>leakslope</title>"));

    fs::remove_file(to.join("leakslope")).unwrap();
    let archive = dist.join(format!("leakslope-{platform}.tar.gz"));
    fs::File::options().append(true).open(&archive).unwrap().write_all(b"x").unwrap();
    let refused = install();
    assert!(!refused.status.success() && text(&refused).contains("is not what the release says"), "{}", text(&refused));
    assert!(!to.join("leakslope").exists());
}
