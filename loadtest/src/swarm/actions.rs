//! The actions that are due: which device does them, to which chat or message.

use std::time::Duration;

use rand::{Rng, rngs::SmallRng};

use super::{
    commands::CommandKind,
    judge::{Sent, SentKind},
    load::Action,
    state::Swarm,
};

/// A change of an earlier message.
#[derive(Debug, Clone, Copy)]
enum Change {
    Edit,
    Delete,
    React,
}

/// How often a random choice is repeated.
const CHOICES: usize = 16;
/// The shortest time that a flapping device stays away.
const LEAST_AWAY_MS: u64 = 50;
/// Actions fired in one turn, so that an overloaded generator still reads.
const BURST: usize = 2_000;
const EMOJIS: [&str; 4] = ["👍", "🎉", "🙏", "😀"];

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
            Action::Edit => self.touch_up(Change::Edit, due_ns),
            Action::Delete => self.touch_up(Change::Delete, due_ns),
            Action::React => self.touch_up(Change::React, due_ns),
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

    /// A message by any device that is not away by choice. The device may be without a connection, as users write
    /// without knowing.
    fn speak(&mut self, due_ns: u64) {
        let Some(at) = self.any_device() else { return };
        let heads = &self.devices[at].heads;
        let chat = heads[self.rng.random_range(0..heads.len())].at;
        self.enqueue(at, chat, CommandKind::Message, due_ns);
    }

    fn announce(&mut self, due_ns: u64) {
        let chat = self.load.announced % self.judge.chats.len();
        self.load.announced += 1;
        if let Some(speaker) = self.judge.chats[chat].members.last().copied() {
            self.enqueue(speaker as usize, chat as u32, CommandKind::Message, due_ns);
        }
    }

    /// Changes an earlier message: its author edits or deletes it, or any member reacts to it.
    fn touch_up(&mut self, change: Change, due_ns: u64) {
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
            let Some(at) = self.toucher(change, &sent) else { continue };
            let seq = sent.seq;
            match change {
                Change::Edit => self.enqueue(at, sent.chat, CommandKind::Edit(seq), due_ns),
                Change::Delete => {
                    // From here on no device reacts to it, because the server would refuse that.
                    self.judge.sent[number].kind = SentKind::Deleted;
                    self.enqueue(at, sent.chat, CommandKind::Delete(seq), due_ns);
                }
                Change::React => {
                    let emoji = EMOJIS[self.rng.random_range(0..EMOJIS.len())];
                    self.enqueue(at, sent.chat, CommandKind::React(seq, emoji), due_ns);
                }
            }
            return;
        }
    }

    /// The device that makes the change: the author, or any member for a reaction. `None` if that device is away by
    /// choice.
    fn toucher(&mut self, change: Change, sent: &Sent) -> Option<usize> {
        let members = &self.judge.chats[sent.chat as usize].members;
        let at = match change {
            Change::React => members[self.rng.random_range(0..members.len())],
            Change::Edit | Change::Delete => sent.device,
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
