//! The validity of events: a pure fold over one chat's events in the log's order.
//!
//! Every reader of the log (each gateway, the projector, a rebuild) computes the same verdicts with this one
//! function. A verdict depends only on the event and on the chat's state: members, roles, settings and the last
//! deletions. A refused event changes nothing and is not part of the chat (no `prev` points to it).

mod deletions;
mod repeats;

use smallvec::SmallVec;

pub use self::{
    deletions::{Deletion, Deletions, KEPT, STALE},
    repeats::{is_copy, is_doubtful, judge},
};

use crate::{
    code::Code,
    event::{ChatCreated, Event, Fact, History, LeaveReason, MemberRole},
    id::{Seq, UserId},
    permission::{Action, ChatType, Role, allows},
};

/// The most members a chat can have, whatever the settings: a bound on the state of one chat (80 KB).
pub const MAX_MEMBERS: usize = 10_000;

/// The state of a chat by which its next event is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatState {
    pub chat_type: ChatType,
    pub history: History,
    pub members: Members,
    pub deletions: Deletions,
}

/// Members and roles, sorted by user. A member takes eight bytes, because gateways hold many of these lists. The two
/// members of a direct chat need no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(SmallVec<[u64; 2]>);

const ROLE_BITS: u32 = 2;

const fn pack(user: UserId, role: Role) -> u64 {
    (user.get() << ROLE_BITS) | role.bits()
}

impl Members {
    fn find(&self, user: UserId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&user.get(), |packed| packed >> ROLE_BITS)
    }

    pub fn role(&self, user: UserId) -> Option<Role> {
        let at = self.find(user).ok()?;
        self.0.get(at).map(|packed| Role::from_bits(packed & ((1 << ROLE_BITS) - 1)))
    }

    pub fn contains(&self, user: UserId) -> bool {
        self.find(user).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In ascending order of user ids.
    pub fn iter(&self) -> impl Iterator<Item = MemberRole> + '_ {
        self.0.iter().filter_map(|packed| unpack(*packed))
    }

    /// The user ids, ascending, without an allocation.
    pub fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        self.0.iter().filter_map(|packed| UserId::new(packed >> ROLE_BITS).ok())
    }

    fn set(&mut self, user: UserId, role: Role) {
        match self.find(user) {
            Ok(at) => self.0[at] = pack(user, role),
            Err(at) => self.0.insert(at, pack(user, role)),
        }
    }

    fn remove(&mut self, user: UserId) {
        if let Ok(at) = self.find(user) {
            self.0.remove(at);
        }
    }

    fn owners(&self) -> usize {
        self.0.iter().filter(|packed| *packed & ((1 << ROLE_BITS) - 1) == Role::Owner.bits()).count()
    }
}

fn unpack(packed: u64) -> Option<MemberRole> {
    let user_id = UserId::new(packed >> ROLE_BITS).ok()?;
    Some(MemberRole { user_id, role: Role::from_bits(packed & ((1 << ROLE_BITS) - 1)) })
}

impl FromIterator<MemberRole> for Members {
    /// A user that stands twice keeps the last role.
    fn from_iter<I: IntoIterator<Item = MemberRole>>(members: I) -> Self {
        let mut all: SmallVec<[u64; 2]> = members.into_iter().map(|m| pack(m.user_id, m.role)).collect();
        all.sort_by_key(|packed| packed >> ROLE_BITS);
        all.dedup_by(|later, earlier| {
            let same = *later >> ROLE_BITS == *earlier >> ROLE_BITS;
            if same {
                *earlier = *later;
            }
            same
        });
        all.shrink_to_fit();
        Self(all)
    }
}

/// Applies the event at `seq` to its chat's state.
///
/// # Errors
/// The code with which the event is refused; the state is then unchanged.
pub fn apply(chat: &mut Option<ChatState>, seq: Seq, event: &Event) -> Result<(), Code> {
    verdict(chat.as_ref(), event)?;
    match (&mut *chat, &event.fact) {
        (None, Fact::ChatCreated(created)) => *chat = Some(create(created)),
        (None, _) => {}
        (Some(state), fact) => change(state, seq, fact),
    }
    Ok(())
}

