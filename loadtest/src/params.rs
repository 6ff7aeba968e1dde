//! The parameters of a measured scenario: read from its file, then changed by the command line.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::swarm::Action;

/// The course of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Course {
    /// Warm up, then a fixed load.
    Steady,
    /// Memory: idle, after a burst, after a storm, after most have left.
    Idle,
    /// All drop, miss messages, and resume at once.
    Storm,
    /// Higher and higher rates until one is too high.
    Ceiling,
    /// The gateways are replaced one after the other under load.
    Deploy,
}

/// Everything that a scenario can set. The files in `scenarios/` say what each scenario means by it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, default)]
pub struct Params {
    pub about: String,
    pub course: Course,
    /// Devices, each of an account of its own.
    pub sockets: usize,
    /// Further devices that are members of the chats, only send, and never drop.
    pub speakers: usize,
    /// Members of a chat, speakers not counted. Two without a speaker: direct chats.
    pub members: usize,
    pub chats_per_user: usize,
    /// Direct chats in addition.
    pub direct_chats_per_user: usize,
    /// Users whose presence each device watches.
    pub watch: usize,
    /// Per second, of all devices together.
    pub messages: f64,
    pub edits: f64,
    pub deletes: f64,
    pub reactions: f64,
    pub typing: f64,
    pub reads: f64,
    pub presence: f64,
    /// Devices that drop and come back.
    pub flaps: f64,
    pub away_ms: u64,
    pub body_bytes: usize,
    pub warmup_s: u64,
    pub seconds: u64,
    /// How long the last deliveries are waited for.
    pub settle_s: u64,
    /// New connections per second at the start; 0: as fast as they go.
    pub connects_per_s: f64,
    /// Handshakes at a time.
    pub handshakes: usize,
    /// A device whose connection was ended comes back within this time.
    pub back_ms: u64,
    /// Commands of a session that may be in flight.
    pub in_flight: u32,
    /// Messages to each device: in the burst (idle), while it is away (storm).
    pub messages_each: usize,
    /// How often the storm is repeated.
    pub rounds: usize,
    /// Only the first so many gateways are used; 0: all. What the others spend is the cost of foreign events.
    pub use_gateways: usize,
    /// The highest p99 with which a step is passed (ceiling).
    pub p99_limit_ms: f64,
    /// How much each step adds to the rate before it.
    pub step_factor: f64,
    /// Gateways that are started and replaced (deploy).
    pub gateways: usize,
    /// How long memory settles before it is read.
    pub quiet_s: u64,
    /// Chats whose history is read and compared at the end.
    pub histories: usize,
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            about: String::new(),
            course: Course::Steady,
            sockets: 1_000,
            speakers: 0,
            members: 2,
            chats_per_user: 1,
            direct_chats_per_user: 0,
            watch: 0,
            messages: 0.0,
            edits: 0.0,
            deletes: 0.0,
            reactions: 0.0,
            typing: 0.0,
            reads: 0.0,
            presence: 0.0,
            flaps: 0.0,
            away_ms: 1_500,
            body_bytes: 64,
            warmup_s: 5,
            seconds: 30,
            settle_s: 30,
            connects_per_s: 2_000.0,
            handshakes: 256,
            back_ms: 500,
            in_flight: 48,
            messages_each: 20,
            rounds: 3,
            use_gateways: 0,
            p99_limit_ms: 200.0,
            step_factor: 1.25,
            gateways: 2,
            quiet_s: 5,
            histories: 50,
            seed: 1,
        }
    }
}

/// The files that come with the program, so that a name is enough wherever it runs.
const BUILT_IN: [(&str, &str); 9] = [
    ("idle", include_str!("../scenarios/idle.toml")),
    ("direct", include_str!("../scenarios/direct.toml")),
    ("ceiling", include_str!("../scenarios/ceiling.toml")),
    ("group", include_str!("../scenarios/group.toml")),
    ("storm", include_str!("../scenarios/storm.toml")),
    ("deploy", include_str!("../scenarios/deploy.toml")),
    ("soak", include_str!("../scenarios/soak.toml")),
    ("mixed", include_str!("../scenarios/mixed.toml")),
    ("lively", include_str!("../scenarios/lively.toml")),
];

