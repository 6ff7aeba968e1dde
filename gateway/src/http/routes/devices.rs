//! `/v1/devices`: where the caller is logged in.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use shared::code::Code;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{
        answer::{
            problem::Problem,
            refusals::{Invalid, Limited, NoSuchDevice, Unauthenticated},
        },
        request::caller::{Caller, Id},
        services::Services,
    },
    infra::clock::unix_ms,
};

#[derive(Serialize, ToSchema)]
pub struct Devices {
    devices: Vec<Device>,
}

/// One login on one device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    id: Uuid,
    /// The label that it logged in with.
    #[schema(example = "web")]
    device: String,
    created_ts: u64,
    last_seen_ts: u64,
    /// Whether it is the one that asks.
    current: bool,
}

/// The caller's devices, the last seen first.
#[utoipa::path(get, path = "/v1/devices", tag = "account", security(("accessToken" = [])), responses(
    (status = 200, body = Devices),
    Unauthenticated, Limited,
))]
pub async fn list(
    State(services): State<Arc<Services>>,
    caller: Caller,
) -> Result<axum::Json<Devices>, Problem> {
    let families = services.db.families(caller.user(), unix_ms()).await?;
    let devices = families.into_iter().map(|family| Device {
        id: family.did,
        device: family.device,
        created_ts: family.created_ms,
        last_seen_ts: family.last_seen_ms,
        current: family.did == caller.0.family,
    });
    Ok(axum::Json(Devices { devices: devices.collect() }))
}

/// Log a device out: its tokens are void, its sockets are closed.
#[utoipa::path(delete, path = "/v1/devices/{id}", tag = "account", security(("accessToken" = [])),
    params(("id" = Uuid, Path)), responses(
    (status = 204),
    Unauthenticated, Invalid, NoSuchDevice,
))]
pub async fn revoke(
    State(services): State<Arc<Services>>,
    caller: Caller,
    Id(family): Id<Uuid>,
) -> Result<StatusCode, Problem> {
    caller.may_command(&services).await?;
    if services.auth.families.end(caller.user(), family).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(Code::RequestInvalid).status(StatusCode::NOT_FOUND).detail("there is no such device"))
}
