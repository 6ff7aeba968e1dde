//! `/v1/me`: the caller's own account.

use std::sync::Arc;

use axum::extract::State;
use shared::code::Code;
use utoipa::ToSchema;

use crate::http::{
    answer::{
        problem::Problem,
        refusals::{Invalid, Limited, Unauthenticated, WithBody},
        schema::Name,
        view::Me,
    },
    request::{
        body::{FromFields, Unread},
        caller::Caller,
        fields::Fields,
        rules,
    },
    services::Services,
};

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct UpdateMe {
    #[schema(value_type = Name)]
    display_name: String,
}

impl FromFields for UpdateMe {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { display_name: fields.required("displayName", rules::name)? })
    }
}

/// The caller's account; also what tells why a WebSocket was refused.
#[utoipa::path(get, path = "/v1/me", tag = "account", security(("accessToken" = [])), responses(
    (status = 200, body = Me),
    Unauthenticated, Limited,
))]
pub async fn show(State(services): State<Arc<Services>>, caller: Caller) -> Result<axum::Json<Me>, Problem> {
    let user = services.db.user(caller.user()).await?.ok_or(Code::UserNotFound)?;
    Ok(axum::Json(user.into()))
}

/// Change what others see.
#[utoipa::path(patch, path = "/v1/me", tag = "account", security(("accessToken" = [])), request_body = UpdateMe, responses(
    (status = 200, body = Me),
    Unauthenticated, Invalid, Limited, WithBody,
))]
pub async fn update(
    State(services): State<Arc<Services>>,
    caller: Caller,
    unread: Unread,
) -> Result<axum::Json<Me>, Problem> {
    caller.may_command(&services).await?;
    let asked: UpdateMe = unread.json().await?;
    services.db.set_display_name(caller.user(), &asked.display_name).await?;
    show(State(services), caller).await
}