impl Params {
    /// The scenario of that name or in that file, and its name.
    ///
    /// # Errors
    /// When there is none, or it or a change is no scenario.
    pub fn load(scenario: &str, changes: &[String]) -> Result<(String, Self)> {
        let path = Path::new(scenario);
        let built_in = BUILT_IN.iter().find(|(name, _)| *name == scenario);
        let (name, text) = match built_in {
            Some((name, text)) => ((*name).to_owned(), (*text).to_owned()),
            None if path.extension().is_some() => {
                let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                (name, text)
            }
            None => {
                let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                bail!("no scenario {scenario}: give a .toml file or one of {}", names.join(", "))
            }
        };
        Ok((name, Self::read(&text, changes)?))
    }

    fn read(text: &str, changes: &[String]) -> Result<Self> {
        let mut table: toml::Table = text.parse()?;
        for change in changes {
            let stripped = change.strip_prefix("--").unwrap_or(change);
            let (key, value) =
                stripped.split_once('=').with_context(|| format!("{change} is not --parameter=value"))?;
            let key = key.replace('-', "_");
            let parsed: toml::Table =
                format!("v = {value}").parse().or_else(|_| format!("v = {value:?}").parse())?;
            // Rates are fractions, but nobody writes 2000.0.
            let value = match parsed["v"].clone() {
                toml::Value::Integer(number) if is_fraction(&key) => toml::Value::Float(number as f64),
                value => value,
            };
            table.insert(key, value);
        }
        for (key, value) in &mut table {
            if let (toml::Value::Integer(number), true) = (&*value, is_fraction(key)) {
                *value = toml::Value::Float(*number as f64);
            }
        }
        let params: Self = table.try_into()?;
        params.check()?;
        Ok(params)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.sockets >= 2 && self.members >= 2, "at least two sockets and two members");
        ensure!(self.members <= self.sockets, "more members than sockets");
        ensure!(self.chats_per_user >= 1, "at least one chat for each");
        ensure!(self.step_factor > 1.0, "a step must lead up");
        ensure!(self.handshakes >= 1 && self.in_flight >= 1, "at least one at a time");
        let needs_speakers = matches!(self.course, Course::Idle | Course::Storm);
        ensure!(!needs_speakers || self.speakers > 0, "this course needs speakers");
        ensure!(self.course != Course::Deploy || self.gateways >= 2, "at least two gateways");
        Ok(())
    }

    /// The rate of each action, per second.
    pub fn rates(&self) -> [(Action, f64); 8] {
        [
            (Action::Message, self.messages),
            (Action::Edit, self.edits),
            (Action::Delete, self.deletes),
            (Action::React, self.reactions),
            (Action::Typing, self.typing),
            (Action::Read, self.reads),
            (Action::Presence, self.presence),
            (Action::Flap, self.flaps),
        ]
    }
}

fn is_fraction(key: &str) -> bool {
    const FRACTIONS: [&str; 11] = [
        "messages",
        "edits",
        "deletes",
        "reactions",
        "typing",
        "reads",
        "presence",
        "flaps",
        "connects_per_s",
        "p99_limit_ms",
        "step_factor",
    ];
    FRACTIONS.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_comes_with_the_program_is_one() {
        for (name, _) in BUILT_IN {
            let (_, params) = Params::load(name, &[]).unwrap();
            assert!(!params.about.is_empty(), "{name} does not say what it is about");
        }
    }

    #[test]
    fn the_command_line_changes_a_scenario() {
        let changes =
            ["--messages=2500".to_owned(), "chats-per-user=3".to_owned(), "--course=steady".to_owned()];
        let (name, params) = Params::load("direct", &changes).unwrap();
        assert_eq!((name.as_str(), params.messages, params.chats_per_user), ("direct", 2_500.0, 3));
    }

    #[test]
    fn what_is_no_parameter_is_refused() {
        for change in ["--messags=1", "--messages=many", "--messages", "--sockets=1", "--course=idle"] {
            assert!(Params::load("direct", &[change.to_owned()]).is_err(), "{change}");
        }
        assert!(Params::load("nothing", &[]).is_err());
    }
}
