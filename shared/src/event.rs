//! Events: the accepted facts in the log, and their bytes.
//!
//! The bytes are a MessagePack array `[version, kind, actor, device, uuid, data]`; `data` is an array of the kind's
//! fields. Later versions append fields to `data` and never reorder them, and the golden files of every version decode
//! for ever. An event whose gateway has looked for an earlier copy has a seventh element, [`Event::unique_as_of`]. An
//! event holds neither its chat, which is part of the NATS subject, nor its time, which JetStream assigns.
//!
//! A field that changes how events are judged needs a new version, because an older reader must stop before such an
//! event. An event is written in the oldest version that can hold it, so a reader that is one version behind stops as
//! late as it can.

use rmp::decode::{read_array_len, read_bin_len, read_int, read_str_len, read_u64};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    emoji::emoji,
    id::{Seq, UserId},
    permission::{ChatType, Role},
};

/// The newest version. This build reads it and all before.
pub const VERSION: u8 = 2;
/// The first version.
const FIRST: u8 = 1;
/// The version in which an edit, a deletion or a reaction says up to where its gateway had looked for a deletion.
const LOOKED_FOR_DELETIONS: u8 = 2;

/// One fact, and the user who caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub actor: UserId,
    /// The label of the device that sent the command, for operators only; empty if the server made the event.
    pub device: String,
    /// The client's idempotency key, unique per (actor, chat).
    pub uuid: Uuid,
    pub fact: Fact,
    /// Up to here the gateway had looked for an earlier event of the same actor, chat and uuid, and found none. `None`:
    /// it had not looked, because the log's dedupe window covers every attempt with such a uuid.
    pub unique_as_of: Option<Seq>,
}

/// How far back a member may read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum History {
    /// Members read everything.
    #[default]
    All,
    /// Members read from their join on.
    Join,
}

impl History {
    /// The text on the wire and in Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Join => "join",
        }
    }

    /// The inverse of [`History::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::All, Self::Join].into_iter().find(|history| history.as_str() == text)
    }
}

/// Why a member left a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaveReason {
    Left,
    Removed,
}

impl LeaveReason {
    /// The text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Removed => "removed",
        }
    }

    /// The inverse of [`LeaveReason::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Left, Self::Removed].into_iter().find(|reason| reason.as_str() == text)
    }
}

/// A member, with the role that they got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRole {
    pub user_id: UserId,
    pub role: Role,
}

/// A mention in a message's body; offsets in UTF-16 units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mention {
    pub user_id: UserId,
    pub start: u32,
    pub length: u32,
}

