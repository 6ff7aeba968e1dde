//! The log's answer to an append, read from the bytes of its reply.

use serde::Deserialize;
use shared::id::Seq;

use super::error::AttemptError;
use crate::line::Message;

/// The verdict of the log about one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub seq: Seq,
    /// The log had the event from an earlier attempt. An event with this key is at `seq`; whether it holds this command
    /// is not known.
    pub duplicate: bool,
    /// A duplicate that may be the work of this very call: an attempt of it was sent before and never answered.
    pub maybe_own: bool,
}

/// How one attempt ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Stored(Appended),
    Refused(Refusal),
    /// Never left this process.
    NotSent,
    /// Left this process, and no answer came.
    Unknown,
}

impl Outcome {
    /// Whether the log has said what became of the event.
    pub(super) const fn is_verdict(&self) -> bool {
        match self {
            Self::Stored(_) | Self::Refused(Refusal::Full | Refusal::NotFirst | Refusal::TooLarge) => true,
            Self::Refused(Refusal::Temporary(_)) | Self::NotSent | Self::Unknown => false,
        }
    }
}

/// A refusal.
#[derive(Debug)]
pub(super) enum Refusal {
    Full,
    /// The subject has messages, and the append wanted none.
    NotFirst,
    TooLarge,
    Temporary(AttemptError),
}

#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

// Error codes of JetStream's API, from the server's errors.json.
const STORE_FAILED: u64 = 10077;
const INSUFFICIENT_RESOURCES: u64 = 10023;
const STORAGE_RESOURCES_EXCEEDED: u64 = 10047;
const MESSAGE_EXCEEDS_MAXIMUM: u64 = 10054;
const WRONG_LAST_SEQUENCE: u64 = 10071;

/// An inline status other than 100: nobody listens on the subject while the stream has no leader.
const NO_RESPONDERS: u16 = 503;

pub(super) fn read(message: Message<'_>) -> Outcome {
    match message.headers.status() {
        Some(NO_RESPONDERS) => return temporary(AttemptError::NoLeader),
        Some(status) => return temporary(AttemptError::Status(status)),
        None => {}
    }
    match serde_json::from_slice::<PubAck>(message.payload) {
        Ok(PubAck { error: Some(error), .. }) => Outcome::Refused(refusal(error)),
        Ok(PubAck { seq: 0, .. }) => temporary(AttemptError::NoSequence),
        Ok(ack) => {
            Outcome::Stored(Appended { seq: Seq(ack.seq), duplicate: ack.duplicate, maybe_own: false })
        }
        Err(error) => temporary(AttemptError::Unreadable(error)),
    }
}

fn refusal(error: ApiError) -> Refusal {
    match error.err_code {
        STORE_FAILED if error.description.contains("maximum bytes exceeded") => Refusal::Full,
        INSUFFICIENT_RESOURCES | STORAGE_RESOURCES_EXCEEDED => Refusal::Full,
        MESSAGE_EXCEEDS_MAXIMUM => Refusal::TooLarge,
        WRONG_LAST_SEQUENCE => Refusal::NotFirst,
        // Elections, overload, checks in flight on one subject (10158, 10164): all pass.
        code => Refusal::Temporary(AttemptError::Refused { code, description: error.description }),
    }
}

fn temporary(error: AttemptError) -> Outcome {
    Outcome::Refused(Refusal::Temporary(error))
}
