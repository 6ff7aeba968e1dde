//! `loadtest attack`: one attacker who keeps within every limit, each way alone, while an honest user goes on.
//!
//! For each way it prints what the attacker could do, what the gateway held at most (memory, descriptors, bytes that the
//! kernel keeps for its sockets), what the honest user felt, and how long the gateway took to let go of it. It breaks
//! nothing by itself: the reader compares with what `docs/security.md` promises.

mod anonymous;
mod field;
mod gauge;
mod readers;
mod victim;
mod writers;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::{
    field::{Field, SOCKETS},
    gauge::{Gauge, Held},
    victim::{Felt, Victim},
};
use crate::{
    client::http::Api, measure::Machine, provision::gateway_binary, scenario::raise_file_limit,
    target::TargetArgs,
};

/// The flags of an attack.
#[derive(Debug, Clone, Args)]
pub struct AttackArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// The ways to try; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Way>,
    /// How long each way is kept up, in seconds.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Write the results here as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// What an attacker tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Asks for pages of the worst text by `Fetch` on 20 sessions, and reads none.
    Pages,
    /// Asks for the same pages over HTTP, and reads none.
    Histories,
    /// Keeps a thousand sockets that never read in a busy group.
    SlowReaders,
    /// Sends what is ignored, as fast as it goes.
    Ignored,
    /// Opens connections of one address and says nothing on them.
    Connections,
    /// Is refused at the upgrade, with commands in the same segment.
    EarlyFrames,
    /// Logs in with wrong passwords from 72 addresses.
    Logins,
    /// Creates large groups, as fast as they are taken.
    Groups,
}

/// How long a gateway gets to let go of what an attacker made it hold.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one way came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    way: Way,
    /// What the attacker did, and what was refused.
    done: String,
    before: Held,
    peak: Held,
    /// Seconds until the gateway held no more than before; `None`: longer than the patience.
    recovered_s: Option<f64>,
    honest: Felt,
}

/// Tries each way and prints what it came to.
///
/// # Errors
/// When the product is not there, or refuses what an honest user does before the attack.
pub async fn run(args: AttackArgs) -> Result<()> {
    let target = args.target.resolve()?;
    let pid = target.gateways[0].pid.context("the gateway's process is not known: use `cargo xtask up`")?;
    let field = Field {
        api: Api::new(&target.gateways[0].url)?,
        gateway: gateway_binary(args.target.bin_dir.as_deref())?,
        long: Duration::from_secs(args.seconds),
        target,
    };
    raise_file_limit(SOCKETS)?;
    let ways = if args.only.is_empty() { Way::value_variants() } else { &args.only };
    let victim = Victim::arrive(&field).await?;
    let mut outcomes = Vec::new();
    for way in ways.iter().copied() {
        let outcome = attempt(&field, pid, &victim, way).await?;
        outcome.print();
        outcomes.push(outcome);
    }
    if let Some(path) = &args.json {
        let result = serde_json::json!({"machine": Machine::here(), "outcomes": outcomes});
        std::fs::write(path, serde_json::to_vec_pretty(&result)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

async fn attempt(field: &Field, pid: u32, victim: &Victim, way: Way) -> Result<Outcome> {
    println!("{way:?} for {} s", field.long.as_secs());
    let gauge = Gauge::start(pid, field.url())?;
    let witness = victim.watch(field)?;
    let done = match way {
        Way::Pages => readers::pages(field).await,
        Way::Histories => readers::histories(field).await,
        Way::SlowReaders => readers::slow(field).await,
        Way::Ignored => writers::ignored(field).await,
        Way::EarlyFrames => writers::early(field).await,
        Way::Connections => anonymous::connections(field).await,
        Way::Logins => anonymous::logins(field).await,
        Way::Groups => writers::groups(field).await,
    }
    .with_context(|| format!("{way:?}"))?;
    let honest = witness.end().await;
    let recovered = gauge.recovery(PATIENCE).await;
    let (before, peak) = gauge.end();
    ensure!(before.descriptors > 0, "the gateway has gone");
    Ok(Outcome { way, done, before, peak, recovered_s: recovered.map(|took| took.as_secs_f64()), honest })
}

impl Outcome {
    fn print(&self) {
        println!("  attacker  {}", self.done);
        println!("  gateway   {}, at most {}", self.before, self.peak);
        match self.recovered_s {
            Some(seconds) => println!("  let go    after {seconds:.1} s"),
            None => println!("  let go    not within {} s", PATIENCE.as_secs()),
        }
        println!("  honest    {}", self.honest);
    }
}
