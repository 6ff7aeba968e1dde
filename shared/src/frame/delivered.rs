//! The log's events as the frames that clients get.

use super::{
    event_data::{ChatCreated, Deleted, Edited, EventData, Reaction},
    server::{Event, Message, ServerFrame},
};
use crate::{
    event::{self, Fact, Mention},
    fold::Members,
    id::{ChatId, Seq},
};

/// The most member ids in one object: a screenful; the rest is paged over HTTP.
pub const MAX_MEMBER_IDS: usize = 100;

/// The frame that delivers an event of the log. `deleted` says that the message which the event sends or edits is
/// deleted by now; its content is then withheld.
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
    let data = match &event.fact {
        Fact::MessageSent(sent) => {
            let (body, mentions) = content(&sent.body, &sent.mentions);
            let (uuid, from, reply_to) = (event.uuid, event.actor, sent.reply_to);
            return Message { chat_id: chat, seq, prev, uuid, from, body, ts, reply_to, mentions }.into();
        }
        Fact::MessageEdited(edited) => {
            let (body, mentions) = content(&edited.body, &edited.mentions);
            EventData::Edited(Edited { seq: edited.seq, body, mentions })
        }
        Fact::MessageDeleted(deleted) => EventData::Deleted(Deleted { seq: deleted.seq }),
        Fact::Reacted(event::Reacted { seq, emoji, on, seen: _ }) => {
            EventData::Reaction(Reaction { seq: *seq, emoji: emoji.clone(), on: *on })
        }
        Fact::ChatCreated(created) => EventData::ChatCreated(chat_created(created)),
        Fact::MembersJoined(joined) => EventData::MemberJoined(joined.clone()),
        Fact::MemberLeft(left) => EventData::MemberLeft(left.clone()),
        Fact::RoleChanged(changed) => EventData::RoleChanged(changed.clone()),
        Fact::TitleChanged(changed) => EventData::TitleChanged(changed.clone()),
        Fact::SettingsChanged(changed) => EventData::SettingsChanged(changed.clone()),
        Fact::Noop => EventData::Noop(()),
    };
    Event { chat_id: chat, seq, prev, from: event.actor, ts, data }.into()
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
