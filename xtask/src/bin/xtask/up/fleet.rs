//! The services: set up, started, watched and drained in the order that they need each other.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::progress::step;
use xtask::servers::{http_get, port};
use xtask::service::Service;

use super::stop::{LOOK, Stop, run_until};

/// What is built and run.
pub(crate) const PACKAGES: [&str; 5] = ["gateway", "projector", "presence", "streams", "sql"];
/// A gateway fills its ring before it turns ready.
const READY: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(2);
/// Longer than the grace period of any service.
const DRAIN: Duration = Duration::from_secs(30);
/// Who is still not ready is said so often.
const TELL: Duration = Duration::from_secs(5);

/// How far operators' ports of the gateways are from their clients' ports.
const OPS_PORTS: u16 = 1_000;

/// What all of them share.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) bin: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) env: Vec<(String, String)>,
}

/// Migrations, streams and keys. Each is a no-op where it was done before.
pub(crate) fn set_up(setting: &Setting, stop: &Stop) -> Result<()> {
    for (program, arg, what) in [
        ("sql", "up", "applying the migrations"),
        ("streams", "apply", "applying the stream definitions"),
        ("gateway", "keys", "making sure of the keys"),
    ] {
        step(what);
        let log = setting.logs.join(format!("{program}-{arg}.log"));
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = xtask::process::command(setting.bin.join(program));
        command.arg(arg).envs(setting.env.iter().cloned()).stdin(Stdio::null());
        command.stderr(output.try_clone()?).stdout(output);
        run_until(&mut command, stop)
            .with_context(|| format!("{what}:\n{}", std::fs::read_to_string(&log).unwrap_or_default()))?;
    }
    Ok(())
}

#[derive(Debug)]
struct Member {
    service: Service,
    addr: SocketAddr,
    /// Where a gateway answers operators; the other services answer nobody else.
    ops: Option<SocketAddr>,
}

/// The running services.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Gateways first.
    members: Vec<Member>,
    gateways: usize,
}

impl Fleet {
    pub(crate) fn start(setting: &Setting, gateways: u16, host: IpAddr, first_port: u16) -> Result<Self> {
        let mut next = first_port;
        let mut next_ops = first_port.saturating_add(OPS_PORTS);
        let mut members = Vec::new();
        let names = (1..=gateways).map(|n| ("gateway", format!("gateway-{n}"), "MT_HTTP_ADDR", host));
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let others = [
            ("projector", "projector".to_owned(), "MT_PROJECTOR_ADDR", local),
            ("presence", "presence".to_owned(), "MT_PRESENCE_ADDR", local),
        ];
        for (program, name, variable, host) in names.chain(others) {
            let port = port::first_free_from(next)?;
            if port != next {
                step(format!("port {next} is taken: {name} listens on {port}"));
            }
            next = port.checked_add(1).context("no ports left")?;
            let ops = if program == "gateway" {
                let port = port::first_free_from(next_ops)?;
                next_ops = port.checked_add(1).context("no ports left")?;
                Some(SocketAddr::new(local, port))
            } else {
                None
            };
            let listens = [(variable.to_owned(), SocketAddr::new(host, port).to_string())];
            let operators = ops.map(|addr| ("MT_OPS_ADDR".to_owned(), addr.to_string()));
            let env = setting.env.iter().cloned().chain(listens).chain(operators);
            let log = setting.logs.join(format!("{name}.log"));
            let service = Service::spawn(&name, setting.bin.join(program), &[], env, log)?;
            let reach = if host.is_unspecified() { local } else { host };
            members.push(Member { service, addr: SocketAddr::new(reach, port), ops });
        }
        Ok(Self { members, gateways: usize::from(gateways) })
    }

    /// The gateways' addresses, as a client on this machine reaches them.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = SocketAddr> {
        self.members[..self.gateways].iter().map(|member| member.addr)
    }

    /// Name and address of every service.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.members.iter().map(|member| (member.service.name(), member.addr))
    }

    /// Where the gateways answer operators, by their names.
    pub(crate) fn operators(&self) -> impl Iterator<Item = (String, SocketAddr)> {
        let ops = |member: &Member| Some((format!("{}-ops", member.service.name()), member.ops?));
        self.members.iter().filter_map(ops)
    }

    /// The URL and the process of a service.
    pub(crate) fn describe(&self, name: &str) -> Option<(String, u32)> {
        let member = self.members.iter().find(|member| member.service.name() == name)?;
        Some((format!("http://{}", member.addr), member.service.pid()))
    }

    pub(crate) fn wait_ready(&mut self, stop: &Stop) -> Result<()> {
        step("waiting until every service is ready");
        let start = Instant::now();
        let mut told = start;
        while let Some(missing) = self.first_unready() {
            self.check()?;
            if stop.is_set() {
                bail!("stopped");
            }
            if start.elapsed() > READY {
                bail!("not ready after {READY:?}: {missing}");
            }
            if told.elapsed() > TELL {
                step(format!("still waiting for {missing}"));
                told = Instant::now();
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The first service that is not ready, and why.
    fn first_unready(&self) -> Option<String> {
        self.members.iter().find_map(|member| {
            match http_get(&format!("http://{}/readyz", member.ops.unwrap_or(member.addr)), PROBE) {
                Some((200, _)) => None,
                Some((_, body)) => Some(format!("{}: {body}", member.service.name())),
                None => Some(format!("{}: no answer", member.service.name())),
            }
        })
    }

    /// An error with the end of its log if a service has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        for Member { service, .. } in &mut self.members {
            if let Some(status) = service.exited()? {
                bail!(
                    "{} ended with {status}; the end of {}:\n{}",
                    service.name(),
                    service.log_path().display(),
                    service.log_tail()
                );
            }
        }
        Ok(())
    }

    /// The gateways answer what is in flight, which needs the others; then those.
    pub(crate) fn drain(mut self) -> Result<()> {
        let rest = self.members.split_off(self.gateways);
        drain_all(self.members)?;
        drain_all(rest)
    }
}

fn drain_all(mut members: Vec<Member>) -> Result<()> {
    for member in &mut members {
        member.service.sigterm()?;
    }
    let deadline = Instant::now() + DRAIN;
    for Member { service, .. } in &mut members {
        let left = deadline.saturating_duration_since(Instant::now());
        match service.wait_exit(left)? {
            Some(status) if status.success() => {}
            Some(status) => step(format!("{} ended with {status}", service.name())),
            None => step(format!("{} did not end within {DRAIN:?} and is killed", service.name())),
        }
    }
    Ok(())
}
