//! The load of a smoke run, from its flags.

use clap::Args;
use serde::Serialize;

/// The load.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Devices, each of an account of its own.
    #[arg(long, default_value_t = 200, value_parser = at_least_two)]
    pub sockets: usize,
    /// Groups.
    #[arg(long, default_value_t = 20, value_parser = at_least_one)]
    pub chats: usize,
    /// Members of each group.
    #[arg(long, default_value_t = 20, value_parser = at_least_two)]
    pub members: usize,
    /// Messages per second, of all devices together.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// How long messages are sent.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Random drops per second, of all devices together.
    #[arg(long, default_value_t = 5.0)]
    pub reconnects: f64,
    /// The longest time that a dropped device stays away.
    #[arg(long, default_value_t = 1_500)]
    pub away_ms: u64,
    /// Bytes of text in each message.
    #[arg(long, default_value_t = 40)]
    pub body_bytes: usize,
    /// New connections per second while the devices start.
    #[arg(long, default_value_t = 500.0)]
    pub connects: f64,
    /// How long the last deliveries are waited for.
    #[arg(long, default_value_t = 30)]
    pub settle_s: u64,
    /// The seed of the random choices.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

fn at_least(least: usize, text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "not a number".to_owned())?;
    if number < least { Err(format!("at least {least}")) } else { Ok(number) }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    at_least(1, text)
}

fn at_least_two(text: &str) -> Result<usize, String> {
    at_least(2, text)
}
