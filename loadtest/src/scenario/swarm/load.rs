//! The clock of a run: how often what is done, and by whom.

use rand::{Rng, rngs::SmallRng};

use super::{
    Swarm,
    give::Saying,
    judge::{Sent, SentKind},
};
use crate::clock::now_ns;
use std::time::Duration;

/// What devices do.
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

/// See the module.
#[derive(Debug, Default)]
pub struct Load {
    paces: Vec<Pace>,
    start_ns: u64,
    end_ns: u64,
    /// The longest time that a flapping device stays away.
    pub away_ms: u64,
    announced: usize,
}

/// How often a random choice is repeated.
const CHOICES: usize = 16;
/// What a flapping device stays away at least.
const LEAST_AWAY_MS: u64 = 50;
/// Actions fired in one turn, so that an overloaded generator still reads.
const BURST: usize = 2_000;
const EMOJIS: [&str; 4] = ["👍", "🎉", "🙏", "😀"];

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

    /// The next action that is due, and for when.
    fn take(&mut self, now: u64) -> Option<(Action, u64)> {
        let horizon = self.end_ns.min(now + 1);
        let due = self.paces.iter().map(|pace| self.due_ns(pace)).enumerate().min_by_key(|(_, due)| *due);
        let (at, due) = due.filter(|(_, due)| *due < horizon)?;
        self.paces[at].done += 1;
        Some((self.paces[at].action, due))
    }
}

impl Swarm {
    pub(super) fn fire_load(&mut self, now: u64) {
        for _ in 0..BURST {
            let Some((action, due_ns)) = self.load.take(now) else { return };
            self.act(action, due_ns);
        }
    }

    fn act(&mut self, action: Action, due_ns: u64) {
        match action {
            Action::Message => self.speak(due_ns),
            Action::Announce => self.announce(due_ns),
            Action::Edit | Action::Delete | Action::React => self.touch_up(action, due_ns),
            Action::Typing => self.on_a_chat(|_, chat, _| format!(r#"{{"type":"Typing","chatId":{chat}}}"#)),
            Action::Read => {
                self.on_a_chat(|_, chat, head| format!(r#"{{"type":"Read","chatId":{chat},"seq":{head}}}"#));
            }
            Action::Presence => {
                self.on_a_chat(|rng, _, _| {
                    let state = if rng.random() { "away" } else { "online" };
                    format!(r#"{{"type":"SetPresence","state":"{state}"}}"#)
                });
            }
            Action::Flap => self.flap(),
        }
    }

    /// A message by any device that did not leave by itself, connected or not: users do not know.
    fn speak(&mut self, due_ns: u64) {
        let Some(at) = self.any_device() else { return };
        let heads = &self.devices[at].heads;
        let chat = heads[self.rng.random_range(0..heads.len())].at;
        self.order(at, chat, Saying::Message, due_ns);
    }

    fn announce(&mut self, due_ns: u64) {
        let chat = self.load.announced % self.judge.chats.len();
        self.load.announced += 1;
        if let Some(speaker) = self.judge.chats[chat].members.last().copied() {
            self.order(speaker as usize, chat as u32, Saying::Message, due_ns);
        }
    }

    /// Something about an earlier message: its author edits or deletes it, any member reacts to it.
    fn touch_up(&mut self, action: Action, due_ns: u64) {
        for _ in 0..CHOICES {
            let count = self.judge.sent.len();
            if count == 0 {
                return;
            }
            let number = self.rng.random_range(0..count);
            let sent = self.judge.sent[number];
            if sent.kind != SentKind::Message || !sent.acked {
                continue;
            }
            let Some(at) = self.toucher(action, &sent) else { continue };
            let seq = sent.seq;
            match action {
                Action::Edit => self.order(at, sent.chat, Saying::Edit(seq), due_ns),
                Action::Delete => {
                    // Nobody reacts to it from here on: that would be refused.
                    self.judge.sent[number].kind = SentKind::Deleted;
                    self.order(at, sent.chat, Saying::Delete(seq), due_ns);
                }
                _ => {
                    let emoji = EMOJIS[self.rng.random_range(0..EMOJIS.len())];
                    self.order(at, sent.chat, Saying::React(seq, emoji), due_ns);
                }
            }
            return;
        }
    }

    /// The author, or any member to react; nobody if that one has left for now.
    fn toucher(&mut self, action: Action, sent: &Sent) -> Option<usize> {
        let members = &self.judge.chats[sent.chat as usize].members;
        let at = match action {
            Action::React => members[self.rng.random_range(0..members.len())],
            _ => sent.device,
        } as usize;
        (!self.devices[at].by_choice).then_some(at)
    }

    fn on_a_chat(&mut self, json: impl Fn(&mut SmallRng, u64, u64) -> String) {
        let Some(at) = self.any_device() else { return };
        let heads = &self.devices[at].heads;
        let head = heads[self.rng.random_range(0..heads.len())];
        let json = json(&mut self.rng, head.chat, head.seq);
        self.signal(at, &json);
    }

    fn flap(&mut self) {
        let Some(at) = self.any_device() else { return };
        let longest = self.load.away_ms.max(LEAST_AWAY_MS);
        let away = Duration::from_millis(self.rng.random_range(LEAST_AWAY_MS..=longest));
        self.drop_link(at);
        self.devices[at].by_choice = true;
        self.devices[at].gateway += 1;
        self.come_back(at, away);
    }

    fn any_device(&mut self) -> Option<usize> {
        (0..CHOICES).map(|_| self.rng.random_range(0..self.devices.len())).find(|at| {
            let device = &self.devices[*at];
            !device.by_choice && !device.speaker && !device.heads.is_empty()
        })
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
