//! The smoke scenario: many devices on all gateways talk in groups at a fixed rate while some of them drop and
//! resume at random, and the oracle judges.
//!
//! Open loop: each message has its time, whatever the server does, and latency counts from that time.

mod load;
pub mod outcome;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use uuid::Uuid;

use crate::{
    client::{
        device::{Device, Identity, Order, Phase},
        http::Api,
        socket::source_of,
    },
    clock::now_ns,
    latency::{Latencies, body},
    oracle::Oracle,
    provision::{Account, gateway_binary, provision},
    target::{Target, TargetArgs},
};

pub use self::load::Load;
use self::outcome::{Outcome, cpu_of, uses};

/// The flags of a smoke run.
#[derive(Debug, Clone, Args)]
pub struct SmokeArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: Load,
    /// Write the result here as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Also read the log from NATS and compare it.
    #[arg(long)]
    pub check_log: bool,
}

/// Tokens outlive any run.
const TOKEN_TTL_S: u64 = 6 * 3_600;
/// How long a device may take to be live at the start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The scheduler's resolution: well under the latencies that are measured.
const TICK: Duration = Duration::from_micros(500);
/// How often a random choice is repeated to find a device that is live.
const CHOICES: usize = 16;
/// Members whose reading of a chat's history is checked.
const READERS: usize = 2;
/// The shortest time that a dropped device stays away.
const LEAST_AWAY_MS: u64 = 10;
/// The pause between two checks of something that comes soon.
const RETRY: Duration = Duration::from_millis(50);

/// Devices and chats that are ready.
pub struct Crowd {
    pub oracle: Arc<Oracle>,
    pub latencies: Arc<Latencies>,
    pub devices: Vec<Device>,
    accounts: Vec<Account>,
    /// Chats of each device, by index.
    chats_of: Vec<Vec<u64>>,
    urls: Arc<[String]>,
}

/// Runs the scenario from its flags, prints the outcome, and fails on any violation.
///
/// # Errors
/// When a promise was broken, or the product is not there.
pub async fn run(args: SmokeArgs) -> Result<()> {
    let target = args.target.resolve()?;
    let gateway = gateway_binary(args.target.bin_dir.as_deref())?;
    let prefix = format!("smoke{}", std::process::id());
    let load = &args.load;
    println!(
        "{} accounts, {} chats of {}, {} gateways",
        load.sockets,
        load.chats,
        load.members,
        target.gateways.len()
    );
    let accounts = provision(&gateway, &target.env, load.sockets, &prefix, TOKEN_TTL_S).await?;
    let crowd = Crowd::gather(&target, accounts, load).await?;
    println!("{} devices live; {} messages/s for {} s", load.sockets, load.rate, load.seconds);
    let mut outcome = crowd.talk(&target, load).await?;
    if args.check_log {
        outcome.check_log(&crowd.oracle, &target).await?;
    }
    crowd.leave().await;
    outcome.print();
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&outcome.json(load))?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    if !outcome.verdict.is_clean() {
        bail!("{} promises broken", outcome.verdict.violations.len());
    }
    Ok(())
}

impl Crowd {
    /// Creates the chats and connects every device.
    ///
    /// # Errors
    /// When a chat is refused or a device does not become live.
    pub async fn gather(target: &Target, accounts: Vec<Account>, load: &Load) -> Result<Self> {
        ensure!(load.members <= accounts.len(), "more members than accounts");
        let urls: Arc<[String]> = target.gateways.iter().map(|gateway| gateway.url.clone()).collect();
        let oracle = Arc::new(Oracle::default());
        let latencies = Arc::new(Latencies::default());
        let chats_of = vec![Vec::new(); accounts.len()];
        let mut crowd = Self { oracle, latencies, devices: Vec::new(), accounts, chats_of, urls };
        crowd.create_chats(load).await?;
        crowd.connect(load).await?;
        Ok(crowd)
    }

    async fn create_chats(&mut self, load: &Load) -> Result<()> {
        let api = Api::new(&self.urls[0])?;
        let users = self.accounts.len();
        for n in 0..load.chats {
            // Neighbouring chats share no members until all users have one, then the groups are mixed anew.
            let start = n * load.members;
            let stride = 1 + start / users * 2;
            let members: Vec<usize> = (0..load.members).map(|j| (start + j * stride) % users).collect();
            let mut distinct = members.clone();
            distinct.sort_unstable();
            distinct.dedup();
            let ids: Vec<u64> = distinct.iter().map(|user| self.accounts[*user].user_id).collect();
            let creator =
                api.with_token(&self.accounts[distinct[0]].access_token).at(&self.urls[n % self.urls.len()]);
            let chat = creator.create_group(&ids, &format!("smoke {n}")).await?;
            self.oracle.chat(chat, ids);
            for user in distinct {
                self.chats_of[user].push(chat);
            }
        }
        Ok(())
    }

