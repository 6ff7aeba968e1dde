//! Catch-up: a session that is behind reads the log at its own pace until it is live again.
//!
//! A task exists only while it lasts. What is in the ring comes from there; what is older comes from the
//! projection up to its checkpoint, and from the log itself where the projection lags behind the ring.

pub mod lagging;

use std::{collections::HashSet, sync::Arc, time::Duration};

use shared::{
    event::{Event, Fact, Kind},
    frame::{self, ServerFrame},
    id::{ChatId, Seq},
};

use crate::{
    app::App,
    command::Failure,
    hub::{
        State,
        attach::{Reattached, Step},
        wire,
    },
    session::{Lane, Session, close::Close, socket::LOW_WATER_BYTES},
};

/// Before a source that failed is asked again.
const RETRY: Duration = Duration::from_millis(300);
/// No bound: as far as the projection goes.
const LAST: Seq = Seq(i64::MAX as u64);
/// Events in one read of the projection, and their bytes: what an outbox takes at a time.
const PAGE_EVENTS: usize = 256;
const PAGE_BYTES: usize = 64 * 1024;

/// Starts the catch-up of a session whose lane is [`Lane::CatchUp`]; an earlier one ends.
pub fn spawn(app: &Arc<App>, session: &Arc<Session>) {
    app.tracker.spawn(run(app.clone(), session.clone()));
}

/// Loads a session's user anew and attaches it again, after the hub forgot all users; `epoch` was the hub's then.
pub fn reattach(app: &Arc<App>, session: &Arc<Session>, epoch: u32) {
    let (app2, session) = (app.clone(), session.clone());
    app.tracker.spawn(async move {
        while session.closing().is_none() && !session.is_ended() {
            if app2.loader.user(session.user()).await.is_ok() {
                match app2.hub.reattach(&session, epoch) {
                    Reattached::CatchUp => return run(app2, session).await,
                    Reattached::Ended => return,
                    // Its device is told when it resumes.
                    Reattached::Cut => session.close(Close::Internal, app2.clock.now_ms()),
                    Reattached::Unknown => tokio::time::sleep(RETRY).await,
                }
            } else {
                tokio::time::sleep(RETRY).await;
            }
        }
        // Nobody sweeps a session that is not attached.
        tokio::time::sleep(app2.settings.session.linger()).await;
        session.end();
    });
}

async fn run(app: Arc<App>, session: Arc<Session>) {
    let turn = session.next_catch_up();
    loop {
        session.drained(LOW_WATER_BYTES).await;
        if session.closing().is_some() || session.is_ended() || !session.is_catch_up(turn) {
            return;
        }
        match app.hub.advance(&session) {
            Step::Gone => return,
            Step::Live => return app.presence.live(&session),
            Step::More => tokio::task::yield_now().await,
            Step::Held => app.hub.installed().await,
            Step::BelowRing => {
                if let Err(failure) = below_ring(&app, &session).await {
                    tracing::warn!(%failure, "a catch-up waits");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// One page from the projection.
async fn below_ring(app: &Arc<App>, session: &Arc<Session>) -> Result<(), Failure> {
    let (after, epoch) = (session.fed(), app.hub.lock().epoch);
    let (checkpoint, replay) = app.db.replay(session.user(), after, LAST, PAGE_EVENTS, PAGE_BYTES).await?;
    let (rows, covered) = (replay.events, replay.upto);
    if covered <= after {
        return lagging::read(app, session).await;
    }
    let now_ms = app.clock.now_ms();
    app.hub.serves(now_ms);
    let state = app.hub.lock();
    if state.epoch != epoch || session.lane() != Lane::CatchUp || session.fed() != after {
        return Ok(());
    }
    let deleted = state.deletions_after(rows.iter().map(|row| row.chat), checkpoint.position.seq);
    for row in &rows {
        let frame = delivered_unless(row, &deleted);
        if let Some(frame) = frame {
            session.push_covering(wire::encode(&frame, session.identity.encoding), row.seq, now_ms);
            session.count_replayed(1);
            session.mark_dirty();
        }
    }
    session.set_fed(covered);
    drop(state);
    app.metrics.replay_total.get_or_create(&vec![("source", "projection")]).inc_by(rows.len() as u64);
    Ok(())
}

/// The frame of a row of the projection.
pub fn delivered(row: &sql::replay::EventRow) -> Option<ServerFrame> {
    delivered_unless(row, &HashSet::new())
}

fn delivered_unless(row: &sql::replay::EventRow, deleted: &HashSet<Seq>) -> Option<ServerFrame> {
    let event = Event::decode(&row.payload).ok()?;
    let target = match &event.fact {
        Fact::MessageEdited(edited) => edited.seq,
        _ => row.seq,
    };
    let gone = row.deleted || deleted.contains(&target);
    Some(frame::delivered(row.chat, row.seq, row.prev, row.ts_ms, &event, gone))
}

impl State {
    /// The messages of these chats that the ring knows to be deleted by events after `after`.
    fn deletions_after(&self, chats: impl Iterator<Item = ChatId>, after: Seq) -> HashSet<Seq> {
        let chats: HashSet<ChatId> = chats.collect();
        let deletions = chats.into_iter().flat_map(|chat| {
            self.ring
                .chain(chat)
                .take_while(move |(seq, _)| *seq > after)
                .filter(|(_, slot)| slot.kind == Kind::MessageDeleted)
                .filter(|(_, slot)| slot.verdict == crate::hub::ring::Verdict::Valid)
                .filter_map(|(_, slot)| Event::decode(&slot.payload).ok())
        });
        let target = |event: Event| match event.fact {
            Fact::MessageDeleted(deleted) => Some(deleted.seq),
            _ => None,
        };
        deletions.filter_map(target).collect()
    }
}
