//! `/v1/chats/{id}/messages`: reads history, and sends messages for bots and scripts.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use shared::{
    code::Code,
    event::Mention,
    id::{ChatId, Seq},
    text,
};
use sql::PageFrom;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    command::{Change, Command},
    feed::reads::Fresh,
    http::{
        answer::{
            pages::{self, Page},
            problem::Problem,
            refusals::{MessageNotSent, ReadInChat, Unauthenticated, WithBody},
            schema::{self, BodyText, MentionSchema, SeqText},
            view::{Ack, Message, is_false},
        },
        request::{
            body::{FromFields, Unread},
            caller::{Caller, Id},
            fields::Fields,
            rules,
        },
        services::Services,
    },
    infra::pages::STORED_BYTES,
};

/// Messages on a page if the caller does not say how many.
const PAGE: usize = 50;
const MAX_PAGE: usize = 200;

#[derive(Serialize, ToSchema)]
pub struct Messages {
    /// Newest first, or oldest first after `after`.
    messages: Vec<Message>,
    /// Whether there are more beyond this page.
    more: bool,
    /// Only if true: what was acked last may be missing.
    #[serde(skip_serializing_if = "is_false")]
    stale: bool,
}

impl Page for Messages {
    type Item = Message;

    fn items(&self) -> &[Message] {
        &self.messages
    }

    fn cut(&mut self, items: usize) {
        self.messages.truncate(items);
        self.more = true;
    }
}

/// The messages of a chat. Every message that was acked before the request began is among them.
#[utoipa::path(get, path = "/v1/chats/{id}/messages", tag = "chats", security(("accessToken" = [])), params(
    ("id" = inline(schema::Id), Path),
    ("before" = Option<u64>, Query, maximum = 9007199254740991_i64, description = "messages with a lower `seq`, newest first; not with `after`"),
    ("after" = Option<u64>, Query, maximum = 9007199254740991_i64, description = "messages with a higher `seq`, oldest first; not with `before`"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "50 by default"),
), responses(
    (status = 200, body = Messages),
    ReadInChat,
))]
pub async fn list(
    State(services): State<Arc<Services>>,
    caller: Caller,
    Id(chat): Id<ChatId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(&uri);
    let before = fields.optional("before", rules::query_seq);
    let after = fields.optional("after", rules::query_seq);
    let limit = fields.optional("limit", rules::query_limit::<MAX_PAGE>).unwrap_or(PAGE);
    if fields.has("before") && fields.has("after") {
        fields.refuse("after", "out_of_range");
    }
    fields.finish(Some(()))?;
    let from = match after {
        Some(seq) => PageFrom::After(seq),
        None => PageFrom::Before(before.unwrap_or(Seq(shared::id::MAX_ID))),
    };
    let turn = pages::turn(&services, caller.user()).await?;
    let query = async || services.db.history(caller.user(), chat, from, limit, STORED_BYTES).await;
    let Fresh { value, stale } = services.reads.fresh(query).await?;
    let found = value.ok_or(Code::ChatNotFound)?;
    let messages = found.messages.into_iter().map(Message::from).collect();
    pages::answer(turn, Messages { messages, more: found.more, stale }).await
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Send {
    /// Made by the client: the same one again is the same message.
    uuid: Uuid,
    #[schema(value_type = BodyText)]
    body: String,
    /// The `seq` of a message of the same chat.
    #[schema(value_type = Option<SeqText>)]
    reply_to: Option<Seq>,
    #[schema(value_type = Option<Vec<MentionSchema>>, max_items = 100)]
    mentions: Vec<Mention>,
}

impl FromFields for Send {
    fn read(fields: &mut Fields) -> Option<Self> {
        let uuid = fields.required("uuid", rules::uuid);
        let body = fields.required("body", rules::body);
        let reply_to = fields.optional("replyTo", rules::seq);
        let mentions = fields.optional("mentions", rules::mentions).unwrap_or_default();
        let body = body?;
        if !text::mentions_fit(&body, &mentions) {
            fields.refuse("mentions", "out_of_range");
        }
        Some(Self { uuid: uuid?, body, reply_to, mentions })
    }
}

/// Send a message: for bots and scripts. The same rules hold as for `SendMessage` on a WebSocket.
#[utoipa::path(post, path = "/v1/chats/{id}/messages", tag = "chats", security(("accessToken" = [])),
    request_body = Send, params(("id" = inline(schema::Id), Path)), responses(
    (status = 201, body = Ack, headers(("Location"))),
    (status = 200, description = "it had been sent before", body = Ack),
    Unauthenticated, WithBody, MessageNotSent,
))]
pub async fn send(
    State(services): State<Arc<Services>>,
    caller: Caller,
    Id(chat): Id<ChatId>,
    unread: Unread,
) -> Result<Response, Problem> {
    caller.may_command(&services).await?;
    let Send { uuid, body, reply_to, mentions } = unread.json().await?;
    let stored = services
        .commands
        .execute(&caller.actor(), Command { chat, uuid, change: Change::Send { body, reply_to, mentions } })
        .await?;
    let mut response = axum::Json(Ack::new(uuid, stored)).into_response();
    if !stored.dup {
        *response.status_mut() = StatusCode::CREATED;
        let location =
            format!("/v1/chats/{chat}/messages?after={}&limit=1", stored.seq.get().saturating_sub(1));
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    Ok(response)
}
