//! `Fetch`: a page of a chat's events, from the ring or the projection, under one roof.

use std::sync::Arc;

use shared::{
    code::Code,
    frame::{self, ServerFrame},
    id::{ChatId, Seq},
};

use sql::PageFrom;

use super::{Session, dispatch, reply};
use crate::{app::App, command::Failure, hub::wire};

/// The most events on a page, and the default.
const MAX_EVENTS: u32 = 200;
const DEFAULT_EVENTS: u32 = 50;
/// The most bytes of bodies on a page: a client's frame bound is its own, this is ours.
const MAX_BYTES: usize = 256 * 1024;

/// Answers in a task of its own; counts as a command in flight.
pub fn start(app: &Arc<App>, session: &Arc<Session>, fetch: frame::Fetch) {
    let request = match parse(&fetch) {
        Ok(request) => request,
        Err(failure) => return dispatch::refuse(app, session, Some(fetch.uuid), &failure),
    };
    if let Err(failure) = dispatch::admit(app, session) {
        return dispatch::refuse(app, session, Some(fetch.uuid), &failure);
    }
    let (app2, session) = (app.clone(), session.clone());
    app.tracker.spawn(async move {
        let outcome = page(&app2, &session, fetch.chat_id, request).await;
        let now_ms = app2.clock.now_ms();
        match outcome {
            Ok((events, more)) => {
                let page = frame::Page { uuid: fetch.uuid, chat_id: fetch.chat_id, events, more };
                session.push_control(wire::encode(&page.into(), session.identity.encoding), now_ms);
                session.end_command();
            }
            Err(failure) => reply::outcome(&session, Some(fetch.uuid), None, Err(failure), now_ms),
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
    app: &App,
    session: &Session,
    chat: ChatId,
    (from, limit): (PageFrom, usize),
) -> Result<(Vec<ServerFrame>, bool), Failure> {
    let state = app.commands.member(chat, session.user()).await?;
    if state.reads_everything
        && let Some(page) = from_ring(app, chat, from, limit)
    {
        return Ok(page);
    }
    let fresh = app.reads.fresh(|| app.db.page(session.user(), chat, from, limit, MAX_BYTES)).await?;
    if fresh.stale {
        return Err(Failure::temporary(Code::ServerUnavailable, 1_000, "the projection is behind"));
    }
    let page = fresh.value.ok_or_else(|| Failure::refused(Code::ChatNotFound, Code::ChatNotFound.title()))?;
    Ok((page.events.iter().filter_map(crate::catch_up::delivered).collect(), page.more))
}

fn from_ring(app: &App, chat: ChatId, from: PageFrom, limit: usize) -> Option<(Vec<ServerFrame>, bool)> {
    let state = app.hub.lock();
    let (events, more) = state.page(chat, from, limit)?;
    let mut bytes = 0;
    let mut frames = Vec::with_capacity(events.len());
    for seq in &events {
        let slot = state.ring.get(*seq)?;
        bytes += slot.payload.len();
        if bytes > MAX_BYTES {
            return None;
        }
        frames.push(slot.frame(*seq)?);
    }
    Some((frames, more))
}
