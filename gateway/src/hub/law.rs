//! The hub's promise, against random happenings: a device never sees a gap or a duplicate, and ends with exactly the
//! events that its user is entitled to.
//!
//! What happens: messages, joins and leaves in chats that are loaded, on the way or unknown; bytes that are no event; readers that take any
//! number of bytes at a time, with outboxes of any bound; rings that hold everything or nearly nothing; loads as of any
//! sequence; devices that drop and come back with their last cursor, to users that were forgotten meanwhile; cuts of
//! the log. A gap is found by [`Device`], which panics at the first.

use proptest::prelude::*;
use shared::id::{ChatId, Position, Seq};

use super::{
    attach::{Attached, Reattached, Step as Piece},
    install::Stale,
    projected::Rows,
    stage::*,
};
use crate::session::{Lane, close::Close};

/// Owns every chat and has no device here.
const OWNER: u64 = 9;
/// The users with devices. The first one has two.
const USERS: [u64; 3] = [1, 1, 2];
const CHATS: u64 = 4;

#[derive(Debug, Clone, Copy)]
enum Step {
    Say {
        chat: u64,
        user: u64,
    },
    Delete {
        chat: u64,
        back: u64,
    },
    Join {
        chat: u64,
        user: u64,
    },
    Leave {
        chat: u64,
        user: u64,
    },
    /// Bytes that are no event: their head can be read, their data cannot.
    Corrupt {
        chat: u64,
    },
    Read {
        device: usize,
        bytes: usize,
    },
    CatchUp {
        device: usize,
    },
    Load {
        as_of: u64,
    },
    Drop {
        device: usize,
    },
    Forget,
    Sweep,
    Cut {
        back: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let chat = || 1..=CHATS;
    let user = || prop::sample::select(vec![1_u64, 2, OWNER]);
    let device = || 0..USERS.len();
    prop_oneof![
        20 => (chat(), user()).prop_map(|(chat, user)| Step::Say { chat, user }),
        2 => (chat(), 1_u64..8).prop_map(|(chat, back)| Step::Delete { chat, back }),
        4 => (chat(), 1_u64..3).prop_map(|(chat, user)| Step::Join { chat, user }),
        3 => (chat(), 1_u64..3).prop_map(|(chat, user)| Step::Leave { chat, user }),
        1 => chat().prop_map(|chat| Step::Corrupt { chat }),
        12 => (device(), 1_usize..600).prop_map(|(device, bytes)| Step::Read { device, bytes }),
        8 => device().prop_map(|device| Step::CatchUp { device }),
        4 => (0_u64..=4).prop_map(|as_of| Step::Load { as_of }),
        2 => device().prop_map(|device| Step::Drop { device }),
        1 => Just(Step::Forget),
        2 => Just(Step::Sweep),
        1 => (0_u64..12).prop_map(|back| Step::Cut { back }),
    ]
}

struct World {
    stage: Stage,
    devices: Vec<Device>,
    /// The epoch in which a device's session was cut off its user; `None`: it is attached.
    away: Vec<Option<u32>>,
    /// The cuts on record, each with the epoch that it began.
    cuts: Vec<(u32, Position)>,
    /// Chats that the hub asked for.
    wanted: Vec<ChatId>,
    /// Of loads: how many quarters of the ring lie below the sequence that they are as of.
    as_of: u64,
}

impl World {
    fn new(ring_bytes: usize, outbox_frames: usize, outbox_bytes: usize) -> Self {
        let mut stage = Stage::with_ring(ring_bytes);
        stage.settings.outbox_frames = outbox_frames;
        stage.settings.outbox_bytes = outbox_bytes;
        for chat in 1..=CHATS {
            let members: &[u64] = if chat == 1 { &[OWNER, 1, 2] } else { &[OWNER] };
            stage.append(chat, OWNER, created(members));
        }
        let mut world = Self {
            stage,
            devices: Vec::new(),
            away: Vec::new(),
            cuts: Vec::new(),
            wanted: Vec::new(),
            as_of: 4,
        };
        for user in USERS {
            world.load_user(user);
            let device = world.stage.connect(user);
            world.devices.push(device);
            world.away.push(None);
        }
        world
    }

