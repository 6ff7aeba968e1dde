//! The measured window of a run: what was sent and delivered in it, what the processes used, and single figures.

use serde::Serialize;

/// The work and the costs between two moments.
#[derive(Debug, Default)]
pub struct Window {
    pub seconds: f64,
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,
    pub own_cpu_s: f64,
    pub processes: Vec<WindowUse>,
}

/// The use of one process between two moments.
#[derive(Debug)]
pub struct WindowUse {
    pub name: String,
    pub cpu_s: f64,
    pub pss_begin: u64,
    pub pss_end: u64,
}

/// A figure that only this scenario has.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
}