/// Whether the log's next event of a chat would be valid: [`apply`] without its effect.
///
/// # Errors
/// The code with which the event is refused.
pub fn verdict(chat: Option<&ChatState>, event: &Event) -> Result<(), Code> {
    let Some(state) = chat else {
        let Fact::ChatCreated(created) = &event.fact else { return Err(Code::ChatNotFound) };
        return creatable(created);
    };
    let role = state.members.role(event.actor).ok_or(Code::ChatNotFound)?;
    let may = |action| if allows(state.chat_type, role, action) { Ok(()) } else { Err(Code::ChatForbidden) };
    match &event.fact {
        Fact::ChatCreated(_) => Err(Code::CommandUuidReused),
        Fact::MessageSent(_) | Fact::Noop => may(Action::Speak),
        Fact::Reacted(reacted) => {
            may(Action::Speak)?;
            state.deletions.judge(reacted.seq, reacted.seen)
        }
        Fact::MessageEdited(edited) if edited.author != event.actor => Err(Code::MessageNotAuthor),
        Fact::MessageEdited(edited) => {
            may(Action::Speak)?;
            state.deletions.judge(edited.seq, edited.seen)
        }
        Fact::MessageDeleted(deleted) => {
            if deleted.author == event.actor {
                may(Action::Speak)?;
            } else {
                may(Action::DeleteOthers).map_err(|_| Code::MessageNotAuthor)?;
            }
            state.deletions.judge(deleted.seq, deleted.seen)
        }
        Fact::MembersJoined(joined) => {
            for member in &joined.members {
                may(Action::Add(member.role))?;
            }
            joinable(&state.members, &joined.members)
        }
        Fact::MemberLeft(left) => {
            let target = state.members.role(left.user_id).ok_or(Code::MemberNotFound)?;
            match (left.user_id == event.actor, left.reason) {
                (true, LeaveReason::Left) => may(Action::Leave)?,
                (false, LeaveReason::Removed) => may(Action::Remove(target))?,
                (true, LeaveReason::Removed) | (false, LeaveReason::Left) => {
                    return Err(Code::CommandInvalid);
                }
            }
            keeps_an_owner(&state.members, target, None)
        }
        Fact::RoleChanged(changed) => {
            let from = state.members.role(changed.user_id).ok_or(Code::MemberNotFound)?;
            let own = changed.user_id == event.actor;
            may(if own && changed.role <= from {
                Action::StepDown
            } else {
                Action::ChangeRole { from, to: changed.role }
            })?;
            keeps_an_owner(&state.members, from, Some(changed.role))
        }
        Fact::TitleChanged(_) | Fact::SettingsChanged(_) => may(Action::Configure),
    }
}

/// The effect of a valid event on a chat that exists.
fn change(state: &mut ChatState, seq: Seq, fact: &Fact) {
    match fact {
        Fact::MessageDeleted(deleted) => state.deletions.add(Deletion { target: deleted.seq, at: seq }),
        Fact::MembersJoined(joined) => {
            for member in &joined.members {
                state.members.set(member.user_id, member.role);
            }
        }
        Fact::MemberLeft(left) => state.members.remove(left.user_id),
        Fact::RoleChanged(changed) => state.members.set(changed.user_id, changed.role),
        Fact::SettingsChanged(changed) => state.history = changed.history,
        // Titles and messages are no part of the state, and a chat is created once.
        Fact::ChatCreated(_)
        | Fact::MessageSent(_)
        | Fact::MessageEdited(_)
        | Fact::Reacted(_)
        | Fact::TitleChanged(_)
        | Fact::Noop => {}
    }
}

fn creatable(created: &ChatCreated) -> Result<(), Code> {
    let members: Members = created.members.iter().copied().collect();
    let fits = match created.chat_type {
        ChatType::Direct => members.len() == 2,
        ChatType::Group => !members.is_empty(),
    };
    if !fits {
        return Err(Code::CommandInvalid);
    }
    if members.len() > MAX_MEMBERS { Err(Code::ChatFull) } else { Ok(()) }
}

fn create(created: &ChatCreated) -> ChatState {
    ChatState {
        chat_type: created.chat_type,
        history: created.history,
        members: created.members.iter().copied().collect(),
        deletions: Deletions::default(),
    }
}

/// All or none: a batch that names a present member, or a user twice, is refused whole.
fn joinable(members: &Members, joined: &[MemberRole]) -> Result<(), Code> {
    let mut users: Vec<UserId> = joined.iter().map(|member| member.user_id).collect();
    users.sort_unstable();
    users.dedup();
    if users.is_empty() || users.len() != joined.len() || users.iter().any(|user| members.contains(*user)) {
        return Err(Code::CommandInvalid);
    }
    if members.len() + joined.len() > MAX_MEMBERS { Err(Code::ChatFull) } else { Ok(()) }
}

/// Refuses a change after which a group has members but no owner: the last owner can neither step down nor leave before
/// the others. This holds for an owner who is alone as well, because others may join later.
fn keeps_an_owner(members: &Members, from: Role, to: Option<Role>) -> Result<(), Code> {
    let loses_last = from == Role::Owner && to != Some(Role::Owner) && members.owners() == 1;
    let some_stay = to.is_some() || members.len() > 1;
    if loses_last && some_stay { Err(Code::ChatLastOwner) } else { Ok(()) }
}