    fn happen(&mut self, step: Step) {
        match step {
            Step::Say { chat, user } => drop(self.stage.append(chat, user, sent("hi"))),
            Step::Delete { chat, back } => {
                let target = Seq(self.stage.log.tip().get().saturating_sub(back));
                self.stage.append(chat, OWNER, deleted(target, OWNER));
            }
            Step::Join { chat, user } => drop(self.stage.append(chat, OWNER, joined(&[user]))),
            Step::Leave { chat, user } => drop(self.stage.append(chat, user, left(user))),
            Step::Corrupt { chat } => {
                let event = self.stage.log.append(chat, OWNER, sent("cut short"));
                self.stage.log.cut(Seq(event.seq.get() - 1));
                let payload = event.payload.slice(..event.payload.len() - 1);
                let entry = self.stage.log.append_raw(Some(chat), payload);
                self.stage.apply(&entry);
            }
            Step::Read { device, bytes } => drop(self.devices[device].reads(bytes)),
            Step::CatchUp { device } => drop(self.catch_up(device)),
            Step::Load { as_of } => {
                self.as_of = as_of;
                if let Some(chat) = self.wanted.pop() {
                    self.load_chat(chat);
                }
            }
            Step::Drop { device } => self.come_back(device),
            Step::Forget => self.stage.hub.forget_idle(u64::MAX),
            Step::Sweep => self.stage.hub.send_cursors(&self.stage.hub.sessions(), 0),
            Step::Cut { back } => self.cut(back),
        }
        self.wanted.extend(self.stage.hub.take_follow_ups().wanted);
    }

    /// The sequence that loads are as of.
    fn upto(&self, floor: Seq) -> Seq {
        let above = self.stage.hub.position().get() - floor.get();
        Seq(floor.get() + above * self.as_of / 4)
    }

    fn load_chat(&self, chat: ChatId) {
        let pin = self.stage.hub.pin();
        let loaded = self.stage.log.chat(chat, self.upto(pin.floor), pin.floor);
        assert_eq!(self.stage.hub.install_chat(loaded, pin.epoch), Ok(()));
    }

    fn load_user(&self, id: u64) {
        let pin = self.stage.hub.pin();
        let loaded = self.stage.log.user(user(id), self.upto(pin.floor));
        for chat in loaded.intervals.iter().map(|interval| interval.chat) {
            self.load_chat(chat);
        }
        while let Err(stale) = self.stage.hub.install_user(&loaded, pin.epoch) {
            let Stale::Chats(chats) = stale else { panic!("the pin keeps the ring") };
            chats.into_iter().for_each(|chat| self.load_chat(chat));
        }
    }

    /// The next piece of a device's catch-up, if its session is in one.
    fn catch_up(&mut self, at: usize) -> Piece {
        let session = self.devices[at].session.clone();
        if let Some(epoch) = self.away[at] {
            self.load_user(session.user().get());
            match self.stage.hub.reattach(&session, epoch) {
                Reattached::CatchUp => self.away[at] = None,
                Reattached::Cut => session.close(Close::Internal, 0),
                // The cut has closed it already.
                Reattached::Ended if session.closing().is_some() => {}
                other => panic!("{other:?}"),
            }
        }
        if session.closing().is_some() {
            self.come_back(at);
            return Piece::More;
        }
        let piece = self.stage.hub.advance(&session);
        if piece == Piece::BelowRing {
            let hub = &self.stage.hub;
            let (after, floor) = (session.fed(), hub.floor().seq);
            // A page of the projection, which has come as far as the hub.
            let upto = Seq(after.get() + 5).min(floor);
            let mut events = self.stage.log.rows(session.user(), after, hub.position());
            events.retain(|row| row.seq <= upto);
            let checkpoint = hub.position();
            hub.feed_rows(&session, &Rows { epoch: hub.epoch(), after, upto, checkpoint, events });
        }
        piece
    }

