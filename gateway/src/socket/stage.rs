//! For tests: all that a connection needs of the gateway, on real servers, and clients without a connection.
//!
//! What a client sends is handed to `dispatch` as bytes; what it is sent is read from its session's outbox.

use std::{sync::Arc, time::Duration};

use clap::Parser;
use shared::{
    codec,
    frame::{self, ClientFrame, ServerFrame},
    id::Seq,
};
use streams::{Barrier, Partition};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{dispatch, seats::Seats, services::Services};
use crate::{
    auth::{
        Auth, AuthSettings, Families, Passwords, Revocations, Tickets, Tokens,
        keys::{self, Keys},
    },
    feed::{
        reads::Reads,
        stage::{World, until},
    },
    hub::stage::{Device, user},
    infra::pages::Pages,
    presence,
    session::settings::SessionSettings,
    submit::{Commands, Parts, capacity::ChatSettings},
};

/// A ring that holds more than these tests append.
const LARGE_RING: usize = 1 << 20;

pub(crate) struct Served {
    pub(crate) world: World,
    pub(crate) services: Arc<Services>,
}

#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    auth: AuthSettings,
    #[command(flatten)]
    chat: ChatSettings,
    #[command(flatten)]
    session: SessionSettings,
}

impl Served {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, |_| {}).await
    }

    /// With other settings for its sessions.
    pub(crate) async fn with(name: &str, change: impl FnOnce(&mut SessionSettings)) -> Self {
        let mut world = World::new(name, LARGE_RING).await;
        let Defaults { auth: auth_settings, chat, mut session } = Defaults::parse_from(["test"]);
        change(&mut session);
        world.stage.settings = session.clone();
        keys::create(&world.corner.keys_dir()).unwrap();
        let keys = Keys::load(&world.corner.keys_dir()).unwrap();
        let barrier = Barrier::start(&world.nats, &world.appender, Partition::FIRST);
        let hub = world.stage.hub.clone();
        let reads = Reads::new(barrier.clone(), world.nats.clone());
        let services = Services {
            commands: Arc::new(Commands::new(Parts {
                hub: hub.clone(),
                db: world.db.clone(),
                loader: world.loader.clone(),
                appender: world.appender.clone(),
                barrier,
                reads: reads.clone(),
                limits: chat,
                duplicate_window: Duration::from_secs(120),
            })),
            reads,
            db: world.db.clone(),
            loader: world.loader.clone(),
            catch_ups: world.catch_ups.clone(),
            epochs: world.epochs.clone(),
            presence: world.presence.clone(),
            auth: Arc::new(authentication(&world, &auth_settings, &keys)),
            pages: Pages::for_tests(),
            seats: Seats::new(hub.clone(), world.redis.clone(), &session),
            settings: session,
            tracker: world.tracker.clone(),
            traced: false,
            hub,
        };
        world.tasks.spawn(presence::run(world.presence.clone(), CancellationToken::new()));
        Self { world, services: Arc::new(services) }
    }

    /// The gateway knows the log's time, and where the log ends; for a moment uuids may be fresh.
    pub(crate) async fn reads_the_logs_clock(&self) {
        let asked_ms = self.services.hub.clock.now_ms();
        let bounds = self.world.nats.bounds(Partition::FIRST).await.unwrap();
        self.services.commands.note_log(&bounds, asked_ms);
        self.services.hub.prove();
    }

    /// Hands a client's frame to the gateway, as JSON.
    pub(crate) fn send(&self, device: &Device, frame: impl Into<ClientFrame>) {
        let mut bytes = Vec::new();
        codec::encode_client_json(&frame.into(), &mut bytes);
        self.send_text(device, &bytes);
    }

    pub(crate) fn send_text(&self, device: &Device, text: &[u8]) {
        dispatch::text(&self.services, &device.session, text);
    }

    pub(crate) fn send_binary(&self, device: &Device, bytes: &[u8]) {
        dispatch::binary(&self.services, &device.session, bytes);
    }

    /// What the device is sent until one of its frames is an answer to `uuid`. That one.
    pub(crate) async fn answer(&self, device: &mut Device, uuid: Uuid) -> ServerFrame {
        let mut answer = None;
        until("there is an answer", || {
            answer = device.reads(usize::MAX).into_iter().find(|frame| answers(frame, uuid));
            answer.is_some()
        })
        .await;
        answer.unwrap()
    }

    /// Sends a frame and waits for the error that answers it. Its code.
    pub(crate) async fn refusal(
        &self,
        device: &mut Device,
        uuid: Uuid,
        frame: impl Into<ClientFrame>,
    ) -> String {
        self.send(device, frame);
        error_code(&self.answer(device, uuid).await)
    }

    /// Sends a frame and waits for its `Ack`. The sequence.
    pub(crate) async fn ack(&self, device: &mut Device, uuid: Uuid, frame: impl Into<ClientFrame>) -> Seq {
        self.send(device, frame);
        match self.answer(device, uuid).await {
            ServerFrame::Ack(ack) => ack.seq,
            other => panic!("no ack: {other:?}"),
        }
    }

    /// A live device of a user, who is loaded first.
    pub(crate) async fn connect(&self, id: u64) -> Device {
        self.world.loader.user(user(id)).await.unwrap();
        self.world.stage.connect(id)
    }
}

fn authentication(world: &World, settings: &AuthSettings, keys: &Keys) -> Auth {
    let closing = world.stage.hub.clone();
    let close = Box::new(move |user, family| closing.revoke(user, family));
    let revocations = Arc::new(Revocations::new(close));
    let (db, nats, redis) = (world.db.clone(), world.nats.clone(), world.redis.clone());
    let families = Families::new(db, nats, redis.clone(), revocations.clone());
    let waiting = world.stage.hub.metrics.http.passwords_waiting.clone();
    Auth {
        tokens: Tokens::new(keys, settings),
        tickets: Tickets::new(redis),
        passwords: Passwords::new(settings, keys.cursor(), waiting).unwrap(),
        revocations,
        families: Arc::new(families),
        refresh_ttl_s: settings.refresh_ttl_s,
    }
}

fn answers(frame: &ServerFrame, to: Uuid) -> bool {
    match frame {
        ServerFrame::Ack(frame::Ack { uuid, .. }) | ServerFrame::Page(frame::Page { uuid, .. }) => {
            *uuid == to
        }
        ServerFrame::Error(frame::Error { uuid, .. }) => *uuid == Some(to),
        _ => false,
    }
}

pub(crate) fn error_code(frame: &ServerFrame) -> String {
    match frame {
        ServerFrame::Error(error) => error.code.to_string(),
        other => panic!("no error: {other:?}"),
    }
}

pub(crate) fn message(chat_id: u64, uuid: Uuid, body: &str) -> frame::SendMessage {
    let chat_id = crate::hub::stage::chat(chat_id);
    frame::SendMessage { uuid, chat_id, body: body.into(), reply_to: None, mentions: Vec::new() }
}
