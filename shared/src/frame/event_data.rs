//! What a durable event says to clients, and how it comes from the log's event.

use super::{Event, Message, ServerFrame};
use crate::{
    codec::{
        raw::Raw,
        sink::Sink,
        value::{Value, object},
    },
    event::{
        self, Fact, MemberLeft, MembersJoined, Mention, Reacted, RoleChanged, SettingsChanged, TitleChanged,
    },
    fold::Members,
    id::{ChatId, Seq, UserId},
    permission::ChatType,
};

/// The most member ids in one object: a screenful; the rest is paged over HTTP.
pub const MAX_MEMBER_IDS: usize = 100;

/// The `data` of an `Event`, by its `kind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventData {
    ChatCreated(ChatCreated),
    MemberJoined(MembersJoined),
    MemberLeft(MemberLeft),
    RoleChanged(RoleChanged),
    TitleChanged(TitleChanged),
    SettingsChanged(SettingsChanged),
    Edited(Edited),
    Deleted(Deleted),
    Reaction(Reacted),
    /// Nothing happened; it only takes its place in the order.
    Noop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatCreated {
    pub chat_type: ChatType,
    pub title: Option<String>,
    /// The first [`MAX_MEMBER_IDS`], ascending.
    pub member_ids: Vec<UserId>,
    pub member_count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    pub seq: Seq,
    pub body: String,
    pub mentions: Vec<Mention>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    pub seq: Seq,
}

object!(ChatCreated {
    chat_type => "type",
    title => "title",
    member_ids => "memberIds",
    member_count => "memberCount",
});
object!(Edited { seq => "seq", body => "body", mentions => "mentions" });
object!(Deleted { seq => "seq" });
object!(MembersJoined { members => "members" });
object!(MemberLeft { user_id => "userId", reason => "reason" });
object!(RoleChanged { user_id => "userId", role => "role" });
object!(TitleChanged { title => "title" });
object!(SettingsChanged { history => "history" });
object!(Reacted { seq => "seq", emoji => "emoji", on => "on" });

impl EventData {
    /// Every kind on the wire.
    pub const KINDS: [&'static str; 10] = [
        "chatCreated",
        "memberJoined",
        "memberLeft",
        "roleChanged",
        "titleChanged",
        "settingsChanged",
        "edited",
        "deleted",
        "reaction",
        "noop",
    ];

    /// The `kind` on the wire.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ChatCreated(_) => "chatCreated",
            Self::MemberJoined(_) => "memberJoined",
            Self::MemberLeft(_) => "memberLeft",
            Self::RoleChanged(_) => "roleChanged",
            Self::TitleChanged(_) => "titleChanged",
            Self::SettingsChanged(_) => "settingsChanged",
            Self::Edited(_) => "edited",
            Self::Deleted(_) => "deleted",
            Self::Reaction(_) => "reaction",
            Self::Noop => "noop",
        }
    }

    pub(crate) fn put(&self, sink: &mut impl Sink) {
        match self {
            Self::ChatCreated(data) => data.put(sink),
            Self::MemberJoined(data) => data.put(sink),
            Self::MemberLeft(data) => data.put(sink),
            Self::RoleChanged(data) => data.put(sink),
            Self::TitleChanged(data) => data.put(sink),
            Self::SettingsChanged(data) => data.put(sink),
            Self::Edited(data) => data.put(sink),
            Self::Deleted(data) => data.put(sink),
            Self::Reaction(data) => data.put(sink),
            Self::Noop => {
                sink.open_object(0);
                sink.close_object();
            }
        }
    }

    /// `None` also for a kind of a newer server.
    pub(crate) fn get(kind: &str, raw: Raw<'_>) -> Option<Self> {
        match kind {
            "chatCreated" => Value::get(raw).map(Self::ChatCreated),
            "memberJoined" => Value::get(raw).map(Self::MemberJoined),
            "memberLeft" => Value::get(raw).map(Self::MemberLeft),
            "roleChanged" => Value::get(raw).map(Self::RoleChanged),
            "titleChanged" => Value::get(raw).map(Self::TitleChanged),
            "settingsChanged" => Value::get(raw).map(Self::SettingsChanged),
            "edited" => Value::get(raw).map(Self::Edited),
            "deleted" => Value::get(raw).map(Self::Deleted),
            "reaction" => Value::get(raw).map(Self::Reaction),
            "noop" => raw.object(&[]).map(|_| Self::Noop),
            _ => None,
        }
    }
}

/// The frame that delivers an event of the log. `deleted`: the message that it sends or edits is deleted by now,
/// so that its content is withheld.
pub fn delivered(
    chat: ChatId,
    seq: Seq,
    prev: Seq,
    ts: u64,
    event: &event::Event,
    deleted: bool,
) -> ServerFrame {
    let content = |body: &String, mentions: &Vec<Mention>| {
        if deleted { (String::new(), Vec::new()) } else { (body.clone(), mentions.clone()) }
    };
    if let Fact::MessageSent(sent) = &event.fact {
        let (body, mentions) = content(&sent.body, &sent.mentions);
        let (uuid, from, reply_to) = (event.uuid, event.actor, sent.reply_to);
        return Message { chat_id: chat, seq, prev, uuid, from, body, ts, reply_to, mentions }.into();
    }
    let data = match &event.fact {
        Fact::MessageEdited(edited) => {
            let (body, mentions) = content(&edited.body, &edited.mentions);
            EventData::Edited(Edited { seq: edited.seq, body, mentions })
        }
        fact => data_of(fact),
    };
    Event { chat_id: chat, seq, prev, from: event.actor, ts, data }.into()
}

/// The data of the facts that show no message's content.
fn data_of(fact: &Fact) -> EventData {
    match fact {
        Fact::ChatCreated(created) => EventData::ChatCreated(chat_created(created)),
        Fact::MessageDeleted(deleted) => EventData::Deleted(Deleted { seq: deleted.seq }),
        Fact::Reacted(reacted) => EventData::Reaction(reacted.clone()),
        Fact::MembersJoined(joined) => EventData::MemberJoined(joined.clone()),
        Fact::MemberLeft(left) => EventData::MemberLeft(left.clone()),
        Fact::RoleChanged(changed) => EventData::RoleChanged(changed.clone()),
        Fact::TitleChanged(changed) => EventData::TitleChanged(changed.clone()),
        Fact::SettingsChanged(changed) => EventData::SettingsChanged(changed.clone()),
        Fact::MessageSent(_) | Fact::MessageEdited(_) | Fact::Noop => EventData::Noop,
    }
}

fn chat_created(created: &event::ChatCreated) -> ChatCreated {
    let members: Members = created.members.iter().copied().collect();
    ChatCreated {
        chat_type: created.chat_type,
        title: created.title.clone(),
        member_ids: members.users().take(MAX_MEMBER_IDS).collect(),
        member_count: members.len() as u64,
    }
}
