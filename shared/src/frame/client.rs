//! The frames that clients send.
//!
//! Every command may carry a `uuid`, and an error about the command repeats it. A `uuid` that is no idempotency key
//! is optional and is the last field.

use uuid::Uuid;

use super::server::{Ping, Pong, PresenceState};
use crate::{
    event::Mention,
    id::{ChatId, Seq, UserId},
    value::Fault,
};

frame! {
    /// Send a message; `uuid` makes retries safe.
    SendMessage = 32, "SendMessage" {
        uuid: Uuid => "uuid",
        chat_id: ChatId => "chatId",
        body: String => "body",
        reply_to: Option<Seq> => "replyTo",
        mentions: Vec<Mention> => "mentions" or_empty,
    }
}

frame! {
    /// Replace the body of one's own message.
    EditMessage = 33, "EditMessage" {
        uuid: Uuid => "uuid",
        chat_id: ChatId => "chatId",
        seq: Seq => "seq",
        body: String => "body",
        mentions: Vec<Mention> => "mentions" or_empty,
    }
}

frame! {
    /// Delete a message.
    DeleteMessage = 34, "DeleteMessage" {
        uuid: Uuid => "uuid",
        chat_id: ChatId => "chatId",
        seq: Seq => "seq",
    }
}

frame! {
    /// Put a reaction on a message, or take it off.
    React = 35, "React" {
        uuid: Uuid => "uuid",
        chat_id: ChatId => "chatId",
        seq: Seq => "seq",
        emoji: String => "emoji",
        on: bool => "on",
    }
}

frame! {
    /// Everything up to `seq` was read.
    Read = 36, "Read" {
        chat_id: ChatId => "chatId",
        seq: Seq => "seq",
        uuid: Option<Uuid> => "uuid",
    }
}

frame! {
    /// Everything that the cursor covers has arrived on the device.
    Delivered = 37, "Delivered" {
        cursor: String => "cursor",
        uuid: Option<Uuid> => "uuid",
    }
}

frame! {
    /// Ask for a page of a chat's events, on one side of a sequence.
    Fetch = 38, "Fetch" {
        uuid: Uuid => "uuid",
        chat_id: ChatId => "chatId",
        after: Option<Seq> => "after",
        limit: Option<u32> => "limit",
        before: Option<Seq> => "before",
    }
}

frame! {
    /// The user is typing.
    Typing = 39, "Typing" {
        chat_id: ChatId => "chatId",
        uuid: Option<Uuid> => "uuid",
    }
}

frame! {
    /// The users whose presence the server reports from now on; replaces the set before.
    WatchPresence = 40, "WatchPresence" {
        user_ids: Vec<UserId> => "userIds",
        uuid: Option<Uuid> => "uuid",
    }
}

frame! {
    /// The user says of themselves whether they are there.
    SetPresence = 41, "SetPresence" {
        state: PresenceState => "state",
        uuid: Option<Uuid> => "uuid",
    }
}

frame! {
    /// A new access token for this session.
    Auth = 42, "Auth" {
        token: String => "token",
        uuid: Option<Uuid> => "uuid",
    }
}

frames! {
    /// Any frame that a client sends.
    ClientFrame {
        SendMessage(SendMessage),
        EditMessage(EditMessage),
        DeleteMessage(DeleteMessage),
        React(React),
        Read(Read),
        Delivered(Delivered),
        Fetch(Fetch),
        Typing(Typing),
        WatchPresence(WatchPresence),
        SetPresence(SetPresence),
        Auth(Auth),
        Ping(Ping),
        Pong(Pong),
    }
}

impl ClientFrame {
    /// The uuid that the answer to the command, or its error, repeats.
    pub const fn uuid(&self) -> Option<Uuid> {
        match self {
            Self::SendMessage(SendMessage { uuid, .. })
            | Self::EditMessage(EditMessage { uuid, .. })
            | Self::DeleteMessage(DeleteMessage { uuid, .. })
            | Self::React(React { uuid, .. })
            | Self::Fetch(Fetch { uuid, .. }) => Some(*uuid),
            Self::Read(Read { uuid, .. })
            | Self::Delivered(Delivered { uuid, .. })
            | Self::Typing(Typing { uuid, .. })
            | Self::WatchPresence(WatchPresence { uuid, .. })
            | Self::SetPresence(SetPresence { uuid, .. })
            | Self::Auth(Auth { uuid, .. }) => *uuid,
            Self::Ping(_) | Self::Pong(_) => None,
        }
    }

    /// The first field with a value of the right type that a client must not send.
    pub(crate) fn out_of_range(&self) -> Option<Fault> {
        let (field, seq) = match self {
            Self::EditMessage(EditMessage { seq, .. })
            | Self::DeleteMessage(DeleteMessage { seq, .. })
            | Self::React(React { seq, .. })
            | Self::Read(Read { seq, .. }) => ("seq", Some(*seq)),
            Self::SendMessage(send) => ("replyTo", send.reply_to),
            Self::Fetch(fetch) => ("before", fetch.before),
            Self::SetPresence(SetPresence { state: PresenceState::Offline, .. }) => {
                return Some(Fault { field: "state", missing: false, expected: "online or away" });
            }
            Self::SetPresence(SetPresence { state: PresenceState::Online | PresenceState::Away, .. })
            | Self::Delivered(_)
            | Self::Typing(_)
            | Self::WatchPresence(_)
            | Self::Auth(_)
            | Self::Ping(_)
            | Self::Pong(_) => return None,
        };
        // No event has sequence 0. Only `after` may be 0: "from the start".
        let expected = "an integer from 1 to 2^53-1";
        (seq == Some(Seq::ZERO)).then_some(Fault { field, missing: false, expected })
    }
}
