//! `/v1/me`: the caller's own account.

use std::sync::Arc;

use axum::extract::State;
use shared::code::Code;
use sql::accounts::GroupInvites;
use utoipa::ToSchema;

use crate::http::{
    answer::{
        problem::Problem,
        refusals::{Invalid, Limited, Unauthenticated, WithBody},
        schema::{GroupInvitesText, Name},
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
    #[schema(value_type = Option<Name>)]
    display_name: Option<String>,
    #[schema(value_type = Option<GroupInvitesText>)]
    group_invites: Option<GroupInvites>,
}

impl FromFields for UpdateMe {
    fn read(fields: &mut Fields) -> Option<Self> {
        let display_name = fields.optional("displayName", rules::name);
        let group_invites = fields.optional("groupInvites", rules::group_invites);
        Some(Self { display_name, group_invites })
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

/// Change what others see, and who may add the caller to groups.
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
    let UpdateMe { display_name, group_invites } = unread.json().await?;
    services.db.update_user(caller.user(), display_name.as_deref(), group_invites).await?;
    show(State(services), caller).await
}
