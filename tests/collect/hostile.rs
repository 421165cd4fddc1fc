//! A home whose owner is hostile, and another user of the machine who is: names that lead elsewhere, kinds of files that block
//! or never end, a daemon that lists what is not its own, settings that somebody else has laid there.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use leakslope::actuate::{Act, replace};
use leakslope::collect::{Collector, Source};
use leakslope::model::{Life, ProcessKey};
use leakslope::policy::{Action, Answer, Order};
use rustix::fs::{FileType, Mode};
use rustix::process::Signal;

use super::command::{Script, collect, settings};
use crate::support::fake_daemon::{self, Behaviour, FakeDaemon};
use crate::support::pm2::is_alive;
use crate::support::sidecar::{DEADLINE, Place};
use crate::support::{steady, wait_for, wall};

/// The user who is hostile.
const OTHER: u32 = 65534;

fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder of the other user.
fn theirs() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("theirs-").tempdir_in("/tmp").unwrap();
    mode(folder.path(), 0o755);
    chown(folder.path(), Some(OTHER), Some(OTHER)).expect("these tests need a second user: run them as root");
    folder
}

/// A command as the other user.
fn as_other(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program]);
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Makes one kind of file.
type Make<'a> = &'a dyn Fn(&Path);

#[tokio::test]
async fn what_is_no_stream_socket_is_refused_by_name_and_no_command_is_run_for_it() {
    let good = tempfile::tempdir_in("/tmp").unwrap();
    let _listener = UnixListener::bind(good.path().join("rpc.sock")).unwrap();
    let kept: std::cell::RefCell<Vec<UnixDatagram>> = std::cell::RefCell::default();
    let datagrams = |path: &Path| kept.borrow_mut().push(UnixDatagram::bind(path).unwrap());
    let link = |path: &Path| symlink(good.path().join("rpc.sock"), path).unwrap();
    let device = |path: &Path| symlink("/dev/zero", path).unwrap();
    let file = |path: &Path| fs::write(path, "").unwrap();
    let folder = |path: &Path| fs::create_dir(path).unwrap();
    let script = Script::new("echo '[]'");
    let kinds: [(Make<'_>, &str); 6] = [
        (&datagrams, "it is a socket, but not one of streams"),
        (&fifo, "it is a pipe"),
        (&link, "it is a symbolic link"),
        (&device, "it is a symbolic link"),
        (&file, "it is a regular file"),
        (&folder, "it is a folder"),
    ];
    for (make, why) in kinds {
        let home = tempfile::tempdir_in("/tmp").unwrap();
        make(&home.path().join("rpc.sock"));
        for source in [Source::Socket, Source::Auto, Source::Command] {
            let sample = collect(script.spec(home.path(), source), settings()).await;
            let failure = sample.reports[0].failure.as_deref().unwrap();
            assert!(!sample.up && failure.contains(why), "{source:?}: {failure}");
        }
    }
    assert_eq!(script.calls(), "");
}

#[tokio::test]
async fn the_command_for_a_home_of_somebody_else_runs_as_its_owner_or_not_at_all() {
    let daemon = FakeDaemon::start(Behaviour::Silence);
    chown(daemon.home(), Some(OTHER), Some(OTHER)).expect("these tests need a second user: run them as root");
    let script = Script::new("echo \"$(id -u) $(id -g) $(id -G) ${SECRET-none}\" >> $OUT/calls; echo '[]'");
    // Their user may come to the script, and write its file.
    let folder = script.file("");
    mode(&folder, 0o777);
    let sample = collect(script.spec(daemon.home(), Source::Command), settings()).await;
    assert!(sample.up, "{:?}", sample.reports);
    assert!(script.calls().ends_with("65534 65534 65534 none\n"), "{}", script.calls());

    // Root is somebody else's too.
    let (home, place) = (FakeDaemon::start(Behaviour::Silence), theirs());
    mode(home.home(), 0o755);
    let settings = place.path().join("leakslope.toml");
    let call = script.file("called");
    fs::write(
        &settings,
        format!(
            "[[pm2]]\nhome = \"{}\"\nsource = \"command\"\ncommand = [\"sh\", \"-c\", \"touch {}\"]\n",
            home.home().display(),
            call.display()
        ),
    )
    .unwrap();
    let mut status = as_other(env!("CARGO_BIN_EXE_leakslope"));
    status.args(["status", "--config"]).arg(&settings).env("HOME", place.path());
    let told = said(&status.output().unwrap());
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("the home belongs to root and pm2 runs what lies in it"), "{told}");
    assert!(!call.exists());
}

