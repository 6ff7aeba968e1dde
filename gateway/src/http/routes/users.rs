//! `/v1/users`: other people's accounts, by exact e-mail or by id.
//!
//! Invariant: accounts can neither be searched nor listed; every try is counted ([`lookup`]).

use std::sync::Arc;

use axum::extract::State;
use http::Uri;
use serde::Serialize;
use shared::{code::Code, id::UserId};
use utoipa::ToSchema;

use crate::http::{
    answer::{
        problem::Problem,
        refusals::{Invalid, Limited, NoSuchUser, Unauthenticated},
        schema,
        view::User,
    },
    request::{
        caller::{Caller, Client, Id},
        fields::Fields,
        lookup, rules,
    },
    services::Services,
};

#[derive(Serialize, ToSchema)]
pub struct Users {
    users: Vec<User>,
}

/// The user with this e-mail, if there is one.
#[utoipa::path(get, path = "/v1/users", tag = "account", security(("accessToken" = [])),
    params(("email" = String, Query, format = Email, max_length = 254, description = "the whole address")), responses(
    (status = 200, body = Users),
    Unauthenticated, Invalid, Limited,
))]
pub async fn find(
    State(services): State<Arc<Services>>,
    caller: Caller,
    client: Client,
    uri: Uri,
) -> Result<axum::Json<Users>, Problem> {
    lookup::by(&services, &caller, &client).await?;
    let mut fields = Fields::of_query(&uri);
    let email = fields.required("email", rules::email);
    let email = fields.finish(email)?;
    let found = services.db.user_by_email(&email).await?.map(|account| account.user);
    let users = found.map(|user| User { id: user.id, display_name: user.display_name });
    Ok(axum::Json(Users { users: users.into_iter().collect() }))
}

/// The user with this id.
#[utoipa::path(get, path = "/v1/users/{id}", tag = "account", security(("accessToken" = [])),
    params(("id" = inline(schema::Id), Path)), responses(
    (status = 200, body = User),
    Unauthenticated, Invalid, Limited, NoSuchUser,
))]
pub async fn show(
    State(services): State<Arc<Services>>,
    caller: Caller,
    client: Client,
    Id(id): Id<UserId>,
) -> Result<axum::Json<User>, Problem> {
    let user = lookup::one(&services, &caller, &client, id).await?.ok_or(Code::UserNotFound)?;
    Ok(axum::Json(User { id: user.id, display_name: user.display_name }))
}