/// The accepted change. `author` in the message facts is the author of the target message, who never changes. The
/// gateway looks the author up before the append, and the fold trusts it, because the fold knows chats but no
/// messages.
///
/// A message can be deleted at any time, so that fact can't be looked up once. `seen` in a fact about a message says up
/// to which entry of the log its gateway had looked for a deletion, and the fold knows the later ones. `None`: the event
/// is of version 1, and the fold trusts the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    ChatCreated(ChatCreated),
    MessageSent(MessageSent),
    MessageEdited(MessageEdited),
    MessageDeleted(MessageDeleted),
    Reacted(Reacted),
    MembersJoined(MembersJoined),
    MemberLeft(MemberLeft),
    RoleChanged(RoleChanged),
    TitleChanged(TitleChanged),
    SettingsChanged(SettingsChanged),
    /// Proves that a partition's log accepts writes; it is appended to subject 0, which is no chat.
    Noop,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatCreated {
    pub chat_type: ChatType,
    pub title: Option<String>,
    pub history: History,
    pub members: Vec<MemberRole>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSent {
    pub body: String,
    pub reply_to: Option<Seq>,
    pub mentions: Vec<Mention>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageEdited {
    pub seq: Seq,
    pub author: UserId,
    pub body: String,
    pub mentions: Vec<Mention>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seq>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageDeleted {
    pub seq: Seq,
    pub author: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seq>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reacted {
    pub seq: Seq,
    pub emoji: String,
    pub on: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seq>,
}

impl Reacted {
    /// With the emoji in its canonical form: earlier builds stored it as it was typed. A text that is no emoji stays as
    /// it is, because Unicode's data may lack what another build took.
    fn canonical(mut self) -> Self {
        if let Some(canonical) = emoji(&self.emoji).filter(|canonical| *canonical != self.emoji) {
            canonical.clone_into(&mut self.emoji);
        }
        self
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersJoined {
    pub members: Vec<MemberRole>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLeft {
    pub user_id: UserId,
    pub reason: LeaveReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChanged {
    pub user_id: UserId,
    pub role: Role,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TitleChanged {
    pub title: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChanged {
    pub history: History,
}

/// Declares [`Kind`] and [`Kind::ALL`] from one list, so that neither can lack a kind.
macro_rules! kinds {
    ($($kind:ident = $number:literal),* $(,)?) => {
        /// The kind of a fact. Its number stands in the log and in Postgres, and is never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($kind = $number,)*
        }

        impl Kind {
            /// Every kind, in the order of their numbers.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$kind),*];
        }
    };
}

kinds! {
    Noop = 0,
    ChatCreated = 1,
    MessageSent = 2,
    MessageEdited = 3,
    MessageDeleted = 4,
    Reacted = 5,
    MembersJoined = 6,
    MemberLeft = 7,
    RoleChanged = 8,
    TitleChanged = 9,
    SettingsChanged = 10,
}

impl Kind {
    pub const fn number(self) -> u8 {
        self as u8
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// As Postgres stores it.
    pub const fn as_i16(self) -> i16 {
        self as i16
    }

    /// The inverse of [`Kind::as_i16`].
    pub fn from_i16(number: i16) -> Option<Self> {
        u8::try_from(number).ok().and_then(Self::from_number)
    }

    /// Whether events of this kind may name an earlier message. See [`Fact::names`].
    pub const fn may_name(self) -> bool {
        match self {
            Self::MessageSent | Self::MessageEdited | Self::MessageDeleted | Self::Reacted => true,
            Self::Noop
            | Self::ChatCreated
            | Self::MembersJoined
            | Self::MemberLeft
            | Self::RoleChanged
            | Self::TitleChanged
            | Self::SettingsChanged => false,
        }
    }

    /// Whether events of this kind add or remove members of a chat.
    pub const fn changes_members(self) -> bool {
        match self {
            Self::ChatCreated | Self::MembersJoined | Self::MemberLeft => true,
            Self::Noop
            | Self::MessageSent
            | Self::MessageEdited
            | Self::MessageDeleted
            | Self::Reacted
            | Self::RoleChanged
            | Self::TitleChanged
            | Self::SettingsChanged => false,
        }
    }
}

impl Fact {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::ChatCreated(_) => Kind::ChatCreated,
            Self::MessageSent(_) => Kind::MessageSent,
            Self::MessageEdited(_) => Kind::MessageEdited,
            Self::MessageDeleted(_) => Kind::MessageDeleted,
            Self::Reacted(_) => Kind::Reacted,
            Self::MembersJoined(_) => Kind::MembersJoined,
            Self::MemberLeft(_) => Kind::MemberLeft,
            Self::RoleChanged(_) => Kind::RoleChanged,
            Self::TitleChanged(_) => Kind::TitleChanged,
            Self::SettingsChanged(_) => Kind::SettingsChanged,
            Self::Noop => Kind::Noop,
        }
    }

    /// Up to where the gateway had looked for a deletion of the message that the fact is about.
    const fn seen(&self) -> Option<Seq> {
        match self {
            Self::MessageEdited(edited) => edited.seen,
            Self::MessageDeleted(deleted) => deleted.seen,
            Self::Reacted(reacted) => reacted.seen,
            Self::ChatCreated(_)
            | Self::MessageSent(_)
            | Self::MembersJoined(_)
            | Self::MemberLeft(_)
            | Self::RoleChanged(_)
            | Self::TitleChanged(_)
            | Self::SettingsChanged(_)
            | Self::Noop => None,
        }
    }

    /// The earlier message that the fact answers, edits, deletes or reacts to.
    pub const fn names(&self) -> Option<Seq> {
        match self {
            Self::MessageSent(sent) => sent.reply_to,
            Self::MessageEdited(edited) => Some(edited.seq),
            Self::MessageDeleted(deleted) => Some(deleted.seq),
            Self::Reacted(reacted) => Some(reacted.seq),
            Self::ChatCreated(_)
            | Self::MembersJoined(_)
            | Self::MemberLeft(_)
            | Self::RoleChanged(_)
            | Self::TitleChanged(_)
            | Self::SettingsChanged(_)
            | Self::Noop => None,
        }
    }

    /// The oldest version that can hold the fact.
    const fn version(&self) -> u8 {
        if self.seen().is_some() { LOOKED_FOR_DELETIONS } else { FIRST }
    }
}

/// Why bytes from the log could not be read as an event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A newer build wrote the event. The reader must stop and alert, never skip it.
    #[error("event version {0} is newer than this build")]
    UnknownVersion(u8),
    /// The kind is that of a newer build. The reader must stop and alert, never skip it.
    #[error("event kind {0} is newer than this build")]
    UnknownKind(u8),
    /// The bytes are no event. Every reader skips them.
    #[error("corrupt event: {0}")]
    Corrupt(&'static str),
}

impl DecodeError {
    /// Whether every reader, of this build or a later one, finds the same.
    pub const fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt(_))
    }
}

const FIELDS: u32 = 6;
/// The bytes of [`Event::unique_as_of`]: always a `u64` of full width, so that it is found from the end of the event
/// without reading `data`.
const AS_OF_BYTES: usize = 9;

impl Event {
    /// The event as the log stores it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.body_len());
        infallible(self.write(&mut out));
        out
    }

    /// Roughly the bytes of `data`, so that the buffer seldom grows.
    fn body_len(&self) -> usize {
        match &self.fact {
            Fact::MessageSent(sent) => sent.body.len() + sent.mentions.len() * 32,
            Fact::MessageEdited(edited) => edited.body.len() + edited.mentions.len() * 32,
            Fact::ChatCreated(created) => created.members.len() * 20,
            Fact::MembersJoined(joined) => joined.members.len() * 20,
            Fact::MessageDeleted(_)
            | Fact::Reacted(_)
            | Fact::MemberLeft(_)
            | Fact::RoleChanged(_)
            | Fact::TitleChanged(_)
            | Fact::SettingsChanged(_)
            | Fact::Noop => 32,
        }
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeFailure> {
        let fields = FIELDS + u32::from(self.unique_as_of.is_some());
        rmp::encode::write_array_len(out, fields).map_err(|_| EncodeFailure)?;
        rmp::encode::write_uint(out, self.fact.version().into()).map_err(|_| EncodeFailure)?;
        rmp::encode::write_uint(out, self.fact.kind().number().into()).map_err(|_| EncodeFailure)?;
        rmp::encode::write_uint(out, self.actor.get()).map_err(|_| EncodeFailure)?;
        rmp::encode::write_str(out, &self.device).map_err(|_| EncodeFailure)?;
        rmp::encode::write_bin(out, self.uuid.as_bytes()).map_err(|_| EncodeFailure)?;
        match &self.fact {
            Fact::ChatCreated(data) => put(out, data),
            Fact::MessageSent(data) => put(out, data),
            Fact::MessageEdited(data) => put(out, data),
            Fact::MessageDeleted(data) => put(out, data),
            Fact::Reacted(data) => put(out, data),
            Fact::MembersJoined(data) => put(out, data),
            Fact::MemberLeft(data) => put(out, data),
            Fact::RoleChanged(data) => put(out, data),
            Fact::TitleChanged(data) => put(out, data),
            Fact::SettingsChanged(data) => put(out, data),
            Fact::Noop => put(out, &()),
        }?;
        match self.unique_as_of {
            Some(seq) => rmp::encode::write_u64(out, seq.get()).map_err(|_| EncodeFailure),
            None => Ok(()),
        }
    }

    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (head, data) = Head::read(bytes)?;
        let fact = match head.kind {
            Kind::ChatCreated => Fact::ChatCreated(get(data)?),
            Kind::MessageSent => Fact::MessageSent(get(data)?),
            Kind::MessageEdited => Fact::MessageEdited(get(data)?),
            Kind::MessageDeleted => Fact::MessageDeleted(get(data)?),
            Kind::Reacted => Fact::Reacted(get::<Reacted>(data)?.canonical()),
            Kind::MembersJoined => Fact::MembersJoined(get(data)?),
            Kind::MemberLeft => Fact::MemberLeft(get(data)?),
            Kind::RoleChanged => Fact::RoleChanged(get(data)?),
            Kind::TitleChanged => Fact::TitleChanged(get(data)?),
            Kind::SettingsChanged => Fact::SettingsChanged(get(data)?),
            Kind::Noop => get(data).map(|()| Fact::Noop)?,
        };
        let Head { actor, device, uuid, unique_as_of, kind: _ } = head;
        Ok(Self { actor, device: device.to_owned(), uuid, fact, unique_as_of })
    }
}

/// The fields that all events share, read without touching `data`. A gateway needs no more of an event that none of
/// its devices wants.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub kind: Kind,
    pub actor: UserId,
    pub device: &'a str,
    pub uuid: Uuid,
    /// See [`Event::unique_as_of`].
    pub unique_as_of: Option<Seq>,
}

impl<'a> Head<'a> {
    /// The head, and the bytes of `data`.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let corrupt = DecodeError::Corrupt;
        let mut rest = bytes;
        let fields = read_array_len(&mut rest).map_err(|_| corrupt("no array"))?;
        let version: u8 = read_int(&mut rest).map_err(|_| corrupt("no version"))?;
        match version {
            0 => return Err(corrupt("version 0")),
            FIRST..=VERSION => {}
            newer => return Err(DecodeError::UnknownVersion(newer)),
        }
        if fields < FIELDS {
            return Err(corrupt("too few fields"));
        }
        let kind: u8 = read_int(&mut rest).map_err(|_| corrupt("no kind"))?;
        let kind = Kind::from_number(kind).ok_or(DecodeError::UnknownKind(kind))?;
        let actor: u64 = read_int(&mut rest).map_err(|_| corrupt("no actor"))?;
        let actor = UserId::new(actor).map_err(|_| corrupt("actor is no id"))?;
        let length = read_str_len(&mut rest).map_err(|_| corrupt("no device"))?;
        let device = take(&mut rest, length as usize)?;
        let device = std::str::from_utf8(device).map_err(|_| corrupt("device is not UTF-8"))?;
        if read_bin_len(&mut rest).map_err(|_| corrupt("no uuid"))? != 16 {
            return Err(corrupt("uuid is not 16 bytes"));
        }
        let uuid = Uuid::from_slice(take(&mut rest, 16)?).map_err(|_| corrupt("uuid"))?;
        let mut unique_as_of = None;
        if fields > FIELDS {
            let data = rest.len().checked_sub(AS_OF_BYTES).ok_or(corrupt("cut short"))?;
            let mut as_of = rest.split_off(data..).ok_or(corrupt("cut short"))?;
            unique_as_of = Some(Seq(read_u64(&mut as_of).map_err(|_| corrupt("as of is no sequence"))?));
        }
        Ok((Self { kind, actor, device, uuid, unique_as_of }, rest))
    }
}

/// rmp's error. Its only cause is the writer, and a `Vec` takes every write.
struct EncodeFailure;

/// Drops the result of writing an event into a `Vec`, which cannot fail.
fn infallible(_: Result<(), EncodeFailure>) {}

fn put<T: Serialize>(out: &mut Vec<u8>, data: &T) -> Result<(), EncodeFailure> {
    rmp_serde::encode::write(out, data).map_err(|_| EncodeFailure)
}

fn get<T: DeserializeOwned>(data: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(data).map_err(|_| DecodeError::Corrupt("data does not fit the kind"))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (taken, left) = rest.split_at_checked(length).ok_or(DecodeError::Corrupt("cut short"))?;
    *rest = left;
    Ok(taken)
}
