//! The frames that a device receives: each goes to the judge, and its latency into the tally.

use std::time::Duration;

use super::{
    device::Phase,
    judge::Step,
    state::Swarm,
    wire::{self, Scanned},
};
use crate::{clock::now_ns, frame::Incoming, oracle::Breach};

impl Swarm {
    pub(super) fn receive(&mut self, at: usize, opcode: u8, payload: &[u8]) {
        match opcode {
            wire::TEXT => self.text(at, payload),
            wire::PING => {
                let mut pong = std::mem::take(&mut self.scratch);
                pong.clear();
                wire::push(&mut pong, wire::PONG, payload);
                self.write(at, &pong);
                self.scratch = pong;
            }
            wire::PONG => {}
            wire::CLOSE => self.closed(at, payload),
            other => {
                self.judge.breaches.add(Breach::Protocol, || format!("device {at}: a frame of kind {other}"));
            }
        }
    }

    fn closed(&mut self, at: usize, payload: &[u8]) {
        let code = payload.get(..2).map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
        if matches!(code, 4404 | 4408 | 4412 | 4429 | 4500..) {
            let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
            self.judge.breaches.add(Breach::Protocol, || format!("device {at}: closed with {code} {reason}"));
        }
        self.lose(at, false);
    }

    fn text(&mut self, at: usize, text: &[u8]) {
        match wire::scan(text) {
            Scanned::Message { chat, seq, prev, tag } => self.message(at, chat, seq, prev, tag),
            Scanned::Ack { tag, chat, seq } => self.acked(at, tag, chat, seq),
            Scanned::Cursor(cursor) => {
                self.tally.counts.cursors += 1;
                self.keep_cursor(at, cursor);
            }
            Scanned::Receipts => self.receipts(at, text),
            Scanned::Presence => self.presence(at, text),
            Scanned::Typing => self.typing(at, text),
            // The pong to the WebSocket ping that comes with it already shows that the device lives.
            Scanned::Ping => {}
            Scanned::Other => self.parse(at, text),
        }
    }

    fn parse(&mut self, at: usize, text: &[u8]) {
        let parsed = std::str::from_utf8(text).map_err(|error| error.to_string());
        match parsed.and_then(|text| Incoming::parse(text).map_err(|error| error.to_string())) {
            Ok(incoming) => self.rare(at, incoming),
            Err(error) => {
                self.judge.breaches.add(Breach::Protocol, || {
                    format!("device {at}: {error} in {}", String::from_utf8_lossy(text))
                });
            }
        }
    }

    fn rare(&mut self, at: usize, incoming: Incoming<'_>) {
        match incoming {
            Incoming::Welcome { user, resumed, .. } => self.welcome(at, user, resumed),
            Incoming::Live { cursor, .. } => {
                self.keep_cursor(at, cursor.as_bytes());
                self.now_live(at);
            }
            Incoming::Cursor { cursor } => self.keep_cursor(at, cursor.as_bytes()),
            Incoming::Durable(event) if event.uuid.is_nil() => {
                self.tally.counts.events += 1;
                self.event(at, event.chat, event.seq, event.prev);
            }
            Incoming::Durable(event) => {
                self.message(at, event.chat, event.seq, event.prev, event.uuid.as_u64_pair().1);
            }
            Incoming::Ack { uuid, chat, seq, .. } => self.acked(at, uuid.as_u64_pair().1, chat, seq),
            Incoming::Refused { uuid, code, temporary, retry_after_ms } => {
                let tag = uuid.map_or(0, |uuid| uuid.as_u64_pair().1);
                self.refused_command(
                    at,
                    tag,
                    &code,
                    temporary.then_some(Duration::from_millis(retry_after_ms)),
                );
            }
            Incoming::Lagging { .. } => {
                self.tally.counts.lagged += 1;
                let device = &mut self.devices[at];
                if device.phase == Phase::Live {
                    device.phase = Phase::Lagging;
                    self.live -= 1;
                }
            }
            Incoming::Reset { chat, after, .. } => {
                self.judge
                    .breaches
                    .add(Breach::Lost, || format!("the log of chat {chat} lost what is after {after}"));
            }
            Incoming::Page { .. } | Incoming::Drain { .. } | Incoming::Ping { .. } | Incoming::Other(_) => {}
        }
    }

    fn welcome(&mut self, at: usize, user: u64, resumed: bool) {
        let device = &self.devices[at];
        if user != device.user || resumed == device.cursor.is_empty() {
            let (own, cursor) = (device.user, !device.cursor.is_empty());
            self.judge.breaches.add(Breach::Protocol, || {
                format!(
                    "device {at} of user {own}: Welcome for {user}, resumed {resumed}, with a cursor {cursor}"
                )
            });
        }
    }

    fn now_live(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let was = std::mem::replace(&mut device.phase, Phase::Live);
        if was == Phase::Live {
            return;
        }
        self.live += 1;
        let since = std::mem::take(&mut device.resume_from_ns);
        device.by_choice = false;
        if was == Phase::Replaying && since != 0 {
            self.tally.resume.saturating_record(now_ns().saturating_sub(since) / 1_000);
        }
        self.watch(at);
        self.flush(at);
    }

    fn keep_cursor(&mut self, at: usize, cursor: &[u8]) {
        let kept = &mut self.devices[at].cursor;
        kept.clear();
        kept.extend_from_slice(cursor);
    }

    fn message(&mut self, at: usize, chat: u64, seq: u64, prev: u64, tag: u64) {
        let Some((place, step)) = self.event(at, chat, seq, prev) else { return };
        let Some(number) = self.judge.message(place, seq, tag) else { return };
        if step != Step::New {
            return;
        }
        let sent = self.judge.sent[number as usize];
        let device = &self.devices[at];
        if sent.device as usize == at {
            self.tally.counts.echoes += 1;
        } else if device.by_choice {
            // The device missed it while it was away by choice, which says nothing about the server.
            self.tally.counts.delivered += 1;
        } else {
            self.tally.delivered(sent.intended_ns, now_ns(), device.phase == Phase::Live);
        }
    }

    /// Takes any durable event. Returns the chat's place and the judge's word.
    fn event(&mut self, at: usize, chat: u64, seq: u64, prev: u64) -> Option<(u32, Step)> {
        let device = &mut self.devices[at];
        let replaying = device.phase == Phase::Replaying;
        let Some(head) = device.head_mut(chat) else {
            self.judge.breaches.add(Breach::Trespass, || format!("device {at}: {seq} of chat {chat}"));
            return None;
        };
        let (place, had) = (head.at, head.seq);
        head.seq = had.max(seq);
        let step = self.judge.event(at as u32, place, had, seq, prev, replaying);
        if step == Step::Known {
            self.tally.counts.repeated += 1;
        }
        Some((place, step))
    }
}
