//! Collects receipts per chat before they are pushed.
//!
//! Invariant: a member gets at most one `Receipts` frame of a chat in a window of time, however many members read at
//! once, and however many instances of presence announce it.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use shared::{
    entitlement::Sight,
    frame::{self, Receipt},
    id::{ChatId, Seq, UserId},
};
use streams::signal::Receipts;

use crate::{
    infra::clock::Clock,
    session::wire::{self, Encoded, Encoding},
};

/// Receipts in one frame, some 30 KB; the rest waits for the next window.
const PER_FRAME: usize = 500;
/// Receipts that may wait in all chats together: some 10 MB.
const MAX_WAITING: usize = 100_000;

/// The windows of all chats.
pub(super) struct ReceiptWindows {
    window_ms: u64,
    state: Mutex<Windows>,
}

#[derive(Default)]
struct Windows {
    chats: HashMap<ChatId, Window>,
    waiting: usize,
}

/// The window of one chat. It exists from the first receipt until its time is over and nothing waits in it.
#[derive(Default)]
struct Window {
    /// The next frame may leave at this time.
    closed_until_ms: u64,
    marks: HashMap<UserId, (Seq, Seq)>,
}

impl ReceiptWindows {
    pub(super) fn new(window_ms: u64) -> Self {
        Self { window_ms, state: Mutex::default() }
    }

    /// Collects receipts. Those above the bound are dropped.
    pub(super) fn add(&self, receipts: &Receipts) {
        let mut state = self.state.lock();
        for receipt in &receipts.receipts {
            if state.waiting >= MAX_WAITING {
                return;
            }
            let marks = &mut state.chats.entry(receipts.chat).or_default().marks;
            let before = marks.len();
            let (read, delivered) = marks.entry(receipt.user).or_default();
            *read = receipt.read.max(*read);
            *delivered = receipt.delivered.max(*delivered);
            let new = marks.len() - before;
            state.waiting += new;
        }
    }

    /// Takes the frames that may leave now.
    pub(super) fn take(&self, now_ms: u64) -> Vec<(ChatId, Vec<Receipt>)> {
        let mut state = self.state.lock();
        let mut frames = Vec::new();
        for (chat, window) in &mut state.chats {
            if window.closed_until_ms <= now_ms && !window.marks.is_empty() {
                frames.push((*chat, window.take()));
                window.closed_until_ms = now_ms + self.window_ms;
            }
        }
        state.waiting -= frames.iter().map(|(_, receipts)| receipts.len()).sum::<usize>();
        state.chats.retain(|_, window| window.closed_until_ms > now_ms || !window.marks.is_empty());
        frames
    }

    /// Resolves when the next frame may leave; never if no receipt waits.
    pub(super) async fn due(&self, clock: &Clock) {
        let next_ms = {
            let state = self.state.lock();
            let waiting = state.chats.values().filter(|window| !window.marks.is_empty());
            waiting.map(|window| window.closed_until_ms).min()
        };
        match next_ms {
            Some(at_ms) => {
                tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(clock.now_ms()))).await;
            }
            None => std::future::pending().await,
        }
    }
}

impl Window {
    fn take(&mut self) -> Vec<Receipt> {
        let users: Vec<UserId> = self.marks.keys().take(PER_FRAME).copied().collect();
        let taken = users.into_iter().filter_map(|user_id| {
            let (read_seq, delivered_seq) = self.marks.remove(&user_id)?;
            Some(Receipt { user_id, read_seq, delivered_seq })
        });
        taken.collect()
    }
}

/// The receipts of one chat as a frame. Encoded once per encoding for those who read the whole chat.
pub(super) struct ReceiptsFrame {
    chat_id: ChatId,
    receipts: Vec<Receipt>,
    whole: Encoded,
}

impl ReceiptsFrame {
    pub(super) fn new(chat_id: ChatId, receipts: Vec<Receipt>) -> Self {
        let whole = Encoded::new(frame::Receipts { chat_id, receipts: receipts.clone() }.into());
        Self { chat_id, receipts, whole }
    }

