//! The schedule of a run: which action is due when.

use std::time::Duration;

use crate::clock::now_ns;

/// The actions of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Message,
    /// A speaker's message to the next chat in turn, so that all get the same number.
    Announce,
    Edit,
    Delete,
    React,
    Typing,
    Read,
    /// Away, or back again.
    Presence,
    /// Drop and come back.
    Flap,
}

/// One action's schedule: the n-th is due at `start + n / rate`.
#[derive(Debug)]
struct Pace {
    action: Action,
    per_s: f64,
    done: u64,
}

/// The schedule of all actions.
#[derive(Debug, Default)]
pub struct Load {
    paces: Vec<Pace>,
    start_ns: u64,
    end_ns: u64,
    /// The longest time that a flapping device stays away.
    pub away_ms: u64,
    pub(super) announced: usize,
}

impl Load {
    /// Starts the schedule now, for that time.
    pub fn start(&mut self, rates: &[(Action, f64)], time: Duration) {
        self.paces = rates
            .iter()
            .filter(|(_, per_s)| *per_s > 0.0)
            .map(|(action, per_s)| Pace { action: *action, per_s: *per_s, done: 0 })
            .collect();
        self.start_ns = now_ns();
        self.end_ns = self.start_ns + time.as_nanos() as u64;
    }

    /// Fires nothing more.
    pub fn stop(&mut self) {
        self.paces.clear();
    }

    /// Whether everything that was due before the end was fired.
    pub fn is_over(&self) -> bool {
        self.next_ns() == u64::MAX
    }

    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    pub fn end_ns(&self) -> u64 {
        self.end_ns
    }

    /// When the next action is due.
    pub(super) fn next_ns(&self) -> u64 {
        self.paces
            .iter()
            .map(|pace| self.due_ns(pace))
            .filter(|due| *due < self.end_ns)
            .min()
            .unwrap_or(u64::MAX)
    }

    fn due_ns(&self, pace: &Pace) -> u64 {
        self.start_ns + (pace.done as f64 / pace.per_s * 1e9) as u64
    }

    /// Takes the next action that is due, with its intended time.
    pub(super) fn take(&mut self, now: u64) -> Option<(Action, u64)> {
        let horizon = self.end_ns.min(now + 1);
        let due = self.paces.iter().map(|pace| self.due_ns(pace)).enumerate().min_by_key(|(_, due)| *due);
        let (at, due) = due.filter(|(_, due)| *due < horizon)?;
        self.paces[at].done += 1;
        Some((self.paces[at].action, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_its_time_whatever_the_clock_of_the_reader() {
        let mut load = Load::default();
        load.start(&[(Action::Message, 1_000.0), (Action::Typing, 10.0)], Duration::from_secs(1));
        let mut fired = Vec::new();
        let late = load.end_ns() + 5_000_000_000;
        while let Some((action, due)) = load.take(late) {
            fired.push((action, due - load.start_ns()));
        }
        assert_eq!(fired.iter().filter(|(action, _)| *action == Action::Message).count(), 1_000);
        assert_eq!(fired.iter().filter(|(action, _)| *action == Action::Typing).count(), 10);
        assert!(fired.is_sorted_by_key(|(_, due)| *due));
        assert!(load.is_over());
    }

    #[test]
    fn nothing_is_fired_before_its_time() {
        let mut load = Load::default();
        load.start(&[(Action::Message, 2.0)], Duration::from_secs(10));
        assert!(load.take(load.start_ns()).is_some());
        assert_eq!(load.take(load.start_ns() + 499_000_000), None);
        assert!(load.take(load.start_ns() + 500_000_000).is_some());
    }
}
