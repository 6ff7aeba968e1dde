//! `/v1/ws/ticket`: one-time tickets, which stand for the access token in a WebSocket's URL.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::{HeaderValue, StatusCode, header};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::no_store;
use crate::{
    auth::ticket,
    http::{
        answer::{
            openapi,
            problem::Problem,
            refusals::{NoTickets, Unauthenticated},
        },
        request::caller::Caller,
        services::Services,
    },
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// Opens one WebSocket.
    ticket: String,
    #[schema(example = 30_000)]
    expires_in_ms: u64,
}

/// A ticket for one WebSocket, to be used at once.
#[utoipa::path(post, path = "/v1/ws/ticket", tag = "account", security(("accessToken" = [])), responses(
    (status = 201, body = Ticket, headers(("Location"))),
    Unauthenticated, NoTickets,
))]
pub async fn create(State(services): State<Arc<Services>>, caller: Caller) -> Result<Response, Problem> {
    caller.may_command(&services).await?;
    let ticket = services.auth.tickets.issue(&caller.0).await?;
    let ticket = ticket.expose_secret().to_owned();
    let mut response = no_store(axum::Json(Ticket { ticket, expires_in_ms: ticket::TTL.as_millis() as u64 }));
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(openapi::WEBSOCKET_PATH));
    Ok(response)
}
