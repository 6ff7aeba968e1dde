//! A chat's history as a member read it over HTTP.

use serde::Deserialize;
use uuid::Uuid;

/// The fields of a `Message` that a checker needs.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryMessage {
    pub chat_id: u64,
    pub seq: u64,
    pub prev: u64,
    pub uuid: Uuid,
    pub from: u64,
    pub body: String,
    #[serde(default)]
    pub deleted: bool,
    #[serde(default)]
    pub edited_ts: Option<u64>,
}

/// One read of a whole history.
#[derive(Debug)]
pub(super) struct HistoryRead {
    pub(super) reader: u64,
    pub(super) chat: u64,
    pub(super) messages: Vec<HistoryMessage>,
    pub(super) stale: bool,
}
