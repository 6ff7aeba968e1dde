//! `Fetch`: a page of a chat's events, from the ring or from the projection.
//!
//! A session's fetches are answered one after the other, each once the page before it has nearly been written. Invariants:
//! a page contains every event that was acked before the request, or the answer is a temporary error. It holds nothing
//! that the user may not read. It has a place in the memory for pages from before it is made until it is written.

use std::sync::Arc;

use bytes::Bytes;
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
    infra::pages::{PAGE_BYTES, STORED_BYTES, fitting},
    session::{
        Session,
        outbox::LOW_WATER_BYTES,
        reply,
        wire::{self, Encoding},
    },
};

/// The most events on a page, and the default.
const MAX_EVENTS: u32 = 200;
const DEFAULT_EVENTS: u32 = 50;

/// Answers in a task of its own. Until then the fetch counts as a command in flight.
pub(super) fn start(services: &Arc<Services>, session: &Arc<Session>, fetch: frame::Fetch) {
    let admitted = parse(&fetch).map(drop).and_then(|()| admit(services, session));
    if let Err(failure) = admitted {
        return refuse(services, session, Some(fetch.uuid), &failure);
    }
    if let Some(first) = session.enqueue_fetch(fetch) {
        services.tracker.spawn(run(services.clone(), session.clone(), first));
    }
}

async fn run(services: Arc<Services>, session: Arc<Session>, first: frame::Fetch) {
    let mut next = Some(first);
    while let Some(fetch) = next {
        session.drained(LOW_WATER_BYTES).await;
        // Nothing is sent to a session that ends, so no page is made for it.
        if session.closing().is_some() || session.is_ended() {
            session.end_command();
        } else {
            answer(&services, &session, &fetch).await;
        }
        next = session.next_fetch();
    }
}

async fn answer(services: &Services, session: &Session, fetch: &frame::Fetch) {
    match page(services, session, fetch).await {
        Ok(page) => {
            session.push_control(page, services.now_ms());
            session.end_command();
        }
        Err(failure) => {
            if let Some(error) = &failure.source {
                tracing::warn!(%error, "a page could not be fetched");
            }
            reply::outcome(session, fetch.uuid, Err(failure), services.now_ms());
        }
    }
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

/// The frame of the page, which keeps its place until it is written.
async fn page(services: &Services, session: &Session, fetch: &frame::Fetch) -> Result<Bytes, Failure> {
    let (from, limit) = parse(fetch)?;
    let turn = services.pages.turn(session.user()).await?;
    let (events, more) = events(services, session, fetch.chat_id, from, limit).await?;
    let page = frame::Page { uuid: fetch.uuid, chat_id: fetch.chat_id, events, more };
    let place = turn.place().await?;
    let (bytes, start) = encode(page, from, session.identity.encoding);
    Ok(place.hold(bytes).slice(start..))
}

async fn events(
    services: &Services,
    session: &Session,
    chat: ChatId,
    from: PageFrom,
    limit: usize,
) -> Result<(Vec<ServerFrame>, bool), Failure> {
    let state = services.commands.member(chat, session.user()).await?;
    if state.reads_everything
        && let Some(page) = services.hub.page(chat, from, limit, STORED_BYTES)
    {
        return Ok(page);
    }
    let fresh =
        services.reads.fresh(|| services.db.page(session.user(), chat, from, limit, STORED_BYTES)).await?;
    if fresh.stale {
        return Err(Failure::temporary(Code::ServerUnavailable, 1_000, "the projection is behind"));
    }
    let page = fresh.value.ok_or_else(|| Failure::refused(Code::ChatNotFound, Code::ChatNotFound.title()))?;
    // The hub forgets its users for a moment when the log was cut.
    let sight = services.hub.sight(session.user(), chat).ok_or_else(Failure::projection_behind)?;
    Ok((page.events.iter().filter_map(|row| frame_of_row(row, &sight)).collect(), page.more))
}

/// Encodes a page. One that is larger than pages may be loses the events at its far end, as seen from where it begins.
fn encode(mut page: frame::Page, from: PageFrom, encoding: Encoding) -> (Vec<u8>, usize) {
    let whole = wire::encode_into(&ServerFrame::Page(page.clone()), encoding);
    if whole.0.len() <= PAGE_BYTES {
        return whole;
    }
    let mut scratch = Vec::new();
    let mut length = |event| wire::length_of(event, encoding, &mut scratch);
    match from {
        PageFrom::After(_) => {
            let fit = fitting(page.events.iter().map(&mut length));
            page.events.truncate(fit);
        }
        PageFrom::Before(_) => {
            let fit = fitting(page.events.iter().rev().map(&mut length));
            page.events.drain(..page.events.len().saturating_sub(fit));
        }
    }
    page.more = true;
    wire::encode_into(&page.into(), encoding)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::{codec, frame::Message, id::UserId};
    use uuid::Uuid;

    use super::*;

    fn message(seq: usize, body: String) -> ServerFrame {
        let seq = Seq(seq as u64);
        ServerFrame::Message(Message {
            chat_id: ChatId::new(1).unwrap(),
            seq,
            prev: Seq(seq.get() - 1),
            uuid: Uuid::nil(),
            from: UserId::new(1).unwrap(),
            body,
            ts: 0,
            reply_to: None,
            mentions: Vec::new(),
        })
    }

    fn decoded(bytes: &[u8], encoding: Encoding) -> frame::Page {
        // The longest header of a frame: what is larger than 64 KiB has it.
        let payload = &bytes[10..];
        let frame = match encoding {
            Encoding::Json => codec::decode_server_json(payload),
            Encoding::MessagePack => codec::decode_server_msgpack(payload),
        };
        let Ok(Some(ServerFrame::Page(page))) = frame else { panic!("no page") };
        page
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Whatever the texts: no page is larger than it may be, it has as many events as fit, those next to where it
        /// begins, and says that there are more.
        #[test]
        fn a_page_is_bounded_as_it_is_encoded(
            bodies in prop::collection::vec((prop::sample::select(vec!['x', '\u{1}', 'ü', '"']), 1_usize..16_000), 60..90),
            after: bool,
            json: bool,
        ) {
            let encoding = if json { Encoding::Json } else { Encoding::MessagePack };
            let from = if after { PageFrom::After(Seq(0)) } else { PageFrom::Before(Seq(1_000)) };
            let of = |(index, (c, count)): (usize, &(char, usize))| message(index + 1, c.to_string().repeat(*count));
            let events: Vec<ServerFrame> = bodies.iter().enumerate().map(of).collect();
            let page = frame::Page { uuid: Uuid::nil(), chat_id: ChatId::new(1).unwrap(), events, more: false };
            let (whole, _) = wire::encode_into(&page.clone().into(), encoding);
            let (bytes, start) = encode(page.clone(), from, encoding);
            prop_assert!(bytes.len() - start <= PAGE_BYTES + 200, "{}", bytes.len());
            let got = decoded(&bytes[start..], encoding);
            prop_assert_eq!(got.more, whole.len() > PAGE_BYTES);
            let (count, all) = (got.events.len(), page.events.len());
            let wanted = if after { &page.events[..count] } else { &page.events[all - count..] };
            prop_assert_eq!(&got.events, wanted);
            if got.more {
                prop_assert!(bytes.len() > PAGE_BYTES - 120_000, "one more would not fit: {}", bytes.len());
            }
        }
    }
}
