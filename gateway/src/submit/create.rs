//! Creating chats: one direct chat per pair of users under any race, one group per idempotency key.
//!
//! A claim in Postgres names the chat's id first, so that all who create the same chat use the same id. Then the
//! first event is appended on the condition that the chat has none. Invariant: a chat has one first event.

use shared::{
    code::Code,
    event::{ChatCreated, Event, Fact, History, MemberRole},
    id::{ChatId, UserId},
    permission::{ChatType, Role},
    text,
};
use streams::append::AppendError;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Commands, append::is_own, new_event, within_deadline};
use crate::{
    command::{Actor, Failure, NewGroup, Stored},
    hub::verdict::Key,
};

impl Commands {
    /// The direct chat of the actor and `peer`. It is created if the log has no chat under the pair's claim. The
    /// answer's `dup` says whether it existed. A pair needs no idempotency key; one
    /// that has made a group is refused.
    ///
    /// # Errors
    /// The refusal, or a temporary failure whose outcome is unknown.
    pub async fn create_direct(
        &self,
        actor: &Actor,
        peer: UserId,
        key: Option<Uuid>,
    ) -> Result<Stored, Failure> {
        within_deadline(async |deadline| {
            if peer == actor.user {
                return Err(Failure::refused(Code::RequestInvalid, "a direct chat has another member"));
            }
            if let Some(key) = key
                && self.db.group_of(actor.user, key).await?.is_some()
            {
                return Err(reused());
            }
            let chat = self.db.claim_direct_pair(actor.user, peer).await?;
            let members =
                [actor.user, peer].map(|user_id| MemberRole { user_id, role: Role::Member }).to_vec();
            let created =
                ChatCreated { chat_type: ChatType::Direct, title: None, history: History::All, members };
            self.create(chat, new_event(actor, self.new_uuid(), Fact::ChatCreated(created)), deadline).await
        })
        .await
    }

    /// A new group, or the one that this key of the actor made before: the answer's `dup` says so.
    ///
    /// # Errors
    /// As [`Commands::create_direct`]; `command.uuid_reused` if the key made a group that differs from this one.
    pub async fn create_group(&self, actor: &Actor, group: NewGroup) -> Result<Stored, Failure> {
        within_deadline(async |deadline| {
            let NewGroup { uuid, title, history, members: users } = group;
            let title = match title {
                Some(title) => Some(text::name(&title).ok_or_else(|| {
                    Failure::refused(
                        Code::RequestInvalid,
                        "title: one visible line of at most 128 characters",
                    )
                })?),
                None => None,
            };
            let chat = self.db.claim_group(actor.user, uuid).await?;
            self.has_room_to_create(chat, actor.user, &users).await?;
            let mut members = vec![MemberRole { user_id: actor.user, role: Role::Owner }];
            let others = users.iter().filter(|user| **user != actor.user);
            members.extend(others.map(|user_id| MemberRole { user_id: *user_id, role: Role::Member }));
            let created = ChatCreated { chat_type: ChatType::Group, title, history, members };
            let event = new_event(actor, uuid, Fact::ChatCreated(created));
            let stored = self.create(chat, event.clone(), deadline).await?;
            if stored.dup {
                self.is_the_same(chat, &event).await?;
            }
            Ok(stored)
        })
        .await
    }

    /// Refuses an idempotency key under which another group was asked for.
    async fn is_the_same(&self, chat: ChatId, asked: &Event) -> Result<(), Failure> {
        let first = self.look(chat, asked.actor, asked.uuid).await?.found;
        let same = first.is_none_or(|first| {
            Event::decode(&first.payload).is_ok_and(|first| is_alike(&first.fact, &asked.fact))
        });
        if same { Ok(()) } else { Err(reused()) }
    }

    /// Whether there is room for the group. If it exists already, a retry is not refused although its members may be
    /// in as many groups as they can be by now.
    async fn has_room_to_create(&self, chat: ChatId, owner: UserId, users: &[UserId]) -> Result<(), Failure> {
        let members: Vec<UserId> =
            std::iter::once(owner).chain(users.iter().copied().filter(|user| *user != owner)).collect();
        let Err(refusal) = self.has_room_for_new(owner, &members).await else { return Ok(()) };
        self.catch_barrier().await?;
        self.load(chat).await?;
        if self.existing(chat).is_some() { Ok(()) } else { Err(refusal) }
    }

    /// Appends the chat's first event, unless the chat exists.
    async fn create(&self, chat: ChatId, event: Event, deadline: Instant) -> Result<Stored, Failure> {
        self.load(chat).await?;
        if let Some(stored) = self.existing(chat) {
            return Ok(stored);
        }
        let begun_at = self.hub.position();
        match self.appender.append_first(chat, &event, deadline).await {
            Ok(appended) if !appended.duplicate || is_own(appended, begun_at) => {
                self.verdict(appended.seq, Key { chat, actor: event.actor, uuid: event.uuid }).await
            }
            Ok(_) | Err(AppendError::Exists) => {
                self.catch_barrier().await?;
                self.load(chat).await?;
                self.existing(chat).ok_or_else(Failure::log_unavailable)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn existing(&self, chat: ChatId) -> Option<Stored> {
        let head = self.hub.head_if_created(chat)?;
        Some(Stored { chat, seq: head, ts: 0, dup: true })
    }
}

fn reused() -> Failure {
    Failure::refused(Code::CommandUuidReused, Code::CommandUuidReused.title())
}

/// Whether two first events make the same chat. The order in which members were named means nothing.
fn is_alike(one: &Fact, other: &Fact) -> bool {
    let (Fact::ChatCreated(one), Fact::ChatCreated(other)) = (one, other) else { return false };
    let members = |created: &ChatCreated| {
        let mut members: Vec<(UserId, Role)> =
            created.members.iter().map(|member| (member.user_id, member.role)).collect();
        members.sort_unstable_by_key(|(user, _)| *user);
        members
    };
    one.chat_type == other.chat_type
        && one.title == other.title
        && one.history == other.history
        && members(one) == members(other)
}
