//! Another user of this machine: nobody, without any group.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::raw::Answer;

/// The number of that user.
pub const UID: u32 = 65_534;

/// A program that runs as that user, in the root folder.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let uid = UID.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

/// What [`super::raw::exchange`] does, as that user.
pub fn exchange(address: &str, request: &str) -> Result<Answer, String> {
    let (host, port) = address.rsplit_once(':').unwrap();
    let script = format!("exec 3<>/dev/tcp/{host}/{port} && cat >&3 && cat <&3");
    let mut bash = command("bash");
    bash.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut bash =
        bash.spawn().map_err(|error| format!("setpriv: {error}: run `apt-get install util-linux` as root"))?;
    bash.stdin.take().unwrap().write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let output = bash.wait_with_output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stderr);
    Answer::parse(&String::from_utf8_lossy(&output.stdout)).map_err(|error| format!("{error} {told}"))
}
