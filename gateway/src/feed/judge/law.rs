//! One verdict: every reader gives every entry the same one, and the same `prev`, wherever it begins and however much of
//! the log it remembers. The readers: the projector, in batches of any size; a hub with a ring of any size that begins
//! anywhere and loads chats as of any checkpoint; a scan from any checkpoint on. What they are held against is the stage's
//! log, which judges the whole history with one set of all commands.

use std::collections::BTreeMap;

use projector::{
    cache::{Cache, Chat},
    projection::{Decoded, Keys, project},
};
use proptest::prelude::*;
use shared::{id::UserId, window::Window};
use uuid::{Builder, Uuid};

use super::*;
use crate::hub::{ring::Verdict, stage::*, verdict};

const WINDOW: Window = Window { ms: 120_000 };
const CHATS: u64 = 2;
const USERS: u64 = 3;
/// When the log begins.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// What happens next in the log.
#[derive(Debug, Clone)]
struct Step {
    /// So much later.
    pass_ms: u64,
    chat: u64,
    actor: u64,
    /// Which of the actor's commands in the chat; it may have been sent before.
    command: u64,
    change: u8,
    /// Which earlier entry the change is about, as a distance.
    about: u64,
    /// How long ago the gateway had looked for a deletion, in entries. `None`: a gateway of version 1.
    seen: Option<u64>,
    /// How long ago the gateway had looked for an earlier copy, in entries.
    looked: Option<u64>,
    /// The bytes are no event, although their head can be read.
    corrupt: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let pass_ms = prop_oneof![6 => 0..3_000_u64, 2 => 3_000..60_000_u64, 1 => 60_000..200_000_u64];
    let place = (1..=CHATS, 1..=USERS + 1, 0..8_u64);
    let change = (0..12_u8, 1..20_u64, prop::option::weighted(0.8, 0..40_u64));
    let look = prop::option::weighted(0.5, prop_oneof![0..3_u64, 0..60_u64]);
    (pass_ms, place, change, look, prop::bool::weighted(0.04)).prop_map(
        |(pass_ms, (chat, actor, command), (change, about, seen), looked, corrupt)| Step {
            pass_ms,
            chat,
            actor,
            command,
            change,
            about,
            seen,
            looked,
            corrupt,
        },
    )
}

/// The stage's log, and what its entries are made of.
#[derive(Default)]
struct History {
    log: Log,
    now_ms: u64,
    uuids: BTreeMap<(u64, u64, u64), Uuid>,
    /// The copies that the log's dedupe window may know: the time and the verdict.
    copies: BTreeMap<Key, Vec<(u64, Seq)>>,
}

impl History {
    /// Chat 1 is there from the beginning, and the others begin when somebody creates them.
    fn of(steps: &[Step]) -> Self {
        let mut history = Self { now_ms: BEGIN_MS, ..Self::default() };
        history.log.append_at((1, 1), history.now_ms, Uuid::from_u128(1), created(&[1, 2, 3]), None);
        for step in steps {
            history.happen(step);
        }
        history
    }

    /// Some uuids of a user are made now, some were made long ago or by a clock that is ahead, and some name no time.
    fn uuid(&mut self, step: &Step) -> Uuid {
        let key = (step.chat, step.actor, step.command);
        let made_ms = match step.command % 4 {
            0 => None,
            1 => Some(self.now_ms),
            2 => Some(self.now_ms - 100_000),
            _ => Some(self.now_ms + 130_000),
        };
        let bytes = [(step.chat << 6 | step.actor << 3 | step.command) as u8; 10];
        *self.uuids.entry(key).or_insert_with(|| match made_ms {
            Some(made_ms) => Builder::from_unix_timestamp_millis(made_ms, &bytes).into_uuid(),
            None => Builder::from_random_bytes([bytes[0]; 16]).into_uuid(),
        })
    }

