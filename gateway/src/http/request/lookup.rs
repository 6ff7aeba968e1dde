//! Look-ups: the ways to learn from this server that an account exists, or what its owner is called.
//!
//! Whoever knows the id of an account may ask for its name and write to it. Ids are random, and travel only among people
//! who share a chat, or from an e-mail that is known already. What is left is to try e-mails and ids, and every such try
//! is counted here, by user and by address: a look-up by e-mail, an id of somebody with whom no chat is shared, an id in
//! a list of members that is nobody's, an e-mail at a registration that is taken. Invariant: what can be guessed is
//! counted before it is looked up.

use shared::id::UserId;
use sql::accounts::{GUESSABLE_BELOW, Profile};

use crate::http::{
    answer::problem::Problem,
    limits::{Limit, address_key},
    request::caller::{Caller, Client},
    services::Services,
};

/// Ids of earlier builds, which can be guessed, are free of charge for people who share a chat, up to so many at once.
/// Looking for shared chats costs the database some milliseconds each.
const MOST_ASKED: usize = 100;

/// Counts a try by somebody who is not logged in.
///
/// # Errors
/// `rate.limited`.
pub async fn anonymous(services: &Services, client: &Client) -> Result<(), Problem> {
    Ok(services.limits.check(Limit::LookupsPerAddress, &address_key(client.address)).await?)
}

/// Counts tries by a user.
///
/// # Errors
/// `rate.limited`.
pub async fn by(services: &Services, caller: &Caller, client: &Client, tries: u32) -> Result<(), Problem> {
    let limits = &services.limits;
    limits.check_all(Limit::LookupsPerUser, &caller.user().to_string(), tries).await?;
    Ok(limits.check_all(Limit::LookupsPerAddress, &address_key(client.address), tries).await?)
}

/// The account with this id, as others see it. Free for those who share a chat with it.
///
/// # Errors
/// `rate.limited`, or the database is away.
pub async fn one(
    services: &Services,
    caller: &Caller,
    client: &Client,
    id: UserId,
) -> Result<Option<Profile>, Problem> {
    if id != caller.user() && services.db.acquainted(caller.user(), &[id]).await?.is_empty() {
        by(services, caller, client, 1).await?;
    }
    Ok(services.db.users(&[id]).await?.pop())
}

/// Refuses ids that have no account: as members they would be nobody. Each of those is a try, and each id that can be
/// guessed.
///
/// # Errors
/// `request.invalid`, `rate.limited`, or the database is away.
pub async fn all_exist(
    services: &Services,
    caller: &Caller,
    client: &Client,
    field: &'static str,
    users: &[UserId],
) -> Result<(), Problem> {
    let mut guessable: Vec<UserId> = users.iter().copied().filter(|id| id.get() < GUESSABLE_BELOW).collect();
    if !guessable.is_empty() && guessable.len() <= MOST_ASKED {
        let acquainted = services.db.acquainted(caller.user(), &guessable).await?;
        guessable.retain(|id| !acquainted.contains(id));
    }
    if !guessable.is_empty() {
        by(services, caller, client, tries(guessable.len())).await?;
    }
    let unknown = users.len() - services.db.users(users).await?.len();
    if unknown == 0 {
        return Ok(());
    }
    by(services, caller, client, tries(unknown)).await?;
    Err(Problem::invalid(field, "unknown"))
}

fn tries(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