#[test]
fn where_the_socket_may_not_be_opened_the_command_is_the_second_choice() {
    let home = theirs();
    let socket = home.path().join("rpc.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    mode(&socket, 0o700);
    let place = theirs();
    let list = place.path().join("list");
    fs::write(&list, fake_daemon::list(2)).unwrap();
    let settings = place.path().join("leakslope.toml");
    let configure = |source: &str| {
        let text = format!(
            "[[pm2]]\nhome = \"{}\"\n{source}\ncommand = [\"sh\", \"-c\", \"cat {}\"]\n",
            home.path().display(),
            list.display()
        );
        fs::write(&settings, text).unwrap();
    };
    let status = || {
        let mut status = as_other(env!("CARGO_BIN_EXE_leakslope"));
        status.args(["status", "--format", "json", "--config"]).arg(&settings).env("HOME", place.path());
        said(&status.output().unwrap())
    };
    configure("source = \"auto\"");
    let told = status();
    assert!(told.contains("permission denied") && told.contains("\"up\": false"), "no daemon is seen: {told}");
    let title = format!("PM2 v7.0.4: God Daemon ({})", home.path().display());
    let titled = |mut command: Command| {
        command.args(["-c", &format!("exec -a '{title}' sleep 1000")]);
        Running(command.spawn().unwrap())
    };
    let of_root = titled(Command::new("bash"));
    let told = status();
    assert!(told.contains("\"up\": false"), "a title that somebody else has given themselves: {told}");
    drop(of_root);
    let _own = titled(as_other("bash"));
    wait_for("the command's list", DEADLINE, || {
        let told = status();
        if told.contains("\"up\": true") { Ok(()) } else { Err(told) }
    });
    configure("");
    let told = status();
    assert!(told.contains("\"up\": false"), "the socket alone is asked unless told: {told}");
}

/// A daemon of the other user that lists this pid with this start, until it is dropped.
struct LyingDaemon {
    home: tempfile::TempDir,
    process: Running,
}

impl LyingDaemon {
    fn start(pid: u32, uptime: i64) -> Self {
        Self::start_by(as_other("node"), &[pid.to_string(), uptime.to_string()])
    }

    /// The same by a program that becomes the other user, with further arguments.
    fn start_by(mut program: Command, arguments: &[String]) -> Self {
        let home = theirs();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/collect/lying-daemon.cjs");
        let own = home.path().join("daemon.cjs");
        fs::copy(script, &own).unwrap();
        program.arg(&own).arg(home.path()).args(arguments);
        let process = Running(program.stdin(Stdio::null()).spawn().unwrap());
        let socket = home.path().join("rpc.sock");
        wait_for("the lying daemon", DEADLINE, || {
            std::os::unix::net::UnixStream::connect(&socket).map(|_| ()).map_err(|error| error.to_string())
        });
        Self { home, process }
    }

    fn methods(&self) -> String {
        fs::read_to_string(self.home.path().join("methods")).unwrap_or_default()
    }
}

/// A Node.js app of ours that would open its inspector at the signal, and would say so.
fn victim(errors: &tempfile::NamedTempFile) -> Running {
    let mut victim = Command::new("node");
    victim.args(["-e", "setInterval(() => {}, 1000)"]).stdout(Stdio::null()).stderr(errors.reopen().unwrap());
    let victim = Running(victim.spawn().unwrap());
    wait_for("the victim to be Node", DEADLINE, || {
        let status = fs::read_to_string(format!("/proc/{}/status", victim.0.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        let mask = u64::from_str_radix(&caught, 16).unwrap();
        if mask & 0x200 == 0 { Err(caught) } else { Ok(()) }
    });
    victim
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_lists_what_is_not_its_own_has_nobody_signalled_and_nothing_restarted() {
    let errors = tempfile::NamedTempFile::new().unwrap();
    let victim = victim(&errors);
    let (pid, uptime) = (victim.0.id(), wall().0);
    let why = "not that of a process of pm2's";
    let daemon = LyingDaemon::start(pid, uptime);
    let place = Place::new(daemon.home.path(), "");
    let told = said(&place.run(&["heap", "profile", "victim", "--duration", "1s"]));
    assert!(told.contains(why), "{told}");
    let key = ProcessKey { daemon: "default".into(), pm_id: 0 };
    for action in [Action::Restart, Action::Reload] {
        let life = Life { pid, started: uptime };
        let deadline = Duration::from_secs(5);
        let order = Order { step: 1, key: key.clone(), life, app: "victim".into(), deadline };
        let answer = replace(&Act { home: daemon.home.path().to_owned(), action, order }, wall).await;
        let Answer::NotSent(said) = answer else { panic!("{answer:?}") };
        assert!(said.contains(why), "{said}");
    }
    assert!(daemon.methods().lines().all(|method| method == "getMonitorData"), "{}", daemon.methods());
    assert!(is_alive(pid));
    assert_eq!(fs::read_to_string(errors.path()).unwrap(), "", "its inspector was never opened");
}

#[test]
fn a_number_of_another_pid_namespace_is_nobodys() {
    let errors = tempfile::NamedTempFile::new().unwrap();
    let victim = victim(&errors);
    let profile = |place: &Place, program: &str, arguments: &[&str]| {
        let mut command = place.program(program);
        command.args(arguments).arg(env!("CARGO_BIN_EXE_leakslope"));
        said(&command.args(["heap", "profile", "victim", "--duration", "1s"]).output().unwrap())
    };
    // The daemon lives in a namespace of its own, and the number that it lists means somebody else here.
    let mut inside = Command::new("unshare");
    inside.args([
        "--pid",
        "--fork",
        "--kill-child",
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "node",
    ]);
    let daemon = LyingDaemon::start_by(inside, &[victim.0.id().to_string(), wall().0.to_string()]);
    let told = profile(&Place::new(daemon.home.path(), ""), "env", &[]);
    assert!(told.contains("not that of a process of pm2's"), "{told}");

    // We live in a namespace of our own, where the number that is listed is a Node.js app of ours.
    let daemon = LyingDaemon::start(2, wall().0);
    let script = "node -e 'setInterval(() => {}, 1000)' & test $! = 2 || exit 9; \"$@\"; kill -0 2 && kill 2";
    let own = ["--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script, "-"];
    let told = profile(&Place::new(daemon.home.path(), ""), "unshare", &own);
    assert!(told.contains("cannot be seen from here (another pid namespace"), "{told}");
    assert!(is_alive(victim.0.id()));
    assert_eq!(fs::read_to_string(errors.path()).unwrap(), "", "its inspector was never opened");
}

#[test]
fn a_pid_that_comes_to_mean_another_process_between_list_and_act_is_not_acted_on() {
    use leakslope::collect::list::read_list;
    use leakslope::collect::socket::Peer;
    use leakslope::collect::target::CheckedTarget;
    // We play the daemon, so that the one who gets the pid is its child as well: only who it is tells them apart.
    let spawn = || Command::new("sleep").arg("1000").spawn().map(Running).unwrap();
    let own = rustix::process::geteuid().as_raw();
    let peer = Peer {
        pid: Some(std::process::id()),
        user: own,
        socket_owner: own,
        home_owner: own,
        seen_at: Duration::from_secs(u64::MAX / 4),
    };
    let first = spawn();
    let pid = first.0.id();
    let listed = format!(r#"[{{"pm_id":0,"pid":{pid},"pm2_env":{{"status":"online","pm_uptime":1}}}}]"#);
    let listed = read_list(listed.as_bytes(), 1).unwrap().entries.remove(0);
    let target = CheckedTarget::check(&listed, &peer).unwrap();
    // Times are told in hundredths of a second.
    std::thread::sleep(Duration::from_millis(50));
    drop(first);
    let second = wait_for("the pid to be given out again", DEADLINE, || {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
            .expect("this test chooses pids: run it as root");
        let next = spawn();
        if next.0.id() == pid { Ok(next) } else { Err(next.0.id().to_string()) }
    });
    assert!(CheckedTarget::check(&listed, &peer).is_ok(), "whoever looks only now takes it for the app");
    for signal in [Signal::USR1, Signal::KILL] {
        assert_eq!(target.signal(signal), Err("it has ended".to_owned()));
    }
    assert_eq!(target.check_again(&peer), Err("it has ended".to_owned()));
    assert!(is_alive(second.0.id()));
}

/// A file server that never answers, mounted until it is dropped.
struct DeadMount(tempfile::TempDir, Running);

impl DeadMount {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let script = "exec 5<>/dev/fuse && mount -i -t fuse -o fd=5,rootmode=40000,user_id=0,group_id=0,allow_other none \"$1\" && \
            echo mounted && exec sleep 1000";
        let mut server = Command::new("bash");
        server.args(["-c", script, "-"]).arg(folder.path()).stdout(Stdio::piped());
        let mut server = Running(server.spawn().unwrap());
        let mut line = String::new();
        let mut lines = std::io::BufReader::new(server.0.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
        assert_eq!(line, "mounted\n", "this test mounts: run it as root");
        Self(folder, server)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        // Whoever waits for it is let go.
        let _ended_already = self.1.0.kill();
        let _gone = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_dead_file_server_costs_its_own_daemon_and_nobody_else() {
    let dead = DeadMount::new();
    let good = FakeDaemon::start(Behaviour::List(fake_daemon::list(2)));
    // A daemon that answers, and names logs in many folders that do not.
    let mut entries: Vec<serde_json::Value> = serde_json::from_str(&fake_daemon::list(40)).unwrap();
    for (number, entry) in entries.iter_mut().enumerate() {
        entry["pm2_env"]["pm_err_log_path"] = format!("{}/{number}/error.log", dead.path().display()).into();
    }
    let hostile = FakeDaemon::start(Behaviour::List(serde_json::Value::Array(entries).to_string()));
    let place = Place::new(good.home(), "");
    let daemon = |name: &str, home: &Path| format!("[[pm2]]\nname = \"{name}\"\nhome = \"{}\"\n", home.display());
    place.configure(&format!(
        "interval = \"1s\"\n{}{}{}",
        daemon("good", good.home()),
        daemon("hostile", hostile.home()),
        daemon("dead", dead.path())
    ));
    let mut sidecar = place.start();
    sidecar.collections(10);
    let metrics = sidecar.metrics();
    let up = |name: &str| metrics.value("pm2_up", &[("daemon", name)]);
    assert_eq!((up("good"), up("hostile"), up("dead")), (Some(1.0), Some(1.0), Some(0.0)), "{}", sidecar.log());
    assert!(sidecar.log().contains("did not answer within"), "{}", sidecar.log());
    let tasks = fs::read_dir(format!("/proc/{}/task", sidecar.pid())).unwrap().flatten();
    let waiting = tasks.filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "home\n"));
    assert!(waiting.count() < 8, "threads pile up");
    // What needs a thread of its own still gets one.
    good.die();
    good.listen();
    sidecar.collections(3);
    assert_eq!(sidecar.metrics().value("pm2_up", &[("daemon", "good")]), Some(1.0), "{}", sidecar.log());
    let (_, took) = sidecar.stop(Signal::TERM);
    assert!(took < DEADLINE, "{took:?}");
}

#[test]
fn a_daemon_of_another_user_that_lists_without_end_takes_nothing_from_ours() {
    let good = FakeDaemon::start(Behaviour::List(fake_daemon::list(3)));
    let place = Place::new(good.home(), "");
    let collect = "interval = \"2m\"\n[collect]\ndeadline = \"100s\"\n";
    let daemon = |name: &str, home: &Path| format!("[[pm2]]\nname = \"{name}\"\nhome = \"{}\"\n", home.display());
    let series = |body: &str| -> std::collections::BTreeSet<String> {
        let ours = body.lines().filter(|line| line.contains("daemon=\"good\"") && line.starts_with("pm2_"));
        ours.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    place.configure(&format!("{collect}{}", daemon("good", good.home())));
    let alone = series(&place.start().get("/metrics"));
    assert!(alone.len() > 50, "{alone:#?}");

    let arguments = ["0", "1", "5000", "64"].map(str::to_owned);
    let hostile = LyingDaemon::start_by(as_other("node"), &arguments);
    place.configure(&format!("{collect}{}{}", daemon("good", good.home()), daemon("another", hostile.home.path())));
    let sidecar = place.start();
    let body = sidecar.get("/metrics");
    assert_eq!(series(&body), alone);
    assert!(body.len() < 64 << 20, "{} MiB", body.len() >> 20);
    let of_theirs = |family: &str| {
        let line = format!("{family}{{daemon=\"another\"");
        body.lines().filter(move |row| row.starts_with(&line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let value = |family: &str| -> usize { of_theirs(family)[0].rsplit_once(' ').unwrap().1.parse().unwrap() };
    let left_out = [value("leakslope_processes_left_out"), value("leakslope_app_metrics_left_out")];
    let shown = [of_theirs("pm2_process_status").len(), of_theirs("pm2_process_custom_metric").len()];
    assert_eq!((left_out[0] + shown[0], left_out[1] + shown[1]), (5000, 5000 * 64), "{left_out:?} {shown:?}");
    assert!(left_out[1] > 0 && shown[1] > 0, "{left_out:?} {shown:?}");
    assert_eq!(sidecar.logged("it lists more than one daemon may take").len(), 1, "{}", sidecar.log());
    let resident = body.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    assert!(resident.parse::<f64>().unwrap() < 420e6, "{resident}");
}

#[test]
fn pipes_links_and_devices_in_a_home_cost_no_collection_no_memory_and_no_file() {
    let daemon = FakeDaemon::start(Behaviour::List(fake_daemon::list(2)));
    let precious = daemon.home().join("precious");
    fs::write(&precious, "text").unwrap();
    fifo(&daemon.home().join("reload.lock"));
    fifo(&daemon.home().join("pm2.log"));
    symlink("/dev/zero", daemon.home().join("pm2.pid")).unwrap();
    let place = Place::new(daemon.home(), "");
    let own = Script::new("cat $OUT/list");
    fs::write(own.file("list"), fake_daemon::list(2)).unwrap();
    for source in [
        "source = \"socket\"".to_owned(),
        format!("source = \"command\"\ncommand = [\"sh\", \"{}\"]", own.file("pm2").display()),
    ] {
        place.configure(&format!(
            "interval = \"1s\"\n[[pm2]]\n{source}\n[restart]\nmode = \"enforce\"\n[[restart.policy]]\napps = [\"*\"]\n"
        ));
        let mut sidecar = place.start();
        sidecar.collections(2);
        let metrics = sidecar.metrics();
        assert!(metrics.body.contains("pm2_process"), "{}", metrics.body);
        let resident = metrics.value("process_resident_memory_bytes", &[]).unwrap();
        assert!(resident < 200e6, "{resident}");
        let (_, took) = sidecar.stop(Signal::TERM);
        assert!(took < Duration::from_secs(10), "{took:?}: {}", sidecar.log());
    }
    let lock = daemon.home().join("reload.lock");
    fs::remove_file(&lock).unwrap();
    symlink(&precious, &lock).unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "text");
}

#[test]
fn settings_that_somebody_else_has_laid_in_a_folder_are_passed_over_and_said() {
    let (folder, own) = (theirs(), tempfile::tempdir().unwrap());
    let mark = own.path().join("ran");
    let settings = folder.path().join("leakslope.toml");
    let text = format!("[[pm2]]\nsource = \"command\"\ncommand = [\"sh\", \"-c\", \"touch {}\"]\n", mark.display());
    fs::write(&settings, &text).unwrap();
    let daemon = FakeDaemon::start(Behaviour::List(fake_daemon::list(1)));
    let status = |at: &Path| {
        let mut status = Command::new(env!("CARGO_BIN_EXE_leakslope"));
        status.args(["status", "--format", "json"]).env_remove("LEAKSLOPE_CONFIG").env("PM2_HOME", daemon.home());
        status.current_dir(at).output().unwrap()
    };
    let passed_over = |output: &Output| {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains("./leakslope.toml is passed over: "), "{errors}");
        errors
    };
    // Their folder with a file of ours in it, their file in ours, a folder for everybody, and a link.
    assert!(passed_over(&status(folder.path())).contains("the folder belongs to user 65534"));
    mode(own.path(), 0o755);
    let place = own.path().join("leakslope.toml");
    fs::write(&place, &text).unwrap();
    chown(&place, Some(OTHER), None).unwrap();
    assert!(passed_over(&status(own.path())).contains("it belongs to user 65534"));
    chown(&place, Some(0), None).unwrap();
    mode(own.path(), 0o757);
    assert!(passed_over(&status(own.path())).contains("chmod o-w ."));
    mode(own.path(), 0o755);
    mode(&place, 0o606);
    assert!(passed_over(&status(own.path())).contains("chmod o-w ./leakslope.toml"));
    fs::remove_file(&place).unwrap();
    symlink(&settings, &place).unwrap();
    assert!(passed_over(&status(own.path())).contains("no regular file"));
    assert!(!mark.exists());
    // What is ours counts.
    fs::remove_file(&place).unwrap();
    fs::write(&place, text).unwrap();
    let output = status(own.path());
    assert!(!said(&output).contains("passed over"), "{}", said(&output));
    assert!(mark.exists(), "{}", said(&output));
}

#[test]
fn a_file_of_settings_that_others_may_write_is_refused_with_the_command_that_mends_it() {
    let place = Place::new(Path::new("/nonexistent"), "");
    let (web, tokens) = (place.state().join("web.yml"), place.state().join("tokens"));
    fs::write(&web, "").unwrap();
    fs::write(&tokens, "the-token-of-this-test\n").unwrap();
    let settings = place.configuration();
    place.configure(&format!("[web]\nconfig_file = \"{}\"\ntoken_file = \"{}\"\n", web.display(), tokens.display()));
    let refused = |file: &PathBuf, command: &str| {
        let output = place.run(&["check-config"]);
        let (told, mend) = (said(&output), format!("{command} {}", file.display()));
        assert_eq!(output.status.code(), Some(64), "{told}");
        assert!(told.contains(&mend), "{told} | {mend}");
        let mended = Command::new("sh").args(["-c", &mend]).status();
        assert!(mended.unwrap().success(), "{mend}");
    };
    for file in [&settings, &web, &tokens] {
        mode(file, 0o602);
        refused(file, "chmod o-w");
        chown(file, None, Some(OTHER)).expect("these tests need a second user: run them as root");
        mode(file, 0o666);
        refused(file, "chmod go-w");
        chown(file, Some(OTHER), None).unwrap();
        refused(file, "chown 0");
    }
    let output = place.run(&["check-config"]);
    assert!(output.status.success(), "{}", said(&output));
    // Nobody waits for a pipe.
    fs::remove_file(&tokens).unwrap();
    fifo(&tokens);
    assert!(said(&place.run(&["check-config"])).contains("no regular file"));
}

#[test]
fn a_state_directory_for_everybody_is_tightened_and_one_of_somebody_else_is_refused() {
    let daemon = FakeDaemon::start(Behaviour::List(fake_daemon::list(1)));
    let place = Place::new(daemon.home(), "interval = \"1s\"\n");
    let state = place.state().join("leakslope");
    fs::create_dir(&state).unwrap();
    mode(&state, 0o777);
    let sidecar = place.start();
    assert_eq!(sidecar.logged("that right is taken away").len(), 1, "{}", sidecar.log());
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o755);
    drop(sidecar);
    chown(&state, Some(OTHER), None).expect("these tests need a second user: run them as root");
    let output = place.run(&["--web.listen-address", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&format!("chown 0 {}", state.display())), "{}", said(&output));
}

#[tokio::test]
async fn a_daemon_that_was_stopped_in_its_tracks_delays_no_other() {
    let stopped = LyingDaemon::start(1, 1);
    let good = FakeDaemon::start(Behaviour::List(fake_daemon::list(1)));
    let pid = stopped.process.0.id();
    crate::support::pm2::signal(pid, Signal::STOP);
    let mut specs = vec![good.spec("good")];
    specs.push(leakslope::collect::DaemonSpec { home: stopped.home.path().to_owned(), ..good.spec("stopped") });
    let mut collector = Collector::new(specs, settings());
    for _ in 0..3 {
        let snapshot = collector.collect(steady(), wall()).await;
        let up: Vec<_> = snapshot.daemons.iter().map(|daemon| (daemon.name.as_str(), daemon.up)).collect();
        assert_eq!(up, [("good", true), ("stopped", false)]);
    }
    crate::support::pm2::signal(pid, Signal::CONT);
}

/// Has every text steer a terminal, but the words that the command itself goes by.
fn steer(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = format!("\u{1b}[2J\u{202e}{text}"),
        serde_json::Value::Array(values) => values.iter_mut().for_each(steer),
        serde_json::Value::Object(fields) => {
            let words = ["kind", "signal", "basis"];
            fields.iter_mut().filter(|(key, _)| !words.contains(&key.as_str())).for_each(|(_, value)| steer(value));
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

#[test]
fn no_column_of_status_steers_the_terminal() {
    use std::io::{Read as _, Write as _};
    let daemon = FakeDaemon::start(Behaviour::List(fake_daemon::list(1)));
    let place = Place::new(daemon.home(), "interval = \"1s\"\n");
    let body = {
        let sidecar = place.start();
        wait_for("a verdict", DEADLINE, || {
            let body = sidecar.get("/api/v1/processes");
            if body.contains("\"learning\"") { Ok(body) } else { Err(body) }
        })
    };
    let mut body: serde_json::Value = serde_json::from_str(&body).unwrap();
    steer(&mut body);
    let body = body.to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _length = stream.read(&mut request).unwrap();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    });
    let told = said(&place.run(&["status", "--wide", "--web.listen-address", &address]));
    server.join().unwrap();
    assert!(told.contains("learni") && !told.contains(['\u{1b}', '\u{202e}']), "{told:?}");
}
