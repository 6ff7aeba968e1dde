//! `Fetch`: a page of a chat's events, from the ring or from the projection.
//!
//! Invariant: a page contains every event that was acked before the request, or the answer is a temporary error. It
//! holds nothing that the user may not read.

use std::sync::Arc;

use shared::{
    code::Code,
    frame::{self, ServerFrame},
    id::{ChatId, Seq},
};

use sql::PageFrom;

use super::{
    admission::{admit, refuse},
    services::Services,
};
use crate::{
    command::Failure,
    hub::projected::frame_of_row,
    session::{Session, reply, wire},
};

/// The most events on a page, and the default.
const MAX_EVENTS: u32 = 200;
const DEFAULT_EVENTS: u32 = 50;
/// The most bytes of bodies on a page.
const MAX_BYTES: usize = 256 * 1024;

/// Answers in a task of its own. Until then the fetch counts as a command in flight.
pub(super) fn start(services: &Arc<Services>, session: &Arc<Session>, fetch: frame::Fetch) {
    let request = match parse(&fetch) {
        Ok(request) => request,
        Err(failure) => return refuse(services, session, Some(fetch.uuid), &failure),
    };
    if let Err(failure) = admit(services, session) {
        return refuse(services, session, Some(fetch.uuid), &failure);
    }
    let (all, session) = (services.clone(), session.clone());
    services.tracker.spawn(async move {
        let outcome = page(&all, &session, fetch.chat_id, request).await;
        let now_ms = all.now_ms();
        match outcome {
            Ok((events, more)) => {
                let page = frame::Page { uuid: fetch.uuid, chat_id: fetch.chat_id, events, more };
                session.push_control(wire::encode(&page.into(), session.identity.encoding), now_ms);
                session.end_command();
            }
            Err(failure) => {
                if let Some(error) = &failure.source {
                    tracing::warn!(%error, "a page could not be fetched");
                }
                reply::outcome(&session, fetch.uuid, Err(failure), now_ms);
            }
        }
    });
}

fn parse(fetch: &frame::Fetch) -> Result<(PageFrom, usize), Failure> {
    let invalid = |message| Failure::refused(Code::CommandInvalid, message);
    let limit = fetch.limit.unwrap_or(DEFAULT_EVENTS);
    if !(1..=MAX_EVENTS).contains(&limit) {
        return Err(invalid("limit: from 1 to 200"));
    }
    let from = match (fetch.after, fetch.before) {
        (Some(after), None) => PageFrom::After(after),
        (None, Some(before)) => PageFrom::Before(before),
        (None, None) => PageFrom::Before(Seq(u64::MAX)),
        (Some(_), Some(_)) => return Err(invalid("after, before: at most one of them")),
    };
    Ok((from, limit as usize))
}

async fn page(
    services: &Services,
    session: &Session,
    chat: ChatId,
    (from, limit): (PageFrom, usize),
) -> Result<(Vec<ServerFrame>, bool), Failure> {
    let state = services.commands.member(chat, session.user()).await?;
    if state.reads_everything
        && let Some(page) = services.hub.page(chat, from, limit, MAX_BYTES)
    {
        return Ok(page);
    }
    let fresh =
        services.reads.fresh(|| services.db.page(session.user(), chat, from, limit, MAX_BYTES)).await?;
    if fresh.stale {
        return Err(Failure::temporary(Code::ServerUnavailable, 1_000, "the projection is behind"));
    }
    let page = fresh.value.ok_or_else(|| Failure::refused(Code::ChatNotFound, Code::ChatNotFound.title()))?;
    Ok((page.events.iter().filter_map(frame_of_row).collect(), page.more))
}