    async fn connect(&mut self, load: &Load) -> Result<()> {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / load.connects.max(1.0)));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        for (n, account) in self.accounts.iter().enumerate() {
            pace.tick().await;
            let identity = Identity {
                user: account.user_id,
                token: account.access_token.clone(),
                device: format!("web:{n}"),
                gateways: self.urls.clone(),
                first: n,
                source: Some(source_of(n)),
            };
            self.devices.push(Device::start(identity, self.oracle.clone(), self.latencies.clone()));
        }
        for device in &self.devices {
            ensure!(device.live(START_TIMEOUT).await, "{} is not live", device.log.label);
        }
        Ok(())
    }

    /// Sends at the rate, with random drops, then waits for the last delivery and judges.
    ///
    /// # Errors
    /// When a history can't be read.
    pub async fn talk(&self, target: &Target, load: &Load) -> Result<Outcome> {
        let cpu_before = cpu_of(target);
        let received_before = self.oracle.delivered();
        let begun = Instant::now();
        let sent = self.send_all(load).await;
        let sending_s = begun.elapsed().as_secs_f64();
        let gateways = uses(target, &cpu_before, sending_s);
        let received = self.oracle.delivered() - received_before;
        let limit = Duration::from_secs(load.settle_s);
        self.settle(limit).await;
        self.read_histories(limit).await?;
        Ok(Outcome {
            verdict: self.oracle.check(),
            delivery: self.latencies.delivery(),
            ack: self.latencies.ack(),
            sent_per_s: sent as f64 / sending_s,
            deliveries_per_s: received as f64 / sending_s,
            postponed: self.oracle.postponements().into_iter().collect(),
            gateways,
        })
    }

    async fn send_all(&self, load: &Load) -> u64 {
        let mut rng = SmallRng::seed_from_u64(load.seed);
        let text = "x".repeat(load.body_bytes);
        let start_ns = now_ns();
        let total = u64::from(load.rate) * load.seconds;
        let between_ns = 1_000_000_000.0 / f64::from(load.rate);
        let drop_every_ns = if load.reconnects > 0.0 { 1e9 / load.reconnects } else { f64::INFINITY };
        let (mut sent, mut due, mut drops) = (0, 0, 1);
        while due < total {
            let elapsed = (now_ns() - start_ns) as f64;
            while due < total && due as f64 * between_ns <= elapsed {
                let intended_ns = start_ns + (due as f64 * between_ns) as u64;
                sent += u64::from(self.send_one(&mut rng, intended_ns, &text));
                due += 1;
            }
            if f64::from(drops) * drop_every_ns <= elapsed {
                self.drop_one(&mut rng, load.away_ms);
                drops += 1;
            }
            tokio::time::sleep(TICK).await;
        }
        sent
    }

    fn send_one(&self, rng: &mut SmallRng, intended_ns: u64, text: &str) -> bool {
        let Some(at) = self.live_one(rng) else { return false };
        let Some(chat) = self.chats_of[at].choose(rng) else { return false };
        let body = body(intended_ns, text);
        self.devices[at].order(Order::Send { chat: *chat, uuid: Uuid::now_v7(), body, intended_ns })
    }

    fn drop_one(&self, rng: &mut SmallRng, away_ms: u64) {
        if let Some(at) = self.live_one(rng) {
            let pause = Duration::from_millis(rng.random_range(LEAST_AWAY_MS..=away_ms.max(LEAST_AWAY_MS)));
            // A device that can't take the order is dropping already.
            let _: bool = self.devices[at].order(Order::Reconnect { pause, gateway: None });
        }
    }

    fn live_one(&self, rng: &mut SmallRng) -> Option<usize> {
        (0..CHOICES)
            .map(|_| rng.random_range(0..self.devices.len()))
            .find(|at| self.devices[*at].phase() == Phase::Live && !self.chats_of[*at].is_empty())
    }

    async fn settle(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.oracle.outstanding() > 0 && Instant::now() < until {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Lets members of each chat read its history, at different gateways. After an outage a history may be
    /// stale or refused for a while, but not longer than `limit`.
    async fn read_histories(&self, limit: Duration) -> Result<()> {
        let api = Api::new(&self.urls[0])?;
        let until = Instant::now() + limit;
        for (n, (chat, members)) in self.oracle.chats().into_iter().enumerate() {
            for (reader, user) in members.iter().take(READERS).enumerate() {
                let account = self.accounts.iter().find(|account| account.user_id == *user);
                let token = &account.context("a member without an account")?.access_token;
                let api = api.with_token(token).at(&self.urls[(n + reader) % self.urls.len()]);
                let (messages, stale) = loop {
                    match api.history(chat).await {
                        Ok((messages, false)) => break (messages, false),
                        _ if Instant::now() < until => tokio::time::sleep(RETRY).await,
                        last => break last?,
                    }
                };
                self.oracle.history(*user, chat, messages, stale);
            }
        }
        Ok(())
    }

    /// Closes every device.
    pub async fn leave(self) {
        for device in self.devices {
            device.stop().await;
        }
    }
}