    /// The device drops without reading on, and comes back with its last cursor.
    fn come_back(&mut self, at: usize) {
        let former = &self.devices[at];
        former.session.end();
        self.stage.hub.detach(&former.session);
        assert!(former.twice.is_empty(), "{:?} came twice", former.twice);
        let session = self.stage.session(former.session.user().get());
        let mut device = former.restored(session.clone());
        let mut from = self.stage.opened(&device).unwrap();
        self.away[at] = None;
        loop {
            match self.stage.hub.attach(&session, Some(from)) {
                Attached::Live | Attached::CatchUp => break,
                Attached::Unknown => self.load_user(session.user().get()),
                Attached::Cut => {
                    let later = self.cuts.iter().filter(|(epoch, _)| *epoch > from.epoch);
                    let cut = later.map(|(_, cut)| *cut).min_by_key(|cut| cut.seq).unwrap();
                    let tip = self.stage.log.tip();
                    let memberships = self.stage.log.user(session.user(), tip).intervals;
                    let chats: Vec<ChatId> = memberships
                        .iter()
                        .filter(|interval| interval.reaches_above(cut.seq))
                        .map(|interval| interval.chat)
                        .collect();
                    let Some(carried) = self.stage.hub.carry_over(&session, from, cut, &chats) else {
                        self.load_user(session.user().get());
                        continue;
                    };
                    from = carried;
                    // A chat in which nothing is left of the user is not named: it is no longer in the chat list.
                    let has = self.stage.log.entitled(session.user(), from.position.seq);
                    for chat in (1..=CHATS).map(chat).filter(|chat| !chats.contains(chat)) {
                        let of_chat = has.iter().filter(|(of, _)| *of == chat);
                        device.refetch(chat, of_chat.map(|(_, seq)| *seq).collect());
                    }
                }
            }
        }
        self.devices[at] = device;
    }

    fn cut(&mut self, back: u64) {
        let former = self.stage.hub.epoch();
        let at = Seq(self.stage.log.tip().get().saturating_sub(back).max(CHATS));
        let sessions = self.stage.lose_tail(at);
        self.cuts.push((former + 1, self.stage.log.position(at)));
        self.wanted.clear();
        for (device, away) in self.devices.iter().zip(&mut self.away) {
            if sessions.iter().any(|session| session.id == device.session.id) {
                *away = Some(former + 1);
            }
        }
    }

    /// Everybody reads on until all are live.
    fn come_to_rest(&mut self) {
        while let Some(chat) = self.wanted.pop() {
            self.load_chat(chat);
        }
        for at in 0..self.devices.len() {
            loop {
                self.devices[at].reads(usize::MAX);
                if self.away[at].is_none() && self.devices[at].session.lane() == Lane::Live {
                    break;
                }
                let piece = self.catch_up(at);
                assert!(piece != Piece::Held, "every chat that was wanted is loaded");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_device_ends_with_exactly_what_its_user_is_entitled_to(
        steps in prop::collection::vec(step(), 1..150),
        ring_bytes in prop_oneof![Just(1_usize << 20), 1_000_usize..12_000],
        outbox_frames in prop_oneof![Just(1_024_usize), 1_usize..10],
        outbox_bytes in prop_oneof![Just(262_144_usize), 100_usize..2_000],
    ) {
        let mut world = World::new(ring_bytes, outbox_frames, outbox_bytes);
        for step in steps {
            world.happen(step);
        }
        world.come_to_rest();
        for device in &world.devices {
            prop_assert_eq!(device.has(), world.stage.log.entitled(device.session.user(), world.stage.log.tip()));
            prop_assert!(device.twice.is_empty(), "{:?} came twice", device.twice);
        }
    }
}
