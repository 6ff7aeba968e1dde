//! The gateway's reader of the log: the tail feeds the hub, for ever.
//!
//! One task owns the position. A log that lost its tail is cut here as everywhere: the cut is declared in
//! Postgres first, and nothing above it is served before that.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use shared::id::{Position, Seq};
use streams::{Known, Nats, Partition, Tail, TailItem, TailSettings, Unavailable, tail::Recall};

use crate::{app::App, catch_up, clock::unix_ms, hub::Hub, session::Session};

/// The gateway's memory of the log: its ring, and the projection behind it.
pub struct Memory {
    pub hub: Arc<Hub>,
    pub db: sql::Db,
}

impl Known for Memory {
    fn at_or_below(&self, seq: Seq) -> Recall<'_> {
        let here = {
            let state = self.hub.lock();
            let at = seq.min(state.ring.position().seq);
            state.ring.id_at(at).map(|id| Position { seq: at, id })
        };
        Box::pin(async move {
            if here.is_some() {
                return Ok(here);
            }
            self.db.known_at_or_below(sql::PARTITION, seq).await.map_err(Unavailable::new)
        })
    }
}

/// How often the tail is held against the end of the log.
const BARRIER_INTERVAL: Duration = Duration::from_secs(2);
/// Before a cut that could not be declared is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Reads the log until the gateway ends. Returns early only if the log holds what this build cannot judge.
pub async fn run(app: Arc<App>, nats: Nats) -> anyhow::Result<()> {
    let from = app.hub.lock().ring.position();
    let known = Arc::new(Memory { hub: app.hub.clone(), db: app.db.clone() });
    let mut tail = Tail::open(&nats, Partition::FIRST, from, known, TailSettings::default());
    let mut cuts = app.epochs.subscribe();
    loop {
        let item = tokio::select! {
            () = app.cancel.cancelled() => return Ok(()),
            Ok(()) = cuts.changed() => {
                follow_cuts(&app, &mut tail);
                continue;
            }
            item = tail.next() => item,
        };
        match item {
            TailItem::Batch(entries) => {
                app.hub.apply(&entries)?;
                follow_up(&app);
            }
            TailItem::Quiet | TailItem::Attached { .. } => {}
            TailItem::LostTail { cut } => {
                declare(&app, cut.unwrap_or_default()).await;
                follow_cuts(&app, &mut tail);
            }
            TailItem::Expired { first } => {
                // Retention overtook a gateway that was away: its devices' cursors are expired, too.
                let position = Position { seq: Seq(first.get() - 1), ..Position::default() };
                reattach(&app, app.hub.skip_to(position));
                tail.restart_from(position);
            }
        }
        tail.expect(app.hub.expected());
        let attaches = tail.stats().attaches.load(Ordering::Relaxed) as i64;
        app.metrics.tail_recreations.set((attaches - 1).max(0));
        app.metrics.tail_position.set(tail.position().seq.get() as i64);
    }
}

/// Enters the epoch on record: takes back what lies above its cut.
fn follow_cuts(app: &Arc<App>, tail: &mut Tail) {
    let (epoch, current) = (app.hub.lock().epoch, app.epochs.current());
    let Some(cut) = app.epochs.lowest_after(epoch) else { return };
    app.metrics.epoch_bumps.inc();
    app.metrics.epoch.set(current.into());
    tracing::error!(
        epoch = current,
        cut = cut.seq.get(),
        "the log lost its tail; what is above the cut is void"
    );
    // Also if this gateway has not come so far: its devices may have been elsewhere before.
    reattach(app, app.hub.cut(cut, current));
    // What it has read ahead is of the former history.
    let at = if tail.position().seq > cut.seq { cut } else { tail.position() };
    tail.restart_from(at);
}

/// What applying left for those who hold no lock: catch-ups to start and chats to load.
fn follow_up(app: &Arc<App>) {
    let (behind, wanted) = {
        let mut state = app.hub.lock();
        if state.behind.is_empty() && state.wanted.is_empty() {
            return;
        }
        (std::mem::take(&mut state.behind), std::mem::take(&mut state.wanted))
    };
    for session in behind {
        catch_up::spawn(app, &session);
    }
    for chat in wanted {
        let app2 = app.clone();
        app.tracker.spawn(async move {
            while let Err(failure) = app2.loader.chat(chat).await {
                tracing::warn!(%failure, chat = chat.get(), "a chat's state is missing; its events wait");
                tokio::select! {
                    () = app2.cancel.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        });
    }
}

/// Declares the cut in Postgres, or learns of the one that another reader declared.
async fn declare(app: &Arc<App>, cut: Position) {
    loop {
        let epoch = app.hub.lock().epoch;
        match try_declare(app, epoch, cut).await {
            Ok(()) if app.epochs.current() > epoch => return,
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "a cut can't be declared yet; nothing is served beyond it"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_declare(app: &App, epoch: u32, cut: Position) -> Result<(), sql::Error> {
    app.db.declare_cut(sql::PARTITION, epoch, cut, unix_ms()).await?;
    learn_cuts(app).await
}

/// Takes the cuts on record.
///
/// # Errors
/// The database is away.
pub async fn learn_cuts(app: &App) -> Result<(), sql::Error> {
    app.epochs.set(app.db.cuts(sql::PARTITION).await?);
    Ok(())
}

fn reattach(app: &Arc<App>, sessions: Vec<Arc<Session>>) {
    let epoch = app.hub.lock().epoch;
    for session in sessions {
        catch_up::reattach(app, &session, epoch);
    }
}

/// Holds the tail against the end of the log from time to time, watches the log's guard, and closes the connections to
/// the database that nobody needs.
pub async fn watch(app: Arc<App>, nats: Nats) {
    let mut ticks = tokio::time::interval(BARRIER_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // An unreachable log shows elsewhere: in readiness, and in the appends.
        if let Ok(bounds) = nats.bounds(Partition::FIRST).await {
            app.hub.expect(bounds.last);
            app.set_oldest(bounds.first);
            app.commands.set_full(bounds.is_nearly_full());
        }
        // So is an unreachable database; a cut that this tail notices by itself is looked up at once.
        drop(learn_cuts(&app).await);
        app.db.close_idle();
    }
}
