//! Puts the rooms together, from the ground up, and starts the tasks that do not wait for the log.
//!
//! The only place that makes the rooms' structs. Each room is given what it uses, no more.

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use shared::cursor::Sealer;
use streams::{Appender, Barrier, Nats, Partition};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Tasks, cancelled_with, descriptors, settings::Settings, signals, spawn, watch};
use crate::{
    auth::{Auth, Families, Passwords, Revocations, Tickets, Tokens, keys::Keys},
    feed::{catch_up::CatchUps, epochs::Epochs, loader::Loader, reads::Reads},
    http::{self, limits::Limits, request::origin::Origins},
    hub::Hub,
    infra::{addresses::Addresses, clock::Clock, metrics::Metrics, pages::Pages, redis::Redis},
    presence::{self, Presence},
    socket::{self, seats::Seats},
    submit::{self, Commands},
};

/// The gateway put together.
pub(super) struct Gateway {
    pub(super) hub: Arc<Hub>,
    pub(super) http: Arc<http::services::Services>,
    /// The tasks of sessions, their commands and catch-ups. A drain waits for them.
    pub(super) tracker: TaskTracker,
    /// Ends the long-lived tasks.
    pub(super) cancel: CancellationToken,
}

/// Puts the rooms together and starts the tasks that do not wait for the log.
pub(super) async fn assemble(
    settings: &Settings,
    registry: &mut Registry,
    tasks: &mut Tasks,
) -> anyhow::Result<Gateway> {
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let metrics = Arc::new(Metrics::new(registry));
    let keys = Keys::load(&settings.auth.keys_dir)?;
    let db = sql::Db::new(&settings.sql, "gateway")?;
    let nats = Nats::connect(&settings.nats, "gateway").await?;
    let redis = Redis::connect(&settings.redis)?;
    let hub =
        Arc::new(Hub::new(settings.ring_bytes, Clock::start(), Sealer::new(keys.cursor()), metrics.clone()));
    let auth = Arc::new(authentication(settings, &keys, &hub, (&db, &nats, &redis))?);
    let presence =
        Presence::new(hub.clone(), db.clone(), nats.clone(), redis.clone(), settings.presence.clone());
    let presence = Arc::new(presence);

    let epochs = Arc::new(Epochs::new(db.clone()));
    let (loader, loads) = Loader::new(hub.clone(), db.clone(), nats.clone());
    let appender = Appender::start(&nats);
    let barrier = Barrier::start(&nats, &appender, Partition::FIRST);
    let reads = Reads::new(barrier.clone(), nats.clone());
    let catch_ups = Arc::new(CatchUps::new(
        hub.clone(),
        (db.clone(), nats.clone()),
        loader.clone(),
        presence.clone(),
        tracker.clone(),
    ));
    let commands = Arc::new(Commands::new(submit::Parts {
        hub: hub.clone(),
        db: db.clone(),
        loader: loader.clone(),
        appender,
        barrier,
        reads: reads.clone(),
        limits: settings.chat,
        duplicate_window: Duration::from_millis(settings.nats.duplicate_window_ms),
    }));
    let pages = Arc::new(Pages::new(settings.pages.clone(), registry));
    let sockets = Arc::new(socket::Services {
        hub: hub.clone(),
        commands: commands.clone(),
        reads: reads.clone(),
        db: db.clone(),
        loader,
        catch_ups,
        epochs,
        presence: presence.clone(),
        auth: auth.clone(),
        pages: pages.clone(),
        seats: Seats::new(hub.clone(), redis.clone(), &settings.session),
        settings: settings.session.clone(),
        tracker: tracker.clone(),
        traced: settings.otel.otlp_endpoint.is_some(),
    });
    let addresses = Addresses::new(settings.addresses.clone(), descriptors::for_clients(), registry);
    let http = Arc::new(http::services::Services {
        auth: auth.clone(),
        commands,
        reads,
        db,
        limits: Limits::new(&settings.limits, redis.clone(), registry),
        origins: Origins::new(&settings.origin),
        addresses: Arc::new(addresses),
        hub: hub.clone(),
        redis,
        nats,
        sockets,
        settings: settings.http.clone(),
    });

    let poll = Duration::from_millis(settings.auth.revocation_poll_ms);
    let sessions = watch::sessions(http.clone(), settings.session.intervals());
    spawn(tasks, cancelled_with(cancel.clone(), loads));
    spawn(tasks, cancelled_with(cancel.clone(), sessions));
    let seats = watch::seats(http.sockets.clone(), settings.session.intervals());
    spawn(tasks, cancelled_with(cancel.clone(), seats));
    spawn(tasks, presence::run(presence, cancel.clone()));
    spawn(tasks, cancelled_with(cancel.clone(), signals::receive(http.clone())));
    spawn(tasks, cancelled_with(cancel.clone(), auth.families.clone().keep_reading(poll)));
    spawn(tasks, cancelled_with(cancel.clone(), auth.families.clone().tidy()));
    spawn(tasks, cancelled_with(cancel.clone(), watch::password_costs(auth.clone(), http.db.clone())));
    Ok(Gateway { hub, http, tracker, cancel })
}

fn authentication(
    settings: &Settings,
    keys: &Keys,
    hub: &Arc<Hub>,
    (db, nats, redis): (&sql::Db, &Nats, &Redis),
) -> anyhow::Result<Auth> {
    let closing = hub.clone();
    let close = Box::new(move |user, family| closing.revoke(user, family));
    let revocations = Arc::new(Revocations::new(close));
    let families = Families::new(db.clone(), nats.clone(), redis.clone(), revocations.clone());
    Ok(Auth {
        tokens: Tokens::new(keys, &settings.auth),
        tickets: Tickets::new(redis.clone()),
        passwords: Passwords::new(&settings.auth, keys.cursor(), hub.metrics.http.passwords_waiting.clone())?,
        revocations,
        families: Arc::new(families),
        refresh_ttl_s: settings.auth.refresh_ttl_s,
    })
}
