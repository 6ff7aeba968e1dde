//! `/v1/chats`: the caller's chats.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use shared::{
    code::Code,
    cursor::Cursor,
    event::History,
    fold::MAX_MEMBERS,
    id::{ChatId, Seq, UserId},
    permission::{ChatType, Role},
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    command::{Change, Command, NewGroup, Stored},
    feed::reads::Fresh,
    http::{
        answer::{
            pages::{self, Page},
            problem::Problem,
            refusals::{
                ChatNotCreated, CommandToGroup, Invalid, Limited, PagesFull, ReadInChat, Unauthenticated,
                WithBody,
            },
            schema::{self, ChatTypeNumber, HistoryText, Name},
            view::{Chat, is_false},
        },
        request::{
            body::{FromFields, Unread},
            caller::{Caller, Client, Id},
            fields::Fields,
            lookup, page, rules,
        },
        services::Services,
    },
    infra::pages::{STORED_BYTES, Turn},
};

/// Chats on a page if the caller does not say how many.
const PAGE: usize = 50;
const MAX_PAGE: usize = 200;
/// Members that are listed in the view of a chat.
const SHOWN_MEMBERS: usize = 100;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chats {
    chats: Vec<Chat>,
    /// Connect with it to get all that happens after this answer.
    cursor: String,
    /// Where the next page starts; null on the last one.
    next_page: Option<String>,
    /// Only if true: what was acked last may be missing.
    #[serde(skip_serializing_if = "is_false")]
    stale: bool,
}

impl Page for Chats {
    type Item = Chat;

    fn items(&self) -> &[Chat] {
        &self.chats
    }

    fn cut(&mut self, items: usize) {
        self.chats.truncate(items);
        self.next_page = self.chats.last().map(|chat| page::of_chats(chat.last_seq.get()));
    }
}

/// The caller's chats, those with the newest activity first.
#[utoipa::path(get, path = "/v1/chats", tag = "chats", security(("accessToken" = [])), params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "50 by default"),
    ("page" = Option<String>, Query, description = "the `nextPage` of the page before"),
), responses(
    (status = 200, body = Chats),
    Unauthenticated, Invalid, Limited, PagesFull,
))]
pub async fn list(
    State(services): State<Arc<Services>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(&uri);
    let limit = fields.optional("limit", rules::query_limit::<MAX_PAGE>).unwrap_or(PAGE);
    let before = fields.optional("page", page::chats).map(Seq);
    fields.finish(Some(()))?;
    let user = caller.user();
    let turn = pages::turn(&services, user).await?;
    let query = async || {
        let (checkpoint, found) = services.db.chats(user, before, limit, STORED_BYTES).await?;
        Ok((checkpoint, (checkpoint, found)))
    };
    let Fresh { value: (checkpoint, found), stale } = services.reads.fresh(query).await?;
    let cursor = Cursor { epoch: checkpoint.epoch, position: checkpoint.position };
    let chats = Chats {
        chats: found.chats.into_iter().map(Chat::from).collect(),
        cursor: services.hub.sealer.seal(user, cursor),
        next_page: found.next.map(|seq| page::of_chats(seq.get())),
        stale,
    };
    pages::answer(turn, chats).await
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CreateChat {
    #[schema(value_type = ChatTypeNumber)]
    r#type: ChatType,
    /// The others; the caller is always a member.
    #[schema(value_type = Vec<schema::Id>, max_items = 10000, example = json!([8, 9]))]
    member_ids: Vec<UserId>,
    /// Of a group.
    #[schema(value_type = Option<Name>)]
    title: Option<String>,
    /// Of a group; `all` by default.
    #[schema(value_type = Option<HistoryText>)]
    history: Option<History>,
}

impl FromFields for CreateChat {
    fn read(fields: &mut Fields) -> Option<Self> {
        let chat_type = fields.required("type", rules::chat_type);
        let member_ids = fields.required("memberIds", rules::users);
        let title = fields.optional("title", rules::name);
        let history = fields.optional("history", rules::history);
        if chat_type == Some(ChatType::Direct) {
            for name in ["title", "history"] {
                if fields.has(name) {
                    fields.refuse(name, "out_of_range");
                }
            }
        }
        Some(Self { r#type: chat_type?, member_ids: member_ids?, title, history })
    }
}

/// Create a chat, or find the direct one that exists.
#[utoipa::path(post, path = "/v1/chats", tag = "chats", security(("accessToken" = [])), request_body = CreateChat, params(
    ("Idempotency-Key" = Option<Uuid>, Header, description = "the same key creates the same group once; with another body it is refused"),
), responses(
    (status = 201, body = Chat, headers(("Location"))),
    (status = 200, description = "it exists", body = Chat),
    Unauthenticated, Limited, WithBody, ChatNotCreated,
))]
pub async fn create(
    State(services): State<Arc<Services>>,
    caller: Caller,
    client: Client,
    headers: HeaderMap,
    unread: Unread,
) -> Result<Response, Problem> {
    caller.may_command(&services).await?;
    let key = idempotency_key(&headers)?;
    let mut asked: CreateChat = unread.json().await?;
    asked.member_ids.retain(|user| *user != caller.user());
    if asked.r#type == ChatType::Direct && asked.member_ids.len() != 1 {
        return Err(not_one_peer());
    }
    caller.may_add(&services, asked.member_ids.len() + 1).await?;
    lookup::all_exist(&services, &caller, &client, "memberIds", &asked.member_ids).await?;
    // Waited for before anything is created, so that whoever is refused has created nothing.
    let turn = pages::turn(&services, caller.user()).await?;
    let stored = create_one(&services, &caller, &asked, key).await?;
    let chat = match find(&services, caller.user(), stored.chat).await? {
        Fresh { value: Some(chat), stale } => Chat { stale, ..chat },
        Fresh { value: None, .. } => unprojected(&caller, asked, stored),
    };
    let location = HeaderValue::from_str(&format!("/v1/chats/{}", chat.id));
    let mut response = pages::one(turn, &chat).await?;
    if !stored.dup {
        *response.status_mut() = StatusCode::CREATED;
        if let Ok(location) = location {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    Ok(response)
}

async fn create_one(
    services: &Services,
    caller: &Caller,
    asked: &CreateChat,
    key: Option<Uuid>,
) -> Result<Stored, Problem> {
    match (asked.r#type, asked.member_ids.as_slice()) {
        (ChatType::Direct, [peer]) => {
            Ok(services.commands.create_direct(&caller.actor(), *peer, key).await?)
        }
        (ChatType::Direct, _) => Err(not_one_peer()),
        (ChatType::Group, members) if members.len() >= MAX_MEMBERS => Err(Code::LimitExceeded.into()),
        (ChatType::Group, members) => {
            let group = NewGroup {
                uuid: key.unwrap_or_else(|| services.commands.new_uuid()),
                title: asked.title.clone(),
                history: asked.history.unwrap_or_default(),
                members: members.to_vec(),
            };
            Ok(services.commands.create_group(&caller.actor(), group).await?)
        }
    }
}

fn not_one_peer() -> Problem {
    Problem::invalid("memberIds", "out_of_range")
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Uuid>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().and_then(|text| Uuid::try_parse(text).ok());
    key.map(Some).ok_or_else(|| Problem::invalid("Idempotency-Key", "mistyped"))
}

/// The view of a chat that is stored in the log but not projected yet, as its first event describes it.
fn unprojected(caller: &Caller, asked: CreateChat, stored: Stored) -> Chat {
    let mut member_ids = asked.member_ids;
    member_ids.push(caller.user());
    member_ids.sort_unstable();
    let member_count = u32::try_from(member_ids.len()).unwrap_or(u32::MAX);
    member_ids.truncate(SHOWN_MEMBERS);
    Chat {
        id: stored.chat,
        r#type: asked.r#type,
        title: asked.title,
        created_ts: stored.ts,
        history: asked.history.unwrap_or_default(),
        member_ids,
        member_count,
        role: if asked.r#type == ChatType::Group { Role::Owner } else { Role::Member },
        last_seq: stored.seq,
        last_message: None,
        read_seq: stored.seq,
        unread: 0,
        stale: true,
    }
}

/// One of the caller's chats.
#[utoipa::path(get, path = "/v1/chats/{id}", tag = "chats", security(("accessToken" = [])),
    params(("id" = inline(schema::Id), Path)), responses(
    (status = 200, body = Chat),
    ReadInChat,
))]
pub async fn show(
    State(services): State<Arc<Services>>,
    caller: Caller,
    Id(id): Id<ChatId>,
) -> Result<Response, Problem> {
    let turn = pages::turn(&services, caller.user()).await?;
    answer(&services, turn, caller.user(), id).await
}