    fn happen(&mut self, step: &Step) {
        self.now_ms += step.pass_ms;
        let tip = self.log.tip();
        let uuid = self.uuid(step);
        let key: Key = (chat(step.chat), user(step.actor), uuid);
        let about = Seq(tip.get().saturating_sub(step.about).max(1));
        let fact = match step.change {
            0..=3 => sent("hi"),
            4..=5 => edited(about, step.actor),
            6 => deleted(about, step.actor),
            7 => reacted(about),
            8 => joined(&[USERS + 1]),
            9 => removed(USERS + 1),
            10 => left(step.actor),
            _ => created(&[step.actor]),
        };
        let fact = step.seen.map_or(fact.clone(), |seen| looked(fact, Seq(tip.get().saturating_sub(seen))));
        let verdicts = self.log.verdicts();
        let counting: Vec<Seq> = self.copies.get(&key).into_iter().flatten().map(|(_, seq)| *seq).collect();
        let is_stale = |seq: &Seq| verdicts[seq].0 == Err(fold::STALE);
        if step.corrupt {
            // By no gateway, so under no id.
            self.log.append_corrupt((step.chat, step.actor), self.now_ms, uuid);
            return;
        }
        // The log stores no second copy within its window, unless all that it has are stale.
        let recent = self.copies.get(&key).into_iter().flatten();
        let recent = recent.filter(|(ts, seq)| self.now_ms - ts < WINDOW.ms && !is_stale(seq));
        if recent.count() > 0 {
            return;
        }
        let unique_as_of = step.looked.map(|back| Seq(tip.get().saturating_sub(back)));
        if unique_as_of.is_some_and(|as_of| counting.iter().any(|seq| *seq <= as_of && !is_stale(seq))) {
            // The gateway has found it.
            return;
        }
        let seq = self.log.append_at((step.chat, step.actor), self.now_ms, uuid, fact, unique_as_of);
        self.copies.entry(key).or_default().push((self.now_ms, seq));
    }

    /// What the projection knows at a checkpoint of these commands.
    fn firsts(&self, keys: impl Iterator<Item = Key>, upto: Seq) -> HashMap<Key, Seq> {
        let verdicts = self.log.verdicts();
        let first = |key: Key| {
            let copies = self.copies.get(&key)?.iter().map(|(_, seq)| *seq);
            copies.filter(|seq| *seq <= upto && verdicts[seq].0 != Err(fold::STALE)).min()
        };
        keys.filter_map(|key| Some((key, first(key)?))).collect()
    }

    fn marks(&self, upto: Seq) -> Vec<(UserId, u64)> {
        let mut marks = Vec::new();
        for seq in (1..=upto.get()).map(Seq) {
            let entry = self.log.entry(seq);
            let Ok((head, _)) = Head::read(&entry.payload) else { continue };
            let until = shared::window::ahead_until(head.uuid, entry.ts_ms);
            marks.extend(until.map(|until_ms| (head.actor, until_ms)));
        }
        marks
    }

    /// A hub that begins after `floor` and knows what was marked before.
    fn hub(&self, ring_bytes: usize, floor: Seq) -> Stage {
        let mut stage = Stage::with_ring(ring_bytes);
        stage.log = self.log.clone();
        stage.hub.set_window(WINDOW);
        stage.hub.begin(self.log.position(floor), 0);
        stage.hub.install_marks(self.marks(floor), floor);
        stage
    }

    /// Loads a chat as of a checkpoint, with all that is known of what the ring can't judge. Where the checkpoint is below
    /// the ring, the log between them is folded. `false`: it is to be loaded again.
    fn load(&self, stage: &Stage, id: u64, upto: Seq) -> bool {
        let pin = stage.hub.pin();
        let reached = upto.max(pin.floor);
        let mut loaded = self.log.chat(chat(id), reached, pin.floor);
        let judge = self.span(stage, id, upto, pin.floor);
        let doubtful = stage.hub.doubtful(std::iter::once((chat(id), reached)));
        let keys = doubtful.iter().map(|(_, key)| (key.chat, key.actor, key.uuid));
        let stored = self.firsts(keys, upto);
        loaded.looked.upto = reached;
        loaded.looked.firsts = doubtful
            .iter()
            .map(|(seq, verdict::Key { chat, actor, uuid })| {
                (*seq, judge.first_copy(&(*chat, *actor, *uuid), *seq, &stored))
            })
            .collect();
        stage.hub.install_chat(loaded, pin.epoch).is_ok()
    }
}

