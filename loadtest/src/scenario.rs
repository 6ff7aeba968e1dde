//! Measured scenarios: a population, a course, and a report.
//!
//! The swarm and the scenario's course run on a thread of their own. The main thread makes the accounts and chats,
//! watches the product, reads histories at the end, and puts the report together.

pub mod course;
mod histories;
mod population;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    course::{Course, Finished, fleet::Fleet},
    population::{Population, populate},
};
use crate::{
    measure::{
        Machine,
        watch::{Sample, Watch},
        watched,
    },
    params::{self, Params},
    provision::{Account, gateway_binary, provision},
    report::{
        html,
        outcome::{Material, Outcome},
    },
    swarm::{Gateway, Habits, Progress, Swarm},
    target::{Target, TargetArgs},
};

/// `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// A scenario's name, or a .toml file.
    pub scenario: String,
    #[command(flatten)]
    pub flags: RunFlags,
}

#[derive(Debug, Clone, Args)]
pub struct RunFlags {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Write the result here as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write the report here, one HTML file with its charts inside.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// Changes to the scenario: any parameter of its file.
    #[arg(value_name = "--PARAMETER=VALUE", allow_hyphen_values = true, trailing_var_arg = true)]
    pub changes: Vec<String>,
}

/// Tokens outlive any run.
const TOKEN_TTL_S: u64 = 24 * 3_600;

/// Runs a scenario, prints and writes what came of it, and fails on any broken promise.
///
/// # Errors
/// When a promise was broken, or the product is not there.
pub async fn run(args: RunArgs) -> Result<()> {
    let RunArgs { scenario, mut flags } = args;
    take_own_flags(&mut flags)?;
    let (name, params) = Params::load(&scenario, &flags.changes)?;
    raise_file_limit(params.sockets + params.speakers)?;
    let outcome = measure(&name, params, &flags.target).await?;
    outcome.print();
    if let Some(path) = &flags.json {
        std::fs::write(path, serde_json::to_vec_pretty(&outcome)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &flags.html {
        std::fs::write(path, html::page(&outcome)?).with_context(|| format!("write {}", path.display()))?;
    }
    if !outcome.judgement.clean {
        bail!("{} promises broken", outcome.judgement.violations.values().sum::<u64>());
    }
    Ok(())
}

/// Flags of our own may stand behind the first parameter, where clap takes all for parameters.
fn take_own_flags(flags: &mut RunFlags) -> Result<()> {
    let mut changes = Vec::new();
    let mut given = std::mem::take(&mut flags.changes).into_iter();
    while let Some(change) = given.next() {
        let (key, value) =
            change.split_once('=').map_or((change.as_str(), None), |(key, value)| (key, Some(value)));
        if !matches!(key, "--json" | "--html" | "--up") {
            changes.push(change);
            continue;
        }
        let value = value.map(str::to_owned).or_else(|| given.next());
        let value = PathBuf::from(value.with_context(|| format!("{key} needs a path"))?);
        match key {
            "--json" => flags.json = Some(value),
            "--html" => flags.html = Some(value),
            _ => flags.target.up = value,
        }
    }
    flags.changes = changes;
    Ok(())
}

async fn measure(name: &str, params: Params, target_args: &TargetArgs) -> Result<Outcome> {
    let mut target = target_args.resolve()?;
    let binary = gateway_binary(target_args.bin_dir.as_deref())?;
    let mut outcome = Outcome::begin(name, params.clone(), Machine::here(), unix_ms());
    let fleet = match params.course {
        params::Course::Deploy => Some(Fleet::start(params.gateways, &binary, &mut target)?),
        params::Course::Steady | params::Course::Idle | params::Course::Storm | params::Course::Ceiling => {
            None
        }
    };
    let used = if params.use_gateways == 0 { usize::MAX } else { params.use_gateways };
    let urls: Vec<String> = target.gateways.iter().take(used).map(|gateway| gateway.url.clone()).collect();
    let accounts = accounts(name, &params, &binary, &target).await?;
    let since = Instant::now();
    let Population { devices, chats } = populate(&params, &accounts, &urls).await?;
    println!("{} chats in {:.1} s", chats.len(), since.elapsed().as_secs_f64());

    let processes = watched(&target);
    outcome.watched = processes.iter().map(|process| process.name.clone()).collect();
    let progress = Arc::new(Mutex::new(Progress::default()));
    let samples = Arc::<Mutex<Vec<Sample>>>::default();
    let watch = Watch::new(&target, processes.clone()).await?;
    let swarm = Swarm::new(devices, chats, gateways(&urls)?, habits(&params), progress.clone())?;
    let course = Course::new(params.clone(), swarm, processes, target.clone(), fleet);
    let began = Instant::now();
    let mut task = tokio::task::spawn_blocking(|| course.run());
    let mut finished = tokio::select! {
        () = watch.run(began, progress, samples.clone()) => bail!("the watch ended"),
        finished = &mut task => finished.context("the course failed")??,
    };
    let urls = finished.urls();
    let read = histories::check(&mut finished.swarm.judge, &params, &accounts, &urls).await?;
    // The run's own gateways end with `fleet`, at the end of this function.
    let Finished { swarm, window, figures, steps, fleet: _fleet } = finished;
    let Swarm { tally, judge, .. } = swarm;
    let samples = std::mem::take(&mut *samples.lock());
    outcome.take(Material { tally, judge, window, figures, steps, samples, histories: read });
    Ok(outcome)
}

async fn accounts(name: &str, params: &Params, binary: &Path, target: &Target) -> Result<Vec<Account>> {
    let since = Instant::now();
    let users = params.sockets + params.speakers;
    let prefix = format!("{name}{}", std::process::id());
    let accounts = provision(binary, &target.env, users, &prefix, TOKEN_TTL_S).await?;
    println!("{users} accounts in {:.1} s", since.elapsed().as_secs_f64());
    Ok(accounts)
}

fn gateways(urls: &[String]) -> Result<Vec<Gateway>> {
    urls.iter().map(|url| Gateway::resolve(url)).collect()
}

fn habits(params: &Params) -> Habits {
    Habits {
        connects_per_s: params.connects_per_s,
        handshakes: params.handshakes,
        back_ms: params.back_ms,
        in_flight: params.in_flight,
        watch: params.watch,
        body_bytes: params.body_bytes,
        seed: params.seed,
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A socket is a file, and the usual limit is 1,024 of them.
pub(crate) fn raise_file_limit(sockets: usize) -> Result<()> {
    /// The open files that are no device's socket.
    const SPARE: u64 = 256;
    let needed = sockets as u64 + SPARE;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        let maximum = maximum.map(|maximum| maximum.max(needed));
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
            .with_context(|| format!("{sockets} sockets need {needed} open files; raise `ulimit -n`"))?;
    }
    Ok(())
}