async fn answer(services: &Services, turn: Turn<'_>, user: UserId, id: ChatId) -> Result<Response, Problem> {
    let Fresh { value, stale } = find(services, user, id).await?;
    let chat = value.ok_or(Code::ChatNotFound)?;
    pages::one(turn, &Chat { stale, ..chat }).await
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct UpdateChat {
    #[schema(value_type = Option<Name>)]
    title: Option<String>,
    #[schema(value_type = Option<HistoryText>)]
    history: Option<History>,
}

impl FromFields for UpdateChat {
    fn read(fields: &mut Fields) -> Option<Self> {
        let title = fields.optional("title", rules::name);
        let history = fields.optional("history", rules::history);
        Some(Self { title, history })
    }
}

/// Change a group's title or settings.
#[utoipa::path(patch, path = "/v1/chats/{id}", tag = "chats", security(("accessToken" = [])),
    request_body = UpdateChat, params(("id" = inline(schema::Id), Path)), responses(
    (status = 200, body = Chat),
    WithBody, CommandToGroup,
))]
pub async fn update(
    State(services): State<Arc<Services>>,
    caller: Caller,
    Id(chat): Id<ChatId>,
    unread: Unread,
) -> Result<Response, Problem> {
    caller.may_command(&services).await?;
    let asked: UpdateChat = unread.json().await?;
    let turn = pages::turn(&services, caller.user()).await?;
    let actor = caller.actor();
    if let Some(title) = asked.title {
        services
            .commands
            .execute(
                &actor,
                Command { chat, uuid: services.commands.new_uuid(), change: Change::SetTitle { title } },
            )
            .await?;
    }
    if let Some(history) = asked.history {
        services
            .commands
            .execute(
                &actor,
                Command { chat, uuid: services.commands.new_uuid(), change: Change::SetHistory { history } },
            )
            .await?;
    }
    answer(&services, turn, caller.user(), chat).await
}

async fn find(services: &Services, user: UserId, chat: ChatId) -> Result<Fresh<Option<Chat>>, Problem> {
    let Fresh { value, stale } = services.reads.fresh(async || services.db.chat(user, chat).await).await?;
    Ok(Fresh { value: value.map(Chat::from), stale })
}
