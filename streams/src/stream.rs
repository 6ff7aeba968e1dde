//! The definitions of the streams, with their reasons; applied and checked by the binary `streams`.

use std::time::Duration;

use async_nats::jetstream::{
    context::CreateStreamError,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};

use crate::{
    connect::{Nats, Unavailable},
    subject::Partition,
};

/// How long read marks are kept: presence has stored them long before this.
const READ_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many marks are kept while presence is away. The oldest go first, as newer marks supersede them.
const READ_MAX_MESSAGES: i64 = 10_000_000;

/// A difference between a stream and its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    pub stream: String,
    pub what: String,
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.stream, self.what)
    }
}

/// A definition that NATS did not take.
#[derive(Debug, thiserror::Error)]
#[error("{stream}: {source}")]
struct NotApplied {
    stream: String,
    source: CreateStreamError,
}

/// All streams of an installation.
pub fn definitions(nats: &Nats) -> Vec<Config> {
    Partition::all().map(|partition| chat(nats, partition)).chain([read(nats)]).collect()
}

/// The log of a partition. It is the only source of truth: it keeps everything, refuses writes when it is full instead of
/// forgetting, and can't be deleted from.
fn chat(nats: &Nats, partition: Partition) -> Config {
    let settings = &nats.settings;
    Config {
        name: nats.layout.chat_stream(partition),
        description: Some("Chat events: the source of truth".to_owned()),
        subjects: vec![nats.layout.chat_filter(partition)],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_bytes: i64::try_from(settings.log_max_bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(-1),
        max_age: Duration::from_secs(u64::from(settings.log_max_age_days) * 24 * 3600),
        storage: StorageType::File,
        num_replicas: settings.replicas,
        // Two minutes are what the margins of `shared::window` add up to.
        duplicate_window: Duration::from_millis(settings.duplicate_window_ms),
        allow_direct: true,
        deny_delete: true,
        deny_purge: true,
        ..unlimited()
    }
}

/// Read marks on their way from the gateways to presence.
fn read(nats: &Nats) -> Config {
    Config {
        name: nats.layout.read_stream(),
        description: Some("Read and delivered marks on their way to presence".to_owned()),
        subjects: vec![nats.layout.read_filter()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: READ_MAX_AGE,
        max_messages: READ_MAX_MESSAGES,
        storage: StorageType::File,
        num_replicas: nats.settings.replicas,
        // Marks are maxima: a duplicate changes nothing, so none need be remembered for long.
        duplicate_window: Duration::from_secs(1),
        ..unlimited()
    }
}

/// JetStream means "no limit" by -1, and reports it so.
fn unlimited() -> Config {
    Config {
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        ..Config::default()
    }
}

/// Creates the streams that are missing and updates the others.
///
/// # Errors
/// [`Unavailable`] if NATS can't be asked or refuses a definition.
pub async fn apply(nats: &Nats) -> Result<(), Unavailable> {
    for config in definitions(nats) {
        let name = config.name.clone();
        let applied = nats.js.create_or_update_stream(config).await;
        applied.map_err(|source| Unavailable::new(NotApplied { stream: name, source }))?;
    }
    Ok(())
}

/// Compares the streams with their definitions.
///
/// # Errors
/// [`Unavailable`] if NATS can't be asked.
pub async fn check(nats: &Nats) -> Result<Vec<Drift>, Unavailable> {
    let mut drifts = Vec::new();
    for want in definitions(nats) {
        match have(nats, &want.name).await? {
            Some(have) => drifts.extend(compare(&want, &have)),
            None => drifts.push(Drift { stream: want.name, what: "is missing".to_owned() }),
        }
    }
    Ok(drifts)
}

async fn have(nats: &Nats, name: &str) -> Result<Option<Config>, Unavailable> {
    use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
    match nats.js.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            _ => Err(Unavailable::new(error)),
        },
    }
}

fn compare(want: &Config, have: &Config) -> Vec<Drift> {
    macro_rules! differing {
        ($($field:ident),*) => {
            [$((stringify!($field), format!("{:?}", want.$field), format!("{:?}", have.$field))),*]
        };
    }
    differing![
        subjects,
        retention,
        discard,
        max_bytes,
        max_age,
        max_messages,
        max_messages_per_subject,
        storage,
        num_replicas,
        duplicate_window,
        allow_direct,
        deny_delete,
        deny_purge,
        sealed,
        republish
    ]
    .into_iter()
    .filter(|(_, want, have)| want != have)
    .map(|(field, wanted, have)| {
        let what = format!("{field} is {have}, should be {wanted}");
        Drift { stream: want.name.clone(), what }
    })
    .collect()
}
