//! How the ids, words and small objects of the vocabulary stand in the fields of frames.

use crate::{
    event::{History, LeaveReason, MemberRole, Mention},
    id::{ChatId, MAX_ID, Seq, UserId},
    permission::{ChatType, Role},
    value::{integer, object, word},
};

integer!(UserId, "an integer from 1 to 2^53-1", |number| Self::new(number).ok(), UserId::get);
integer!(ChatId, "an integer from 1 to 2^53-1", |number| Self::new(number).ok(), ChatId::get);
integer!(Seq, "an integer from 0 to 2^53-1", |number| (number <= MAX_ID).then_some(Self(number)), Seq::get);
integer!(
    ChatType,
    "1 (direct) or 2 (group)",
    |number| number.try_into().ok().and_then(Self::from_number),
    |chat_type| chat_type.number().into()
);

word!(Role, "owner, admin or member");
word!(History, "all or join");
word!(LeaveReason, "left or removed");

object!(Mention { user_id => "userId", start => "start", length => "length" });
object!(MemberRole { user_id => "userId", role => "role" });
