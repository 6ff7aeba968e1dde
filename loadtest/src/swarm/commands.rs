//! The commands that devices send: a command is made once, and sent again with the same uuid until it has a final
//! answer.

use std::{fmt::Write as _, time::Duration};

use uuid::Uuid;

use super::{
    device::{Pending, Phase},
    judge::{Sent, SentKind},
    state::{Due, Swarm},
    wire,
};
use crate::{clock::now_ns, oracle::Breach};

/// The least pause before a temporary refusal is tried again.
const LEAST_RETRY: Duration = Duration::from_millis(100);

/// A durable command, apart from its chat.
#[derive(Debug, Clone, Copy)]
pub(super) enum CommandKind {
    Message,
    Edit(u64),
    Delete(u64),
    React(u64, &'static str),
}

impl CommandKind {
    const fn sent(self) -> SentKind {
        match self {
            Self::Message => SentKind::Message,
            Self::Edit(_) => SentKind::Edit,
            Self::Delete(_) => SentKind::Delete,
            Self::React(..) => SentKind::React,
        }
    }
}

impl Swarm {
    /// Sends a message to a chat, meant for now.
    pub fn say(&mut self, at: usize, chat: u32) {
        self.enqueue(at, chat, CommandKind::Message, now_ns());
    }

    /// Takes a command over: from here on it is retried until it has a final answer.
    pub(super) fn enqueue(&mut self, at: usize, chat: u32, kind: CommandKind, intended_ns: u64) {
        let sent = Sent {
            chat,
            device: at as u32,
            kind: kind.sent(),
            intended_ns,
            seq: 0,
            acked: false,
            delivered: false,
        };
        let Some(number) = self.judge.send(sent) else { return };
        self.tally.counts.sent += 1;
        self.tally.scheduled(intended_ns, now_ns());
        let frame = self.frame(number, chat, kind, intended_ns);
        let pending = Pending { number, frame, attempts: 0, out: false, not_before_ns: 0 };
        self.devices[at].pending.push_back(pending);
        self.flush(at);
    }

    fn frame(&mut self, number: u32, chat: u32, kind: CommandKind, intended_ns: u64) -> Box<[u8]> {
        // A version 7 uuid of the intended time; only its tag is unique.
        let ms = self.epoch_ms + intended_ns / 1_000_000;
        let uuid = Uuid::from_u64_pair(ms << 16 | 0x7000, self.judge.tag(number));
        let chat = self.judge.chats[chat as usize].id;
        let mut json = String::with_capacity(self.text.len() + 128);
        let text = &self.text;
        let written = match kind {
            CommandKind::Message => {
                write!(json, r#"{{"type":"SendMessage","uuid":"{uuid}","chatId":{chat},"body":"{text}"}}"#)
            }
            CommandKind::Edit(seq) => write!(
                json,
                r#"{{"type":"EditMessage","uuid":"{uuid}","chatId":{chat},"seq":{seq},"body":"edited {text}"}}"#
            ),
            CommandKind::Delete(seq) => {
                write!(json, r#"{{"type":"DeleteMessage","uuid":"{uuid}","chatId":{chat},"seq":{seq}}}"#)
            }
            CommandKind::React(seq, emoji) => write!(
                json,
                r#"{{"type":"React","uuid":"{uuid}","chatId":{chat},"seq":{seq},"emoji":"{emoji}","on":true}}"#
            ),
        };
        debug_assert!(written.is_ok(), "a String takes everything");
        let mut frame = Vec::with_capacity(json.len() + 8);
        wire::push(&mut frame, wire::TEXT, json.as_bytes());
        frame.into_boxed_slice()
    }

    /// Sends the pending commands that may be sent now.
    pub(super) fn flush(&mut self, at: usize) {
        let device = &mut self.devices[at];
        if device.pending.is_empty() || !matches!(device.phase, Phase::Live | Phase::Lagging) {
            return;
        }
        let now = now_ns();
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        for pending in device.pending.iter_mut().filter(|pending| !pending.out) {
            if device.in_flight >= self.habits.in_flight {
                break;
            }
            if pending.not_before_ns > now {
                continue;
            }
            pending.out = true;
            pending.attempts += 1;
            device.in_flight += 1;
            out.extend_from_slice(&pending.frame);
        }
        self.write(at, &out);
        self.scratch = out;
    }

    /// Sends a frame that gets no answer, if the device is live.
    pub(super) fn signal(&mut self, at: usize, json: &str) {
        if self.devices[at].phase == Phase::Live {
            let mut out = std::mem::take(&mut self.scratch);
            out.clear();
            wire::push(&mut out, wire::TEXT, json.as_bytes());
            self.tally.counts.signals_out += 1;
            self.write(at, &out);
            self.scratch = out;
        }
    }

    pub(super) fn acked(&mut self, at: usize, tag: u64, chat: u64, seq: u64) {
        self.tally.counts.acks += 1;
        let Some((number, pending)) = self.settle(at, tag) else { return };
        self.judge.ack(number, chat, seq);
        // A send that this device held back by leaving says nothing about the server.
        if pending.attempts == 1 {
            self.tally.acked(self.judge.sent[number as usize].intended_ns, now_ns());
        }
        self.flush(at);
    }

    /// Takes a refusal: for good, or with the pause after which the command is tried again.
    pub(super) fn refused_command(&mut self, at: usize, tag: u64, code: &str, retry: Option<Duration>) {
        let Some(after) = retry else {
            match self.settle(at, tag) {
                Some((number, _)) => self.judge.refuse(number, code),
                None => self.judge.breaches.add(Breach::Protocol, || format!("device {at}: error {code}")),
            }
            return;
        };
        self.tally.counts.temporary_errors += 1;
        let number = self.judge.number(tag);
        let due = now_ns() + after.max(LEAST_RETRY).as_nanos() as u64;
        let device = &mut self.devices[at];
        let pending = device.pending.iter_mut().find(|pending| Some(pending.number) == number);
        if let Some(pending) = pending.filter(|pending| pending.out) {
            pending.out = false;
            pending.not_before_ns = due;
            device.in_flight -= 1;
            self.at(due, at, Due::Flush);
        }
    }

    /// Removes a command that got its final answer.
    fn settle(&mut self, at: usize, tag: u64) -> Option<(u32, Pending)> {
        let found = self.judge.number(tag).and_then(|number| {
            let device = &mut self.devices[at];
            let place = device.pending.iter().position(|pending| pending.number == number)?;
            let pending = device.pending.remove(place)?;
            device.in_flight -= u32::from(pending.out);
            Some((number, pending))
        });
        if found.is_none() {
            self.judge
                .breaches
                .add(Breach::WrongAck, || format!("device {at}: an answer to {tag:x}, which is not open"));
        }
        found
    }
}
