//! The memory and CPU time of one process, from /proc.

use std::fs;

use serde::Serialize;

/// In bytes; the proportional share counts shared pages by the number of their users.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    pub pss: u64,
    pub rss: u64,
}

/// The memory of a process; `None` if it is gone or belongs to another user.
pub fn of(pid: u32) -> Option<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(Memory { pss: field(&rollup, "Pss:")?, rss: field(&rollup, "Rss:")? })
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

/// CPU time used so far, in seconds.
pub fn cpu_s(pid: u32) -> Option<f64> {
    // The clock tick of every Linux that this runs on.
    const TICKS_PER_S: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces; the fields are counted from its closing bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_memory_and_used_some_cpu() {
        let memory = of(std::process::id()).unwrap();
        assert!(memory.pss > 0 && memory.rss >= memory.pss);
        assert!(cpu_s(std::process::id()).is_some());
        assert!(of(u32::MAX).is_none());
    }
}
