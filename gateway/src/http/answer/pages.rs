//! Answers that may be large: pages of messages, chats and members.
//!
//! Invariants: an answer is bounded as it is encoded, whatever the texts in it are. Its bytes keep its place in the memory
//! for pages until the client's socket has taken them.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use serde::Serialize;
use shared::id::UserId;

use super::problem::Problem;
use crate::{
    command::Failure,
    http::services::Services,
    infra::pages::{Full, PAGE_BYTES, Place, Turn, fitting},
};

/// A list that can end earlier.
pub trait Page: Serialize {
    type Item: Serialize;

    fn items(&self) -> &[Self::Item];

    /// Ends after so many items, at least one, and says where the next page begins.
    fn cut(&mut self, items: usize);
}

/// The user's turn to read what the answer is made of. It waits a while if too much waits to be read by them.
///
/// # Errors
/// `rate.limited`.
pub async fn turn(services: &Services, user: UserId) -> Result<Turn<'_>, Problem> {
    services.sockets.pages.turn(user).await.map_err(full)
}

fn full(full: Full) -> Problem {
    Failure::from(full).into()
}

/// The answer with the page, which is cut if it is too large.
///
/// # Errors
/// `server.unavailable` if too much waits to be read by all users together.
pub async fn answer(turn: Turn<'_>, mut page: impl Page) -> Result<Response, Problem> {
    let place = turn.place().await.map_err(full)?;
    let mut json = encode(&page);
    if json.len() > PAGE_BYTES {
        page.cut(fitting(page.items().iter().map(|item| encode(item).len() + 1)));
        json = encode(&page);
    }
    Ok(as_json(place, json))
}

/// The answer with one object.
///
/// # Errors
/// As [`answer`].
pub async fn one(turn: Turn<'_>, object: &impl Serialize) -> Result<Response, Problem> {
    let place = turn.place().await.map_err(full)?;
    Ok(as_json(place, encode(object)))
}

fn as_json(place: Place, json: Vec<u8>) -> Response {
    let mut response = Body::from(place.hold(json)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn encode(object: &impl Serialize) -> Vec<u8> {
    // Views hold texts and numbers, which can always be written as JSON.
    serde_json::to_vec(object).unwrap_or_default()
}
