//! `/v1/chats/{id}/members`: who is in a chat.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::{StatusCode, Uri};
use serde::Serialize;
use shared::{
    code::Code,
    id::{ChatId, UserId},
    permission::Role,
};
use utoipa::ToSchema;

use crate::{
    command::{Change, Command},
    feed::reads::Fresh,
    http::{
        answer::{
            pages::{self, Page},
            problem::Problem,
            refusals::{
                CommandToGroup, MemberNotAdded, MemberNotRemoved, MemberUnchanged, ReadInChat, WithBody,
            },
            schema::{self, RoleText},
            view::{Ack, Member, is_false},
        },
        request::{
            body::{FromFields, Unread},
            caller::{self, Caller, Client, Id},
            fields::Fields,
            lookup, page, rules,
        },
        services::Services,
    },
};

/// Members on a page if the caller does not say how many.
const PAGE: usize = 100;
const MAX_PAGE: usize = 500;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    members: Vec<Member>,
    /// Where the next page starts; null on the last one.
    next_page: Option<String>,
    /// Only if true: what was acked last may be missing.
    #[serde(skip_serializing_if = "is_false")]
    stale: bool,
}

impl Page for Members {
    type Item = Member;

    fn items(&self) -> &[Member] {
        &self.members
    }

    fn cut(&mut self, items: usize) {
        self.members.truncate(items);
        self.next_page = self.members.last().map(|member| page::of_members(member.user_id.get()));
    }
}

/// The members of a chat, by ascending id.
#[utoipa::path(get, path = "/v1/chats/{id}/members", tag = "chats", security(("accessToken" = [])), params(
    ("id" = inline(schema::Id), Path),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "100 by default"),
    ("page" = Option<String>, Query, description = "the `nextPage` of the page before"),
), responses(
    (status = 200, body = Members),
    ReadInChat,
))]
pub async fn list(
    State(services): State<Arc<Services>>,
    caller: Caller,
    Id(chat): Id<ChatId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(&uri);
    let limit = fields.optional("limit", rules::query_limit::<MAX_PAGE>).unwrap_or(PAGE);
    let after = fields.optional("page", page::members);
    fields.finish(Some(()))?;
    let after = after.and_then(|id| UserId::new(id).ok());
    let turn = pages::turn(&services, caller.user()).await?;
    let query = async || services.db.members(caller.user(), chat, after, limit).await;
    let Fresh { value, stale } = services.reads.fresh(query).await?;
    let found = value.ok_or(Code::ChatNotFound)?;
    let members = Members {
        members: found.members.into_iter().map(Member::from).collect(),
        next_page: found.next.map(|user| page::of_members(user.get())),
        stale,
    };
    pages::answer(turn, members).await
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct AddMembers {
    #[schema(value_type = Vec<schema::Id>, min_items = 1, max_items = 10000, example = json!([8, 9]))]
    user_ids: Vec<UserId>,
    /// `member` by default.
    #[schema(value_type = Option<RoleText>)]
    role: Option<Role>,
}

impl FromFields for AddMembers {
    fn read(fields: &mut Fields) -> Option<Self> {
        let user_ids = fields.required("userIds", rules::some_users);
        let role = fields.optional("role", rules::role);
        Some(Self { user_ids: user_ids?, role })
    }
}

/// Add members to a group, all or none.
#[utoipa::path(post, path = "/v1/chats/{id}/members", tag = "chats", security(("accessToken" = [])),
    request_body = AddMembers, params(("id" = inline(schema::Id), Path)), responses(
    (status = 200, body = Ack),
    WithBody, CommandToGroup, MemberNotAdded,
))]
pub async fn add(
    State(services): State<Arc<Services>>,
    caller: Caller,
    client: Client,
    Id(chat): Id<ChatId>,
    unread: Unread,
) -> Result<axum::Json<Ack>, Problem> {
    caller.may_command(&services).await?;
    let asked: AddMembers = unread.json().await?;
    let role = asked.role.unwrap_or(Role::Member);
    // Who may not add anybody is not told which of these ids exist.
    services.commands.may_join(&caller.actor(), chat, &asked.user_ids, role).await?;
    caller.may_add(&services, asked.user_ids.len()).await?;
    lookup::all_exist(&services, &caller, &client, "userIds", &asked.user_ids).await?;
    execute(&services, &caller, chat, Change::Join { users: asked.user_ids, role }).await
}

#[derive(ToSchema)]
pub struct ChangeRole {
    #[schema(value_type = RoleText)]
    role: Role,
}

impl FromFields for ChangeRole {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { role: fields.required("role", rules::role)? })
    }
}

/// Give a member of a group another role.
#[utoipa::path(patch, path = "/v1/chats/{id}/members/{userId}", tag = "chats", security(("accessToken" = [])),
    request_body = ChangeRole, params(("id" = inline(schema::Id), Path), ("userId" = inline(schema::Id), Path)), responses(
    (status = 200, body = Ack),
    WithBody, CommandToGroup, MemberUnchanged,
))]
pub async fn change_role(
    State(services): State<Arc<Services>>,
    caller: Caller,
    caller::Member { chat, user }: caller::Member,
    unread: Unread,
) -> Result<axum::Json<Ack>, Problem> {
    caller.may_command(&services).await?;
    let ChangeRole { role } = unread.json().await?;
    execute(&services, &caller, chat, Change::SetRole { user, role }).await
}

/// Remove a member from a group; oneself: leave it.
#[utoipa::path(delete, path = "/v1/chats/{id}/members/{userId}", tag = "chats", security(("accessToken" = [])),
    params(("id" = inline(schema::Id), Path), ("userId" = inline(schema::Id), Path)), responses(
    (status = 204),
    CommandToGroup, MemberUnchanged, MemberNotRemoved,
))]
pub async fn remove(
    State(services): State<Arc<Services>>,
    caller: Caller,
    caller::Member { chat, user }: caller::Member,
) -> Result<StatusCode, Problem> {
    caller.may_command(&services).await?;
    let _stored = execute(&services, &caller, chat, Change::Leave { user }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Executes a command that the caller gave no uuid for, and that was counted.
async fn execute(
    services: &Services,
    caller: &Caller,
    chat: ChatId,
    change: Change,
) -> Result<axum::Json<Ack>, Problem> {
    let uuid = services.commands.new_uuid();
    let stored = services.commands.execute(&caller.actor(), Command { chat, uuid, change }).await?;
    Ok(axum::Json(Ack::new(uuid, stored)))
}
