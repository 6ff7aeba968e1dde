//! What users are shown, held against a model that looks at every event of the log.

use std::collections::BTreeSet;

use proptest::prelude::*;
use shared::{
    event::{Event, Fact, History},
    fold::{self, ChatState},
    frame::{EventData, ServerFrame},
    id::{Seq, UserId},
};

use crate::hub::{
    attach::Step,
    projected::{Rows, frame_of_row},
    stage::*,
};

/// Chat 1 as of one moment, counted the long way.
struct Model {
    /// By sequence: the event if it is valid, and who was a member before or after it.
    entries: Vec<(Option<Event>, BTreeSet<UserId>)>,
    state: Option<ChatState>,
}

impl Model {
    fn of(log: &Log, upto: Seq) -> Self {
        let mut model = Self { entries: Vec::new(), state: None };
        for seq in (1..=upto.get()).map(Seq) {
            let event = Event::decode(&log.entry(seq).payload).unwrap();
            let mut present = model.members();
            let valid = fold::apply(&mut model.state, seq, &event).is_ok();
            present.extend(model.members());
            model.entries.push((valid.then_some(event), present));
        }
        model
    }

    fn members(&self) -> BTreeSet<UserId> {
        self.state.iter().flat_map(|state| state.members.users()).collect()
    }

    fn reads(&self, user: UserId, seq: Seq) -> bool {
        let open = self.state.as_ref().is_some_and(|state| state.history == History::All);
        let at =
            self.entries.get(seq.get() as usize - 1).map_or(self.members(), |(_, present)| present.clone());
        at.contains(&user) || (open && self.members().contains(&user))
    }

    /// What the user may be told of the event: the message that it names, and its text.
    fn told(&self, user: UserId, seq: Seq) -> (Option<Seq>, bool) {
        let fact = &self.entries[seq.get() as usize - 1].0.as_ref().expect("a valid event").fact;
        let names = fact.names().filter(|message| self.reads(user, *message));
        (names, names == fact.names() || matches!(fact, Fact::MessageSent(_)))
    }
}

/// What a frame tells: its place, the message that it names, and whether it is more than a place.
fn told(frame: &ServerFrame) -> Option<(Seq, (Option<Seq>, bool))> {
    match frame {
        ServerFrame::Message(message) => Some((message.seq, (message.reply_to, true))),
        ServerFrame::Event(event) => {
            let names = match &event.data {
                EventData::Edited(edited) => Some(edited.seq),
                EventData::Deleted(deleted) => Some(deleted.seq),
                EventData::Reaction(reacted) => Some(reacted.seq),
                _ => None,
            };
            Some((event.seq, (names, !matches!(event.data, EventData::Noop(())))))
        }
        _ => None,
    }
}

/// One step: who does what, and to which of the earlier entries, counted from the end.
type Act = (u64, u8, u64);

fn act(stage: &mut Stage, (who, what, back): Act) {
    let target = Seq(stage.log.tip().get().saturating_sub(back).max(1));
    let (actor, fact) = match what {
        0 => (1, joined(&[who])),
        1 => (1, removed(who)),
        2 => (1, history(if back % 2 == 0 { History::Join } else { History::All })),
        3 | 4 => (who, replied(target)),
        5 | 6 => (who, edited(target, who)),
        7 => (1, deleted(target, who)),
        8 | 9 => (who, reacted(target)),
        _ => (who, sent("hi")),
    };
    stage.append(1, actor, fact);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Live, replayed from the ring, from rows and on a page: nobody is told of a message that they do not read, and
    /// everybody of all others.
    #[test]
    fn an_event_names_a_message_only_to_those_who_read_it(
        acts in prop::collection::vec((1_u64..4, 0_u8..14, 0_u64..60), 1..90),
        ring_bytes in prop_oneof![Just(1_usize << 20), 3_000_usize..12_000],
        from in 0_u64..90,
        reload in 1_usize..30,
    ) {
        let mut stage = Stage::with_ring(ring_bytes);
        stage.append(1, 1, created(&[1, 2, 3]));
        for id in [1, 2, 3] {
            stage.load_user(id);
        }
        let mut live = [stage.connect(1), stage.connect(2)];
        for (at, step) in acts.into_iter().enumerate() {
            act(&mut stage, step);
            let model = Model::of(&stage.log, stage.log.tip());
            for device in &mut live {
                for (seq, told) in device.reads(usize::MAX).iter().filter_map(told) {
                    prop_assert_eq!(told, model.told(device.session.user(), seq), "live {}", seq);
                }
            }
            if at % reload == 0 {
                // What is loaded is what was followed.
                stage.hub.forget_idle(u64::MAX);
                stage.load_user(3);
            }
        }
        let (tip, floor) = (stage.log.tip(), stage.hub.floor().seq);
        let model = Model::of(&stage.log, tip);
        for id in [1, 2, 3] {
            for seq in (1..=tip.get()).map(Seq) {
                let sight = stage.hub.sight(user(id), chat(1)).unwrap();
                prop_assert_eq!(sight.reads(seq), model.reads(user(id), seq), "{} {}", id, seq);
                let newest = (1..=seq.get()).rev().map(Seq).find(|at| model.reads(user(id), *at));
                prop_assert_eq!(sight.newest(seq), newest.unwrap_or_default());
            }
            let from = Seq(from.min(tip.get()));
            let (mut device, _) = stage.resume(id, from);
            if from < floor {
                let mut events = stage.log.rows(user(id), from, tip);
                events.retain(|row| row.seq <= floor);
                let rows = Rows { epoch: 0, after: from, upto: floor, checkpoint: tip, events };
                stage.hub.feed_rows(&device.session, &rows);
            }
            let mut frames = device.reads(usize::MAX);
            while stage.hub.advance(&device.session) == Step::More {
                frames.extend(device.reads(usize::MAX));
            }
            frames.extend(device.reads(usize::MAX));
            let heard: Vec<_> = frames.iter().filter_map(told).collect();
            let owed = stage.log.entitled(user(id), tip).into_iter().map(|(_, seq)| seq);
            let owed: Vec<_> =
                owed.filter(|seq| *seq > from).map(|seq| (seq, model.told(user(id), seq))).collect();
            prop_assert_eq!(heard, owed);
            let sight = stage.hub.sight(user(id), chat(1)).unwrap();
            for row in stage.log.rows(user(id), Seq::ZERO, tip) {
                let frame = frame_of_row(&row, &sight).unwrap();
                prop_assert_eq!(told(&frame), Some((row.seq, model.told(user(id), row.seq))));
            }
        }
    }
}

#[test]
fn a_newcomer_is_told_nothing_of_what_was_before() {
    let mut stage = Stage::with_group(&[1, 2]);
    stage.load_user(3);
    stage.append(1, 1, history(History::Join));
    let old = stage.append(1, 1, sent("old"));
    stage.append(1, 1, joined(&[3]));
    let [mut old_hand, mut newcomer] = [stage.connect(2), stage.connect(3)];
    for fact in [replied(old), edited(old, 1), reacted(old), deleted(old, 1)] {
        stage.append(1, 1, fact);
    }
    assert_eq!(newcomer.hears(), ["Message 5 after 4", "noop 6 after 5", "noop 7 after 6", "noop 8 after 7"]);
    assert_eq!(
        old_hand.hears(),
        ["Message 5 after 4", "edited 6 after 5", "reaction 7 after 6", "deleted 8 after 7"]
    );
}