    /// The frame for a member. A mark is shown as far as the member reads, so that it tells nothing of what was before.
    /// `None`: nothing is left to be shown.
    pub(super) fn of(&mut self, encoding: Encoding, sight: &Sight) -> Option<Bytes> {
        if *sight == Sight::Everything {
            return Some(self.whole.of(encoding).clone());
        }
        let shown = |receipt: &Receipt| Receipt {
            user_id: receipt.user_id,
            read_seq: sight.newest(receipt.read_seq),
            delivered_seq: sight.newest(receipt.delivered_seq),
        };
        let told = |receipt: &Receipt| receipt.read_seq.max(receipt.delivered_seq) > Seq::ZERO;
        let receipts: Vec<Receipt> = self.receipts.iter().map(shown).filter(told).collect();
        let frame = frame::Receipts { chat_id: self.chat_id, receipts };
        (!frame.receipts.is_empty()).then(|| wire::encode(&frame.into(), encoding))
    }
}

#[cfg(test)]
mod tests {
    use shared::{codec, entitlement::Stay};
    use streams::signal;

    use super::*;

    fn receipts(chat: u64, marks: &[(u64, u64)]) -> Receipts {
        let receipt = |(user, seq): &(u64, u64)| signal::Receipt {
            user: UserId::new(*user).unwrap(),
            read: Seq(*seq),
            delivered: Seq(*seq),
        };
        Receipts { chat: ChatId::new(chat).unwrap(), receipts: marks.iter().map(receipt).collect() }
    }

    #[test]
    fn one_frame_a_chat_and_window() {
        let windows = ReceiptWindows::new(50);
        windows.add(&receipts(1, &[(1, 10)]));
        assert_eq!(windows.take(1_000).len(), 1, "the first leaves at once");
        windows.add(&receipts(1, &[(2, 11), (3, 12)]));
        windows.add(&receipts(1, &[(2, 13)]));
        windows.add(&receipts(2, &[(2, 5)]));
        let other = windows.take(1_010);
        assert_eq!(other.len(), 1, "another chat has its own window");
        assert_eq!(other[0].0.get(), 2);
        assert!(windows.take(1_049).is_empty());
        let frames = windows.take(1_050);
        assert_eq!(frames.len(), 1);
        let mut marks: Vec<_> = frames[0].1.iter().map(|r| (r.user_id.get(), r.read_seq.get())).collect();
        marks.sort_unstable();
        assert_eq!(marks, [(2, 13), (3, 12)]);
        assert!(windows.take(2_000).is_empty());
        assert!(windows.state.lock().chats.is_empty(), "a quiet chat costs nothing");
    }

    #[test]
    fn marks_are_shown_as_far_as_a_member_reads() {
        let mark = |user, read, delivered| Receipt {
            user_id: UserId::new(user).unwrap(),
            read_seq: Seq(read),
            delivered_seq: Seq(delivered),
        };
        let mut frame = ReceiptsFrame::new(
            ChatId::new(1).unwrap(),
            vec![mark(1, 10, 90), mark(2, 70, 70), mark(3, 10, 20)],
        );
        let stays = [Stay { from: Seq(30), to: Some(Seq(40)) }, Stay { from: Seq(80), to: None }];
        let bytes = frame.of(Encoding::Json, &Sight::Stays(stays.into())).unwrap();
        let shown =
            frame::Receipts { chat_id: frame.chat_id, receipts: vec![mark(1, 0, 90), mark(2, 40, 40)] };
        let payload = bytes.iter().position(|byte| *byte == b'{').unwrap();
        assert_eq!(codec::decode_server_json(&bytes[payload..]).unwrap(), Some(shown.into()));
        let stays = vec![Stay { from: Seq(95), to: None }];
        assert_eq!(frame.of(Encoding::Json, &Sight::Stays(stays)), None, "nobody has come so far");
    }

    #[test]
    fn a_frame_is_bounded_and_the_rest_follows() {
        let windows = ReceiptWindows::new(50);
        let all: Vec<(u64, u64)> = (1..=1_200).map(|user| (user, 1)).collect();
        windows.add(&receipts(1, &all));
        let mut sizes = Vec::new();
        for at in 0..3 {
            sizes.push(windows.take(at * 50)[0].1.len());
        }
        assert_eq!(sizes, [500, 500, 200]);
        assert_eq!(windows.state.lock().waiting, 0);
    }
}