impl History {
    /// The judge of a chat's entries in `(after, upto]`.
    fn span(&self, stage: &Stage, id: u64, after: Seq, upto: Seq) -> Judge {
        let (mut judge, mut state) = (Judge::default(), self.log.chat(chat(id), after, after).state);
        let entries: Vec<Entry> = (after.get() + 1..=upto.get())
            .map(|seq| self.log.entry(Seq(seq)).clone())
            .filter(|entry| entry.chat == Some(chat(id)))
            .collect();
        let doubtful = doubtful(&stage.hub, &entries, |_| Some(after));
        judge.tell(&doubtful, &self.firsts(doubtful.iter().map(|(key, _)| *key), after));
        for entry in &entries {
            let Ok(event) = Event::decode(&entry.payload) else { continue };
            let _verdict = judge.fold(&mut state, chat(id), entry.seq, &event);
        }
        judge
    }
}

/// A verdict, and the chat's valid event before a valid one.
type Outcome = (Result<(), Code>, Seq);

fn projector_says(history: &History, sizes: &[usize]) -> BTreeMap<Seq, Outcome> {
    let (log, mut cache, mut said) = (&history.log, Cache::new(1_000), BTreeMap::new());
    for id in 1..=CHATS {
        cache.insert(chat(id), Chat::default());
    }
    let entries: Vec<Entry> = (1..=log.tip().get()).map(|seq| log.entry(Seq(seq)).clone()).collect();
    let (mut rest, mut sizes) = (entries.as_slice(), sizes.iter().cycle());
    while let Some(size) = sizes.next().filter(|_| !rest.is_empty()) {
        let (batch, left) = rest.split_at((*size).min(rest.len()));
        let decoded: Vec<Decoded<'_>> = batch
            .iter()
            .filter_map(|entry| {
                Some(Decoded { chat: entry.chat?, entry, event: Event::decode(&entry.payload) })
            })
            .collect();
        let keys = decoded.iter().filter_map(|entry| {
            let event = entry.event.as_ref().ok()?;
            Some((entry.chat, event.actor, event.uuid))
        });
        let before = Seq(batch[0].seq.get() - 1);
        let stored: Keys = history.firsts(keys, before).into_keys().collect();
        let rows = project(&mut cache, &decoded, &stored);
        said.extend(rows.events.iter().map(|event| (event.seq, (Ok(()), event.prev))));
        said.extend(rows.refused.iter().map(|refused| (refused.seq, (Err(refused.code), Seq::ZERO))));
        rest = left;
    }
    said
}

fn scan_says(history: &History, checkpoint: Seq, sizes: &[usize]) -> BTreeMap<Seq, Outcome> {
    let (log, mut judge, mut said) = (&history.log, Judge::default(), BTreeMap::new());
    // A hub that has everything knows the marks.
    let stage = history.hub(1, log.tip());
    let mut chats: BTreeMap<ChatId, _> =
        (1..=CHATS).map(|id| (chat(id), log.chat(chat(id), checkpoint, checkpoint))).collect();
    let entries: Vec<Entry> =
        (checkpoint.get() + 1..=log.tip().get()).map(|seq| log.entry(Seq(seq)).clone()).collect();
    let (mut rest, mut sizes) = (entries.as_slice(), sizes.iter().cycle());
    while let Some(size) = sizes.next().filter(|_| !rest.is_empty()) {
        let (batch, left) = rest.split_at((*size).min(rest.len()));
        let doubtful = doubtful(&stage.hub, batch, |_| Some(checkpoint));
        // The projection may have come further meanwhile.
        let now = batch[batch.len() / 2].seq;
        let firsts = history.firsts(doubtful.iter().map(|(key, _)| *key), now);
        judge.tell(&doubtful, &firsts);
        for entry in batch {
            let (Some(id), Ok(event)) = (entry.chat, Event::decode(&entry.payload)) else { continue };
            let chat = chats.get_mut(&id).unwrap();
            let verdict = judge.fold(&mut chat.state, id, entry.seq, &event);
            let prev = if verdict.is_ok() { std::mem::replace(&mut chat.head, entry.seq) } else { Seq::ZERO };
            said.insert(entry.seq, (verdict, prev));
        }
        rest = left;
    }
    said
}

