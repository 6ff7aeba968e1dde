//! The projector's side: the rows of a batch, and the one transaction that writes them with the checkpoint.
//!
//! A [`Writer`] is a session of its own that holds the partition's advisory lock. The lock keeps two projectors from
//! doing the same work; what keeps rows right is the compare-and-set of the checkpoint in every transaction.
//!
//! A table, or a group of tables that change together, is one file: its row types, the statements that write and take
//! back, and which of its columns are the same in two projections of one log. `groups.rs` lists them. The rooms from the
//! top: `write, refold > session > fold > groups > chats, memberships, messages, refused, dead_letters,
//! ahead > events > row, table`.

mod ahead;
mod chats;
mod dead_letters;
mod events;
mod fold;
mod groups;
mod memberships;
mod messages;
mod refold;
mod refused;
mod row;
mod session;
mod table;

mod write;

pub use self::{
    ahead::AheadCommand,
    chats::{ChatChange, ChatRows, NewChat},
    dead_letters::DeadLetter,
    events::NewEvent,
    groups::Rows,
    memberships::{Closed, MembershipRows, Opened, Origin, OwnMark},
    messages::Overlay,
    refused::Refused,
    session::{StoredChat, Writer},
    write::Written,
};
pub(crate) use self::{
    groups::{tables, take_back},
    table::{Compared, Transaction},
};
pub use crate::commands::Key;