/// `lags` says how far below the hub's position the projection is, each time that a chat is loaded. It may be below the
/// ring.
fn hub_says(history: &History, ring_bytes: usize, floor: Seq, lags: &[u64]) -> BTreeMap<Seq, Outcome> {
    let stage = history.hub(ring_bytes, floor);
    let mut lags = lags.iter().cycle().copied();
    let mut load = |stage: &Stage, id: u64| {
        let lagging = Seq(stage.hub.position().get().saturating_sub(lags.next().unwrap()));
        assert!(history.load(stage, id, lagging), "chat {id} as of {lagging}");
    };
    for id in 1..=CHATS {
        load(&stage, id);
    }
    let mut wanted = Vec::new();
    for seq in (floor.get() + 1..=history.log.tip().get()).map(Seq) {
        stage.apply(history.log.entry(seq));
        wanted.extend(stage.hub.take_follow_ups().wanted);
        // Not at once.
        if seq.get() % 3 == 0 {
            for id in wanted.drain(..) {
                load(&stage, id.get());
            }
        }
    }
    for id in wanted {
        load(&stage, id.get());
    }
    let position = stage.hub.position().get();
    let told = (stage.hub.floor().seq.get() + 1..=position).map(Seq).filter_map(|seq| {
        let (verdict, prev) = stage.hub.judged(seq).unwrap();
        let outcome = match verdict {
            Verdict::Valid => (Ok(()), prev),
            Verdict::Void(code) => (Err(code), Seq::ZERO),
            Verdict::Repeat(_) => (Err(Code::CommandUuidReused), Seq::ZERO),
            Verdict::Unknown => panic!("every chat is loaded, and {seq} has no verdict"),
        };
        Event::decode(&history.log.entry(seq).payload).is_ok().then_some((seq, outcome))
    });
    told.collect()
}

proptest! {
    #[test]
    fn every_reader_gives_every_entry_the_same_verdict_and_the_same_prev(
        steps in prop::collection::vec(step(), 1..120),
        ring_bytes in prop_oneof![1 => Just(1_usize), 3 => 500_usize..8_000, 1 => Just(1_usize << 20)],
        from in 0.0..1.0_f64,
        lags in prop::collection::vec(0_u64..30, 1..10),
        sizes in prop::collection::vec(1_usize..20, 1..10),
    ) {
        let history = History::of(&steps);
        let right = history.log.verdicts();
        let from = Seq((history.log.tip().get() as f64 * from) as u64);
        let after = |from: Seq| -> BTreeMap<Seq, Outcome> {
            right.iter().filter(|(seq, _)| **seq > from).map(|(seq, outcome)| (*seq, *outcome)).collect()
        };
        prop_assert_eq!(projector_says(&history, &sizes), after(Seq::ZERO));
        prop_assert_eq!(scan_says(&history, from, &sizes), after(from));
        let hub = hub_says(&history, ring_bytes, from, &lags);
        let first = hub.keys().next().map_or(history.log.tip(), |first| Seq(first.get() - 1));
        prop_assert_eq!(hub, after(first));
    }
}
